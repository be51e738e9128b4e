"""Operators and signals over a real server, in both of its forms."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.contracts import (
    AlreadySignalled,
    DefinitionError,
    Event,
    OtherVersion,
    Retry,
    SagaKey,
    StillRunning,
    TooLate,
    Undecided,
    UnknownSaga,
    subjects,
)
from antiphon.contracts.envelope import pack
from antiphon.contracts.errors import OlderCoordinators, Unclosed
from antiphon.contracts.identity import CLIENT, OPERATOR, PARKED_MESSAGE
from antiphon.contracts.messages import AnswerKind, Closed
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest, OnceMore, Operation, verb_type
from antiphon.contracts.registration import Capabilities
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import EVENTS, PARKED, SAGA, STARTS, Listener
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.coordinator.client.operator import NoReason, SagaVerbs
from antiphon.coordinator.client.store_once import message
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.reading.parked import UnknownMessage, dismissals, parked_message, waiting, waiting_page
from antiphon.coordinator.reading.sagas import summaries, timeline
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.schemas import agree
from antiphon.deploy.cli.flows import check_flow
from antiphon.deploy.cli.payloads import require_known_by_journal
from antiphon.deploy.cli.sagas import _wait_for
from antiphon.deploy.modules import CannotLoad
from antiphon.link import Link, set_up
from antiphon.link.registration import registration_of
from antiphon.link.setup import api
from antiphon.tracing.export.reading import read_projection
from tests.integration.platform.test_coordinator import Company, company
from tests.support.raw_worker import _envelope, answer_message
from tests.support.server import FORMS_AND_PAIRS, until
from tests.support.trip import ASKED, BookRoom, FreeRoom, TripAsked, make_trip

NEVER = Retry(attempts=1, first_seconds=100_000, factor=1, cap_seconds=100_000)
"""Nothing is tried again by itself while a test lasts."""

TRIP = make_trip(backoff=NEVER)


class Cleared(Event, name="trip.cleared"):
    by: str


class Other(Event, name="trip.other"):
    by: str


GUARDED = Saga(TripAsked, name="guarded", version=1, deadline=timedelta(hours=1))
cleared = GUARDED.signal(Cleared)


@GUARDED.step(after=cleared, needs_no_compensation=True)
def book_room(s: State[TripAsked]) -> BookRoom:
    return BookRoom(nights=s.start.nights)


class Stage:
    """A platform, two coordinators, participants whose answers a test decides, and Ada, an operator."""

    def __init__(self, there: Company, client: Antiphon, ada: Antiphon, coordinators: list[Coordinator]) -> None:
        self.there, self.client, self._ada, self._coordinators = there, client, ada, coordinators
        self.refuses = "charge_card"
        self.undo_works = False
        self.silent = ""
        self.met: Closed | None = Closed(verdict="closed")
        """What a participant says to an operator's close; nothing where it is None."""
        self.user = "operator"

    def play(self, command: CommandAddress) -> AnswerKind | None:
        if command.step == self.silent:
            return None
        if command.direction == "undo":
            return "done" if self.undo_works else "exhausted"
        return "refused" if command.step == self.refuses else "done"

    def close(self, command: CommandAddress) -> Closed | None:
        return self.met

    async def parked(self, id: str = "t1") -> Handle:
        """A saga whose compensation of the seat has failed once, and waits for a person."""
        handle = await self.client.start(TRIP, ASKED, id=id)
        async with asyncio.timeout(120):
            while not (await self.status(handle)).parked:
                await asyncio.sleep(0.02)
        return handle

    async def status(self, handle: Handle) -> Any:
        while True:
            try:
                return await handle.status()
            except Exception as error:
                if "no journal yet" not in str(error) and "there is no saga" not in str(error):
                    raise
                await asyncio.sleep(0.02)

    async def stored(self, id: str) -> list[str]:
        """What EVENTS holds of sagas with an id, of clients and operators."""
        reader = await self.there.link("operator")
        found = await reader.read_all(EVENTS, [f"evt.*.*.{id}.client.>", f"evt.*.*.{id}.operator.>"])
        return [message.subject for message in found]

    def hasty(self, handle: Handle) -> SagaVerbs:
        """An operator who waits for a second."""
        return self._ada.operator(self.user, timeout=1).saga(TRIP, handle.id)

    def asks(self, handle: Handle, user: str = "") -> SagaVerbs:
        return self._ada.operator(user or self.user).saga(TRIP, handle.id)

    async def pauses_trips(self, reason: str) -> None:
        """A pause is durable once it is accepted, and holds at each coordinator once that one was told."""
        assert (await self.operator.saga_type(TRIP).pause(reason)).is_accepted
        await until(lambda: all("trip" in coordinator.paused_types.paused for coordinator in self._coordinators))

    @property
    def operator(self) -> Any:
        return self._ada.operator(self.user)

    async def causes_are_unique(self, handle: Handle) -> None:
        causes = await self.there.causes(handle.key)
        assert max(count for cause, count in causes.items() if cause.startswith("e")) <= 2


@pytest.fixture(params=FORMS_AND_PAIRS)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with company(tmp_path, request.param) as there:
        coordinators = [await there.coordinate(sagas=[TRIP, GUARDED]) for _ in range(2)]
        set_up = Stage(there, await there.client(), await there.client("operator"), coordinators)
        await there.work(set_up.play, set_up.close)
        yield set_up


async def test_a_retry_sends_at_once_what_would_have_waited(stage: Stage) -> None:
    handle = await stage.parked()
    stage.undo_works = True
    request = await stage.asks(handle).retry("book_seat")
    assert (request.is_accepted, request.user, request.verb) == (True, "operator", "retry")
    assert (await handle.result(timeout=120)).outcome == "compensated"


async def test_an_edited_compensation_is_sent_in_the_place_of_the_one_that_fails(stage: Stage) -> None:
    stage.refuses = "book_seat"
    handle = await stage.parked()
    asks = stage.asks(handle)
    wrong = await asks.edit("book_room", b'{"reason": 5}')
    assert "does not fit its contract" in wrong.rejected
    stage.undo_works = True
    assert (await asks.edit("book_room", FreeRoom(reason="by hand"))).is_accepted
    assert (await handle.result(timeout=120)).outcome == "compensated"
    reader = await stage.there.link("coordinator")
    sent = await reader.read_all(SAGA, [subjects.command_subject(handle.key, "hotel", "book_room", "undo", 2)])
    assert b'"data":{"reason":"by hand"}' in sent[0].data


async def test_a_compensation_that_was_done_by_hand_is_resolved_once(stage: Stage) -> None:
    handle = await stage.parked()
    asks = stage.asks(handle)
    with pytest.raises(NoReason, match=r"^the reason to resolve is empty\. Say why"):
        await asks.resolve("book_seat", " ")
    assert (await asks.resolve("book_seat", "the airline was called")).is_accepted
    again = await asks.resolve("book_seat", "called again")
    assert again.rejected == "book_seat does not wait for anybody: it is undone"
    told = await timeline(await stage.there.link("operator"), handle.key)
    assert "resolve book_seat: the airline was called by operator: accepted" in [line.text for line in told.lines]


async def test_whoever_writes_to_very_many_subjects_of_a_saga_hides_nothing_of_it(stage: Stage) -> None:
    """More than one read takes, by somebody whom the journal does not know."""
    stage.refuses = "book_seat"
    handle = await stage.parked()
    stranger, reader = await stage.there.link("bank"), await stage.there.link("operator")
    before, waits = await timeline(reader, handle.key), await waiting(reader)
    stored = [
        stranger.store(subject, _envelope(subject, "bank", "bank.said.v1", ASKED))
        for number in range(1100)
        for subject in [subjects.event_subject(handle.key.path, "bank", "bank-said", "on-something", number + 1)]
    ]
    await asyncio.gather(*stored)
    told = await timeline(reader, handle.key)
    assert [line for line in told.lines if line.text != "bank.said.v1, on something"] == list(before.lines)
    assert len(told.lines) > len(before.lines)
    assert told.parked == before.parked
    assert [each for each in await waiting(reader) if each.kind == "saga"] == waits
    assert [each.parked for each in await summaries(reader)] == [before.parked]
    assert (await read_projection(reader, handle.key)).was_parked


async def test_a_journal_that_cannot_be_read_hides_no_other_saga(stage: Stage) -> None:
    stage.refuses = "book_seat"
    handle = await stage.parked()
    administrator, reader = await stage.there.link("administrator"), await stage.there.link("operator")
    before = await summaries(reader)
    await administrator.store(subjects.record_subject(handle.key, "forged"), b'{"a":1}')
    other = await stage.client.start(TRIP, ASKED, id="other")
    found = {each.id: each.parked for each in await summaries(reader)}
    assert set(found) == {each.id for each in before} | {other.key.id}
    assert found[handle.key.id].startswith("its journal cannot be read: the envelope is wrong")


async def test_a_saga_is_cancelled_by_an_operator_once(stage: Stage) -> None:
    stage.silent = "book_seat"
    handle = await stage.client.start(TRIP, ASKED, id="t1")
    asks = stage.asks(handle)
    assert (await asks.cancel("not wanted")).is_accepted
    assert "it is being compensated already" in (await asks.cancel("really not")).rejected
    assert (await stage.status(handle)).reason == "cancelled by operator: not wanted"


async def test_a_paused_saga_sends_nothing_until_it_is_resumed(stage: Stage) -> None:
    handle = await stage.parked()
    asks = stage.asks(handle)
    assert (await asks.resume()).rejected == "it is not paused"
    assert (await asks.pause("look first")).is_accepted
    assert "it is paused already: paused by operator: look first" in (await asks.pause("me too")).rejected
    stage.undo_works = True
    assert (await asks.retry()).is_accepted
    assert (await stage.status(handle)).state == "compensating"
    assert (await summaries(await stage.there.link("operator")))[0].paused == "paused by operator: look first"
    assert (await asks.resume()).is_accepted
    assert (await handle.result(timeout=120)).outcome == "compensated"


async def test_no_verb_changes_a_saga_that_has_ended(stage: Stage) -> None:
    stage.refuses = ""
    handle = await stage.client.start(TRIP, ASKED, id="t1")
    await handle.result(timeout=120)
    before = await stage.there.causes(handle.key)
    asks = stage.asks(handle)
    requests = [asks.retry(), asks.edit("book_room", BookRoom(nights=1)), asks.resolve("book_room", "x")]
    requests += [asks.cancel("x"), asks.pause("x"), asks.resume()]
    for request in await asyncio.gather(*requests):
        assert request.rejected == "the saga has ended: it is completed"
    assert await stage.there.causes(handle.key) == before


async def test_what_may_have_happened_outside_is_resolved_by_whoever_has_looked(stage: Stage) -> None:
    handle = await stage.parked()
    stage.met = Closed(verdict="doubt", claim=3, key="trip/t1/book_seat/undo")
    first = await stage.asks(handle).resolve("book_seat", "the airline was called")
    assert first.rejected == (
        "claim 3 may have done it outside, under the key trip/t1/book_seat/undo; look there, then resolve again naming "
        "claim 3"
    )
    stage.met, stage.undo_works = Closed(verdict="closed"), True
    assert (await stage.asks(handle).resolve("book_seat", "they have it not", claim=3)).is_accepted
    assert (await handle.result(timeout=120)).outcome == "compensated"


async def test_a_participant_that_says_nothing_leaves_it_undecided_until_it_does(stage: Stage) -> None:
    handle = await stage.parked()
    stage.met, asks = None, stage.asks(handle)
    hasty = stage.hasty(handle)
    with pytest.raises(Unclosed, match="airline has not said within 1 s what became of the step"):
        await hasty.resolve("book_seat", "the airline was called")
    again = await asks.resolve("book_seat", "called again")
    assert again.rejected.startswith("a close is under way since")
    stage.undo_works = True
    assert (await asks.resolve("book_seat", "nobody is there", without_participant=True)).is_accepted
    assert (await handle.result(timeout=120)).outcome == "compensated"


async def test_an_attempt_that_acts_on_what_was_resolved_without_asking_is_listed_for_good(stage: Stage) -> None:
    handle = await stage.parked()
    assert (await stage.asks(handle).resolve("book_seat", "by hand", without_participant=True)).is_accepted
    stage.undo_works = True
    await stage.asks(handle).retry("book_room")
    assert (await handle.result(timeout=120)).outcome == "compensated"
    command = CommandAddress(handle.key, "airline", "book_seat", "undo", 1)
    late = await stage.there.link("airline")
    await late.store(*answer_message(command, 1, "done", TRIP.definition))
    operator = await stage.there.link("operator")
    async with asyncio.timeout(120):
        while not (found := await waiting(operator)):
            await asyncio.sleep(0.02)
    sentence = "book_seat was resolved by operator without its participant, and attempt 1 has undone it all the same"
    assert [(each.kind, each.saga) for each in found] == [("fault", "trip/t1")]
    assert found[0].reason.startswith(sentence)
    assert (await timeline(operator, handle.key)).parked.startswith(sentence)


async def test_nobody_resolves_beside_a_coordinator_that_could_not_read_it(stage: Stage) -> None:
    handle = await stage.parked()
    stage.undo_works = True
    older = msgspec.structs.replace(registration_of(Capabilities(name="coordinator")), wire=1)
    await (await stage.there.link("coordinator")).store(older.subject, older.encode())
    with pytest.raises(OlderCoordinators, match=older.instance):
        await stage.asks(handle).resolve("book_seat", "by hand")
    assert (await stage.asks(handle).resolve("book_seat", "by hand", without_participant=True)).is_accepted


async def test_a_resolve_and_an_answer_at_the_same_moment_are_one_decision(stage: Stage) -> None:
    """Whichever is first; the other finds the step done."""
    handles = [await stage.parked(f"t{number}") for number in range(6)]
    stage.undo_works = True
    for number, handle in enumerate(handles):
        asks = stage.asks(handle)
        pair = [asks.retry("book_seat"), asks.resolve("book_seat", "the airline was called")]
        first, second = await asyncio.gather(*(pair if number % 2 else pair[::-1]))
        resolved = second if number % 2 else first
        assert resolved.is_accepted or "does not wait for anybody" in resolved.rejected or "ended" in resolved.rejected
        assert (await handle.result(timeout=120)).outcome == "compensated"
        await stage.causes_are_unique(handle)


async def test_of_two_operators_at_once_one_is_accepted(stage: Stage) -> None:
    handle = await stage.parked()
    requests = await asyncio.gather(*(stage.asks(handle).resolve("book_seat", f"by {number}") for number in range(5)))
    assert sum(request.is_accepted for request in requests) == 1
    assert len({request.sequence for request in requests}) == 5


async def test_what_waits_for_a_person_is_listed_while_it_does(stage: Stage) -> None:
    handle = await stage.parked()
    stranger = await stage.there.link("airline")
    command = CommandAddress(handle.key, "airline", "book_room", "do", 1)
    await stranger.store(*answer_message(command, 1, "done", TRIP.definition))
    operator = await stage.there.link("operator")
    async with asyncio.timeout(120):
        while len(found := await waiting(operator)) < 2:
            await asyncio.sleep(0.02)
    assert [(each.kind, each.saga, each.step, each.tried) for each in found] == [
        ("saga", "trip/t1", "book_seat", 1),
        ("forged", "trip/t1", "", 0),
    ]
    assert "the compensation of book_seat was tried 1 times" in found[0].reason
    message = await parked_message(operator, found[1].sequence)
    assert b"hotel.booked.v1" in message.parked.data
    stage.undo_works = True
    await stage.asks(handle).retry()
    await handle.result(timeout=120)
    assert [each.kind for each in await waiting(operator)] == ["forged"]


async def parked_cancel(stage: Stage, id: str) -> tuple[Link, int]:
    """An operator's connection, and where PARKED holds the cancel of a saga that never was."""
    key, data = SagaKey.of("trip", id), CancelRequest(reason="never mind")
    subject = subjects.cancel_subject(key)
    await (await stage.there.link("client")).store(subject, message(subject, CLIENT, CANCEL_TYPE, data))
    operator = await stage.there.link("operator")
    async with asyncio.timeout(120):
        while not (found := [each for each in await waiting(operator) if each.saga == f"trip/{id}"]):
            await asyncio.sleep(0.02)
    assert [each.kind for each in found] == ["orphan"]
    return operator, found[0].sequence


async def test_a_message_that_was_dismissed_is_listed_no_more_and_kept_with_who_and_why(stage: Stage) -> None:
    operator, number = await parked_cancel(stage, "never")
    ada = stage.operator.message(number)
    asked = await ada.dismiss("reported as case 12")
    assert (asked.is_accepted, asked.user, asked.verb) == (True, stage.user, "dismiss")
    assert await waiting(operator) == (await waiting_page(operator, 1, 10))[0] == []
    assert list(await dismissals(operator)) == [number]
    dismissal = (await parked_message(operator, number)).dismissal
    assert dismissal is not None
    assert (dismissal.user, dismissal.verb, dismissal.reason) == (stage.user, "dismiss", "reported as case 12")
    assert f"{stage.user} has dismissed it: reported as case 12" in (await ada.dismiss("again")).rejected
    with pytest.raises(UnknownMessage, match="PARKED holds no message 4711"):
        await stage.operator.message(4711).dismiss("x")


async def test_a_message_that_is_sent_again_is_handled_or_set_aside_anew(stage: Stage) -> None:
    operator, number = await parked_cancel(stage, "early")
    assert (await stage.operator.message(number).resend("let us see")).is_accepted
    async with asyncio.timeout(120):  # its saga is still not there
        while [each.sequence for each in await waiting(operator)] in ([], [number]):
            await asyncio.sleep(0.02)
    (again,) = await waiting(operator)
    assert (again.kind, again.saga) == ("orphan", "trip/early")
    stage.refuses, stage.silent = "", "charge_card"
    handle = await stage.client.start(TRIP, ASKED, id="early")
    await until(lambda: "book_seat" in stage.there.worker.steps(handle.key))
    assert (await stage.operator.message(again.sequence).resend("it was started")).is_accepted
    async with asyncio.timeout(120):
        while (await stage.status(handle)).state != "compensating":
            await asyncio.sleep(0.02)
    assert await waiting(operator) == []
    assert sorted(await dismissals(operator)) == [number, again.sequence]


async def test_what_was_said_of_a_message_stays_in_the_record_in_order(stage: Stage) -> None:
    operator, number = await parked_cancel(stage, "twice")
    await stage.operator.message(number).dismiss("a mistake")
    await stage.operator.message(number).resend("none, after all")
    told = [("dismiss", "a mistake"), ("resend", "none, after all")]
    assert [(each.verb, each.reason) for each in (await dismissals(operator))[number]] == told
    found = await parked_message(operator, number)
    assert [(each.verb, each.reason) for each in found.record] == told
    assert found.dismissal == found.record[-1]


@pytest.mark.parametrize("reason", ["", " \n"])
async def test_a_reason_that_is_empty_is_refused(stage: Stage, reason: str) -> None:
    await stage.client.start(TRIP, ASKED, id="x")
    one = stage.operator.saga(TRIP, "x")
    _, number = await parked_cancel(stage, "empty")
    message = stage.operator.message(number)
    for ask in (one.cancel, one.pause, partial(one.resolve, "book_room"), message.dismiss, message.resend):
        with pytest.raises(NoReason, match=r"is empty\. Say why"):
            await ask(reason)


async def test_that_a_saga_waits_is_neither_dismissed_nor_sent_again(stage: Stage) -> None:
    handle = await stage.parked()
    operator = await stage.there.link("operator")
    before = await waiting(operator)
    number = (await operator.next_page(PARKED, subjects.PARKED_FILTER, 1))[0].sequence
    for asked in (await stage.operator.message(number).resend("x"), await stage.operator.message(number).dismiss("x")):
        assert f"says that saga {handle.key} waits for a person" in asked.rejected
    assert await waiting(operator) == before


async def test_a_request_to_send_a_request_again_does_not_go_round(stage: Stage) -> None:
    key = SagaKey.of(PARKED_MESSAGE, "1")
    subject = subjects.verb_subject(key, stage.user, "resend", "k1")
    operation = Operation(payload=pack(OnceMore(subject=subject)))
    link = await stage.there.link("operator")
    await link.store(subject, message(subject, OPERATOR, verb_type("resend"), operation))
    async with asyncio.timeout(120):
        while not (found := await waiting(link)):
            await asyncio.sleep(0.02)
    assert [(each.kind, each.reason) for each in found] == [
        ("forged", "a request to send a message again cannot be sent again")
    ]


# --- saga types and participants --------------------------------------------------------------------------------------


async def test_a_thousand_sagas_that_waited_for_their_type_go_on_at_the_resume(stage: Stage) -> None:
    stage.refuses = ""
    await stage.pauses_trips("moving house")
    handles = await asyncio.gather(*(stage.client.start(TRIP, ASKED, id=f"t{number}") for number in range(1000)))
    link = await stage.there.link("coordinator")
    async with asyncio.timeout(120):
        infos = [f"CONSUMER.INFO.{stream}.{STARTS}" for stream in link.pairs.events]
        while any(each["num_pending"] + each["num_ack_pending"] for each in [await api(link, info) for info in infos]):
            await asyncio.sleep(0.05)
    assert stage.there.worker.acted == {}
    assert (await stage.operator.saga_type(TRIP).resume()).is_accepted
    async with asyncio.timeout(120):
        outcomes = await asyncio.gather(*(handle.result() for handle in handles))
    assert {outcome.outcome for outcome in outcomes} == {"completed"}
    assert set(stage.there.worker.acted.values()) == {1}


async def test_a_type_that_is_paused_in_the_middle_records_what_is_under_way(stage: Stage) -> None:
    stage.refuses, stage.silent = "", "book_seat"
    handle = await stage.client.start(TRIP, ASKED, id="t1")
    worker = stage.there.worker
    await until(lambda: worker.steps(handle.key) == ["book_room"])
    reader = await stage.there.link("coordinator")
    seat = subjects.command_subject(handle.key, "airline", "book_seat", "do", 1)
    async with asyncio.timeout(120):
        while not (sent := await reader.read_all(SAGA, [seat])):
            await asyncio.sleep(0.01)
    await stage.pauses_trips("look")
    subject, data = answer_message(subjects.parse_command(seat), sent[0].sequence, "done")
    await (await stage.there.link("airline")).store(subject, data)
    async with asyncio.timeout(120):
        while (await stage.status(handle)).steps[1].phase != "done":
            await asyncio.sleep(0.01)
    status = await stage.status(handle)
    assert (status.steps[2].phase, status.paused) == ("waiting", "all sagas of its type are paused by operator: look")
    assert (await stage.operator.saga_type(TRIP).resume()).is_accepted
    assert (await handle.result(timeout=120)).outcome == "completed"


async def test_a_paused_participant_is_delivered_nothing_until_it_is_resumed(stage: Stage) -> None:
    stage.refuses = ""
    airline = stage.operator.participant("airline")
    assert (await airline.pause("their database is moved")).is_accepted
    assert "it is paused already" in (await airline.pause("again")).rejected
    admin = await stage.there.link("administrator")
    async with asyncio.timeout(120):
        infos = [f"CONSUMER.INFO.{stream}.airline-undo" for stream in admin.pairs.saga]
        while not all([(await api(admin, info)).get("paused") for info in infos]):
            await asyncio.sleep(0.01)
    handle = await stage.client.start(TRIP, ASKED, id="t1")
    await until(lambda: stage.there.worker.steps(handle.key) == ["book_room"])
    assert (await stage.status(handle)).steps[2].phase == "waiting"
    operator = await stage.there.link("operator")
    why = "participant airline is paused by operator: their database is moved"
    async with asyncio.timeout(120):
        while not (told := await timeline(operator, handle.key)).paused:
            await asyncio.sleep(0.01)
    (listed,) = await summaries(operator)
    assert (told.paused, listed.paused) == (why, why)
    found, _ = await waiting_page(operator, 1, 10)
    assert [(each.kind, each.subject) for each in found] == [("paused", "participant airline")]
    assert "antiphon resume --participant airline" in found[0].reason
    assert found == await waiting(operator)
    assert (await airline.resume()).is_accepted
    assert (await handle.result(timeout=120)).outcome == "completed"
    assert await waiting(operator) == []
    assert "it is not paused" in (await airline.resume()).rejected
    assert (await stage.operator.participant("nobody").pause("x")).rejected == "there is no participant 'nobody'"


async def test_what_stands_still_is_a_finding_of_the_flow_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with company(tmp_path, "plain") as there:
        await there.coordinate()
        operator = (await there.client()).operator("ada")
        assert (await operator.saga_type(TRIP).pause("stocktaking")).is_accepted
        assert (await operator.participant("airline").pause("moving")).is_accepted
        assert await asyncio.to_thread(check_flow, [], there.up.servers, False) == 1
    told = capsys.readouterr().out
    assert (
        "paused: saga type trip is paused by ada: stocktaking; it goes on after `antiphon resume --type trip`." in told
    )
    assert "paused: participant airline is paused by ada: moving" in told


async def test_a_paused_participant_does_not_react_either(stage: Stage) -> None:
    admin = await stage.there.link("administrator")
    await set_up(admin, [Listener("airline", (subjects.heard_filter("trip", "hotel", "room.booked"),))])

    async def is_paused(wanted: bool) -> None:
        async with asyncio.timeout(120):
            infos = [f"CONSUMER.INFO.{stream}.airline-on" for stream in admin.pairs.events]
            while {(await api(admin, info)).get("paused", False) for info in infos} != {wanted}:
                await asyncio.sleep(0.01)

    airline = stage.operator.participant("airline")
    assert (await airline.pause("their database is moved")).is_accepted
    await is_paused(True)
    assert (await airline.resume()).is_accepted
    await is_paused(False)


# --- what is missing --------------------------------------------------------------------------------------------------


async def test_without_coordinators_a_request_is_stored_and_said_to_be_undecided(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        client = await there.client()
        handle = await client.start(TRIP, ASKED, id="t1")
        ada = client.operator("ada", timeout=0.5)
        with pytest.raises(Undecided, match="the request to cancel saga trip/t1 is stored, and no coordinator has"):
            await ada.saga(TRIP, "t1").cancel("too late?")
        with pytest.raises(UnknownSaga, match="there is no saga trip/t2"):
            await ada.saga(TRIP, "t2").retry()
        await there.work()
        await there.coordinate(sagas=[TRIP])
        outcome = await handle.result(timeout=120)
        assert (outcome.outcome, outcome.reason) == ("compensated", "cancelled by ada: too late?")


# --- signals ----------------------------------------------------------------------------------------------------------


async def test_a_signal_is_sent_once_whoever_sends_it_again(stage: Stage) -> None:
    stage.refuses = ""
    handle = await stage.client.start(GUARDED, ASKED, id="g1")
    await handle.signal(cleared, Cleared(by="Ada"))
    await handle.signal(cleared, Cleared(by="Ada"))
    await stage.client.handle(GUARDED, "g1").signal(cleared, Cleared(by="Ada"))
    with pytest.raises(AlreadySignalled, match="saga guarded/g1 has got the signal trip-cleared before"):
        await handle.signal(cleared, Cleared(by="Bob"))
    with pytest.raises(DefinitionError, match="waits for no Other"):
        await handle.signal(cleared, Other(by="Ada"))  # type: ignore[misc] # pyright: ignore[reportArgumentType]
    assert (await handle.result(timeout=120)).outcome == "completed"


async def test_a_signal_may_come_before_its_saga_where_that_is_asked_for(stage: Stage) -> None:
    stage.refuses = ""
    early = stage.client.handle(GUARDED, "g1")
    assert await early.signal(cleared, Cleared(by="Ada"), wait_for_start=True) == "unstarted"
    operator, _ = await parked_cancel(stage, "never")
    assert [each.saga for each in await waiting(operator)] == ["trip/never"], "it waits on purpose, and for nobody"
    handle = await stage.client.start(GUARDED, ASKED, id="g1")
    assert (await handle.result(timeout=120)).outcome == "completed"


async def test_a_mistyped_id_is_refused_and_takes_no_signal_from_whoever_has_it_later(stage: Stage) -> None:
    stage.refuses = ""
    for what in (stage.client.handle(GUARDED, "g1"), stage.client.handle(TRIP, "g1")):
        with pytest.raises(UnknownSaga, match=r"there is no saga \w+/g1; check its type and its id\.$"):
            await what.cancel("changed my mind")
    early = r"g1; check .*\. A signal for a saga that is started later is sent with wait_for_start=True"
    with pytest.raises(UnknownSaga, match=early):
        await stage.client.handle(GUARDED, "g1").signal(cleared, Cleared(by="Ada"))
    assert await stage.stored("g1") == []
    handle = await stage.client.start(GUARDED, ASKED, id="g1")
    assert await handle.signal(cleared, Cleared(by="Bob")) in ("awaited", "early")
    assert (await handle.result(timeout=120)).outcome == "completed"


async def test_what_comes_too_late_for_a_saga_is_refused_and_stored_nowhere(stage: Stage) -> None:
    stage.undo_works = True
    completed = await stage.client.start(GUARDED, ASKED, id="g1")
    await completed.signal(cleared, Cleared(by="Ada"))
    await completed.result(timeout=120)
    compensated = await stage.client.start(GUARDED, ASKED, id="g2")
    assert await compensated.cancel("changed my mind") in ("awaited", "early")
    await compensated.result(timeout=120)
    before = await stage.stored("g1") + await stage.stored("g2")
    assert await completed.signal(cleared, Cleared(by="Ada")) == "taken"
    assert await compensated.cancel("and again") == "taken"
    with pytest.raises(TooLate, match="the wish to cancel comes too late for saga guarded/g1: it has ended"):
        await completed.cancel("too late")
    for handle in (compensated, stage.client.handle(GUARDED, "g2")):
        with pytest.raises(TooLate, match="the signal trip-cleared comes too late for saga guarded/g2: it has ended"):
            await handle.signal(cleared, Cleared(by="Ada"))
    assert await stage.stored("g1") + await stage.stored("g2") == before


async def test_a_result_of_a_saga_that_was_never_started_says_so(stage: Stage) -> None:
    with pytest.raises(UnknownSaga, match=r"there is no saga guarded/g1; .* Nothing has started it within 0\.1 s"):
        await stage.client.handle(GUARDED, "g1").result(timeout=0.1)
    await stage.client.handle(GUARDED, "g1").signal(cleared, Cleared(by="Ada"), wait_for_start=True)
    with pytest.raises(UnknownSaga, match="there is no saga guarded/g1"):  # a signal makes no saga
        await stage.client.handle(GUARDED, "g1").result(timeout=0.1)
    await stage.client.start(GUARDED, ASKED, id="g2")
    with pytest.raises(StillRunning, match=r"saga guarded/g2 has not ended within 0\.1 s\. It goes on"):
        await stage.client.handle(GUARDED, "g2").result(timeout=0.1)


async def test_an_operators_request_for_a_purged_saga_is_refused_and_stored_nowhere(stage: Stage) -> None:
    stage.refuses = ""
    handle = await stage.client.start(TRIP, ASKED, id="t1")
    await handle.result(timeout=120)
    link = await stage.there.link("administrator")
    await api(
        link,
        f"STREAM.PURGE.{link.pairs.stream_of(EVENTS, handle.key)}",
        {"filter": subjects.saga_events_filter(handle.key)},
    )
    for ask in (stage.asks(handle).cancel("no"), stage.asks(handle).retry(), stage.asks(handle).resolve("x", "y")):
        with pytest.raises(TooLate, match="comes too late for saga trip/t1: it has ended, and was purged"):
            await ask
    assert await stage.stored("t1") == []


async def test_everybody_who_looks_sees_why_a_saga_is_being_compensated(stage: Stage) -> None:
    handle = await stage.parked()
    reader = await stage.there.link("operator")
    why = "charge_card was refused: refused it was"
    (listed,) = await summaries(reader)
    assert (listed.state, listed.reason) == ("compensating", why)
    assert (await timeline(reader, handle.key)).reason == why
    assert (await stage.status(handle)).reason == why


@pytest.mark.parametrize("of", ["a new one", "one that runs"])
async def test_a_saga_is_started_with_the_version_that_is_asked_for_or_not_at_all(stage: Stage, of: str) -> None:
    older = Saga(TripAsked, name="guarded", version=2, deadline=timedelta(hours=1))
    older.signal(Cleared)
    if of == "one that runs":
        handle = await stage.client.start(GUARDED, ASKED, id="g1", version=1)
        assert (handle.was_started, handle.version) == (False, 1)
    before = await stage.stored("g1")
    with pytest.raises(
        OtherVersion, match=f"saga guarded/g1 {'runs' if before else 'would begin'} with version 1, and"
    ):
        await stage.client.start(older, ASKED, id="g1", version=2)
    assert await stage.stored("g1") == before
    again = await stage.client.start(older, ASKED, id="g1")
    assert again.was_started == bool(before)


async def test_what_an_operator_misspells_is_refused_by_the_schemas_with_which_the_saga_began(stage: Stage) -> None:
    await agree(await stage.there.link("coordinator"), [TRIP.definition])
    handle = await stage.parked()
    reader = await stage.there.link("operator")
    for step, data, is_reply, said in (
        (
            "book_room",
            b'{"nights": 2, "nigths": 3}',
            False,
            "hotel.book.v1 has no field 'nigths'; did you mean 'nights'?",
        ),
        ("book_seat", b'{"raeson": "x"}', False, "airline.free.v1 has no field 'raeson'; did you mean 'reason'?"),
        ("book_room", b'{"roon": "1"}', True, "hotel.booked.v1 has no field 'roon'; did you mean 'room'?"),
    ):
        with pytest.raises(CannotLoad, match=re.escape(said)):
            await require_known_by_journal(reader, handle.key, step, data, is_reply=is_reply)
    for step, data, is_reply in (
        ("book_room", b'{"nights": 2}', False),
        ("book_room", b'{"room": "1"}', True),
        ("nowhere", b'{"x": 1}', False),
        ("book_seat", b"no JSON", False),
    ):
        await require_known_by_journal(reader, handle.key, step, data, is_reply=is_reply)


async def test_who_waits_for_a_saga_that_waits_for_a_person_is_told_why(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = await stage.parked()
    why = (await stage.status(handle)).parked
    assert why
    with pytest.raises(StillRunning) as told:
        await handle.result(timeout=0.1)
    assert str(told.value) == (
        f"saga trip/t1 has not ended within 0.1 s, since it waits for a person ({why}). It stands still until that is "
        "mended: look at `antiphon show trip/t1`."
    )
    with pytest.raises(StillRunning):
        await _wait_for(handle, 5.0)
    said = f"antiphon: saga trip/t1 has not ended, since it waits for a person ({why}). It is waited for, up to 5 s"
    assert capsys.readouterr().err.count(said) == 1
