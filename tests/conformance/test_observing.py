"""Sagas that nobody leads, as coordinators observe them; and what participants emit by themselves in sagas that are
led. In memory, with whatever coordinators there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from antiphon.contracts import Event, SagaKey, identity, subjects
from antiphon.contracts.payloads import Record
from antiphon.contracts.reader import Journal
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.definition.choreography import AnySaga
from antiphon.coordinator.views.standing import standing
from antiphon.coordinator.views.summary import Overview, read_cause, read_told, tell, unread
from antiphon.coordinator.views.wording import of_cause, of_entry, of_fact
from tests.conformance.fleet import SWEEPER, TIMERS, Again, Fleet
from tests.conformance.test_halts import ask, verdicts
from tests.support.journeys import (
    DAY,
    MilesGiven,
    RoomGivenUp,
    RoomTaken,
    TrainMissed,
    TrainTaken,
    by_night_train,
    by_train,
    by_train_and_back,
    unled,
)
from tests.support.raw_worker import _envelope, start_message

KEY = SagaKey.of("unled", "u1")
LED = SagaKey.of("by-train", "t1")
TAKEN, MISSED = RoomTaken(room="12b"), TrainMissed(reason="full")
COMPLETED: list[Event] = [TAKEN, TrainTaken(seat="7a")]
COMPENSATED: list[Event] = [TAKEN, MISSED, RoomGivenUp(room="12b")]


def happened(key: SagaKey, event: Event, source: str = "", token: str = "", attempt: int = 1) -> tuple[str, bytes]:
    """What a participant stores that emits an event by itself."""
    contract = event.__contract__
    subject = subjects.event_subject(
        key.path, source or contract.owner, token or contract.token, "on-something", attempt
    )
    return subject, _envelope(subject, source or contract.owner, contract.type, event)


class Observers(Fleet):
    """Coordinators that come and go; participants say what a test has them say."""

    def __init__(self, coordinators: int = 1, saga: AnySaga | None = None) -> None:
        super().__init__(coordinators, saga or unled(DAY))  # type: ignore[arg-type] # pyright: ignore

    def leave(self) -> None:
        """All coordinators are gone."""
        for coordinator in self.coordinators:
            self.hear_no_more(coordinator.on_fact)
            for consumer, handle in (
                (TIMERS, coordinator.on_fired),
                (SWEEPER, coordinator.on_start_to_watch),
            ):
                self.platform.leave(consumer, handle)

    def causes(self, key: SagaKey = KEY) -> list[int]:
        """The facts that the journal names, in its order."""
        return [int(entry.cause[1:]) for entry in self.entries(key) if entry.cause.startswith("e")]

    def facts(self, key: SagaKey = KEY) -> list[int]:
        """All that EVENTS holds of it."""
        return [message.sequence for message in self.platform.read(EVENTS, [f"evt.{key.path}.>"])]

    def state(self, key: SagaKey = KEY) -> str:
        return super().state(key)


@pytest.fixture(params=[1, 3])
def fleet(request: pytest.FixtureRequest) -> Observers:
    return Observers(request.param)


@pytest.mark.parametrize(("said", "outcome"), [(COMPLETED, "completed"), (COMPENSATED, "compensated")])
def test_a_saga_that_nobody_leads_is_recorded_to_its_end(fleet: Observers, said: list[Event], outcome: str) -> None:
    fleet.put(*start_message(KEY))
    for event in said:
        fleet.put(*happened(KEY, event))
        fleet.run()
    assert (fleet.state(KEY), fleet.causes()) == (outcome, fleet.facts())
    assert (fleet.sends(KEY), fleet.parked()) == ([], [])


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_whatever_order_facts_are_delivered_all_are_named_before_the_end(order: tuple[int, ...]) -> None:
    """The event that ends a saga closes its journal, so what was said before goes in first."""
    fleet = Observers(2)
    fleet.leave()
    messages = [start_message(KEY), *(happened(KEY, event) for event in COMPENSATED)]
    stored: list[Any] = []
    for subject, data in messages:
        fleet.put(subject, data)
        stored.append(next(m for m in fleet.platform.streams[EVENTS] if m.subject == subject))
    for turn, number in enumerate(order):
        message = stored[number]
        again = Again(message.subject, message.data, message.sequence, message.stored_ns)
        fleet.coordinators[turn % 2].on_fact(again)
        fleet.run()
    assert (fleet.state(KEY), fleet.causes()) == ("compensated", fleet.facts())


def test_duplicates_and_repeated_deliveries_change_nothing(fleet: Observers) -> None:
    messages = [start_message(KEY), *(happened(KEY, event) for event in COMPLETED)]
    for subject, data in messages:
        fleet.put(subject, data)
        fleet.run()
        fleet.put(subject, data)
        fleet.deliver_again(subject)
        fleet.run()
    for subject, _ in messages:
        fleet.deliver_again(subject)
    fleet.run()
    assert (fleet.state(KEY), fleet.causes()) == ("completed", fleet.facts())


def test_it_goes_on_without_any_coordinator_and_its_journal_is_complete_once_one_is_back(fleet: Observers) -> None:
    fleet.put(*start_message(KEY))
    fleet.run(40)  # until the sweeper holds nothing
    fleet.leave()
    for event in COMPLETED:
        fleet.put(*happened(KEY, event))
    fleet.run(2 * DAY.total_seconds())
    assert len(fleet.entries(KEY)) == 1
    for coordinator in fleet.coordinators:
        fleet.join(coordinator)
    fleet.run(60)
    assert (fleet.state(KEY), fleet.causes()) == ("completed", fleet.facts())
    assert not any(entry for entry in fleet.entries(KEY) if "late" in str(entry.what)), "it had ended in time"


def test_a_fact_that_was_acked_and_lost_is_found_by_the_sweeper(fleet: Observers) -> None:
    fleet.put(*start_message(KEY))
    fleet.run()
    fleet.leave()
    fleet.put(*happened(KEY, TAKEN))
    for consumer in fleet.consumers_of_facts:
        fleet.platform._consumers[consumer.name].pending.clear()
    for coordinator in fleet.coordinators:
        fleet.join(coordinator)
    fleet.run(120)
    assert fleet.causes() == fleet.facts()


def overview_of(fleet: Observers, key: SagaKey = KEY) -> Overview:
    """How the read model has it."""
    stored = fleet.platform.read(SAGA, [subjects.journal_filter(key)])
    events = fleet.platform.read(EVENTS, [f"evt.{key.path}.>"])
    by_sequence = {message.sequence: message for message in events}
    overview = unread(key)
    for message in stored:
        told = read_told(message)
        assert told is not None
        cause = by_sequence.get(told.cause_sequence)
        overview = tell(overview, told, read_cause(cause) if cause else None)
    return overview


def stands(fleet: Observers, key: SagaKey = KEY) -> list[Any]:
    """How it stands, by each of the three who tell: the journal alone, status, and the read model."""
    stored = fleet.platform.read(SAGA, [subjects.journal_filter(key)])
    events = fleet.platform.read(EVENTS, [f"evt.{key.path}.>"])
    read = standing(stored, events)
    return [(each.state, each.parked) for each in (read, fleet.history(key), overview_of(fleet, key))]


def test_one_that_stalls_is_late_with_whom_it_waits_for_and_goes_on(fleet: Observers) -> None:
    fleet.put(*start_message(KEY))
    fleet.put(*happened(KEY, TAKEN))
    fleet.run(DAY.total_seconds() + 1)
    why = "its deadline passed, and airline or bank has not reacted to room.taken.v1"
    assert stands(fleet) == [("running", why)] * 3
    assert b'"kind":"saga"' in fleet.parked()[0]
    fleet.put(*happened(KEY, MISSED))
    fleet.run(1.0)
    assert stands(fleet) == [("compensating", "")] * 3, "it goes on"
    fleet.run(3600.0)
    why = "its deadline passed, and hotel has not reacted to train.missed.v1"
    assert stands(fleet) == [("compensating", why)] * 3, "and stalls again"
    fleet.put(*happened(KEY, RoomGivenUp(room="12b")))
    fleet.run()
    assert stands(fleet) == [("compensated", "")] * 3
    assert list(dict.fromkeys(fleet.causes())) == fleet.facts()


def test_one_that_goes_on_after_its_deadline_is_called_late_once(fleet: Observers) -> None:
    fleet.put(*start_message(KEY))
    fleet.run(DAY.total_seconds() + 1)
    for event in (TAKEN, MISSED, RoomGivenUp(room="12b")):
        fleet.put(*happened(KEY, event))
        fleet.run(1.0)
    said = [entry.what.parked for entry in fleet.entries(KEY) if isinstance(entry.what, Record) and entry.what.parked]
    assert said == ["its deadline passed, and hotel has not reacted to trip.asked.v1"]
    assert stands(fleet) == [("compensated", "")] * 3


def test_one_that_stalls_on_its_way_back_is_late_too(fleet: Observers) -> None:
    for subject, data in (start_message(KEY), happened(KEY, TAKEN), happened(KEY, MISSED)):
        fleet.put(subject, data)
    fleet.run(DAY.total_seconds() + 1)
    why = "its deadline passed, and hotel has not reacted to train.missed.v1"
    assert stands(fleet) == [("compensating", why)] * 3


def test_what_happens_without_a_start_is_an_orphan(fleet: Observers) -> None:
    fleet.put(*happened(KEY, TAKEN))
    fleet.run(60)
    assert b'"orphan"' in fleet.parked()[0]
    assert fleet.entries(KEY) == []


FORGERIES: list[tuple[Callable[[], tuple[str, bytes]], str, str]] = [
    (lambda: happened(KEY, TAKEN, source="airline"), "forged", "only hotel may emit room.taken.v1"),
    (lambda: happened(KEY, TAKEN, token="room-given-up"), "forged", "belongs to another subject"),
    (lambda: happened(KEY, TAKEN, attempt=2), "forged", "belongs to another subject"),
    (lambda: happened(KEY, MilesGiven(miles=1)), "undecodable", "does not know 'miles.given.v1', which hotel emitted"),
]


@pytest.mark.parametrize(("make", "kind", "reason"), FORGERIES)
def test_what_nobody_may_say_here_is_parked_and_the_rest_goes_on(
    make: Callable[[], tuple[str, bytes]], kind: str, reason: str
) -> None:
    fleet = Observers()
    fleet.put(*start_message(KEY))
    fleet.put(*make())
    fleet.run()
    parked = fleet.parked()[0].decode()
    assert (kind in parked, reason in parked) == (True, True)
    if kind == "undecodable":
        fleet.put(*happened(KEY, TAKEN))
    fleet.put(*happened(KEY, TrainTaken(seat="7a")))
    fleet.run()
    assert fleet.state(KEY) == "completed"


@pytest.mark.parametrize("data", [b"", b'{"specversion":"1.0"}'])
def test_an_event_of_the_flow_that_cannot_be_read_parks_its_saga(data: bytes) -> None:
    fleet = Observers()
    fleet.put(*start_message(KEY))
    fleet.put(happened(KEY, TAKEN)[0], data)
    fleet.run()
    assert b'"saga"' in fleet.parked()[0]
    assert b"room-taken of hotel cannot be read: " in fleet.parked()[0]
    assert fleet.pending_facts() == 0


def test_what_happens_by_itself_is_told_in_words() -> None:
    fleet = Observers()
    fleet.put(*start_message(KEY))
    for event in COMPENSATED:
        fleet.put(*happened(KEY, event))
    fleet.run()
    facts = fleet.platform.read(EVENTS, [f"evt.{KEY.path}.>"])
    journal = Journal()
    stored = [journal.entry(message) for message in fleet.platform.read(SAGA, [subjects.journal_filter(KEY)])]
    lines = [of_fact(journal.fact(m)) for m in facts]
    assert [(line.kind, line.who, line.text) for line in lines] == [
        ("start", "client", "trip.asked.v1"),
        ("event", "hotel", "room.taken.v1, on something"),
        ("event", "airline", "train.missed.v1, on something: full"),
        ("event", "hotel", "room.given.up.v1, on something"),
    ]
    causes = {f"e{m.sequence}": of_cause(journal.fact(m)) for m in facts}
    entries = [of_entry(entry, causes) for entry in stored]
    assert [line.text for line in entries] == [
        "recorded: trip.asked.v1",
        "recorded: room.taken.v1, on something",
        "what was done is being undone: full",
        "compensated: full",
    ]


def test_what_is_awaited_may_come_before_the_answer_it_follows_from_and_twice() -> None:
    fleet = Observers(2, by_train(DAY))
    fleet.put(*start_message(LED))
    fleet.put(*happened(LED, TrainTaken(seat="7a")))
    fleet.put(*happened(LED, MilesGiven(miles=3)))
    fleet.run()
    fleet.deliver_again(happened(LED, TrainTaken(seat="7a"))[0])
    fleet.run()
    assert fleet.state(LED) == "completed"
    assert [step for step, *_ in fleet.sends(LED)] == ["book_room", "charge_card"]
    assert fleet.parked() == []


def test_what_is_awaited_is_under_way_until_it_comes() -> None:
    fleet = Observers(1, by_train_and_back(DAY))
    fleet.play = lambda command: None if command.step == "book_seat" else "done"
    key = fleet.start(SagaKey.of("by-train-and-back", "t1"))
    fleet.run()
    assert overview_of(fleet, key).steps == ("train-taken",)
    fleet.put(*happened(key, TrainTaken(seat="7a")))
    fleet.run()
    assert overview_of(fleet, key).steps == ("book_seat",)


@pytest.mark.parametrize("last", [TrainTaken(seat="7a"), MISSED])
def test_what_is_late_past_the_pivot_waits_for_a_person_until_it_comes_as_everybody_reads_it(last: Event) -> None:
    fleet = Observers(2, by_night_train(DAY))
    fleet.play = lambda command: None if command.direction == "undo" else "done"
    key = fleet.start(SagaKey.of("by-night-train", "t1"))
    fleet.run(DAY.total_seconds() - 1)
    assert [parked for _, parked in stands(fleet, key)] == [""] * 3
    fleet.run(3)
    late = "train-taken did not come in time, and airline has not said train.taken.v1"
    assert stands(fleet, key) == [("running", late)] * 3
    assert overview_of(fleet, key).steps == ("train-taken",)
    assert len(fleet.parked()) == 1, "the index of what waits for a person"
    fleet.put(*happened(key, last))
    fleet.run()
    assert stands(fleet, key) == [("compensating" if last is MISSED else "completed", "")] * 3


def test_what_does_not_come_is_read_as_refused_by_everybody() -> None:
    fleet = Observers(1, by_train(DAY))
    fleet.play = lambda command: None if command.direction == "undo" else "done"
    fleet.put(*start_message(LED))
    fleet.put(*happened(LED, MISSED))
    fleet.run()
    assert [state for state, _ in stands(fleet, LED)] == ["compensating"] * 3


def test_a_type_that_nobody_leads_cannot_be_paused() -> None:
    fleet = Observers()
    unled_sagas = SagaKey.of(identity.SAGA_TYPE, "unled")
    ask(fleet, unled_sagas, "pause")
    fleet.run()
    ((user, verb, rejected),) = verdicts(fleet, unled_sagas)
    assert (user, verb) == ("ada", "pause")
    assert rejected.startswith("nobody leads sagas of type 'unled': pause the participants")
