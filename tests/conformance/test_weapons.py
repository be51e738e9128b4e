"""What anybody may store to stop others: facts about locks, saga types and participants, numbers, halves of characters,
long reasons. Each is parked at once, or ends its own saga, and the sagas of others go on as if nothing were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import structlog

from antiphon.contracts import SagaKey, clock, subjects
from antiphon.contracts.bounds import REASON_CHARS_MAX, TRIES_MAX
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, Envelope, encode, pack, unpack
from antiphon.contracts.envelope import decode as opened
from antiphon.contracts.identity import LOCK, PARTICIPANT, SAGA_TYPE
from antiphon.contracts.messages import Refusal
from antiphon.contracts.payloads import (
    CHILD_START_TYPE,
    LOCK_ASK_TYPE,
    LOCK_FREE_TYPE,
    LOCK_STATE_TYPE,
    CancelRequest,
    Empty,
    Operation,
    Parked,
    verb_type,
)
from antiphon.contracts.stored import SagaPages
from antiphon.contracts.topology import EVENTS, PARKED, SAGA
from antiphon.coordinator.decision.locks import Lock
from antiphon.coordinator.decision.pause import read_pause_state
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.views.timeline import timeline_of
from antiphon.tracing.projection.project import project
from antiphon.tracing.projection.span_builder import TRY_SPANS_MAX
from tests.conformance.fleet import Fleet
from tests.support.raw_worker import start_message
from tests.support.trip import ASKED, BookRoom, FreeRoom, RoomBooked, TripAsked

SOON = 0.9
"""Virtual seconds: less than a message is handed back for, so that what is done by then was done at its delivery."""

TIME = clock.moment(1_750_000_000_000_000_000)
PLAIN = [SagaKey.of("trip", f"t{number}") for number in range(20)]
GUARDED = [SagaKey.of("guarded", f"g{number}") for number in range(20)]


def seat_of(asked: TripAsked) -> set[str]:
    return {"seat"}


guarded = Saga(TripAsked, name="guarded", version=1, deadline=timedelta(hours=1), locks=seat_of)


@guarded.step()
def book_room(s: State[TripAsked]) -> BookRoom:
    return BookRoom(nights=s.start.nights)


@book_room.compensation
def free_room(s: State[TripAsked]) -> FreeRoom:
    return FreeRoom(reason=s.reason)


class Armed(Fleet):
    """Two coordinators with the trip and a saga that needs a lock."""

    def __init__(self) -> None:
        super().__init__(coordinators=2)

    def join(self, coordinator: Coordinator) -> None:
        both = Coordinator(coordinator.store, [self.definition, guarded.definition])
        self.coordinators = [both if each is coordinator else each for each in self.coordinators]
        super().join(both)

    def start_all(self) -> None:
        for key in (*PLAIN, *GUARDED):
            self.put(*start_message(key, ASKED))

    def require_healthy(self) -> None:
        ends = {key: self.platform.last(SAGA, subjects.end_subject(key)) for key in (*PLAIN, *GUARDED)}
        assert all(ends.values()), [str(key) for key, end in ends.items() if not end]

    def set_aside(self) -> list[tuple[str, str]]:
        """The kinds and subjects of what is parked."""
        stored = self.platform.streams[PARKED]
        return [
            (subjects.parse_parked(each.subject).kind, msgspec.json.decode(each.data, type=Parked).subject)
            for each in stored
        ]


def envelope(subject: str, source: str, type_: str, payload: msgspec.Struct) -> bytes:
    return encode(Envelope(id=subject, source=source, type=type_, time=TIME, data=pack(payload)))


BODIES: dict[str, bytes] = {
    "no json": b"x",
    "nothing": b"",
    "an empty object": b"{}",
    "null": b"null",
    "a list": b"[]",
    "no utf-8": b"\xff\xfe",
    "half a character": rb'{"id":"\ud800"}',
    "too deep": b"[" * 100_000,
    "too large": b" " * (MESSAGE_BYTES_MAX + 1),
    "another's": envelope("evt.1.trip.t1.client.start", "client", "trip.asked.v1", ASKED),
}

STRANGERS = (
    *(f"hotel.{event}.x.1" for event in ("ask", "free", "granted", "pause", "resume", "start", "state")),
    "hotel.ask.trip.1",
    "client.start",
    "client.cancel",
    "client.signal.ask.1",
)


def of_strangers() -> Iterator[str]:
    """Facts about locks, saga types and participants by those who have no say there."""
    for family, id in ((LOCK, "seat"), (LOCK, "any"), (SAGA_TYPE, "trip"), (PARTICIPANT, "hotel")):
        path = SagaKey.of(family, id).path
        yield from (f"evt.{path}.{rest}" for rest in STRANGERS)
        if family == LOCK:
            yield f"evt.{path}.operator.ann.pause.k1"
        else:
            yield f"evt.{path}.coordinator.ask.trip.t1"
            yield f"evt.{path}.coordinator.let-go"
            yield f"evt.{path}.coordinator.child-completed.x.1"


@pytest.mark.parametrize("body", BODIES)
def test_who_has_no_say_about_locks_types_and_participants_is_parked_at_once(body: str) -> None:
    fleet, wrong = Armed(), list(of_strangers())
    with structlog.testing.capture_logs() as lines:
        for subject in wrong:
            fleet.put(subject, BODIES[body])
        fleet.start_all()
        fleet.run(SOON)
    assert sorted(fleet.set_aside()) == sorted(("forged", subject) for subject in wrong)
    assert "fact.faulty" not in {line["event"] for line in lines}
    fleet.run(20)
    fleet.require_healthy()
    assert fleet.pending_facts() == 0
    assert fleet.platform.read(SAGA, [subjects.state_subject(SagaKey.of(SAGA_TYPE, "trip"))]) == []
    assert fleet.platform.read(SAGA, [subjects.state_subject(SagaKey.of(LOCK, "any"))]) == []


ENTITLED = (
    subjects.ask_subject(SagaKey.of(LOCK, "seat"), SagaKey.of("trip", "x")),
    subjects.free_subject(SagaKey.of(LOCK, "seat"), SagaKey.of("trip", "x")),
    subjects.granted_subject(SagaKey.of("guarded", "other"), SagaKey.of(LOCK, "seat")),
    subjects.verb_subject(SagaKey.of(SAGA_TYPE, "trip"), "ann", "pause", "k1"),
    subjects.verb_subject(SagaKey.of(SAGA_TYPE, "trip"), "ann", "resume", "k1"),
    subjects.verb_subject(SagaKey.of(PARTICIPANT, "hotel"), "ann", "pause", "k1"),
)


@pytest.mark.parametrize("body", BODIES)
def test_facts_of_those_who_have_a_say_are_checked_like_all_others(body: str) -> None:
    fleet = Armed()
    with structlog.testing.capture_logs() as lines:
        for subject in ENTITLED:
            fleet.put(subject, BODIES[body])
        fleet.start_all()
        fleet.run(SOON)
    kind = "forged" if body == "another's" else "undecodable"
    assert sorted(fleet.set_aside()) == sorted((kind, subject) for subject in ENTITLED)
    assert "fact.faulty" not in {line["event"] for line in lines}
    fleet.run(20)
    fleet.require_healthy()
    assert fleet.pending_facts() == 0


@pytest.mark.parametrize(("subject", "type_"), list(zip(ENTITLED[:2], (LOCK_FREE_TYPE, LOCK_ASK_TYPE), strict=True)))
def test_a_lock_takes_a_message_of_its_type_from_its_source_alone(subject: str, type_: str) -> None:
    fleet = Armed()
    fleet.put(subject, envelope(subject, "coordinator", type_, Empty()))
    fleet.run(SOON)
    assert fleet.set_aside() == [("undecodable", subject)]
    assert fleet.platform.read(SAGA, [subjects.state_subject(SagaKey.of(LOCK, "seat"))]) == []


def test_a_hundred_questions_for_locks_cost_healthy_sagas_nothing() -> None:
    fleet = Armed()
    for number in range(100):
        key = SagaKey.of(LOCK, ("seat", "any", f"l{number}")[number % 3])
        fleet.put(f"evt.{key.path}.hotel.ask.x.{number + 1}", b"x")
    fleet.start_all()
    fleet.run(SOON)
    assert len(fleet.set_aside()) == 100
    fleet.run(20)
    fleet.require_healthy()
    lock = fleet.platform.read(SAGA, [subjects.state_subject(SagaKey.of(LOCK, "seat"))])[0]
    assert unpack(opened(lock.data, lock.subject), LOCK_STATE_TYPE, Lock).holder == ""


@pytest.mark.parametrize("name", ["exporter", "timers", "sweeper", "coordinator", "hotel-undo", "readmodel"])
def test_nobody_pauses_what_is_no_participant_by_its_consumer(name: str) -> None:
    fleet = Armed()
    subject = subjects.verb_subject(SagaKey.of(PARTICIPANT, name), "ann", "pause", "k1")
    fleet.put(subject, envelope(subject, "operator", verb_type("pause"), Operation(reason="a test")))
    fleet.run(SOON)
    (stored,) = fleet.platform.read(SAGA, [subjects.state_subject(SagaKey.of(PARTICIPANT, name))])
    (request,) = read_pause_state(stored).requests
    assert request.rejected
    assert not read_pause_state(stored).paused
    fleet.start_all()
    fleet.run(20)
    fleet.require_healthy()


def test_a_saga_type_can_be_paused_after_any_number_of_long_reasons() -> None:
    fleet = Armed()
    trips = SagaKey.of(SAGA_TYPE, "trip")
    for number in range(60):
        verb: subjects.Verb = "resume" if number % 2 else "pause"
        subject = subjects.verb_subject(trips, "ann", verb, f"k{number}")
        fleet.put(subject, envelope(subject, "operator", verb_type(verb), Operation(reason="\x01" * 2000)))
        fleet.run(2)
    assert fleet.set_aside() == []
    (stored,) = fleet.platform.read(SAGA, [subjects.state_subject(trips)])
    assert not read_pause_state(stored).paused


# --- who a saga's parent is -------------------------------------------------------------------------------------------

PARENTS: dict[str, Any] = {
    "another's saga": {"type": "trip", "id": "t1", "step": "book_room", "attempt": 1, "hold": False},
    "a frame": {"type": "trip", "id": "t1", "step": "x\r\nPUB evil 1\r\nx", "attempt": 1, "hold": False},
    "no identity": {"type": "", "id": "", "step": "", "attempt": 1, "hold": False},
}


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("source", ["client", "coordinator"])
def test_a_start_that_cannot_be_read_names_no_parent_that_it_does_not_have(parent: str, source: str) -> None:
    fleet, key = Armed(), SagaKey.of("trip", "forged")
    subject = subjects.start_subject(key, source)
    data = msgspec.Raw(msgspec.json.encode({"parent": PARENTS[parent], "type": "trip.asked.v9", "event": {}}))
    fleet.put(subject, encode(Envelope(id=subject, source=source, type=CHILD_START_TYPE, time=TIME, data=data)))
    cancel = subjects.cancel_subject(key)
    fleet.run(2)
    fleet.put(cancel, envelope(cancel, "client", "saga.cancel.v1", CancelRequest(reason="enough")))
    fleet.start_all()
    fleet.run(20)
    fleet.require_healthy()
    told = [each.subject for each in fleet.platform.streams[EVENTS] if ".coordinator.child-" in each.subject]
    is_meant = source == "coordinator" and parent == "another's saga"
    assert told == ([subjects.child_subject(PLAIN[1], "compensated", "book_room", 1)] if is_meant else [])
    assert fleet.platform.last(SAGA, subjects.end_subject(key))


# --- numbers ----------------------------------------------------------------------------------------------------------


def answer(fleet: Armed, key: SagaKey, **changes: Any) -> None:
    """Answer the first command of a saga, by whatever JSON."""
    (command,) = fleet.platform.read(SAGA, [f"saga.{key.path}.c.cmd.hotel.>"])
    subject = subjects.event_subject(key.path, "hotel", "hotel-booked", "book_room", 1)
    said: dict[str, Any] = {
        "specversion": "1.0",
        "id": subject,
        "source": "hotel",
        "type": "hotel.booked.v1",
        "time": "2026-01-02T00:00:00Z",
        "data": RoomBooked(room="12b"),
        "command": str(command.sequence),
    }
    changes_of_subject = changes.pop("subject", subject)
    fleet.put(changes_of_subject, msgspec.json.encode({**said, "id": changes_of_subject, **changes}))


WRONG_NUMBERS: dict[str, Any] = {
    "tries of 10**12": {"tries": 10**12},
    "tries below 0": {"tries": -1},
    "tries of 10**30": {"tries": 10**30},
    "tries of more than can be counted": {"tries": TRIES_MAX + 1},
    "a fraction of a try": {"tries": 1.5},
    "a sequence of 5000 digits": {"command": "9" * 5000},
    "no time": {"started": "9" * 5000},
}


def bad_saga(fleet: Armed) -> SagaKey:
    """A saga whose first command waits for an answer of the test's."""
    bad = SagaKey.of("trip", "bad")
    fleet.play = lambda command: None if command.saga == bad and command.step == "book_room" else "done"
    fleet.put(*start_message(bad))
    fleet.run(1)
    return bad


def pages_of(fleet: Armed, key: SagaKey) -> SagaPages:
    return SagaPages(
        fleet.platform.read(SAGA, [subjects.journal_filter(key)]),
        fleet.platform.read(EVENTS, [subjects.saga_events_filter(key)]),
    )


@pytest.mark.parametrize("name", WRONG_NUMBERS)
def test_an_answer_with_a_number_out_of_bounds_parks_its_saga_and_is_shown_by_all_readers(name: str) -> None:
    fleet = Armed()
    bad = bad_saga(fleet)
    answer(fleet, bad, **WRONG_NUMBERS[name])
    fleet.start_all()
    fleet.run(20)
    fleet.require_healthy()
    assert "cannot be read" in fleet.history(bad).parked
    assert [kind for kind, _ in fleet.set_aside()] == ["saga"]
    pages = pages_of(fleet, bad)
    assert "cannot be read" in timeline_of(bad, pages).parked
    projection = project(bad, pages.entries, pages.events)
    assert projection.was_parked
    assert len(projection.spans) + len(projection.open) < 20


STRANGE_NUMBERS: dict[str, Any] = {
    "a start in the year 1": {"started": "0001-01-01T00:00:00Z"},
    "a start in the year 9999": {"started": "9999-12-31T23:59:59Z"},
    "a start without a zone": {"started": "2026-01-02T00:00:00"},
    "a time without a zone": {"time": "2026-01-02T00:00:00"},
    "as many tries as can be counted": {"tries": TRIES_MAX, "started": "2030-01-02T00:00:00Z"},
}


@pytest.mark.parametrize("name", STRANGE_NUMBERS)
def test_an_answer_with_a_number_within_bounds_counts_and_no_reader_runs_as_often_as_it_says(name: str) -> None:
    fleet = Armed()
    bad = bad_saga(fleet)
    answer(fleet, bad, **STRANGE_NUMBERS[name])
    fleet.run(20)
    assert fleet.state(bad) == "completed"
    pages = pages_of(fleet, bad)
    projection = project(bad, pages.entries, pages.events)
    assert projection.outcome == "completed"
    assert len(projection.spans) <= TRY_SPANS_MAX + 20
    assert all(0 <= span.start_ns < span.end_ns < 2**63 for span in projection.spans)
    assert timeline_of(bad, pages).state == "completed"


@pytest.mark.parametrize("step", ["book_room-²", "book_room-1", "book_room-" + "9" * 3000, "*", ">", "ä"])
@pytest.mark.parametrize("event", ["hotel-booked", "*"])
def test_a_step_that_is_none_is_parked_at_once(step: str, event: str) -> None:
    fleet = Armed()
    bad = bad_saga(fleet)
    subject = f"evt.{bad.path}.hotel.{event}.{step}.1"
    with structlog.testing.capture_logs() as lines:
        answer(fleet, bad, subject=subject)
        fleet.run(SOON)
    assert [each for _, each in fleet.set_aside()] == [subject]
    assert "fact.faulty" not in {line["event"] for line in lines}


# --- texts ------------------------------------------------------------------------------------------------------------


def refuse(fleet: Armed, key: SagaKey, reason: bytes) -> None:
    """Refuse the first command of a saga, for a reason in JSON."""
    (command,) = fleet.platform.read(SAGA, [f"saga.{key.path}.c.cmd.hotel.>"])
    subject = subjects.event_subject(key.path, "hotel", "hotel-book-refused", "book_room", 1)
    data = envelope(subject, "hotel", "hotel.book.refused.v1", Refusal(reason="REASON"))
    data = data.replace(b'"REASON"', reason)
    fleet.put(subject, data[:-1] + b',"command":"%d"}' % command.sequence)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (rb'"no \ud800 room"', r"no \ud800 room"),
        (rb'"\uDFFF"', r"\uDFFF"),
        (rb'"a \ud83d\ude00 \udc00 \\ud800"', "a \U0001f600 \\udc00 \\ud800"),
        (rb'"a nul: \u0000"', "a nul: \x00"),
        (b'"' + b"x" * 250_000 + b'"', "x" * REASON_CHARS_MAX),
        (b'"' + rb"\u0001" * 40_000 + b'"', "\x01" * REASON_CHARS_MAX),
    ],
    ids=["half", "the other half", "halves and a whole", "nul", "long", "long and spelled out"],
)
def test_a_refusal_ends_its_saga_whatever_its_reason_is(reason: bytes, shown: str) -> None:
    fleet = Armed()
    bad = bad_saga(fleet)
    refuse(fleet, bad, reason)
    fleet.start_all()
    fleet.run(20)
    fleet.require_healthy()
    history = fleet.history(bad)
    assert history.end is not None
    assert (history.end.outcome, history.end.reason) == ("compensated", f"book_room was refused: {shown}")
    assert fleet.set_aside() == []
    pages = pages_of(fleet, bad)
    assert timeline_of(bad, pages).reason == history.end.reason
    msgspec.json.encode(timeline_of(bad, pages))
    spans = project(bad, pages.entries, pages.events).spans
    assert "".join(f"{span.attributes}{span.message}" for span in spans).encode()


def test_half_a_character_in_a_reply_travels_on_spelled_out() -> None:
    fleet = Armed()
    bad = bad_saga(fleet)
    (command,) = fleet.platform.read(SAGA, [f"saga.{bad.path}.c.cmd.hotel.>"])
    subject = subjects.event_subject(bad.path, "hotel", "hotel-booked", "book_room", 1)
    data = envelope(subject, "hotel", "hotel.booked.v1", RoomBooked(room="ROOM")).replace(b"ROOM", rb"\ud8001")
    fleet.put(subject, data[:-1] + b',"command":"%d"}' % command.sequence)
    fleet.run(20)
    assert fleet.state(bad) == "completed"
    (charged,) = fleet.platform.read(SAGA, [f"saga.{bad.path}.c.cmd.bank.>"])
    assert msgspec.json.decode(opened(charged.data, charged.subject).data)["room"] == r"\ud8001"


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_half_a_character_in_what_clients_and_operators_say_is_spelled_out(verb: subjects.Verb) -> None:
    fleet = Armed()
    bad = bad_saga(fleet)
    subject = subjects.verb_subject(bad, "ann", verb, "k1")
    data = envelope(subject, "operator", verb_type(verb), Operation(reason="REASON"))
    fleet.put(subject, data.replace(b"REASON", rb"why \udead"))
    fleet.run(5)
    history = fleet.history(bad)
    assert r"why \udead" in (history.turned if verb == "cancel" else history.paused)
    assert fleet.set_aside() == []
