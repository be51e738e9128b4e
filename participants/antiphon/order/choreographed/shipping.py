"""What shipping does by itself: it sends what is paid for."""

from __future__ import annotations

from antiphon.participants import Transaction

from ..messages import ShippingScheduled
from ..shipping import book, shipping
from .messages import CHOREOGRAPHED, OrderPaid, ShippingFailed

__all__ = ["shipping"]


@shipping.reacts_to(OrderPaid, saga_type=CHOREOGRAPHED, refused=ShippingFailed)
async def schedule_paid(paid: OrderPaid, tx: Transaction) -> ShippingScheduled:
    """Book the parcel with the carrier who serves its country."""
    return await book(paid.order.order_id, paid.order.country, paid.order.address, tx)
