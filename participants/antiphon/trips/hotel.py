"""The hotel service: rooms that a chain of hotels, another company, holds for the agency's guests."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, Connection, Integer, MetaData, String, Table, event, insert, update

from antiphon.participants import Outside, Participant, Transaction

from . import partners
from .data import load_places
from .ledger import ledger_table, write_line
from .messages import ConfirmRoom, GiveUpRoom, HoldRoom, RoomConfirmed, RoomHeld

tables = MetaData()
rooms = Table(
    "rooms",
    tables,
    Column("destination", String, primary_key=True),
    Column("held", Integer, nullable=False),  # nights
    Column("confirmed", Integer, nullable=False),
    CheckConstraint("held >= 0"),
)
ledger = ledger_table(tables)

hotel = Participant("hotel", tables=tables)


@hotel.handles(HoldRoom, outside=True)
async def hold_room(command: HoldRoom, outside: Outside) -> RoomHeld:
    """Have the chain hold a room, and write down which."""
    booking = await partners.hold_room(outside.idempotency_key, command.destination, command.nights)
    tx = await outside.begin()
    held = RoomHeld(booking=booking, trip_id=command.trip_id, destination=command.destination, nights=command.nights)
    await _write(held, held.nights, tx)
    return held


@hotel.compensates(HoldRoom, outside=True)
async def give_up_room(command: GiveUpRoom, held: RoomHeld, outside: Outside) -> None:
    """Have the chain give the room to others, under a key of its own."""
    await partners.hold_room(outside.idempotency_key, held.destination, -held.nights)
    await _write(held, -held.nights, await outside.begin())


@hotel.handles(ConfirmRoom)
async def confirm_room(command: ConfirmRoom, tx: Transaction) -> RoomConfirmed:
    """Note that the guests come."""
    place = update(rooms).where(rooms.c.destination == command.destination)
    await tx.execute(place.values(confirmed=rooms.c.confirmed + command.nights))
    account = f"confirmed {command.destination}"
    await write_line(tx, ledger, command.trip_id, account, command.nights, command.booking)
    return RoomConfirmed(trip_id=command.trip_id)


async def _write(held: RoomHeld, nights: int, tx: Transaction) -> None:
    await tx.execute(update(rooms).where(rooms.c.destination == held.destination).values(held=rooms.c.held + nights))
    await write_line(tx, ledger, held.trip_id, f"held {held.destination}", nights, held.booking)


@event.listens_for(rooms, "after_create")
def know_the_hotels(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database a row for each hotel."""
    rows = [{"destination": each.destination, "held": 0, "confirmed": 0} for each in load_places()]
    connection.execute(insert(rooms), rows)
