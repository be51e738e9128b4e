"""Whether a start or a signal that is there already is the same: a coordinator says so, and no client reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from antiphon.contracts import (
    AlreadySignalled,
    AlreadyStarted,
    Event,
    PlatformError,
    SagaKey,
    TooLate,
    UnknownSaga,
    subjects,
)
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.payloads import Resent, ResentAnswer
from antiphon.contracts.topology import SAGA
from antiphon.coordinator import Saga
from antiphon.coordinator.client.store_once import message
from antiphon.coordinator.decision.sameness import resent
from antiphon.coordinator.runtime.comparing import OPEN_OF_ONE_MAX, Comparing
from antiphon.coordinator.runtime.journals import Journals
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from antiphon.coordinator.runtime.request_queue import RequestQueue
from antiphon.deploy.admin.rights import Grant, Rights
from antiphon.link import Link, StoredMessage
from antiphon.link.reading import BATCH_MAX, Pages
from antiphon.tracing.telemetry.counts import Counts
from tests.support.server import FORMS, Form, platform
from tests.support.trip import ASKED, PARTICIPANTS, TRIP, TripAsked

from .test_coordinator import Company, company

OTHER = TripAsked(traveller="Bob", nights=9)


class Cleared(Event, name="trip.cleared"):
    by: str


def guarded() -> Saga[Any]:
    saga = Saga(TripAsked, name="guarded", version=1, deadline=timedelta(hours=1))
    saga.signal(Cleared)
    return saga


@pytest.mark.parametrize("form", FORMS)
async def test_while_no_coordinator_runs_a_client_claims_nothing(form: Form, tmp_path: Path) -> None:
    async with company(tmp_path, form) as there:
        client = await there.client()
        handle = await client.start(TRIP, ASKED, id="t1")
        for again in (ASKED, OTHER):
            with pytest.raises(
                PlatformError,
                match=r"the start of saga trip/t1 is stored already, and whether it is .* and nothing was changed",
            ):
                await client.start(TRIP, again, id="t1", timeout=0.5)
        await there.coordinate()
        assert (await client.start(TRIP, ASKED, id="t1")).key == handle.key
        with pytest.raises(AlreadyStarted, match="another payload"):
            await client.start(TRIP, OTHER, id="t1")


@pytest.mark.parametrize("form", FORMS)
async def test_the_first_signal_counts_and_the_same_again_changes_nothing(form: Form, tmp_path: Path) -> None:
    saga = guarded()
    async with company(tmp_path, form) as there:
        await there.coordinate(sagas=[saga])
        handle = await (await there.client()).start(saga, ASKED, id="g1")
        (step,) = saga.steps
        for _ in range(2):
            await handle.signal(step, Cleared(by="Ada"))  # type: ignore[arg-type] # pyright: ignore
        with pytest.raises(AlreadySignalled, match="with another payload"):
            await handle.signal(step, Cleared(by="Bob"))  # type: ignore[arg-type] # pyright: ignore
        assert (await handle.result(timeout=120)).outcome == "completed"


def of_one(verbs: tuple[str, ...]) -> Callable[[Rights], Rights]:
    return lambda rights: Rights(rights.participants, {"client": [Grant("trip", verbs)]})


async def test_who_may_only_start_learns_whether_it_is_the_same_and_nothing_else(tmp_path: Path) -> None:
    with platform(tmp_path, "accounts", participants=PARTICIPANTS, rights=of_one(("start",))) as up:
        await up.set_up()
        async with AsyncExitStack() as stack:
            there = Company(up, stack)
            await there.coordinate()
            client = await there.client()
            handle = await client.start(TRIP, ASKED, id="t1")
            await client.start(TRIP, ASKED, id="t1")
            with pytest.raises(AlreadyStarted):
                await client.start(TRIP, OTHER, id="t1")
            with pytest.raises(PlatformError, match="does not let client use saga"):
                await handle.result(timeout=120)


async def test_who_may_only_signal_or_cancel_learns_whether_it_can_come_true_and_nothing_else(tmp_path: Path) -> None:
    saga = guarded()
    (step,) = saga.steps

    def rights(made: Rights) -> Rights:
        clients = {"client": [Grant("guarded", ("start",))], "fraud": [Grant("guarded", ("signal.trip-cleared",))]}
        return Rights(made.participants, {**clients, "desk": [Grant("guarded", ("cancel",))]})

    with platform(tmp_path, "accounts", participants=PARTICIPANTS, rights=rights) as up:
        await up.set_up()
        async with AsyncExitStack() as stack:
            there = Company(up, stack)
            await there.coordinate(sagas=[saga])
            fraud, desk = await there.client("fraud"), await there.client("desk")
            for ask in (
                fraud.handle(saga, "g1").signal(step, Cleared(by="Ada")),  # type: ignore[arg-type] # pyright: ignore
                desk.handle(saga, "g1").cancel("no more"),
            ):
                with pytest.raises(UnknownSaga, match="there is no saga guarded/g1"):
                    await ask
            await (await there.client()).start(saga, ASKED, id="g1")
            assert await desk.handle(saga, "g1").cancel("no more") in ("awaited", "early")
            reader = await there.link("coordinator")
            async with asyncio.timeout(60):
                while not await reader.read_all(SAGA, [subjects.end_subject(SagaKey.of("guarded", "g1"))]):
                    await asyncio.sleep(0.02)
            with pytest.raises(TooLate, match="for saga guarded/g1: it has ended"):
                await fraud.handle(saga, "g1").signal(step, Cleared(by="Ada"))  # type: ignore[arg-type] # pyright: ignore
            with pytest.raises(PlatformError, match=r"does not let fraud use antiphon\.same\.guarded\.g1\.cancel"):
                await fraud.handle(saga, "g1").cancel("no more")


async def test_a_question_that_is_none_is_not_answered_and_does_no_harm(tmp_path: Path) -> None:
    question = msgspec.json.encode(resent(ASKED))
    async with company(tmp_path, "accounts") as there:
        await there.coordinate()
        client, link = await there.client(), await there.link("client")
        await client.start(TRIP, ASKED, id="t1")
        heard = list[bytes]()
        inbox = link.new_inbox()
        await link.subscribe(inbox, lambda subject, reply, data, lines: heard.append(data))
        for subject, body in (
            ("antiphon.same.trip.*.start", question),
            ("antiphon.same.trip.t1.signal.*", question),
            ("antiphon.same.trip.unknown.start", question),
            ("antiphon.same.trip.t1.start", b"x"),
            ("antiphon.same.trip.t1.start", b"{}"),
            ("antiphon.same.trip.t1.start", question + b" " * 600_000),
            ("antiphon.same.trip.t1.start", b'{"type":"trip.asked.v1","data":[1,{}],"defaults":["a"]}'),
        ):
            link.send(subject, body, reply=inbox)
        answer = await link.request("antiphon.same.trip.t1.start", question)
        assert unpack_raw(answer, ResentAnswer).verdict == "same"
        assert heard == []


async def test_many_signals_at_once_are_all_answered_for(tmp_path: Path) -> None:
    saga = guarded()
    (step,) = saga.steps
    async with company(tmp_path, "accounts") as there:
        await there.coordinate(sagas=[saga])
        client = await there.client()
        many = [client.handle(saga, f"g{number}") for number in range(600)]
        told = await asyncio.gather(
            *(each.signal(step, Cleared(by="Ada")) for each in many),  # type: ignore[arg-type] # pyright: ignore
            return_exceptions=True,
        )
        assert {type(each) for each in told} == {UnknownSaga}


class ShelfLink(Link):
    """EVENTS, which answers when a test says so."""

    def __init__(self) -> None:
        super().__init__(Client(), "coordinator")
        self.asked: list[Callable[[Pages], None]] = []
        self.answered: list[str] = []
        self.shed: list[str] = []

    def read(
        self,
        stream: str,
        filters: list[str],
        then: Callable[[Pages], None],
        most: int = BATCH_MAX,
        whole: bool = True,
    ) -> None:
        self.asked.append(then)

    def answer(self, reply: str, data: bytes) -> None:
        (self.shed if unpack_raw(data, ResentAnswer).verdict == "busy" else self.answered).append(reply)


async def test_no_flood_of_questions_is_kept() -> None:
    key = SagaKey.of("trip", "t1")
    start = subjects.start_subject(key)
    found = [StoredMessage(start, 1, 1, message(start, "client", "trip.asked.v1", ASKED))]
    link = ShelfLink()
    counts, question = Counts(), msgspec.json.encode(resent(ASKED))
    queue = RequestQueue(counts, time.monotonic, lambda delay_seconds, call: None)
    memory = MemoryPlatform()
    journals = Journals(MemoryStore(memory), [TRIP.definition], counts)
    comparing = Comparing(link, journals, queue)

    def ask(number: int) -> None:
        comparing.on_question(subjects.same_subject(key), f"inbox.{number}", question, None)

    for number in range(2 * OPEN_OF_ONE_MAX):
        ask(number)
    assert len(link.asked) == OPEN_OF_ONE_MAX
    assert counts.totals["requests_shed", ("inbox",)] == OPEN_OF_ONE_MAX
    assert link.shed == [f"inbox.{number}" for number in range(OPEN_OF_ONE_MAX, 2 * OPEN_OF_ONE_MAX)], "and are told so"
    comparing.on_question(subjects.same_subject(key), "other.1", question, None)
    link.asked.pop()(found)  # whoever floods keeps no place from others
    memory.run()  # the end of the saga is looked for
    assert link.answered.pop() == "other.1"
    for then in link.asked:
        then(found)
    memory.run()
    ask(1000)
    link.asked[-1](found)
    memory.run()
    assert link.answered == [*(f"inbox.{number}" for number in range(OPEN_OF_ONE_MAX)), "inbox.1000"]


def test_a_question_says_which_fields_hold_their_defaults() -> None:
    class Packed(Event, name="trip.packed"):
        bags: int = 1
        colours: list[str] = msgspec.field(default_factory=list)
        owner: str = msgspec.field(default="Ada", name="owned_by")

    assert resent(Packed()).defaults == ("bags", "colours", "owned_by")
    assert resent(Packed(bags=2, owner="Bob")) == Resent(
        type="trip.packed.v1", data=resent(Packed(bags=2, owner="Bob")).data, defaults=("colours",)
    )
