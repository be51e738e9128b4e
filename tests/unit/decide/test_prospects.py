"""What may come of a signal or a wish to cancel, in every state of its saga."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.payloads import End
from antiphon.coordinator.decision.facts import Signalled
from antiphon.coordinator.decision.history import begin
from antiphon.coordinator.decision.prospects import Told, prospect_of
from antiphon.coordinator.decision.replay import OtherDefinition, Purged, Replayed
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from tests.support.journeys import DAY, Approved, approval
from tests.support.trip import BookRoom, ChargeCard, TripAsked
from tests.unit.decide.life import BEGUN_NS, KEY, Life

SIGNAL = subjects.parse_same(subjects.same_subject(KEY, "trip-approved"))
OTHER = subjects.parse_same(subjects.same_subject(KEY, "trip-declined"))
CANCEL = subjects.parse_same(subjects.same_cancel_subject(KEY))
START = subjects.parse_same(subjects.same_subject(KEY))
APPROVAL = approval(DAY)


def told(life: Life, address: Any) -> Told | None:
    return prospect_of(address, Replayed(life.history, [], 0))


def signalled(life: Life) -> None:
    life.take(Signalled(len(life.facts) + 1, life.now_ns, "trip-approved", Approved(by="Ada")))


def test_a_signal_is_early_then_awaited_then_taken_and_stays_so() -> None:
    life = Life(APPROVAL)
    life.start()
    assert told(life, SIGNAL) == Told("early")
    life.answer("book_room")
    assert told(life, SIGNAL) == Told("awaited")
    signalled(life)
    assert told(life, SIGNAL) == Told("taken")
    life.answer("charge_card")
    assert life.state == "completed"
    assert told(life, SIGNAL) == Told("taken")
    assert told(life, CANCEL) == Told("passed", "it has ended")


def test_a_signal_that_comes_before_its_turn_is_taken_once_the_journal_has_it() -> None:
    life = Life(APPROVAL)
    life.start()
    signalled(life)
    assert told(life, SIGNAL) == Told("taken")


def test_nothing_comes_of_a_signal_once_the_saga_goes_back() -> None:
    life = Life(APPROVAL)
    life.start()
    life.answer("book_room")
    assert told(life, CANCEL) == Told("awaited")
    life.cancel()
    assert told(life, SIGNAL) == Told("passed", "it is being compensated")
    assert told(life, CANCEL) == Told("taken", "it is being compensated")
    life.undone("book_room")
    assert told(life, SIGNAL) == Told("passed", "it has ended")


def test_nothing_comes_of_a_signal_that_the_version_of_the_saga_does_not_know() -> None:
    life = Life(APPROVAL)
    assert told(life, OTHER) == Told("unstarted", version=1)
    life.start()
    assert told(life, OTHER) == Told("passed", "it runs with version 1, which has no signal trip-declined")


def test_past_the_point_of_no_return_a_cancel_is_only_noted() -> None:
    saga: Saga[Any] = Saga(TripAsked, name="trip", version=1, deadline=DAY)

    @saga.step(needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)

    @saga.step(after=book_room, pivot=True)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        return ChargeCard(room=s[book_room].room, seat="7a")

    life = Life(saga)
    life.start()
    assert told(life, START) == Told("taken", version=1)
    assert told(life, CANCEL) == Told("awaited")
    life.answer("book_room")
    assert told(life, CANCEL) == Told("early", "it is past its point of no return, so the wish is only noted")


def test_a_saga_that_was_started_and_has_no_journal_yet_is_no_unknown_one() -> None:
    life = Life(APPROVAL)
    life.start()
    started = Replayed(begin(KEY, APPROVAL.definition), [life.facts[1]], 0)
    assert prospect_of(SIGNAL, started) == Told("early")
    assert prospect_of(OTHER, started) is None, "another coordinator may know it"
    assert prospect_of(START, started) == Told("taken")
    early = Signalled(1, BEGUN_NS, "trip-approved", Approved(by="Ada"))
    assert prospect_of(SIGNAL, Replayed(begin(KEY, APPROVAL.definition), [early], 0)) == Told("unstarted", version=1)


@pytest.mark.parametrize("address", [SIGNAL, CANCEL, START])
def test_who_cannot_read_a_saga_says_nothing_of_it_but_what_the_error_tells(address: Any) -> None:
    key = SagaKey.of("trip", "t1")
    assert prospect_of(address, Ambiguous("no answer")) is None
    assert prospect_of(address, Purged(key, End(outcome="completed"))) == Told("passed", "it has ended")
    other = prospect_of(address, OtherDefinition(key, "trip.v7.abc", []))
    assert other == (Told("taken", version=7) if address is START else None)
