"""The sentences of `given`: what they let happen, what they see, and what they say when a saga did something else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.testing import Scenario, given
from tests.support import journeys
from tests.support.journeys import DAY, Approved, SeatAsked
from tests.support.trip import (
    ASKED,
    REPLIES,
    TRIP,
    BookRoom,
    BookSeat,
    CardCharged,
    ChargeCard,
    FreeRoom,
    FreeSeat,
    RoomBooked,
    SeatBooked,
    TripAsked,
    make_trip,
)

ROOM, SEAT, CARD = RoomBooked(room="12b"), SeatBooked(seat="7a"), CardCharged(payment="p-1")


def steps(saga: Saga[Any]) -> Any:
    """A saga's steps, by name; what their types promise is tested in tests/unit/typing."""
    return type("steps", (), {step.name.replace("-", "_"): step for step in saga.steps})


book_room, book_seat, charge_card = (getattr(steps(TRIP), name) for name in REPLIES)


def booked(saga: Saga[TripAsked] = TRIP, start: TripAsked = ASKED) -> Scenario:
    """The room is booked."""
    return given(saga, start).when(steps(saga).book_room, ROOM)


def test_a_saga_is_told_from_start_to_end() -> None:
    (
        given(TRIP, ASKED)
        .sends(book_room, BookRoom(nights=2))
        .when(book_room, ROOM)
        .sends(book_seat, BookSeat(traveller="Ada"))
        .when(book_seat, SEAT)
        .sends(charge_card, ChargeCard(room="12b", seat="7a"))
        .is_running()
        .when(charge_card, CARD)
        .sends_nothing()
        .is_completed()
    )


def test_a_scenario_is_a_value_that_several_tests_go_on_from() -> None:
    beginning = booked()
    beginning.when(book_seat, SEAT).sends(charge_card)
    beginning.when_refused(book_seat, "full").compensates(book_room, FreeRoom(reason="book_seat was refused: full"))
    beginning.when_cancelled("no").compensates(book_seat, FreeSeat(reason="cancelled: no"))


def test_refused_steps_are_not_compensated_and_the_others_in_reverse() -> None:
    saga = booked().when(book_seat, SEAT).when_refused(charge_card, "declined").is_compensating("declined")
    saga.when_all_undone().has_compensated(book_seat, book_room).is_compensated("charge_card was refused: declined")


def test_unknown_steps_are_compensated_too() -> None:
    booked().when_exhausted(book_seat, "it hangs").compensates(book_seat).when_all_undone().has_compensated(
        book_seat, book_room
    )


def test_a_step_that_is_not_heard_of_times_out() -> None:
    saga = journeys.optional(DAY)
    given(saga, ASKED).when_timed_out(steps(saga).book_room).compensates(steps(saga).book_room)


def test_thirty_days_pass_without_waiting() -> None:
    saga = make_trip(deadline=timedelta(days=30))
    waiting = booked(saga).after(timedelta(days=29)).is_running().sends_nothing()
    waiting.after(timedelta(days=1)).is_compensating("its deadline passed")


def test_a_deadline_compensates_what_is_in_flight() -> None:
    booked().when_deadline_passed().compensates(book_seat, FreeSeat(reason="its deadline passed"))


def test_late_and_repeated_answers_change_nothing() -> None:
    saga = booked().when_repeated().sends_nothing().when_cancelled("no")
    saga.when(book_seat, SEAT).sends_nothing().is_compensating()
    saga.when_all_undone().when(book_seat, SEAT).sends_nothing().is_compensated()


def test_what_is_tried_again_is_sent_when_it_is_due_and_not_before() -> None:
    saga = booked().when_cancelled("no").when_undo_failed(book_seat, "away").sends_nothing()
    saga.when_due().compensates(book_seat, attempt=2)
    saga.after(timedelta(minutes=5)).compensates(book_seat, attempt=2)


def test_a_compensation_that_keeps_failing_is_parked_and_an_operator_resolves_it() -> None:
    saga = booked().when_cancelled("no")
    for _ in range(2):
        saga = saga.when_undo_failed(book_seat, "away").is_not_parked().when_due()
    saga = saga.when_undo_failed(book_seat, "away").is_parked("the compensation of book_seat was tried 3 times: away")
    saga.when_retried("ada").compensates(book_seat, attempt=4)
    resolved = saga.when_resolved("ada", book_seat, "they gave it back by telephone")
    resolved.compensates(book_room).is_not_parked().when_undone(book_room).is_compensated()


def test_an_operator_edits_a_command_that_failed() -> None:
    mended = FreeSeat(reason="for Ada")
    saga = booked().when_cancelled("no").when_undo_failed(book_seat, "whose?")
    saga.when_edited("ada", book_seat, mended).compensates(book_seat, mended, attempt=2)


def test_where_a_step_raises_what_it_should_have_made_is_given_by_hand_and_nothing_else() -> None:
    saga = booked(make_trip(broken="book_seat free_room")).is_parked("book_seat raised ZeroDivisionError")
    saga.when_edited("ada", book_room, BookRoom(nights=3)).rejects("ada", "book_room is done, so there is no command")
    mended = BookSeat(traveller="Ada Lovelace")
    saga.when_edited("ada", book_seat, mended).sends(book_seat, mended).is_not_parked()
    turned = saga.when_cancelled("no").is_parked("book_room raised ZeroDivisionError")
    turned.when_edited("ada", book_seat, FreeSeat(reason="no")).rejects("ada", "book_seat is waiting")
    turned.when_edited("ada", book_room, FreeRoom(reason="no")).compensates(book_room, FreeRoom(reason="no"))


def test_requests_that_come_too_late_are_rejected() -> None:
    booked().when_retried("ada", book_seat).rejects("ada", "attempt 1 of book_seat is in flight")
    with pytest.raises(AssertionError, match="expected bob's request to be rejected with 'late'"):
        booked().when_retried("ada", book_seat).rejects("bob", "late")


def test_an_operator_cancels_like_a_client_and_is_named() -> None:
    booked().when_cancelled("no stock", user="ada").compensates(book_seat).is_compensating("cancelled by ada: no stock")


def test_who_is_paused_sends_nothing_until_resumed() -> None:
    saga = given(TRIP, ASKED).when_paused("ada", "look first").when(book_room, ROOM).sends_nothing()
    saga.when_resumed("ada").sends(book_seat)


def test_a_pivot_is_settled_and_not_guessed() -> None:
    saga = journeys.pivoted(DAY)
    step = steps(saga)
    asked = booked(saga).when_timed_out(step.charge_card).settles(step.charge_card)
    asked.when_settled(step.charge_card, CARD).sends(step.book_seat, BookSeat(traveller="Ada, paid p-1"))
    undone = asked.when_settled(step.charge_card, None).when_all_undone()
    undone.has_compensated(step.book_room).is_compensated("charge_card did not happen")


def test_past_the_pivot_a_cancel_is_noted_and_a_refusal_tried_again() -> None:
    saga = journeys.pivoted(DAY)
    step = steps(saga)
    past = booked(saga).when(step.charge_card, CARD).when_cancelled("too late").has_noted("too late").is_running()
    past.when_refused(step.book_seat, "full").sends_nothing().when_due().sends(step.book_seat, attempt=2)


def test_a_step_that_nobody_needs_is_skipped() -> None:
    saga = journeys.optional(DAY)
    step = steps(saga)
    short = booked(saga, TripAsked(traveller="Ada", nights=1))
    short.skips(step.book_seat).sends(step.charge_card, ChargeCard(room="12b", seat="none"))
    booked(saga).sends(step.book_seat)


def test_the_commands_of_a_list_are_sent_side_by_side_and_answered_in_any_order() -> None:
    saga = journeys.tour(DAY)
    step = steps(saga)
    begun = given(saga, ASKED).sends(step.book_rooms, BookRoom(nights=1), element=0).sends(step.book_rooms, element=1)
    later = begun.when(step.book_rooms, RoomBooked(room="2"), element=1).sends_nothing()
    later.when(step.book_rooms, RoomBooked(room="1"), element=0).sends(
        step.charge_card, ChargeCard(room="1 2", seat="none")
    )
    refused = later.when_refused(step.book_rooms, "full", element=0)
    refused.compensates(step.book_rooms, FreeRoom(reason="2: book_rooms-0 was refused: full"), element=1)
    refused.when_all_undone().has_compensated(step.book_rooms)
    with pytest.raises(AssertionError, match="book_rooms is over a list; say which of its commands is meant"):
        begun.when(step.book_rooms, ROOM)


def test_a_signal_comes_early_in_time_or_too_late() -> None:
    saga = journeys.approval(DAY)
    signal: Any = steps(saga).trip_approved
    charge = steps(saga).charge_card
    yes = Approved(by="Bob")
    booked(saga).waits_for(signal).when_signalled(signal, yes).sends(charge, ChargeCard(room="12b", seat="Bob"))
    early = given(saga, ASKED).when_signalled(signal, yes).sends_nothing()
    early.when(steps(saga).book_room, ROOM).waits_for(signal).sends(charge)
    booked(saga).after(DAY).is_compensating("did not come in time").when_signalled(signal, yes).sends_nothing()


def test_a_wait_is_over_when_its_time_has_passed() -> None:
    saga = journeys.rest(DAY)
    step = steps(saga)
    waiting = booked(saga).waits_for(step.rested).after(DAY - timedelta(seconds=1)).sends_nothing()
    waiting.after(timedelta(seconds=1)).sends(step.book_another)


def test_a_child_completes_is_compensated_or_is_cancelled() -> None:
    saga = journeys.package(DAY)
    step = steps(saga)
    flying = booked(saga).starts(step.fly, SeatAsked(traveller="Ada"))
    done = flying.when_child_completed(step.fly).sends(step.charge_card, ChargeCard(room="12b", seat="completed"))
    done.when_refused(step.charge_card, "no").compensates(step.fly).when_all_undone().has_compensated(
        step.fly, step.book_room
    )
    flying.when_child_compensated(step.fly, "full").compensates(step.book_room).is_compensating("full")


def test_a_lock_is_asked_for_and_waited_for() -> None:
    saga = journeys.exclusive(DAY)
    waiting = given(saga, ASKED).asks_for("Ada").sends_nothing()
    waiting.when_granted("Ada").sends(steps(saga).book_room)


def test_a_step_function_that_raises_parks_the_saga() -> None:
    booked(make_trip(broken="book_seat")).is_parked("ZeroDivisionError")


# --- what is said when it was otherwise -------------------------------------------------------------------------------


def failure(check: Any) -> str:
    with pytest.raises(AssertionError) as failed:
        check()
    return str(failed.value)


def test_a_failure_tells_the_whole_story_so_far() -> None:
    assert failure(lambda: booked().when_refused(book_seat, "full").sends(charge_card)) == (
        "expected charge_card to be sent, and it was not.\n"
        "\n"
        "saga trip/test:\n"
        "  it is started with TripAsked(traveller='Ada', nights=2)\n"
        "    it sends book_room: BookRoom(nights=2)\n"
        "  book_room answers RoomBooked(room='12b')\n"
        "    it sends book_seat: BookSeat(traveller='Ada')\n"
        "  book_seat is refused: full\n"
        "    it compensates book_room: FreeRoom(reason='book_seat was refused: full')\n"
        "  Now it is compensating: book_seat was refused: full "
        "(book_room undoing, book_seat refused, charge_card waiting)."
    )


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (
            lambda: given(TRIP, ASKED).sends(book_room, BookRoom(nights=3)),
            "expected book_room to be sent with\n  BookRoom(nights=3)\nand it was\n  BookRoom(nights=2).",
        ),
        (lambda: given(TRIP, ASKED).compensates(book_room), "expected book_room to be compensated, and it was not."),
        (
            lambda: given(TRIP, ASKED).sends(book_room, attempt=2),
            "expected attempt 2 of book_room, and it was attempt 1",
        ),
        (lambda: given(TRIP, ASKED).sends_nothing(), "expected nothing to be sent."),
        (
            lambda: given(TRIP, ASKED).when(charge_card, CARD),
            "the command of charge_card was never sent, so nobody can answer it.",
        ),
        (
            lambda: given(TRIP, ASKED).when_undone(book_room),
            "the compensation of book_room was never sent, so nobody can answer it.",
        ),
        (lambda: given(TRIP, ASKED).when_timed_out(book_room), "book_room waits for nothing that has a time"),
        (lambda: given(TRIP, ASKED).is_completed(), "expected it to be completed, and it is running (book_room sent"),
        (
            lambda: booked().when_refused(book_seat, "full").when_all_undone().is_compensated("empty"),
            "expected it to be compensated because of 'empty', and it is compensated: book_seat was refused: full",
        ),
        (lambda: given(TRIP, ASKED).is_parked("tired"), "expected it to be parked with 'tired', but it is not parked."),
        (lambda: booked(make_trip(broken="book_seat")).is_not_parked(), "expected it not to be parked, but book_seat"),
        (lambda: given(TRIP, ASKED).has_noted("cancelled"), "expected it to have noted 'cancelled', and it noted ''"),
        (
            lambda: booked().when_cancelled("no").has_compensated(book_seat, book_room),
            "expected book_seat, book_room to be compensated in this order, and it was book_seat.",
        ),
    ],
)
def test_a_failure_says_what_was_expected_and_what_was_seen(check: Any, sentence: str) -> None:
    assert failure(check).startswith(sentence)


def test_the_reply_of_another_steps_command_is_refused_with_the_step_that_was_meant() -> None:
    asked = given(TRIP, ASKED)
    with pytest.raises(
        AssertionError,
        match=r"^book_room is answered with RoomBooked, and not with SeatBooked; did you mean book_seat\?",
    ):
        asked.when(book_room, SEAT)
    with pytest.raises(
        AssertionError, match=r"^charge_card is answered with CardCharged, and not with RoomBooked; did you"
    ):
        asked.when(book_room, ROOM).when(book_seat, SEAT).when_settled(charge_card, ROOM)
    with pytest.raises(AssertionError, match=r"^book_room is answered with RoomBooked, and not with Approved\."):
        asked.when(book_room, Approved(by="somebody"))


def test_a_signal_that_a_step_does_not_wait_for_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"^book_room waits for no signal, and not for RoomBooked"):
        given(TRIP, ASKED).when_signalled(book_room, ROOM)


def test_a_step_of_another_saga_is_refused_with_the_one_that_was_meant() -> None:
    other: Any = type("step", (), {"name": "book_rom", "kind": "command", "signal": None})()
    meant = r"^trip has no step book_rom; did you mean 'book_room'\?"
    with pytest.raises(AssertionError, match=meant):
        given(TRIP, ASKED).when(other, ROOM)
    with pytest.raises(AssertionError, match=meant):
        given(TRIP, ASKED).when_refused(other, "no")
