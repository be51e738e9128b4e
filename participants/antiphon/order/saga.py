"""The order saga: reserve, charge, ship; and if one of them says no, back again in reverse order.

Shipping is the point of no return. A parcel that may be on its way is never refunded: if nobody knows whether it was
scheduled, the shipping service is asked until it says so, and the saga goes forward or back by its answer.

Its functions only turn what is known into the next command. When they run, how often, and what happens in between is
the coordinator's business, so they can be read, drawn and tested without one.
"""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Retry
from antiphon.coordinator import Saga, State

from .messages import (
    ORCHESTRATED,
    ChargeCustomer,
    OrderPlaced,
    PointsGranted,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
)


def found_by(placed: OrderPlaced) -> dict[str, str]:
    """What `antiphon list --key` finds orders by."""
    return {"customer_id": placed.customer_id, "item_id": placed.item_id}


order = Saga(OrderPlaced, name=ORCHESTRATED, version=1, deadline=timedelta(hours=24), keys=found_by)


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


# The timeout is above the 30 s after which a command whose worker died is delivered again: that alone costs no order.
@order.step(after=charge_customer, pivot=True, timeout=timedelta(seconds=60))
def schedule_shipping(s: State[OrderPlaced]) -> ScheduleShipping:
    """Send what is paid for; last, because a parcel cannot be called back."""
    return ScheduleShipping(
        order_id=s.start.order_id,
        reservation_id=s[reserve_inventory].reservation_id,
        recipient=s.start.recipient,
        address=s.start.address,
        country=s.start.country,
    )


order.records(PointsGranted)  # by loyalty, which reacts to the charge: seen in the order, and waited for by nobody
