"""What shipping does in a hybrid order: it sends what it hears is paid for."""

from __future__ import annotations

from antiphon.participants import Transaction

from ..choreographed.messages import OrderPaid, ShippingFailed
from ..messages import ShippingScheduled
from ..shipping import book, shipping
from .messages import HYBRID

__all__ = ["shipping"]


@shipping.reacts_to(OrderPaid, saga_type=HYBRID, refused=ShippingFailed)
async def schedule_charged(paid: OrderPaid, tx: Transaction) -> ShippingScheduled:
    """Book the parcel with the carrier who serves its country."""
    return await book(paid.order.order_id, paid.order.country, paid.order.address, tx)
