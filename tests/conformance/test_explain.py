"""Sagas in words, and why one waits for a person, as both are read from the streams without any definition."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from antiphon.contracts import Event, SagaKey, subjects
from antiphon.contracts.messages import AnswerKind, Closed
from antiphon.contracts.reader import Journal
from antiphon.contracts.stored import Delivered, SagaPages
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.decision.replay import replay
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.views.standing import Standing, standing
from antiphon.coordinator.views.timeline import timeline_of
from antiphon.coordinator.views.wording import of_entry, of_fact
from tests.conformance.fleet import KEY, Fleet
from tests.conformance.test_halts import request
from tests.support.raw_worker import _envelope, answer_message, start_message
from tests.support.trip import ASKED, BookRoom, TripAsked, make_trip


class Cleared(Event, name="trip.cleared"):
    by: str


def by_traveller(start: TripAsked) -> list[str]:
    return [start.traveller]


def is_long(s: State[TripAsked]) -> bool:
    return s.start.nights > 7


INNER = make_trip(name="inner")
OUTER = Saga(TripAsked, name="outer", version=1, deadline=timedelta(hours=1), locks=by_traveller)
cleared = OUTER.signal(Cleared)


@OUTER.step(after=cleared, when=is_long, needs_no_compensation=True)
def book_more(s: State[TripAsked]) -> BookRoom:
    return BookRoom(nights=1)


@OUTER.child(INNER, after=book_more)
def travel(s: State[TripAsked]) -> TripAsked:
    return s.start


OUTER_KEY = SagaKey.of("outer", "o1")


class Families(Fleet):
    """A fleet whose participants answer the child's commands too."""

    def answer(self, delivery: Delivered) -> None:
        command = subjects.parse_command(delivery.subject)
        if command.saga.type == "inner":
            self.put(*answer_message(command, delivery.sequence, "done", INNER.definition))
            delivery.ack()


def sayings(fleet: Fleet, key: SagaKey) -> list[tuple[str, str, str]]:
    """Entries and facts in words, each with its kind and step."""
    told: list[tuple[str, str, str]] = []
    journal = Journal()
    entries = [journal.entry(message) for message in fleet.platform.read(SAGA, [subjects.journal_filter(key)])]
    facts = [journal.fact(message) for message in fleet.platform.read(EVENTS, [f"evt.{key.path}.>"])]
    for said in [*map(of_fact, facts), *(of_entry(entry, {}) for entry in entries)]:
        told.append((said.kind, said.step, said.text))
    return told


def test_locks_signals_options_and_children_are_told_in_words() -> None:
    fleet = Families(saga=OUTER)
    fleet.put(*start_message(OUTER_KEY, ASKED))
    fleet.run()
    subject = subjects.signal_subject(OUTER_KEY, cleared.name)
    fleet.put(subject, _envelope(subject, "client", "trip.cleared.v1", Cleared(by="Ada")))
    fleet.run(5)
    told = sayings(fleet, OUTER_KEY)
    for line in [
        ("notice", "", "Ada is granted"),
        ("signal", "trip-cleared", "signals trip.cleared.v1"),
        ("notice", "travel", "has completed"),
        ("record", "", "needs the lock Ada"),
        ("record", "trip-cleared", "is waited for"),
        ("record", "book_more", "is skipped: its condition does not hold"),
        ("command", "travel", "starts a saga of its own"),
        ("end", "", "completed"),
    ]:
        assert line in told
    (start,) = (m for m in fleet.platform.streams[EVENTS] if ".inner." in m.subject and m.subject.endswith(".start"))
    child = sayings(fleet, subjects.parse_fact(start.subject).saga)
    assert ("start", "", "trip.asked.v1, for its step travel") in child
    assert ("record", "", "has done all its steps, and waits for the saga that started it") in child
    assert ("notice", "", "has ended, and lets it go") in child


# --- why a saga waits -------------------------------------------------------------------------------------------------


def stands(fleet: Fleet) -> Standing:
    entries = fleet.platform.read(SAGA, [subjects.journal_filter(KEY)])
    return standing(entries, fleet.platform.read(EVENTS, [f"evt.{KEY.path}.>"]))


def require_likeness(fleet: Fleet) -> None:
    """After every entry it is read without a definition as it is folded with one."""
    entries = fleet.platform.read(SAGA, [subjects.journal_filter(KEY)])
    events = fleet.platform.read(EVENTS, [f"evt.{KEY.path}.>"])
    for length in range(1, len(entries) + 1):
        history = replay(KEY, fleet.versions, SagaPages(entries[:length], events)).history
        read = standing(entries[:length], events)
        waits = bool(history.fault or (history.marked and history.parked))
        assert (bool(read.parked), bool(read.paused)) == (waits, bool(history.paused)), f"after {length} entries"
        # That a saga has turned is seen by its first compensation; only a crash leaves a journal without one.
        is_record = subjects.parse_entry(entries[length - 1].subject).kind == "rec"
        assert is_record or read.state == history.state, f"after {length} entries"


def stubborn(command: CommandAddress) -> AnswerKind | None:
    if command.direction == "undo":
        return "exhausted" if command.attempt <= 6 else "done"
    return "refused" if command.step == "charge_card" else "done"


def ask(fleet: Fleet, verb: Any, **operation: Any) -> None:
    fleet.put(*request(KEY, verb, **operation))
    fleet.run(0.1)


def test_a_saga_waits_for_a_person_from_the_mark_until_the_compensation_works() -> None:
    fleet = Fleet(play=stubborn)
    fleet.start()
    fleet.run(20)
    (need,) = stands(fleet).needs
    assert (need.step, need.tried >= 3) == ("book_seat", True)
    fleet.run(400)
    assert fleet.state() == "compensated"
    assert stands(fleet).needs == ()
    require_likeness(fleet)


def test_the_reason_of_a_futile_compensation_is_told_once_an_attempt() -> None:
    fleet = Fleet(play=lambda command: "exhausted" if command.direction == "undo" else stubborn(command))
    fleet.start()
    fleet.run(30)
    pages = SagaPages(
        fleet.platform.read(SAGA, [subjects.journal_filter(KEY)]),
        fleet.platform.read(EVENTS, [subjects.saga_events_filter(KEY)]),
    )
    words = [line.text for line in timeline_of(KEY, pages).lines]
    assert words.count("exhausted: exhausted it was") >= 3
    assert [word for word in words if word.startswith("recorded: exhausted:")] == []
    assert "recorded: exhausted" in words


def test_what_was_resolved_retried_paused_and_cancelled_is_read_as_it_is() -> None:
    fleet = Fleet(play=lambda command: "exhausted" if command.direction == "undo" else stubborn(command))
    fleet.start()
    fleet.run(30)
    ask(fleet, "pause", reason="look")
    assert stands(fleet).paused == "paused by ada: look"
    ask(fleet, "retry")
    ask(fleet, "retry", step="nonsense")
    ask(fleet, "resolve", step="book_seat", reason="by hand")
    ask(fleet, "resume")
    fleet.run(30)
    assert (stands(fleet).paused, [need.step for need in stands(fleet).needs]) == ("", ["book_room"])
    ask(fleet, "resolve", step="book_room", reason="by hand")
    assert fleet.state() == "compensated"
    require_likeness(fleet)


def test_a_saga_that_cannot_go_on_is_read_so_until_somebody_has_it_try_again() -> None:
    broken = make_trip(broken="book_seat")
    fleet = Fleet(saga=broken)
    fleet.start()
    fleet.run()
    (need,) = stands(fleet).needs
    assert (need.step, need.reason, need.tried) == ("", "book_seat raised ZeroDivisionError", 0)
    ask(fleet, "retry")
    assert len(stands(fleet).needs) == 1
    ask(fleet, "cancel", reason="enough")
    fleet.run(5)
    assert fleet.state() == "compensated"
    require_likeness(fleet)


def test_a_close_and_what_its_participant_says_are_told_in_words() -> None:
    met = [Closed(verdict="doubt", claim=3, key="trip/t1/book_seat/undo"), Closed(verdict="closed")]
    fleet = Fleet(
        play=lambda command: "exhausted" if command.direction == "undo" else stubborn(command),
        close=lambda command: met.pop(0),
    )
    fleet.start()
    fleet.run(30)
    ask(fleet, "resolve", step="book_seat", reason="by hand")
    assert [need.step for need in stands(fleet).needs] == ["book_seat"]
    ask(fleet, "resolve", step="book_seat", reason="looked", claim=3, happened=False)
    ask(fleet, "resolve", step="book_room", reason="alone", asks=False)
    require_likeness(fleet)
    events = fleet.platform.read(EVENTS, [subjects.saga_events_filter(KEY)])
    entries = fleet.platform.read(SAGA, [subjects.journal_filter(KEY)])
    told = timeline_of(KEY, SagaPages(entries, events)).lines
    words = [line.text for line in told if "clos" in line.text or line.text.startswith("resolve")]
    assert sorted(words) == [
        "asks airline to close it as never done, after claim 3, for ada: looked",
        "asks airline to close it as undone, for ada: by hand",
        "is closed as the operator says",
        "is not closed: claim 3 may have done it outside, under the key trip/t1/book_seat/undo",
        "resolve book_room: alone by ada: accepted, without its participant: an attempt may still run",
        "resolve book_seat after claim 3: looked by ada: accepted",
        "resolve book_seat: by hand by ada: rejected: claim 3 may have done it outside, under the key "
        "trip/t1/book_seat/undo; look there, then resolve again naming claim 3",
    ]
