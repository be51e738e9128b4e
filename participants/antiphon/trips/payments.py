"""The payment service: it has cards charged, and money given back, by a payment gateway, which is another company's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Connection, MetaData, String, Table, event, insert, update

from antiphon.participants import Outside, Participant, Transaction

from . import partners
from .data import load_customers
from .ledger import ledger_table, write_line
from .messages import ChargeCard, RefundCard, TripPaid, TripRequested

tables = MetaData()
accounts = Table(
    "accounts",
    tables,
    Column("customer_id", String, primary_key=True),
    Column("charged", BigInteger, nullable=False),
    CheckConstraint("charged >= 0"),
)
ledger = ledger_table(tables)

payments = Participant("payments", tables=tables)


@payments.handles(ChargeCard, outside=True)
async def charge(command: ChargeCard, outside: Outside) -> TripPaid:
    """Have the gateway charge the card, and write it down. No transaction is held while the gateway takes its time."""
    trip = command.trip
    number = await partners.move_money(outside.idempotency_key, trip.customer_id, trip.amount)
    await _write(trip, trip.amount, number, await outside.begin())
    return TripPaid(charge=number, trip=trip)


@payments.compensates(ChargeCard, outside=True)
async def refund(command: RefundCard, paid: TripPaid, outside: Outside) -> None:
    """Have the gateway give the money back, under a key of its own."""
    trip = paid.trip
    await partners.move_money(outside.idempotency_key, trip.customer_id, -trip.amount)
    await _write(trip, -trip.amount, paid.charge, await outside.begin())


async def _write(trip: TripRequested, amount: int, number: str, tx: Transaction) -> None:
    theirs = update(accounts).where(accounts.c.customer_id == trip.customer_id)
    await tx.execute(theirs.values(charged=accounts.c.charged + amount))
    await write_line(tx, ledger, trip.trip_id, trip.customer_id, amount, number)


@event.listens_for(accounts, "after_create")
def open_the_accounts(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database the accounts of all customers."""
    rows = [{"customer_id": each.customer_id, "charged": 0} for each in load_customers()]
    connection.execute(insert(accounts), rows)
