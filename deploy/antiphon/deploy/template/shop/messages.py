"""What travels: the order, the commands, the events that answer them, and what takes a command's effect back."""

from __future__ import annotations

from typing import Annotated

from antiphon.contracts import Command, Compensation, Event
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
"""At least one. What does not fit is refused as it is read, so no handler has to look."""


class OrderPlaced(Event, name="order.placed"):
    """A customer has ordered. A saga begins with it. Amounts are in cents."""

    item: str
    quantity: Positive
    customer: str
    amount: Positive


class GoodsReserved(Event, name="goods.reserved", owner="stock"):
    """So many pieces are set aside."""

    item: str
    quantity: Positive


class ReserveGoods(Command[GoodsReserved], name="goods.reserve"):
    """Set so many pieces aside."""

    item: str
    quantity: Positive


class ReleaseGoods(Compensation[ReserveGoods], name="goods.release"):
    """Put the pieces back."""

    reason: str


class CustomerCharged(Event, name="customer.charged", owner="billing"):
    """The customer has paid."""

    charge_id: str


class ChargeCustomer(Command[CustomerCharged], name="customer.charge"):
    """Charge the customer."""

    customer: str
    amount: Positive


class RefundCustomer(Compensation[ChargeCustomer], name="customer.refund"):
    """Give the money back."""

    reason: str
