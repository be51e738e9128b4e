"""The order saga: reserve, charge, ship; and if one of them says no, back again in reverse order.

Its functions only turn what is known into the next command. When they run, how often, and what happens in between is
the coordinator's business, so they can be read, drawn and tested without one.
"""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Retry
from antiphon.coordinator.saga import Saga, State

from .messages import (
    CancelShipping,
    ChargeCustomer,
    OrderPlaced,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
)

order = Saga(OrderPlaced, name="order", version=1, deadline=timedelta(hours=24))


@order.step(retry=Retry(attempts=5))
def reserve_inventory(s: State[OrderPlaced]) -> ReserveInventory:
    """Set the goods aside first: giving them back costs nothing."""
    return ReserveInventory(order_id=s.start.order_id, item_id=s.start.item_id, quantity=s.start.quantity)


@reserve_inventory.compensation
def release_inventory(s: State[OrderPlaced]) -> ReleaseInventory:
    """Put the goods back."""
    return ReleaseInventory(order_id=s.start.order_id, reason=s.reason)


@order.step(after=reserve_inventory)
def charge_customer(s: State[OrderPlaced]) -> ChargeCustomer:
    """Charge only for what is certainly there."""
    return ChargeCustomer(
        order_id=s.start.order_id,
        customer_id=s.start.customer_id,
        amount=s.start.amount,
        reservation_id=s[reserve_inventory].reservation_id,
    )


@charge_customer.compensation
def refund_customer(s: State[OrderPlaced]) -> RefundCustomer:
    """Give the money back."""
    return RefundCustomer(order_id=s.start.order_id, reason=s.reason)


@order.step(after=charge_customer)
def schedule_shipping(s: State[OrderPlaced]) -> ScheduleShipping:
    """Send what is paid for."""
    return ScheduleShipping(
        order_id=s.start.order_id,
        reservation_id=s[reserve_inventory].reservation_id,
        recipient=s.start.recipient,
        address=s.start.address,
        country=s.start.country,
    )


@schedule_shipping.compensation
def cancel_shipping(s: State[OrderPlaced]) -> CancelShipping:
    """Stop the parcel: the deadline may pass while nobody knows whether the carrier has been told."""
    return CancelShipping(order_id=s.start.order_id, reason=s.reason)
