"""The loyalty service: points for whoever pays. No order asks for them, waits for them, or fails without them.

It hears of every charge in the sagas that a coordinator leads, and what it says is noted there. The points stay
whatever becomes of the order: they are a thank-you, so there is nothing to take back.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Connection, MetaData, String, Table, event, insert, update

from antiphon.participants import Participant, Transaction

from .choreographed.messages import OrderPaid
from .data import load_customers
from .hybrid.messages import HYBRID
from .ledger import ledger_table, write_line
from .messages import ORCHESTRATED, PaymentCharged, PointsGranted

CENTS_A_POINT: Final = 100

tables = MetaData()
accounts = Table(
    "accounts",
    tables,
    Column("customer_id", String, primary_key=True),
    Column("points", BigInteger, nullable=False),
    CheckConstraint("points >= 0"),
)
ledger = ledger_table(tables)

loyalty = Participant("loyalty", tables=tables)


@loyalty.reacts_to(PaymentCharged, saga_type=ORCHESTRATED, needs_no_compensation=True)
async def thank_for_payment(charged: PaymentCharged, tx: Transaction) -> PointsGranted:
    """Grant points where the charge was a command of a coordinator, as all else is."""
    return await grant(charged, tx)


@loyalty.reacts_to(OrderPaid, saga_type=HYBRID, needs_no_compensation=True)
async def thank_for_order(paid: OrderPaid, tx: Transaction) -> PointsGranted:
    """Grant points beside shipping, which reacts to the same event."""
    return await grant(paid, tx)


async def grant(charged: PaymentCharged, tx: Transaction) -> PointsGranted:
    """Add the points of a charge to the customer's account."""
    customer, points = charged.customer_id, charged.amount // CENTS_A_POINT
    theirs = update(accounts).where(accounts.c.customer_id == customer)
    await tx.execute(theirs.values(points=accounts.c.points + points))
    await write_line(tx, ledger, "granted", customer, points, charged.charge_id)
    return PointsGranted(customer_id=customer, points=points)


@event.listens_for(accounts, "after_create")
def open_the_accounts(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database an empty account for each customer."""
    connection.execute(insert(accounts), [{"customer_id": each.customer_id, "points": 0} for each in load_customers()])
