"""The inventory service: so many pieces of each item, set aside for an order and put back if nothing comes of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    event,
    insert,
    select,
    update,
)

from antiphon.contracts import Refused
from antiphon.participants import Participant, Transaction

from .data import load_catalogue
from .ledger import ledger_table, write_line
from .messages import InventoryReserved, ReleaseInventory, ReserveInventory

tables = MetaData()
stock = Table(
    "stock",
    tables,
    Column("item_id", String, primary_key=True),
    Column("initial", Integer, nullable=False),
    Column("available", Integer, nullable=False),
    CheckConstraint("available >= 0"),
)
ledger = ledger_table(tables)

inventory = Participant("inventory", tables=tables)


@inventory.handles(ReserveInventory)
async def reserve(command: ReserveInventory, tx: Transaction) -> InventoryReserved:
    """Set the pieces aside if there are as many."""
    reservation_id = await set_aside(command.order_id, command.item_id, command.quantity, tx)
    return InventoryReserved(reservation_id=reservation_id, item_id=command.item_id, quantity=command.quantity)


@inventory.compensates(ReserveInventory)
async def release(command: ReleaseInventory, reserved: InventoryReserved, tx: Transaction) -> None:
    """Put back what was set aside, by what was answered then."""
    await put_back(reserved, tx)


async def set_aside(order_id: str, item: str, quantity: int, tx: Transaction) -> str:
    """Take the pieces off the shelf, and call them a reservation."""
    # One relative statement that looks and takes: no two orders get the same piece, in whatever order they come.
    enough = update(stock).where(stock.c.item_id == item, stock.c.available >= quantity)
    taken = await tx.execute(enough.values(available=stock.c.available - quantity))
    if taken.rowcount == 0:
        raise Refused(await shortage(item, quantity, tx))
    reservation_id = f"reservation-{order_id}"
    await write_line(tx, ledger, "reserved", item, quantity, reservation_id)
    return reservation_id


async def put_back(reserved: InventoryReserved, tx: Transaction) -> None:
    """Put the pieces of a reservation back on the shelf."""
    item, quantity = reserved.item_id, reserved.quantity
    await tx.execute(update(stock).where(stock.c.item_id == item).values(available=stock.c.available + quantity))
    await write_line(tx, ledger, "released", item, -quantity, reserved.reservation_id)


async def shortage(item: str, quantity: int, tx: Transaction) -> str:
    """Why the pieces cannot be had, in numbers."""
    found = await tx.execute(select(stock.c.available).where(stock.c.item_id == item))
    available = found.scalar_one_or_none()
    if available is None:
        return f"there is no item {item}"
    return f"out of stock: {quantity} of {item} were asked for, and {available} are left"


@event.listens_for(stock, "after_create")
def fill_the_shelves(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database the catalogue's stock."""
    rows = [{"item_id": item.item_id, "initial": item.stock, "available": item.stock} for item in load_catalogue()]
    connection.execute(insert(stock), rows)
