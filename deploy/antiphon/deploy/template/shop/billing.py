"""The billing service: a participant with a database of its own, in which it notes who has paid what."""

from __future__ import annotations

from antiphon.contracts import Refused
from antiphon.participants import Participant, Transaction
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert

from .messages import ChargeCustomer, CustomerCharged, RefundCustomer

LIMIT = 50_000
"""The most that one order may cost, in cents."""

tables = MetaData()
charges = Table(
    "charges",
    tables,
    Column("charge_id", String, primary_key=True),
    Column("customer", String, nullable=False),
    Column("amount", Integer, nullable=False),
)

billing = Participant("billing", tables=tables)


@billing.handles(ChargeCustomer)
async def charge(command: ChargeCustomer, tx: Transaction) -> CustomerCharged:
    """Note the charge, if it is within the limit."""
    if command.amount > LIMIT:
        raise Refused(f"{command.amount} cents are more than the limit of {LIMIT}")
    charge_id = f"charge-{tx.saga_id}"
    row = {"charge_id": charge_id, "customer": command.customer, "amount": command.amount}
    await tx.execute(insert(charges).values(row))
    return CustomerCharged(charge_id=charge_id)


@billing.compensates(ChargeCustomer)
async def refund(command: RefundCustomer, charged: CustomerCharged, tx: Transaction) -> None:
    """Strike out what was charged then."""
    await tx.execute(delete(charges).where(charges.c.charge_id == charged.charge_id))
