"""The stock service: a participant with a database of its own, in which it knows what is on the shelf."""

from __future__ import annotations

from typing import Any

from antiphon.contracts import Refused
from antiphon.participants import Participant, Transaction
from sqlalchemy import CheckConstraint, Column, Connection, Integer, MetaData, String, Table, event, insert, update

from .messages import GoodsReserved, ReleaseGoods, ReserveGoods

tables = MetaData()
shelf = Table(
    "shelf",
    tables,
    Column("item", String, primary_key=True),
    Column("pieces", Integer, CheckConstraint("pieces >= 0"), nullable=False),
)

stock = Participant("stock", tables=tables)


@stock.handles(ReserveGoods)
async def reserve(command: ReserveGoods, tx: Transaction) -> GoodsReserved:
    """Take the pieces off the shelf, if there are as many."""
    # One statement looks and takes, so that no two orders get the same piece.
    enough = update(shelf).where(shelf.c.item == command.item, shelf.c.pieces >= command.quantity)
    taken = await tx.execute(enough.values(pieces=shelf.c.pieces - command.quantity))
    if taken.rowcount == 0:
        raise Refused(f"the shelf does not have {command.quantity} of {command.item}")
    return GoodsReserved(item=command.item, quantity=command.quantity)


@stock.compensates(ReserveGoods)
async def release(command: ReleaseGoods, reserved: GoodsReserved, tx: Transaction) -> None:
    """Put back what was taken then."""
    theirs = update(shelf).where(shelf.c.item == reserved.item)
    await tx.execute(theirs.values(pieces=shelf.c.pieces + reserved.quantity))


@event.listens_for(shelf, "after_create")
def fill_the_shelf(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database something to sell."""
    connection.execute(insert(shelf), [{"item": "kettle", "pieces": 1000}, {"item": "grinder", "pieces": 3}])
