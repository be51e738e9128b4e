"""What is said where a part is commanded and a part is not: a charge that tells whoever delivers all it needs."""

from __future__ import annotations

from typing import Final

from antiphon.contracts import Command, Compensation

from ..choreographed.messages import OrderCreated, OrderPaid

HYBRID: Final = "hybrid-order"
"""The saga type; shipping reacts to what is paid for in these sagas, and is told to in the others."""


class ChargeOrder(Command[OrderPaid], name="payment.charge", version=2):
    """Charge the customer of an order; the answer says for which order, since no command will tell who ships it."""

    order: OrderCreated
    reservation_id: str


class RefundOrder(Compensation[ChargeOrder], name="payment.refund", version=2):
    """Give the money back."""

    order_id: str
    reason: str
