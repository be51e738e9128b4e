"""The trip saga: hold all that a trip consists of, let the customer look at it, charge, and wait for the tickets.

Seats, a room and a transfer are independent of each other, so they are looked for at once. The seats are a list, the
luggage may be left out, the transfer is a saga of its own. Nothing is paid before the customer has confirmed. The
charge is the point of no return, because the airline reacts to it by itself: the trip waits for the airline's word.

Of a customer only one trip is arranged at a time.
"""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Retry
from antiphon.coordinator import Saga, State

from .messages import (
    TRANSFER,
    TRIP,
    AssignDriver,
    BookLuggage,
    BookSeat,
    CancelLuggage,
    ChargeCard,
    ConfirmRoom,
    DismissDriver,
    FreeSeat,
    GiveUpRoom,
    HoldRoom,
    RefundCard,
    ReleaseCar,
    ReserveCar,
    TicketsIssued,
    TicketsRefused,
    TransferRequested,
    TripConfirmed,
    TripRequested,
)

DEADLINE = timedelta(days=14)
OUTSIDE = Retry(attempts=100)
"""Of what other companies do. Once the attempts have run out nobody knows whether they did it: a person has to look."""


# --- the child: a car with a driver -----------------------------------------------------------------------------------

transfer = Saga(TransferRequested, name=TRANSFER, version=1, deadline=DEADLINE)


@transfer.step(retry=Retry(attempts=5))
def reserve_car(s: State[TransferRequested]) -> ReserveCar:
    """A driver is of no use without a car."""
    return ReserveCar(trip_id=s.start.trip_id, destination=s.start.destination)


@reserve_car.compensation
def release_car(s: State[TransferRequested]) -> ReleaseCar:
    """Give the car back."""
    return ReleaseCar(reason=s.reason)


@transfer.step(after=reserve_car, retry=Retry(attempts=5))
def assign_driver(s: State[TransferRequested]) -> AssignDriver:
    """Find somebody who drives it."""
    return AssignDriver(trip_id=s.start.trip_id, destination=s.start.destination)


@assign_driver.compensation
def dismiss_driver(s: State[TransferRequested]) -> DismissDriver:
    """Tell the driver that nobody comes."""
    return DismissDriver(reason=s.reason)


# --- the trip ---------------------------------------------------------------------------------------------------------


def its_customer(requested: TripRequested) -> list[str]:
    """Of the trips of one customer only one is arranged at a time."""
    return [requested.customer_id]


def found_by(requested: TripRequested) -> dict[str, str]:
    """What `antiphon list --key` finds trips by."""
    return {"customer_id": requested.customer_id, "destination": requested.destination}


def has_luggage(s: State[TripRequested]) -> bool:
    """Whether there is any to book."""
    return s.start.bags > 0


trip = Saga(TripRequested, name=TRIP, version=1, deadline=DEADLINE, locks=its_customer, keys=found_by)


@trip.each(at_most=9, retry=Retry(attempts=5))
def seats(s: State[TripRequested]) -> list[BookSeat]:
    """A seat for each traveller, all at once."""
    start = s.start
    return [BookSeat(trip_id=start.trip_id, destination=start.destination, name=each.name) for each in start.travellers]


@seats.compensation
def free_seat(s: State[TripRequested], command: BookSeat) -> FreeSeat:
    """Give back the seats that were booked, or may have been."""
    return FreeSeat(name=command.name, reason=s.reason)


@trip.step(after=seats, when=has_luggage, retry=Retry(attempts=5))
def luggage(s: State[TripRequested]) -> BookLuggage:
    """Room for the bags, where there are any."""
    return BookLuggage(
        trip_id=s.start.trip_id,
        destination=s.start.destination,
        bags=s.start.bags,
        seat_ids=[each.seat_id for each in s[seats]],
    )


@luggage.compensation
def cancel_luggage(s: State[TripRequested]) -> CancelLuggage:
    """Give the room for the bags back."""
    return CancelLuggage(reason=s.reason)


@trip.step(retry=OUTSIDE)
def room(s: State[TripRequested]) -> HoldRoom:
    """Have the hotel's chain hold a room."""
    return HoldRoom(trip_id=s.start.trip_id, destination=s.start.destination, nights=s.start.nights)


@room.compensation
def give_up_room(s: State[TripRequested]) -> GiveUpRoom:
    """Have the chain give it to others."""
    return GiveUpRoom(reason=s.reason)


@trip.child(transfer)
def drive(s: State[TripRequested]) -> TransferRequested:
    """Arrange the transfer. If the trip is compensated later, so is the transfer."""
    return TransferRequested(trip_id=s.start.trip_id, destination=s.start.destination)


confirmed = trip.signal(TripConfirmed, after=(luggage, room, drive), within=timedelta(days=2))


# The timeout is far above the time in which another worker takes over from one that died: that alone costs no trip.
@trip.step(after=confirmed, pivot=True, timeout=timedelta(seconds=60), retry=OUTSIDE)
def charge_card(s: State[TripRequested]) -> ChargeCard:
    """Charge for what is held. From here on the airline's word decides."""
    return ChargeCard(trip=s.start)


@charge_card.compensation
def refund_card(s: State[TripRequested]) -> RefundCard:
    """Give the money back for a trip for which there are no tickets."""
    return RefundCard(reason=s.reason)


issued = trip.awaits(TicketsIssued, after=charge_card, unless=TicketsRefused)


@trip.step(after=issued)
def confirm_room(s: State[TripRequested]) -> ConfirmRoom:
    """Tell the hotel that the guests come; tried until it succeeds."""
    return ConfirmRoom(
        trip_id=s.start.trip_id,
        destination=s.start.destination,
        booking=s[room].booking,
        nights=s.start.nights,
    )
