"""Streams that were restored from a backup: answers that say so, and what inboxes know besides."""

from __future__ import annotations

import pytest

from antiphon.contracts.messages import AnswerKind
from antiphon.coordinator.decision.facts import Cancel, Fact, Start
from antiphon.coordinator.decision.history import KNOWS_MORE
from antiphon.coordinator.decision.overtaken import Done, overtaken
from antiphon.coordinator.decision.replay import Replayed
from tests.simulation.sagas import Part
from tests.support.trip import ASKED
from tests.unit.decide.life import Life, do, undo
from tests.unit.decide.test_ways import Way

DONE, UNDONE, VOID, REFUSED = Done("done", 1), Done("undone", 1), Done("void"), Done("refused", 1)


def compared(life: Life, *unnamed: Fact, **rows: Done) -> str:
    """What is said of a saga before anything of it runs again, with an hour and more to its deadline."""
    return overtaken(Replayed(life.history, list(unnamed), 0), rows, life.now_ns, margin_ns=0)


def seated() -> Life:
    """The room is booked, and the seat is being booked."""
    life = Life()
    life.start()
    life.answer("book_room")
    return life


# --- what a participant's answer says ---------------------------------------------------------------------------------


def test_a_pivot_that_was_ruled_out_since_is_settled() -> None:
    life = Way(Part(), Part(after=(0,), pivot=True))
    life.start()
    life.answer("a")
    assert life.answer("b", "superseded") == [undo("b")]
    assert life.phases()["b"] == "settling"
    assert life.settled("b", happened=False) == [undo("a")]


def test_what_must_happen_is_asked_for_until_the_attempt_that_was_answered_since() -> None:
    life = Way(Part(pivot=True), Part(after=(0,)))
    life.start()
    life.answer("a")
    for attempt in (1, 2):
        assert life.answer("b", "superseded", attempt=attempt)[0] != do("b")
        assert KNOWS_MORE in life.history.steps["b"].reason
        if life.history.steps["b"].again_ns:
            life.due("b")
    assert KNOWS_MORE in life.history.parked
    assert life.answer("b", attempt=life.history.steps["b"].attempts)[-1].end.outcome == "completed"  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["superseded", "exhausted"])
def test_of_what_must_happen_only_the_latest_attempt_counts(kind: AnswerKind) -> None:
    life = Way(Part(pivot=True), Part(after=(0,)))
    life.start()
    life.answer("a")
    life.answer("b", "exhausted")
    life.due("b")
    before = life.history.steps["b"]
    life.answer("b", kind, attempt=1)
    assert life.history.steps["b"] == before


# --- what inboxes say -------------------------------------------------------------------------------------------------


def test_what_participants_have_answered_and_the_journal_has_not_read_is_nothing_to_stop_for() -> None:
    assert compared(seated(), book_room=DONE, book_seat=DONE, charge_card=DONE) == ""
    assert compared(Life(), Start(1, Life().now_ns, ASKED), book_room=DONE, book_seat=DONE) == ""


@pytest.mark.parametrize("row", [UNDONE, VOID, Done("undoing", 1)])
def test_a_saga_that_goes_forward_over_a_step_that_was_taken_back_is_named(row: Done) -> None:
    said = compared(seated(), book_room=row)
    assert said == "book_room was taken back, and its journal goes forward"


def test_a_step_that_the_journal_waits_for_tells_by_itself_that_it_was_taken_back() -> None:
    assert compared(seated(), book_room=DONE, book_seat=VOID) == ""
    assert compared(seated(), book_room=UNDONE, book_seat=REFUSED) == ""


def test_a_saga_that_goes_back_is_named_where_more_was_done_than_it_takes_back() -> None:
    life = seated()
    life.cancel()
    assert compared(life, book_room=DONE, book_seat=DONE) == ""
    assert "and goes back" in compared(life, book_room=DONE, charge_card=DONE)
    assert compared(life, book_room=DONE, charge_card=REFUSED) == ""


def test_a_saga_that_may_turn_before_it_gets_as_far_again_is_named() -> None:
    life = seated()
    assert "refused or taken back" in compared(life, book_room=DONE, book_seat=VOID, charge_card=DONE)
    assert "told something" in compared(life, Cancel(9, life.now_ns, "no"), charge_card=DONE, book_seat=DONE)
    late = Replayed(life.history, [], 0)
    rows = {"book_seat": DONE, "charge_card": DONE}
    assert "over by now" in overtaken(late, rows, life.now_ns, margin_ns=2 * 3_600_000_000_000)


def test_a_saga_that_waited_for_somebody_else_before_is_named() -> None:
    life = Way(Part(), Part("signal", after=(0,)), Part(after=(1,)))
    life.start()
    life.answer("a")
    assert compared(life, a=DONE, c=DONE) == (
        "c was done, and its journal has not sent that; what it waited for before c may not come again"
    )
    life.signal()
    assert compared(life, a=DONE, c=DONE) == ""


def test_what_a_participant_did_by_itself_is_not_compared() -> None:
    assert compared(seated(), **{"on-trip-asked": DONE}) == ""


def test_what_has_ended_or_is_unknown_to_inboxes_is_not_named() -> None:
    life = seated()
    assert compared(life) == ""
    life.answer("book_seat")
    life.answer("charge_card")
    assert compared(life, charge_card=UNDONE) == ""
