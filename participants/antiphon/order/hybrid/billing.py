"""What billing does in a hybrid order: it is told to charge and to refund, and its answer says what was ordered."""

from __future__ import annotations

from antiphon.participants import Transaction

from ..billing import billing, charge_card, give_back
from ..choreographed.messages import OrderPaid
from .messages import ChargeOrder, RefundOrder

__all__ = ["billing"]


@billing.handles(ChargeOrder)
async def charge_order(command: ChargeOrder, tx: Transaction) -> OrderPaid:
    """Charge the card if it is valid and its limit allows."""
    order = command.order
    charge_id = await charge_card(order.order_id, order.customer_id, order.amount, tx)
    return OrderPaid(charge_id=charge_id, customer_id=order.customer_id, amount=order.amount, order=order)


@billing.compensates(ChargeOrder)
async def refund_order(command: RefundOrder, paid: OrderPaid, tx: Transaction) -> None:
    """Give back what was charged, by what was answered then."""
    await give_back(paid, tx)
