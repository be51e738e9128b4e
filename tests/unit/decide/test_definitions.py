"""An unsound definition is refused as its module is imported, with the remedy in the sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import DefinitionError, Event, Retry
from antiphon.coordinator.definition.check import STEPS_MAX
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from tests.support.journeys import Approved, TrainTaken, seat
from tests.support.trip import (
    TRIP,
    BookRoom,
    BookSeat,
    ChargeCard,
    FreeRoom,
    FreeSeat,
    RefundCard,
    RoomBooked,
    TripAsked,
    make_trip,
)

HOUR = timedelta(hours=1)


def saga(**changes: Any) -> Saga[TripAsked]:
    settings: dict[str, Any] = {"name": "trip", "version": 1, "deadline": HOUR, **changes}
    return Saga(TripAsked, **settings)


def book_room(s: State[TripAsked]) -> BookRoom:
    return BookRoom(nights=s.start.nights)


def book_rooms(s: State[TripAsked]) -> list[BookRoom]:
    return [BookRoom(nights=s.start.nights)]


def ask_others(s: State[TripAsked]) -> TripAsked:
    return s.start


def free_room(s: State[TripAsked]) -> FreeRoom:
    return FreeRoom(reason=s.reason)


def free_seat(s: State[TripAsked]) -> FreeSeat:
    return FreeSeat(reason=s.reason)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a trip"}, "saga 'a trip': the name 'a trip' must be 1 to 64 characters"),
        ({"name": ""}, "must be 1 to 64 characters"),
        ({"name": "operator"}, "saga 'operator': that is a name of the platform; call the saga something else"),
        ({"locks": lambda start: ["a"]}, "locks of saga 'trip' must be a plain function with a name"),
        ({"version": 0}, "saga 'trip': version=0, but versions count from 1"),
        ({"deadline": timedelta(0)}, "its deadline must lie in the future, for instance timedelta"),
        ({"deadline": timedelta(hours=-1)}, "its deadline must lie in the future, for instance timedelta"),
        ({"deadline": 3600}, r"its deadline is 3600; say it as timedelta\(seconds=30\), for instance"),
        ({"deadline": timedelta.max}, r"too long .*a hundred years: say timedelta\(days=36500\) or less, where it is"),
        ({"deadline": timedelta(days=36_500, microseconds=1)}, "is too long for the server's clock"),
    ],
)
def test_a_sagas_own_settings(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        saga(**changes)


@pytest.mark.parametrize(
    ("duration", "sentence"),
    [
        (timedelta.max, r"too long .*timedelta\(days=36500\) or less, or leave it out"),
        (timedelta(0), "waits for 0:00:00, and that must be more than nothing"),
        (timedelta(seconds=-1), "that must be more than nothing"),
        (30, "its time is 30; say it as timedelta"),
    ],
)
@pytest.mark.parametrize("way", ["timeout", "each", "within", "awaits", "wait", "child"])
def test_a_step_waits_for_a_time_that_there_is(way: str, duration: Any, sentence: str) -> None:
    trip = saga()
    declare: dict[str, Callable[[], Any]] = {
        "timeout": lambda: trip.step(timeout=duration)(book_room),
        "each": lambda: trip.each(timeout=duration)(book_rooms),
        "within": lambda: trip.signal(Approved, within=duration),
        "awaits": lambda: trip.awaits(RoomBooked, within=duration),
        "wait": lambda: trip.wait("rest", duration),
        "child": lambda: trip.child(TRIP, timeout=duration)(ask_others),
    }
    with pytest.raises(DefinitionError, match=sentence):
        declare[way]()


def test_the_longest_time_is_taken() -> None:
    trip = saga(deadline=timedelta(days=36_500))
    trip.wait("rest", timedelta(days=36_500))
    assert trip.definition.deadline_ns == 36_500 * 86_400 * 1_000_000_000


def test_a_choreography_has_a_deadline_that_there_is() -> None:
    with pytest.raises(DefinitionError, match="is too long for the server's clock"):
        Choreography(
            TripAsked,
            name="trip",
            version=1,
            deadline=timedelta.max,
            flow={TripAsked: "hotel"},
            completes=RoomBooked,
        )


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
    sentence = (
        "step 'book_room' of saga 'other' is after 'book_room', which belongs to saga 'trip'. Name steps of its own"
    )
    with pytest.raises(DefinitionError, match=sentence):
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
    trip.step(after=step)(lambda_seat).compensation(free_seat)
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
    assert trip.definition.steps["book_room"].template("do").retry.startswith("7/")


# --- points of no return ----------------------------------------------------------------------------------------------


def charge_card(s: State[TripAsked]) -> ChargeCard:
    return ChargeCard(room="1", seat="2")


def refund_card(s: State[TripAsked]) -> RefundCard:
    return RefundCard(reason=s.reason)


def is_long(s: State[TripAsked]) -> bool:
    return s.start.nights > 1


def ask_again(s: State[TripAsked]) -> TripAsked:
    return s.start


def pivoted() -> tuple[Saga[TripAsked], Any]:
    """A saga whose card is its point of no return."""
    trip = saga()
    return trip, trip.step(pivot=True)(charge_card)


def refuse(sentence: str, declare: Any) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        declare()


def test_a_saga_has_one_pivot() -> None:
    trip, card = pivoted()
    refuse(
        "step 'book_room' of saga 'trip': 'charge_card' is the pivot already; a saga has one. Drop pivot=True",
        lambda: trip.step(after=card, pivot=True)(book_room),
    )


def test_a_pivot_is_not_skipped() -> None:
    trip: Any = saga()
    refuse(
        "step 'charge_card' of saga 'trip' is the pivot and may be skipped; then .* Drop `when`, or make",
        lambda: trip.step(pivot=True, when=is_long)(charge_card),
    )


def test_a_pivot_is_not_undone() -> None:
    trip, card = pivoted()
    assert trip.definition.pivot == "charge_card"
    refuse(
        "is the pivot, which is never undone; drop needs_no_compensation=True",
        lambda: saga().step(pivot=True, needs_no_compensation=True)(charge_card),
    )
    card.compensation(refund_card)
    refuse(
        "step 'charge_card' of saga 'trip' is the pivot, which is never undone, and has a compensation. Drop that",
        lambda: trip.definition,
    )


def test_what_comes_after_the_pivot_is_not_undone() -> None:
    trip, card = pivoted()
    refuse(
        "step 'book_room' of saga 'trip' comes after the pivot and is never undone; drop needs_no_compensation=True",
        lambda: trip.step(after=card, needs_no_compensation=True)(book_room),
    )
    room = trip.step(after=card)(book_room)
    refuse(
        "compensation 'free_room' of step 'book_room': the step comes after the pivot, from where the saga only goes "
        "forward. Drop the compensation, or make a later step the pivot",
        lambda: room.compensation(free_room),
    )
    assert trip.definition.steps["book_room"].is_retriable


def test_what_comes_after_the_pivot_is_not_given_up() -> None:
    trip, card = pivoted()
    refuse(
        "step 'ask_again' of saga 'trip' comes after the pivot, .* drop `timeout`: the other saga has a deadline",
        lambda: trip.child(make_trip(name="other"), after=card, timeout=HOUR)(ask_again),
    )


def test_a_step_beside_the_pivot_is_neither_before_nor_after_it() -> None:
    trip, _ = pivoted()
    trip.step()(book_room).compensation(free_room)
    refuse(
        "step 'book_room' of saga 'trip' is neither before nor after the pivot 'charge_card', .* Add it to the pivot's "
        "`after`, or 'charge_card' to its own",
        lambda: trip.definition,
    )


# --- options, lists, signals, waits, children -------------------------------------------------------------------------


def test_a_predicate_has_a_name() -> None:
    predicates: list[Any] = [lambda s: True, is_later]
    for when in predicates:
        refuse(
            "`when` of step 'book_room' of saga 'trip' must be a plain function with a name, which stands in pictures",
            lambda when=when: saga().step(when=when)(book_room),
        )


async def is_later(s: State[TripAsked]) -> bool:
    return True


def rooms(s: State[TripAsked]) -> list[BookRoom]:
    return []


def test_a_list_has_a_bound_that_makes_sense() -> None:
    refuse(
        "step 'rooms' of saga 'trip': at_most=0, and a list may have at least one",
        lambda: saga().each(at_most=0)(rooms),
    )
    refuse(
        "step 'rooms' of saga 'trip'.* is too many, because .* together. Lower it, or start a child saga for each part",
        lambda: saga().each(at_most=5000)(rooms),
    )


def test_the_name_of_a_list_leaves_room_for_its_numbers() -> None:
    def each(s: State[TripAsked]) -> list[BookRoom]:
        return []

    each.__name__ = "r" * 61
    refuse("is over a list, and so its name may have 60 letters. Shorten it", lambda: saga().each()(each))


def test_a_list_says_of_which_command_it_is() -> None:
    trip: Any = saga()
    refuse(
        r"step book_room must say of which Command it makes a list: annotate it with list\[...\]",
        lambda: trip.each()(book_room),
    )


def test_a_signal_is_an_event_of_nobody() -> None:
    trip: Any = saga()
    refuse("a signal of saga 'trip' must be an Event class, not <class .*BookRoom'>", lambda: trip.signal(BookRoom))
    refuse(
        "a signal of saga 'trip': RoomBooked is owned by 'hotel', and a signal comes from outside. Declare an event "
        "without an owner",
        lambda: saga().signal(RoomBooked),
    )


def test_a_saga_waits_once_for_a_signal() -> None:
    trip = saga()
    trip.signal(Approved)
    refuse("step 'trip-approved' of saga 'trip' is declared twice; give one of them", lambda: trip.signal(Approved))


@pytest.mark.parametrize("seconds", [0, -1])
def test_time_that_is_waited_for_is_more_than_nothing(seconds: int) -> None:
    none = timedelta(seconds=seconds)
    refuse(
        "step 'rested' of saga 'trip' waits for .*, and that must be more than nothing, for instance",
        lambda: saga().wait("rested", none),
    )
    refuse("step 'book_room' .* more than nothing", lambda: saga().step(timeout=none)(book_room))
    refuse("step 'trip-approved' .* more than nothing", lambda: saga().signal(Approved, within=none))


def test_a_wait_has_a_name_that_is_a_token() -> None:
    refuse("step 'a while' of saga 'trip': the name 'a while' must be 1 to 64", lambda: saga().wait("a while", HOUR))


def test_a_child_starts_with_its_own_event() -> None:
    trip: Any = saga()
    refuse(
        "step 'ask_again' of saga 'trip' makes TripAsked, but saga 'seat' starts with SeatAsked. Make one",
        lambda: trip.child(seat(HOUR))(ask_again),
    )


def test_a_child_that_has_a_pivot_cannot_be_undone() -> None:
    other, _ = pivoted()
    trip = saga(name="outer")
    trip.child(other)(ask_again)
    refuse(
        "step 'ask_again' of saga 'outer' starts saga 'trip', which cannot be undone past its pivot 'charge_card'. Say "
        "needs_no_compensation=True, or start it after a pivot of this saga",
        lambda: trip.definition,
    )


def test_annotations_name_what_is_there() -> None:
    def lost(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=1)

    lost.__annotations__["return"] = "Lost"
    refuse(r"step lost: its annotations cannot be read \(name 'Lost' is not defined\)", lambda: saga().step()(lost))


# --- what participants do by themselves -------------------------------------------------------------------------------


class Landed(Event, name="plane.landed", owner="airline"):
    gate: str


class Diverted(Event, name="plane.diverted", owner="airline"):
    reason: str


class Stormy(Event, name="weather.stormy", owner="weather"):
    reason: str


def test_a_definition_that_was_written_with_notes_is_the_same() -> None:
    with_notes, with_records = saga(), saga()
    for each in (with_notes, with_records):
        each.awaits(Landed)
    with_notes.notes(Diverted)
    with_records.records(Diverted)
    assert with_notes.definition.label == with_records.definition.label


def test_an_awaited_event_is_owned_and_heard_once() -> None:
    trip = saga()
    step = trip.awaits(Landed, unless=Diverted)
    assert (step.name, trip.definition.sources) == ("plane-landed", ("airline",))
    refuse("the saga hears Landed already; a saga does so once", lambda: trip.awaits(Landed))
    refuse("the saga hears Diverted already", lambda: trip.records(Diverted))
    refuse(
        "TripAsked has no owner, so it comes from outside. Wait for it with trip.signal",
        lambda: trip.records(TripAsked),
    )
    refuse("hears Event classes, not <class 'int'>", lambda: saga().awaits(int))  # type: ignore[type-var] # pyright: ignore
    refuse("unless there is Stormy of 'weather'. Only who", lambda: saga().awaits(Landed, unless=Stormy))
    refuse("waits for Landed unless it comes", lambda: saga().awaits(Landed, unless=Landed))


def test_what_is_waited_for_past_the_pivot_may_have_a_time_of_its_own() -> None:
    trip, card = pivoted()
    trip.awaits(Landed, after=card, within=HOUR)
    trip.signal(Approved, after=card, within=HOUR)
    assert {step.timeout_ns for step in trip.definition.steps.values() if step.signal} == {3600 * 10**9}


def test_what_may_be_refused_after_the_pivot_undoes_the_pivot() -> None:
    trip, card = pivoted()
    landed = trip.awaits(Landed, after=card, unless=Diverted)
    refuse("may turn the saga after its pivot 'charge_card', which then must be undone", lambda: trip.definition)
    card.compensation(refund_card)
    assert not trip.definition.steps["charge_card"].is_kept
    trip.step(after=landed)(book_room)
    assert trip.definition.steps["book_room"].is_retriable


def test_nothing_past_the_pivot_stands_beside_what_may_turn_the_saga() -> None:
    trip, card = pivoted()
    card.compensation(refund_card)
    trip.awaits(Landed, after=card, unless=Diverted)
    trip.step(after=card)(book_room)
    refuse("step 'book_room' of saga 'trip' comes after the pivot and is never undone, but", lambda: trip.definition)


def test_only_the_first_that_is_waited_for_past_the_pivot_may_turn_the_saga() -> None:
    trip, card = pivoted()
    card.compensation(refund_card)
    landed = trip.awaits(Landed, after=card, unless=Diverted)
    trip.awaits(RoomBooked, after=landed, unless=NoRoom)
    refuse("step 'hotel-booked' of saga 'trip' may turn the saga, but what comes before it", lambda: trip.definition)


class NoRoom(Event, name="hotel.full", owner="hotel"):
    reason: str


def test_what_is_heard_is_part_of_the_shape() -> None:
    shapes: set[str] = set()
    for declare in (
        lambda trip: None,
        lambda trip: trip.awaits(Landed),
        lambda trip: trip.awaits(Landed, unless=Diverted),
        lambda trip: trip.records(Landed),
    ):
        trip: Any = saga()
        room = trip.step(needs_no_compensation=True)(book_room)
        assert room
        declare(trip)
        shapes.add(trip.definition.shape)
    assert len(shapes) == 4


def test_what_is_no_step_is_named_in_after() -> None:
    trip = saga()

    def declared(after: Any) -> None:
        trip.step(after=after)(book_room)

    sentence = "step 'book_room' of saga 'trip' is after {}; give after= the step itself, or a list of steps."
    for after, said in (
        ("book_seat", "'book_seat'"),
        (["book_seat"], "'book_seat'"),
        (free_room, "the function free_room, which is no step"),
        (7, "7"),
        (None, "None"),
    ):
        with pytest.raises(DefinitionError) as raised:
            declared(after)
        assert str(raised.value) == sentence.format(said)


def test_another_kind_than_a_saga_is_no_child() -> None:
    trip: Any = saga()
    for other in ("trip", TripAsked):
        with pytest.raises(DefinitionError, match=r"starts .*, which is no saga: give child\(\) the saga itself"):
            trip.child(other)(ask_others)


def test_what_is_no_list_of_events_is_refused_in_unless() -> None:
    trip: Any = saga()
    with pytest.raises(DefinitionError, match="hears Event classes, not 'seat-gone'"):
        trip.awaits(TrainTaken, unless="seat-gone")
