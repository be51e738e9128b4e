"""What billing does by itself: it charges for what is reserved, and gives the money back for what is not delivered."""

from __future__ import annotations

from antiphon.participants import Transaction

from ..billing import billing, charge_card, give_back
from .messages import CHOREOGRAPHED, ItemsReserved, OrderPaid, PaymentFailed, PaymentRefunded, ShippingFailed

__all__ = ["billing"]


@billing.reacts_to(ItemsReserved, saga_type=CHOREOGRAPHED, refused=PaymentFailed)
async def charge_for_items(reserved: ItemsReserved, tx: Transaction) -> OrderPaid:
    """Charge only for what is certainly there."""
    order = reserved.order
    charge_id = await charge_card(order.order_id, order.customer_id, order.amount, tx)
    return OrderPaid(charge_id=charge_id, customer_id=order.customer_id, amount=order.amount, order=order)


@billing.reacts_to(ShippingFailed, saga_type=CHOREOGRAPHED, undoes=charge_for_items)
async def refund_undelivered(failed: ShippingFailed, paid: OrderPaid, tx: Transaction) -> PaymentRefunded:
    """Give back the money for what nobody delivers."""
    await give_back(paid, tx)
    return PaymentRefunded(charge_id=paid.charge_id)
