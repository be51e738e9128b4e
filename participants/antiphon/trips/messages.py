"""What the services of the travel agency say to each other.

Amounts are whole cents: money that is added up in several databases must not round.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from antiphon.contracts import Command, Compensation, Event

TRIP: Final = "trip"
"""The saga type of a whole trip."""
TRANSFER: Final = "transfer"
"""The saga type of its child: a car with a driver, from the airport to the hotel."""

Cents = Annotated[int, Meta(ge=0, le=1_000_000_00)]
Nights = Annotated[int, Meta(ge=1, le=90)]
Bags = Annotated[int, Meta(ge=0, le=40)]
Destination = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
"""An airport, as IATA calls it."""


class Traveller(msgspec.Struct, frozen=True):
    """Somebody who flies, and until when the passport is valid."""

    name: str
    passport_until: date


class TripRequested(Event, name="trip.requested"):
    """A customer wants to travel. It has no owner, so clients may publish it; a saga starts with it."""

    trip_id: str
    customer_id: str
    destination: Destination
    departs: date
    travellers: Annotated[list[Traveller], Meta(min_length=1, max_length=9)]
    bags: Bags
    nights: Nights
    amount: Cents


class TripConfirmed(Event, name="trip.confirmed"):
    """The customer has seen what is held, and takes it. A signal: it has no owner, and comes from a client."""

    by: str


# --- airline ----------------------------------------------------------------------------------------------------------


class SeatBooked(Event, name="seat.booked", owner="airline"):
    """One traveller has a seat. Like every answer here it says all that undoing needs."""

    seat_id: str
    trip_id: str
    destination: Destination


class BookSeat(Command[SeatBooked], name="seat.book"):
    """Book a seat for one traveller."""

    trip_id: str
    destination: Destination
    name: str


class FreeSeat(Compensation[BookSeat], name="seat.free"):
    """Give a seat back."""

    name: str
    reason: str


class LuggageBooked(Event, name="luggage.booked", owner="airline"):
    """So many bags fly, too."""

    trip_id: str
    destination: Destination
    bags: Bags


class BookLuggage(Command[LuggageBooked], name="luggage.book"):
    """Book the bags of all travellers together."""

    trip_id: str
    destination: Destination
    bags: Bags
    seat_ids: list[str]


class CancelLuggage(Compensation[BookLuggage], name="luggage.cancel"):
    """Give the room for the bags back."""

    reason: str


class TicketsIssued(Event, name="tickets.issued", owner="airline"):
    """The airline has heard of the payment, and has issued the tickets. Nobody commands it."""

    trip_id: str
    tickets: Annotated[int, Meta(ge=1, le=9)]


class TicketsRefused(Event, name="tickets.refused", owner="airline"):
    """The airline has heard of the payment, and will not issue tickets."""

    reason: str


# --- hotel ------------------------------------------------------------------------------------------------------------


class RoomHeld(Event, name="room.held", owner="hotel"):
    """The hotel's chain holds a room."""

    booking: str
    trip_id: str
    destination: Destination
    nights: Nights


class HoldRoom(Command[RoomHeld], name="room.hold"):
    """Have a room held in the system of the hotel's chain, which is another company's."""

    trip_id: str
    destination: Destination
    nights: Nights


class GiveUpRoom(Compensation[HoldRoom], name="room.give-up"):
    """Have the chain give the room to others."""

    reason: str


class RoomConfirmed(Event, name="room.confirmed", owner="hotel"):
    """The room that was held is the customer's."""

    trip_id: str


class ConfirmRoom(Command[RoomConfirmed], name="room.confirm"):
    """Say that the guests will come. Nothing undoes it."""

    trip_id: str
    destination: Destination
    booking: str
    nights: Nights


# --- cars -------------------------------------------------------------------------------------------------------------


class TransferRequested(Event, name="transfer.requested"):
    """Somebody is to be driven from the airport to the hotel; the child saga starts with it."""

    trip_id: str
    destination: Destination


class CarReserved(Event, name="car.reserved", owner="cars"):
    """A car is reserved."""

    trip_id: str
    destination: Destination


class ReserveCar(Command[CarReserved], name="car.reserve"):
    """Reserve a car at the destination."""

    trip_id: str
    destination: Destination


class ReleaseCar(Compensation[ReserveCar], name="car.release"):
    """Give the car back."""

    reason: str


class DriverAssigned(Event, name="driver.assigned", owner="cars"):
    """A driver knows of it."""

    trip_id: str
    destination: Destination


class AssignDriver(Command[DriverAssigned], name="driver.assign"):
    """Find a driver for the car."""

    trip_id: str
    destination: Destination


class DismissDriver(Compensation[AssignDriver], name="driver.dismiss"):
    """Tell the driver that nobody comes."""

    reason: str


# --- payments ---------------------------------------------------------------------------------------------------------


class TripPaid(Event, name="trip.paid", owner="payments"):
    """The customer's card was charged. The airline reacts to it, and so it carries the whole trip."""

    charge: str
    trip: TripRequested


class ChargeCard(Command[TripPaid], name="card.charge"):
    """Charge the customer's card at the payment gateway, which is another company's."""

    trip: TripRequested


class RefundCard(Compensation[ChargeCard], name="card.refund"):
    """Have the gateway give the money back."""

    reason: str
