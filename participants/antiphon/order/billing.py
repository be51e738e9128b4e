"""The billing service: cards that are charged up to their limit, and given their money back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
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

from .data import load_customers
from .ledger import ledger_table, write_line
from .messages import ChargeCustomer, PaymentCharged, RefundCustomer

tables = MetaData()
cards = Table(
    "cards",
    tables,
    Column("customer_id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("credit_limit", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),
    CheckConstraint("charged BETWEEN 0 AND credit_limit"),
)
ledger = ledger_table(tables)

billing = Participant("billing", tables=tables)


@billing.handles(ChargeCustomer)
async def charge(command: ChargeCustomer, tx: Transaction) -> PaymentCharged:
    """Charge the card if it is valid and its limit allows."""
    charge_id = await charge_card(command.order_id, command.customer_id, command.amount, tx)
    return PaymentCharged(charge_id=charge_id, customer_id=command.customer_id, amount=command.amount)


@billing.compensates(ChargeCustomer)
async def refund(command: RefundCustomer, charged: PaymentCharged, tx: Transaction) -> None:
    """Give back what was charged, by what was answered then."""
    await give_back(charged, tx)


async def charge_card(order_id: str, customer: str, amount: int, tx: Transaction) -> str:
    """Charge a customer's card, and name the charge.

    The cards are rows of this database here, so charging is exactly once. A payment gateway would be charged at least
    once: hand it `tx.idempotency_key`, which stays the same however often this runs, and it charges once as well.
    """
    # One relative statement that looks and takes: two orders of one customer cannot both have the last of the limit.
    theirs = update(cards).where(cards.c.customer_id == customer)
    payable = theirs.where(cards.c.state == "valid", cards.c.charged + amount <= cards.c.credit_limit)
    charged = await tx.execute(payable.values(charged=cards.c.charged + amount))
    if charged.rowcount == 0:
        raise Refused(await decline(customer, amount, tx))
    charge_id = f"charge-{order_id}"
    await write_line(tx, ledger, "charged", customer, amount, charge_id)
    return charge_id


async def give_back(charged: PaymentCharged, tx: Transaction) -> None:
    """Give the money of a charge back."""
    customer, amount = charged.customer_id, charged.amount
    await tx.execute(update(cards).where(cards.c.customer_id == customer).values(charged=cards.c.charged - amount))
    await write_line(tx, ledger, "refunded", customer, -amount, charged.charge_id)


async def decline(customer: str, amount: int, tx: Transaction) -> str:
    """Why the card cannot be charged, in numbers."""
    query = select(cards.c.state, (cards.c.credit_limit - cards.c.charged).label("left"))
    card = (await tx.execute(query.where(cards.c.customer_id == customer))).one_or_none()
    if card is None:
        return f"there is no customer {customer}"
    state, left = card.state, card.left
    if state != "valid":
        return f"card declined: the card of {customer} is {state}"
    return f"card declined: {amount} cents were asked for, and {left} are left of the limit"


@event.listens_for(cards, "after_create")
def register_the_cards(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database the cards of all customers."""
    connection.execute(
        insert(cards),
        [
            {"customer_id": each.customer_id, "state": each.card, "credit_limit": each.limit, "charged": 0}
            for each in load_customers()
        ],
    )
