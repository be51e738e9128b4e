"""How sagas go: facts in, entries out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from antiphon.contracts import SagaKey
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.payloads import End, Record
from antiphon.coordinator.decision.absorb import absorb, is_ahead
from antiphon.coordinator.decision.dues import dues
from antiphon.coordinator.decision.facts import Answer, Cancel, Finish, Start, Tick
from antiphon.coordinator.decision.history import DEADLINE_REASON, wait_ns
from antiphon.coordinator.decision.plan import plan
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from tests.support.trip import ASKED, BACKOFF, DEADLINE, REPLIES, TRIP, BookRoom, TripAsked, make_trip
from tests.unit.decide.life import BEGUN_NS, KEY, SECOND, TIME, Life, do, undo


def compensated(reason: str) -> Finish:
    return Finish(End(outcome="compensated", reason=reason))


def booked(life: Life) -> Life:
    """Room and seat are booked, the card is being charged."""
    life.start()
    life.answer("book_room")
    life.answer("book_seat")
    return life


def test_steps_follow_one_another_and_the_saga_completes() -> None:
    life = Life()
    assert life.start() == [do("book_room")]
    assert life.answer("book_room") == [do("book_seat")]
    assert life.answer("book_seat") == [do("charge_card")]
    assert life.answer("charge_card") == [Finish(End(outcome="completed"))]
    assert life.state == "completed"


def test_independent_steps_start_together_and_are_joined() -> None:
    life = Life(make_trip(parallel=True))
    assert life.start() == [do("book_room"), do("book_seat")]
    assert life.answer("book_seat") == [Record()]
    assert life.answer("book_room") == [do("charge_card")]


def test_a_refused_step_compensates_what_was_done_in_reverse() -> None:
    life = booked(Life())
    assert life.answer("charge_card", "refused") == [undo("book_seat")]
    assert life.undone("book_seat") == [undo("book_room")]
    assert life.undone("book_room") == [compensated("charge_card was refused: refused it was")]


def test_a_saga_refused_at_once_has_nothing_to_undo() -> None:
    life = Life()
    life.start()
    assert life.answer("book_room", "refused") == [compensated("book_room was refused: refused it was")]


def test_an_exhausted_step_is_unknown_and_compensated_too() -> None:
    life = booked(Life())
    assert life.answer("charge_card", "exhausted") == [undo("charge_card")]
    assert life.undone("charge_card") == [undo("book_seat")]


def test_a_step_that_its_participant_has_taken_back_already_turns_its_saga() -> None:
    """SAGA was restored from a backup: nobody else is told that a command that was sent last came too late."""
    life = Life()
    life.start()
    assert life.answer("book_room", "superseded") == [undo("book_room")]
    assert life.undone("book_room") == [
        compensated("book_room has no known outcome: its participant knows more than its journal: superseded it was")
    ]
    assert life.refolded() == life.history


def test_an_answer_is_ahead_while_its_command_is_not_in_the_journal() -> None:
    life = Life()
    life.start()
    early = Answer(90, life.now_ns, "book_seat", "do", 1, "done", 500, REPLIES["book_seat"])
    undone = Answer(91, life.now_ns, "book_room", "undo", 1, "done", 501)
    for answer in (early, undone):
        assert is_ahead(life.history, answer)
    life.answer("book_room")
    assert not is_ahead(life.history, early)
    assert is_ahead(life.history, replace(early, attempt=2))
    assert not is_ahead(life.history, replace(early, attempt=6)), "nobody bounds what a participant stores"
    life.cancel()
    life.undone("book_seat")
    assert not is_ahead(life.history, undone)


@pytest.mark.parametrize("kind", ["done", "refused", "exhausted", "superseded"])
def test_a_late_answer_changes_nothing_but_that_it_is_named(kind: AnswerKind) -> None:
    life = booked(Life())
    life.cancel()
    before = life.history
    assert life.answer("charge_card", kind) == [Record()]
    assert (life.history.steps, life.history.turned) == (before.steps, before.turned)
    assert len(life.history.named) == len(before.named) + 1


def test_nothing_is_written_after_the_end() -> None:
    life = booked(Life())
    life.answer("charge_card")
    assert life.cancel() == life.answer("book_room", "refused") == life.deadline() == life.start() == []


def test_a_fact_that_is_named_already_is_decided_once() -> None:
    life = Life()
    life.start()
    assert life.take(life.facts[1]) == []
    life.answer("book_room")
    assert life.take(life.facts[2]) == life.take(life.facts[1]) == []


def test_the_rest_of_a_decision_that_a_crash_cut_short_is_made_up_for() -> None:
    life = Life(make_trip(parallel=True))
    fact = Start(1, BEGUN_NS, ASKED)
    first = plan(life.history, fact, TIME).entries[0].after
    assert [entry.draft.what for entry in plan(first, fact, TIME).entries] == [do("book_seat")]


def test_a_cancel_turns_a_step_in_flight_unknown_and_compensates_it() -> None:
    life = booked(Life())
    assert life.cancel() == [undo("charge_card")]
    assert life.history.turned == "cancelled: changed my mind"


@pytest.mark.parametrize(
    "turn", [Cancel(9, BEGUN_NS, "no"), Tick(BEGUN_NS + 3600 * SECOND)], ids=["cancel", "deadline"]
)
def test_at_the_turn_a_step_in_flight_becomes_unknown_at_once(turn: Cancel | Tick) -> None:
    life = booked(Life())
    steps = absorb(life.history, turn).steps
    assert [step.phase for step in steps.values()] == ["done", "done", "unknown"]


def test_a_step_in_flight_that_needs_no_compensation_does_not_hold_up_a_cancel() -> None:
    saga = Saga(TripAsked, name="trip", version=1, deadline=DEADLINE)

    @saga.step(needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)

    life = Life(saga)
    assert life.start() == [do(book_room.name)]
    assert life.cancel() == [compensated("cancelled: changed my mind")]


def test_a_second_cancel_changes_nothing() -> None:
    life = booked(Life())
    life.cancel()
    steps = life.history.steps
    assert life.cancel() == [Record()]
    assert life.history.steps == steps


def test_a_deadline_turns_a_step_in_flight_unknown_and_compensates_it() -> None:
    life = booked(Life())
    assert life.deadline() == [undo("charge_card")]
    assert life.history.turned == DEADLINE_REASON


def test_a_timer_that_is_early_changes_nothing() -> None:
    life = booked(Life())
    assert life.tick(BEGUN_NS + round(DEADLINE.total_seconds()) * SECOND - 1) == []
    timer = life.plans[-1].timer
    assert timer is not None
    assert timer.due_ns == dues(life.history)[0][0]


def test_a_cancel_that_overtakes_its_start_is_kept_and_nothing_is_ever_sent() -> None:
    life = Life()
    assert life.cancel() == [Record()]
    assert life.start() == [compensated("cancelled: changed my mind")]


def test_the_first_timer_is_the_deadline_counted_from_the_stored_start() -> None:
    life = Life()
    life.start()
    timer = life.plans[-1].timer
    assert timer is not None
    assert (timer.due_ns, timer.first) == (BEGUN_NS + 3600 * SECOND, True)


def test_sequential_steps_need_no_timer_of_their_own() -> None:
    life = booked(Life())
    assert [made.timer is None for made in life.plans] == [False, True, True]


def failing(life: Life, attempts: int) -> Life:
    """The room's compensation has failed that often."""
    life.start()
    life.cancel()
    for attempt in range(1, attempts + 1):
        (record,) = life.undo_fails("book_room", attempt)
        assert record == Record() if attempt != BACKOFF.attempts else isinstance(record, Record) and record.parked
        if attempt < attempts:
            assert life.due("book_room") == [undo("book_room", attempt + 1)]
    return life


def test_failing_compensations_are_retried_for_ever_and_end_at_last() -> None:
    life = failing(Life(), 40)
    assert life.due("book_room") == [undo("book_room", 41)]
    assert life.undone("book_room", 41) == [compensated("cancelled: changed my mind")]


def test_a_failed_compensation_is_not_sent_before_it_is_due() -> None:
    life = failing(Life(), 1)
    assert life.tick(life.history.steps["book_room"].again_ns - 1) == []


def test_a_refused_compensation_is_only_one_that_has_not_worked_yet() -> None:
    life = Life()
    life.start()
    life.cancel()
    assert life.answer("book_room", "refused", "undo") == [Record()]
    assert life.due("book_room") == [undo("book_room", 2)]


def test_an_older_attempt_that_succeeded_late_is_good_enough() -> None:
    life = failing(Life(), 2)
    assert life.undone("book_room", 1) == [compensated("cancelled: changed my mind")]


def test_an_older_attempt_that_fails_late_moves_no_timer() -> None:
    life = failing(Life(), 1)
    life.due("book_room")
    life.undo_fails("book_room", 1)
    assert life.history.steps["book_room"].again_ns == 0


def test_the_wait_grows_to_its_cap_with_full_jitter() -> None:
    for attempt in (1, 3, 30):
        bound = BACKOFF.bound_seconds(attempt) * SECOND
        waits = [wait_ns(BACKOFF, SagaKey.of("trip", f"t{n}"), "book_room", attempt) for n in range(400)]
        assert all(0 < wait <= bound + 1 for wait in waits)
        assert min(waits) < 0.05 * bound
        assert max(waits) > 0.95 * bound


def test_every_coordinator_computes_the_same_wait() -> None:
    assert wait_ns(BACKOFF, KEY, "book_room", 2) == wait_ns(BACKOFF, KEY, "book_room", 2)
    assert wait_ns(BACKOFF, KEY, "book_room", 2) != wait_ns(BACKOFF, KEY, "book_room", 3)


def test_after_as_many_attempts_as_its_patience_a_compensation_is_parked() -> None:
    assert failing(Life(), BACKOFF.attempts - 1).history.parked == ""
    life = failing(Life(), BACKOFF.attempts)
    assert life.history.parked == "the compensation of book_room was tried 3 times: exhausted it was"
    life.due("book_room")
    life.undone("book_room", BACKOFF.attempts + 1)
    assert life.history.parked == ""


def test_a_raising_step_function_parks_the_saga_with_the_error() -> None:
    life = Life(make_trip(broken="book_seat"))
    life.start()
    assert life.answer("book_room") == [Record(fault="book_seat raised ZeroDivisionError('book_seat')")]
    assert life.history.parked == "book_seat raised ZeroDivisionError('book_seat')"
    assert life.state == "running"


def test_a_parked_saga_can_still_be_cancelled() -> None:
    life = Life(make_trip(broken="book_seat"))
    life.start()
    life.answer("book_room")
    assert life.cancel() == [undo("book_room")]
    assert life.history.parked == ""
    assert life.undone("book_room") == [compensated("cancelled: changed my mind")]


def test_a_parked_saga_is_still_compensated_by_its_deadline() -> None:
    life = Life(make_trip(broken="book_seat"))
    life.start()
    life.answer("book_room")
    assert life.deadline() == [undo("book_room")]


def test_a_raising_compensation_function_parks_the_saga() -> None:
    life = Life(make_trip(broken="free_room"))
    life.start()
    assert life.cancel() == [Record(fault="book_room raised ZeroDivisionError('free_room')")]
    assert life.state == "compensating"


def test_a_step_sees_only_what_it_comes_after() -> None:
    life = Life()
    life.start()
    with pytest.raises(LookupError, match="what became of step book_room is not known here; name it in `after`"):
        State[TripAsked](life.history, frozenset())[TRIP.steps[0]]  # type: ignore[call-overload] # pyright: ignore


def test_the_reason_of_the_turn_reaches_the_compensations() -> None:
    life = booked(Life())
    life.cancel()
    assert b'"reason":"cancelled: changed my mind"' in life.journal[-1].data


def test_a_record_never_hides_another_one() -> None:
    """A read gives one message a subject, so that two records on one fact need two subjects."""
    life = torn_compensation()
    assert life.take(life.facts[2]) == [Record(fault="book_room raised ZeroDivisionError('free_room')")]
    subjects = [message.subject for message in life.journal]
    assert len(subjects) == len(set(subjects))


def torn_compensation() -> Life:
    """A coordinator died between the compensations of seat and room, of which the second cannot be made."""
    life = Life(make_trip(parallel=True, broken="free_room"))
    life.start()
    assert life.answer("book_room") == [Record()]
    assert life.take(Cancel(9, BEGUN_NS, "changed my mind"), stored_max=1) == [undo("book_seat")]
    return life


def test_a_definition_may_ask_for_another_deadline() -> None:
    life = Life(make_trip(deadline=timedelta(seconds=5)))
    life.start()
    assert life.deadline() == [undo("book_room")]
    assert life.now_ns == BEGUN_NS + 5 * SECOND


def test_commands_are_made_from_what_the_saga_knows() -> None:
    life = booked(Life())
    assert b'"data":{"nights":2}' in life.journal[0].data
    assert b'"data":{"room":"12b","seat":"7a"}' in life.journal[2].data
    assert BookRoom.__contract__.type.encode() in life.journal[0].data
