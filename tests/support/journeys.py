"""Sagas in every shape there is, over the messages of the trip. Each is made for a unit of time: a day where time is
virtual, a second or less on a real server."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from antiphon.contracts import Event, Retry
from antiphon.coordinator.definition.choreography import AnySaga, Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from tests.support.trip import (
    BookRoom,
    BookSeat,
    ChargeCard,
    FreeRoom,
    FreeSeat,
    RefundCard,
    TripAsked,
    make_trip,
)

DAY: Final = timedelta(days=1)
LONG: Final = 1000
"""So many units are more than any test takes."""


def patience(unit: timedelta) -> Retry:
    """What must succeed is sent again within a tenth of a unit; after three attempts a person should know."""
    seconds = unit.total_seconds() / 10
    return Retry(attempts=3, first_seconds=seconds, factor=1, cap_seconds=seconds)


class Approved(Event, name="trip.approved"):
    by: str


class TrainTaken(Event, name="train.taken", owner="airline"):
    seat: str


class TrainMissed(Event, name="train.missed", owner="airline"):
    reason: str


class RoomTaken(Event, name="room.taken", owner="hotel"):
    room: str


class RoomGivenUp(Event, name="room.given.up", owner="hotel"):
    room: str


class MilesGiven(Event, name="miles.given", owner="hotel"):
    miles: int


class SeatAsked(Event, name="seat.asked"):
    traveller: str


def _room(s: State[TripAsked]) -> BookRoom:
    return BookRoom(nights=s.start.nights)


def _free_room(s: State[TripAsked]) -> FreeRoom:
    return FreeRoom(reason=s.reason)


def _refund_card(s: State[TripAsked]) -> RefundCard:
    return RefundCard(reason=s.reason)


def _named(name: str, function: Any) -> Any:
    """The same function under another name, since a step is called as its function is."""

    def called(*arguments: Any) -> Any:
        return function(*arguments)

    called.__name__, called.__annotations__ = name, function.__annotations__
    return called


def begun(name: str, unit: timedelta, **changes: Any) -> tuple[Saga[TripAsked], Any]:
    """A saga that has one step, `book_room`, with its compensation."""
    settings: dict[str, Any] = {"deadline": LONG * unit, "backoff": patience(unit), **changes}
    saga = Saga(TripAsked, name=name, version=1, **settings)
    book_room = saga.step(timeout=unit)(_named("book_room", _room))
    book_room.compensation(_named("free_room", _free_room))
    return saga, book_room


def hasty(unit: timedelta) -> Saga[TripAsked]:
    """A trip that has little time."""
    return make_trip(name="hasty", deadline=unit / 2, backoff=patience(unit))


def pivoted(unit: timedelta, name: str = "pivoted", deadline: timedelta | None = None) -> Saga[TripAsked]:
    """A room, the card as the point of no return, and a seat whatever it takes."""
    saga, book_room = begun(name, unit, deadline=deadline or LONG * unit)

    @saga.step(after=book_room, pivot=True, timeout=unit)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        return ChargeCard(room=s[book_room].room, seat="any")

    @saga.step(after=charge_card)
    def book_seat(s: State[TripAsked]) -> BookSeat:
        return BookSeat(traveller=f"{s.start.traveller}, paid {s[charge_card].payment}")

    assert saga.steps[-1] is book_seat
    return saga


def pressed(unit: timedelta) -> Saga[TripAsked]:
    """The same with little time."""
    return pivoted(unit, "pressed", unit / 2)


def is_long(s: State[TripAsked]) -> bool:
    """Whoever stays for long wants a seat as well."""
    return s.start.nights > 1


def optional(unit: timedelta) -> Saga[TripAsked]:
    """A room, a seat for those who stay longer than a night, and the card."""
    saga, book_room = begun("optional", unit)

    @saga.step(after=book_room, when=is_long)
    def book_seat(s: State[TripAsked]) -> BookSeat:
        return BookSeat(traveller=s.start.traveller)

    @book_seat.compensation
    def free_seat(s: State[TripAsked]) -> FreeSeat:
        return FreeSeat(reason=s.reason)

    @saga.step(after=book_seat)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        seat = s[book_seat]
        return ChargeCard(room=s[book_room].room, seat=seat.seat if seat else "none")

    charge_card.compensation(_named("refund_card", _refund_card))
    return saga


def tour(unit: timedelta) -> Saga[TripAsked]:
    """A room for each night, side by side, and the card."""
    saga = Saga(TripAsked, name="tour", version=1, deadline=LONG * unit, backoff=patience(unit))

    @saga.each(at_most=4)
    def book_rooms(s: State[TripAsked]) -> list[BookRoom]:
        return [BookRoom(nights=night + 1) for night in range(s.start.nights)]

    @book_rooms.compensation
    def free_rooms(s: State[TripAsked], command: BookRoom) -> FreeRoom:
        return FreeRoom(reason=f"{command.nights}: {s.reason}")

    @saga.step(after=book_rooms)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        return ChargeCard(room=" ".join(each.room for each in s[book_rooms]), seat="none")

    charge_card.compensation(_named("refund_card", _refund_card))
    return saga


def approval(unit: timedelta) -> Saga[TripAsked]:
    """A room, a person's word in time, and the card."""
    saga, book_room = begun("approval", unit)
    approved = saga.signal(Approved, after=book_room, within=unit)

    @saga.step(after=approved)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        return ChargeCard(room=s[book_room].room, seat=s[approved].by)

    charge_card.compensation(_named("refund_card", _refund_card))
    return saga


def rest(unit: timedelta) -> Saga[TripAsked]:
    """A room, some time, and another room."""
    saga, book_room = begun("rest", unit)
    rested = saga.wait("rested", unit, after=book_room)
    another = saga.step(after=rested)(_named("book_another", _room))
    another.compensation(_named("free_another", _free_room))
    return saga


def seat(unit: timedelta) -> Saga[SeatAsked]:
    """A seat alone, for those who start it as a part of theirs."""
    saga = Saga(SeatAsked, name="seat", version=1, deadline=LONG * unit, backoff=patience(unit))

    @saga.step()
    def book_seat(s: State[SeatAsked]) -> BookSeat:
        return BookSeat(traveller=s.start.traveller)

    @book_seat.compensation
    def free_seat(s: State[SeatAsked]) -> FreeSeat:
        return FreeSeat(reason=s.reason)

    return saga


def package(unit: timedelta) -> Saga[TripAsked]:
    """A room, a seat by a saga of its own, and the card."""
    saga, book_room = begun("package", unit)

    @saga.child(seat(unit), after=book_room)
    def fly(s: State[TripAsked]) -> SeatAsked:
        return SeatAsked(traveller=s.start.traveller)

    @saga.step(after=fly)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        return ChargeCard(room=s[book_room].room, seat=s[fly].outcome)

    charge_card.compensation(_named("refund_card", _refund_card))
    return saga


def by_traveller(start: TripAsked) -> Iterable[str]:
    """One trip of a traveller at a time."""
    return [start.traveller]


def exclusive(unit: timedelta) -> Saga[TripAsked]:
    """A room, for one saga of a traveller at a time."""
    return begun("exclusive", unit, locks=by_traveller)[0]


def broken(unit: timedelta) -> Saga[TripAsked]:
    """A trip whose author made a mistake."""
    return make_trip(name="broken", broken="book_seat", backoff=patience(unit))


def by_train(unit: timedelta, name: str = "by-train", within: timedelta | None = None) -> Saga[TripAsked]:
    """A room, the card as the point of no return, and a train that takes whoever has paid, or does not."""
    saga, book_room = begun(name, unit, deadline=LONG * unit)

    @saga.step(after=book_room, pivot=True, timeout=unit)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        return ChargeCard(room=s[book_room].room, seat="any")

    charge_card.compensation(_named("refund_card", _refund_card))
    saga.awaits(TrainTaken, after=charge_card, within=within, unless=TrainMissed)
    saga.records(MilesGiven)
    return saga


def by_night_train(unit: timedelta) -> Saga[TripAsked]:
    """A train that should be there in time, after the point of no return."""
    return by_train(unit, "by-night-train", within=unit)


def by_train_and_back(unit: timedelta) -> Saga[TripAsked]:
    """The same, and a seat on the way back, whatever it takes."""
    saga = by_train(unit, "by-train-and-back")

    @saga.step(after=saga.steps[-1])
    def book_seat(s: State[TripAsked]) -> BookSeat:
        return BookSeat(traveller=s.start.traveller)

    return saga


def walked(unit: timedelta) -> Saga[TripAsked]:
    """A room, and a train that must be taken in time."""
    saga, book_room = begun("walked", unit, deadline=LONG * unit)
    saga.awaits(TrainTaken, after=book_room, within=unit, unless=(TrainMissed,))
    return saga


def unled(unit: timedelta) -> Choreography[TripAsked]:
    """A hotel and a train that hear of each other, and nobody who tells them what to do."""
    return Choreography(
        TripAsked,
        name="unled",
        version=1,
        deadline=unit,
        flow={TripAsked: "hotel", RoomTaken: ("airline", "bank"), TrainMissed: "hotel"},
        completes=TrainTaken,
        compensates=RoomGivenUp,
        turns=TrainMissed,
    )


def everywhere(unit: timedelta) -> list[AnySaga]:
    """All of them, made for a unit of time."""
    plain = [make_trip(backoff=patience(unit)), make_trip(name="diamond", parallel=True, backoff=patience(unit))]
    shapes = (hasty, pivoted, pressed, optional, tour, approval, rest, package, exclusive, broken)
    hybrid = (by_train, by_night_train, walked)

    return [*plain, *(shape(unit) for shape in (*shapes, *hybrid)), unled(unit)]
