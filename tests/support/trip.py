"""A small saga for tests: a trip of a room, a seat and a payment, one after the other or side by side."""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Command, Compensation, Event, Retry
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State


class TripAsked(Event, name="trip.asked"):
    traveller: str
    nights: int


class RoomBooked(Event, name="hotel.booked", owner="hotel"):
    room: str


class BookRoom(Command[RoomBooked], name="hotel.book"):
    nights: int


class FreeRoom(Compensation[BookRoom], name="hotel.free"):
    reason: str


class SeatBooked(Event, name="airline.booked", owner="airline"):
    seat: str


class BookSeat(Command[SeatBooked], name="airline.book"):
    traveller: str


class FreeSeat(Compensation[BookSeat], name="airline.free"):
    reason: str


class CardCharged(Event, name="bank.charged", owner="bank"):
    payment: str


class ChargeCard(Command[CardCharged], name="bank.charge"):
    room: str
    seat: str


class RefundCard(Compensation[ChargeCard], name="bank.refund"):
    reason: str


PARTICIPANTS = ("hotel", "airline", "bank")
ASKED = TripAsked(traveller="Ada", nights=2)
REPLIES: dict[str, Event] = {
    "book_room": RoomBooked(room="12b"),
    "book_seat": SeatBooked(seat="7a"),
    "charge_card": CardCharged(payment="p-1"),
}
DEADLINE = timedelta(hours=1)
BACKOFF = Retry(attempts=3, first_seconds=1, factor=2, cap_seconds=60)


def make_trip(
    *,
    name: str = "trip",
    deadline: timedelta = DEADLINE,
    backoff: Retry = BACKOFF,
    parallel: bool = False,
    seat_timeout: timedelta | None = None,
    broken: str = "",
) -> Saga[TripAsked]:
    """The trip; `parallel` books room and seat side by side, `broken` names the functions that raise."""
    saga = Saga(TripAsked, name=name, version=1, deadline=deadline, backoff=backoff)

    def fail_if_broken(function: str) -> None:
        if function in broken.split():
            raise ZeroDivisionError(function)

    @saga.step()
    def book_room(s: State[TripAsked]) -> BookRoom:
        fail_if_broken("book_room")
        return BookRoom(nights=s.start.nights)

    @book_room.compensation
    def free_room(s: State[TripAsked]) -> FreeRoom:
        fail_if_broken("free_room")
        return FreeRoom(reason=s.reason)

    @saga.step(after=() if parallel else book_room, timeout=seat_timeout)
    def book_seat(s: State[TripAsked]) -> BookSeat:
        fail_if_broken("book_seat")
        return BookSeat(traveller=s.start.traveller)

    @book_seat.compensation
    def free_seat(s: State[TripAsked]) -> FreeSeat:
        fail_if_broken("free_seat")
        return FreeSeat(reason=s.reason)

    @saga.step(after=(book_room, book_seat))
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        fail_if_broken("charge_card")
        return ChargeCard(room=s[book_room].room, seat=s[book_seat].seat)

    @charge_card.compensation
    def refund_card(s: State[TripAsked]) -> RefundCard:
        fail_if_broken("refund_card")
        return RefundCard(reason=s.reason)

    return saga


TRIP = make_trip()
