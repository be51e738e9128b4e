"""An unsound definition is refused as its module is imported, with the remedy in the sentence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import DefinitionError, Retry
from antiphon.coordinator.check import STEPS_MAX
from antiphon.coordinator.saga import Saga, State
from tests.support.trip import TRIP, BookRoom, BookSeat, FreeRoom, FreeSeat, RoomBooked, TripAsked, make_trip

HOUR = timedelta(hours=1)


def saga(**changes: Any) -> Saga[TripAsked]:
    settings: dict[str, Any] = {"name": "trip", "version": 1, "deadline": HOUR, **changes}
    return Saga(TripAsked, **settings)


def book_room(s: State[TripAsked]) -> BookRoom:
    return BookRoom(nights=s.start.nights)


def free_room(s: State[TripAsked]) -> FreeRoom:
    return FreeRoom(reason=s.reason)


def free_seat(s: State[TripAsked]) -> FreeSeat:
    return FreeSeat(reason=s.reason)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a trip"}, "saga 'a trip': the name 'a trip' must be 1 to 64 characters"),
        ({"name": ""}, "must be 1 to 64 characters"),
        ({"version": 0}, "saga 'trip': version=0, but versions count from 1"),
        ({"deadline": timedelta(0)}, "its deadline must lie in the future, for instance timedelta"),
    ],
)
def test_a_sagas_own_settings(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        saga(**changes)


def test_a_saga_starts_with_an_event() -> None:
    with pytest.raises(DefinitionError, match="must start with an Event class, not <class 'str'>"):
        Saga(str, name="trip", version=1, deadline=HOUR)  # type: ignore[type-var] # pyright: ignore


def test_a_saga_without_steps_is_none() -> None:
    with pytest.raises(DefinitionError, match=r"saga 'trip' has no steps; decorate a function with @trip.step\(\)"):
        _ = saga().definition


def test_two_steps_of_one_name() -> None:
    trip = saga()
    trip.step()(book_room)
    with pytest.raises(DefinitionError, match="step 'book_room' of saga 'trip' is declared twice"):
        trip.step()(book_room)


def test_a_step_is_after_steps_of_its_own_saga() -> None:
    with pytest.raises(DefinitionError, match="is after 'book_room', which belongs to saga 'trip'"):
        saga(name="other").step(after=TRIP.steps[0])(book_room)


def test_a_step_that_cannot_be_undone_says_so() -> None:
    trip = saga()
    trip.step()(book_room)
    with pytest.raises(
        DefinitionError, match=r"cannot be undone: decorate a function with\s@book_room.compensation, or"
    ):
        _ = trip.definition


def test_a_step_may_need_no_compensation() -> None:
    trip = saga()
    trip.step(needs_no_compensation=True)(book_room)
    assert trip.definition.steps["book_room"].undo is None


def test_a_compensation_undoes_its_own_step() -> None:
    step = saga().step()(book_room)
    with pytest.raises(DefinitionError, match=r"makes FreeSeat, which undoes BookSeat, but the step sends BookRoom"):
        step.compensation(free_seat)  # type: ignore[arg-type] # pyright: ignore


def test_one_compensation_is_enough() -> None:
    step = saga().step()(book_room)
    step.compensation(free_room)
    with pytest.raises(DefinitionError, match="the step has a compensation already; keep one"):
        step.compensation(free_room)


def test_a_step_that_needs_none_has_no_compensation() -> None:
    step = saga().step(needs_no_compensation=True)(book_room)
    with pytest.raises(DefinitionError, match="says needs_no_compensation=True; drop one of the two"):
        step.compensation(free_room)


def test_steps_are_pure_functions() -> None:
    async def later(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=1)

    with pytest.raises(DefinitionError, match="step later is async, but steps are pure functions"):
        saga().step()(later)  # type: ignore[type-var] # pyright: ignore


def test_a_step_says_which_command_it_makes() -> None:
    def bare(s: State[TripAsked]):  # type: ignore[no-untyped-def] # pyright: ignore
        return BookRoom(nights=1)

    def wrong(s: State[TripAsked]) -> RoomBooked:
        return RoomBooked(room="1")

    for make in (bare, wrong):
        with pytest.raises(
            DefinitionError, match="must say which Command it makes: annotate what the function returns"
        ):
            saga().step()(make)  # pyright: ignore


def test_a_hundred_steps_are_the_most() -> None:
    trip = saga()
    for number in range(STEPS_MAX + 1):

        def step(s: State[TripAsked]) -> BookRoom:
            return BookRoom(nights=1)

        step.__name__ = f"step_{number}"
        if number < STEPS_MAX:
            trip.step(needs_no_compensation=True)(step)
            continue
        with pytest.raises(DefinitionError, match="is one too many: a saga has at most 100"):
            trip.step()(step)


def test_a_compensation_that_grows_late_is_part_of_the_definition() -> None:
    trip = saga()
    step = trip.step()(book_room)
    step.compensation(free_room)
    assert trip.definition.steps["book_room"].undo is not None
    seat = trip.step(after=step)(lambda_seat)
    seat.compensation(free_seat)
    assert trip.definition.steps["book_room"].dependents == ("lambda_seat",)


def lambda_seat(s: State[TripAsked]) -> BookSeat:
    return BookSeat(traveller=s.start.traveller)


def test_the_shape_is_the_same_until_the_definition_changes() -> None:
    assert make_trip().definition.label == make_trip().definition.label
    assert make_trip(backoff=Retry(attempts=7)).definition.shape == TRIP.definition.shape
    assert make_trip(deadline=timedelta(hours=2)).definition.shape != TRIP.definition.shape
    assert make_trip(parallel=True).definition.shape != TRIP.definition.shape


def test_retries_travel_with_the_command() -> None:
    trip = saga()
    step = trip.step(retry=Retry(attempts=7))(book_room)
    step.compensation(free_room)
    assert trip.definition.steps["book_room"].order("do").retry.startswith("7/")
