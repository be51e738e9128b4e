"""The order saga in which shipping is not commanded: it reacts to what is paid for, and the saga waits for that.

Nobody can call off what nobody commanded. So the charge is the point of no return: from when it is sent the order
waits for shipping's word. If the parcel is scheduled the order is complete, and if no carrier takes it the money and
the goods go back.
"""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Retry
from antiphon.coordinator import Saga, State

from ..choreographed.messages import OrderCreated, ShippingFailed
from ..messages import PointsGranted, ReleaseInventory, ReserveInventory, ShippingScheduled
from .messages import HYBRID, ChargeOrder, RefundOrder

hybrid_order = Saga(OrderCreated, name=HYBRID, version=1, deadline=timedelta(hours=24))


@hybrid_order.step(retry=Retry(attempts=5))
def reserve_inventory(s: State[OrderCreated]) -> ReserveInventory:
    """Set the goods aside first: giving them back costs nothing."""
    return ReserveInventory(order_id=s.start.order_id, item_id=s.start.item_id, quantity=s.start.quantity)


@reserve_inventory.compensation
def release_inventory(s: State[OrderCreated]) -> ReleaseInventory:
    """Put the goods back."""
    return ReleaseInventory(order_id=s.start.order_id, reason=s.reason)


@hybrid_order.step(after=reserve_inventory, pivot=True, timeout=timedelta(seconds=60))
def charge_order(s: State[OrderCreated]) -> ChargeOrder:
    """Charge for what is there, and let shipping hear of it: from here on its word decides."""
    return ChargeOrder(order=s.start, reservation_id=s[reserve_inventory].reservation_id)


@charge_order.compensation
def refund_order(s: State[OrderCreated]) -> RefundOrder:
    """Give the money for what nobody delivers back."""
    return RefundOrder(order_id=s.start.order_id, reason=s.reason)


shipped = hybrid_order.awaits(ShippingScheduled, after=charge_order, unless=ShippingFailed)
hybrid_order.records(PointsGranted)  # by loyalty, which reacts to the charge as shipping does, and decides nothing
