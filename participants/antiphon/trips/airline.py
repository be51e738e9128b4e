"""The airline: seats and room for luggage on one flight a destination, and tickets for whoever has paid."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import CheckConstraint, Column, Connection, Integer, MetaData, String, Table, event, insert, update

from antiphon.contracts import Refused
from antiphon.participants import Participant, Transaction

from .data import load_places
from .ledger import ledger_table, write_line
from .messages import (
    TRIP,
    BookLuggage,
    BookSeat,
    CancelLuggage,
    FreeSeat,
    LuggageBooked,
    SeatBooked,
    TicketsIssued,
    TicketsRefused,
    TripPaid,
)

BAGS_A_SEAT_MAX: Final = 2
BANNED: Final = frozenset({"Viktor Harms"})
"""Whom the airline does not take any more."""

tables = MetaData()
flights = Table(
    "flights",
    tables,
    Column("destination", String, primary_key=True),
    Column("capacity", Integer, nullable=False),
    Column("seats", Integer, nullable=False),  # that are booked
    Column("bags", Integer, nullable=False),
    Column("tickets", Integer, nullable=False),
    CheckConstraint("seats BETWEEN 0 AND capacity"),
    CheckConstraint("bags >= 0"),
)
ledger = ledger_table(tables)

airline = Participant("airline", tables=tables)


@airline.handles(BookSeat)
async def book_seat(command: BookSeat, tx: Transaction) -> SeatBooked:
    """Book a seat if there is one, and the airline takes the traveller."""
    if command.name in BANNED:
        raise Refused(f"the airline does not take {command.name}")
    # One relative statement that looks and takes: no two travellers get the same seat.
    free = update(flights).where(flights.c.destination == command.destination, flights.c.seats < flights.c.capacity)
    taken = await tx.execute(free.values(seats=flights.c.seats + 1))
    if taken.rowcount == 0:
        raise Refused(f"there is no seat to {command.destination} for {command.name}")
    seat_id = f"{command.trip_id}/{tx.step}"
    await write_line(tx, ledger, command.trip_id, f"seats {command.destination}", 1, seat_id)
    return SeatBooked(seat_id=seat_id, trip_id=command.trip_id, destination=command.destination)


@airline.compensates(BookSeat)
async def free_seat(command: FreeSeat, booked: SeatBooked, tx: Transaction) -> None:
    """Give the seat back."""
    flight = update(flights).where(flights.c.destination == booked.destination)
    await tx.execute(flight.values(seats=flights.c.seats - 1))
    await write_line(tx, ledger, booked.trip_id, f"seats {booked.destination}", -1, booked.seat_id)


@airline.handles(BookLuggage)
async def book_luggage(command: BookLuggage, tx: Transaction) -> LuggageBooked:
    """Book the bags if they are not too many."""
    allowed = BAGS_A_SEAT_MAX * len(command.seat_ids)
    if command.bags > allowed:
        raise Refused(f"too many bags: {command.bags}, and {len(command.seat_ids)} travellers may have {allowed}")
    await _carry(command.destination, command.bags, tx)
    await write_line(tx, ledger, command.trip_id, f"bags {command.destination}", command.bags, command.trip_id)
    return LuggageBooked(trip_id=command.trip_id, destination=command.destination, bags=command.bags)


@airline.compensates(BookLuggage)
async def cancel_luggage(command: CancelLuggage, booked: LuggageBooked, tx: Transaction) -> None:
    """Give the room for the bags back."""
    await _carry(booked.destination, -booked.bags, tx)
    await write_line(tx, ledger, booked.trip_id, f"bags {booked.destination}", -booked.bags, booked.trip_id)


async def _carry(destination: str, bags: int, tx: Transaction) -> None:
    await tx.execute(update(flights).where(flights.c.destination == destination).values(bags=flights.c.bags + bags))


@airline.reacts_to(TripPaid, saga_type=TRIP, refused=TicketsRefused, needs_no_compensation=True)
async def issue_tickets(paid: TripPaid, tx: Transaction) -> TicketsIssued:
    """Issue the tickets for what is paid, unless a passport ends before the flight. Nobody commands that."""
    trip = paid.trip
    for each in trip.travellers:
        if each.passport_until < trip.departs:
            raise Refused(f"the passport of {each.name} is valid until {each.passport_until}, before the departure")
    count = len(trip.travellers)
    flight = update(flights).where(flights.c.destination == trip.destination)
    await tx.execute(flight.values(tickets=flights.c.tickets + count))
    await write_line(tx, ledger, trip.trip_id, f"tickets {trip.destination}", count, paid.charge)
    return TicketsIssued(trip_id=trip.trip_id, tickets=count)


@event.listens_for(flights, "after_create")
def plan_the_flights(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database its flights."""
    connection.execute(
        insert(flights),
        [
            {"destination": each.destination, "capacity": each.seats, "seats": 0, "bags": 0, "tickets": 0}
            for each in load_places()
        ],
    )
