"""The order saga with two steps at once: goods and money side by side, and shipping, the pivot, after both.

`hurried` is the same for tests that have shipping not answer in time. `approved` waits for a person. `purchase` leaves
all of it to a child, of which one at a time is about an item.
"""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Event
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import Signal, State
from antiphon.order.messages import (
    ChargeCustomer,
    OrderPlaced,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
)
from antiphon.order.saga import order


def make_order(*, version: int, shipping_timeout: timedelta | None = None) -> Saga[OrderPlaced]:
    """The diamond."""
    saga = Saga(OrderPlaced, name="order", version=version, deadline=timedelta(hours=24))

    @saga.step()
    def reserve_inventory(s: State[OrderPlaced]) -> ReserveInventory:
        return ReserveInventory(order_id=s.start.order_id, item_id=s.start.item_id, quantity=s.start.quantity)

    @reserve_inventory.compensation
    def release_inventory(s: State[OrderPlaced]) -> ReleaseInventory:
        return ReleaseInventory(order_id=s.start.order_id, reason=s.reason)

    @saga.step()
    def charge_customer(s: State[OrderPlaced]) -> ChargeCustomer:
        return ChargeCustomer(
            order_id=s.start.order_id,
            customer_id=s.start.customer_id,
            amount=s.start.amount,
            reservation_id=s.start.order_id,
        )

    @charge_customer.compensation
    def refund_customer(s: State[OrderPlaced]) -> RefundCustomer:
        return RefundCustomer(order_id=s.start.order_id, reason=s.reason)

    @saga.step(after=(reserve_inventory, charge_customer), pivot=True, timeout=shipping_timeout)
    def schedule_shipping(s: State[OrderPlaced]) -> ScheduleShipping:
        return ScheduleShipping(
            order_id=s.start.order_id,
            reservation_id=s[reserve_inventory].reservation_id,
            recipient=s.start.recipient,
            address=s.start.address,
            country=s.start.country,
        )

    return saga


parallel = make_order(version=2)
hurried = make_order(version=3, shipping_timeout=timedelta(seconds=0.5))


class OrderApproved(Event, name="order.approved"):
    """A person lets an order go on."""


def make_approved() -> tuple[Saga[OrderPlaced], Signal[OrderApproved]]:
    """One step after the other, and between goods and money it waits for a person."""
    saga = Saga(OrderPlaced, name="order", version=4, deadline=timedelta(hours=24))

    @saga.step()
    def reserve_inventory(s: State[OrderPlaced]) -> ReserveInventory:
        return ReserveInventory(order_id=s.start.order_id, item_id=s.start.item_id, quantity=s.start.quantity)

    @reserve_inventory.compensation
    def release_inventory(s: State[OrderPlaced]) -> ReleaseInventory:
        return ReleaseInventory(order_id=s.start.order_id, reason=s.reason)

    approval = saga.signal(OrderApproved, after=reserve_inventory)

    @saga.step(after=approval)
    def charge_customer(s: State[OrderPlaced]) -> ChargeCustomer:
        return ChargeCustomer(
            order_id=s.start.order_id,
            customer_id=s.start.customer_id,
            amount=s.start.amount,
            reservation_id=s[reserve_inventory].reservation_id,
        )

    @charge_customer.compensation
    def refund_customer(s: State[OrderPlaced]) -> RefundCustomer:
        return RefundCustomer(order_id=s.start.order_id, reason=s.reason)

    @saga.step(after=charge_customer, pivot=True)
    def schedule_shipping(s: State[OrderPlaced]) -> ScheduleShipping:
        return ScheduleShipping(
            order_id=s.start.order_id,
            reservation_id=s[reserve_inventory].reservation_id,
            recipient=s.start.recipient,
            address=s.start.address,
            country=s.start.country,
        )

    return saga, approval


approved, approval = make_approved()


def one_item(placed: OrderPlaced) -> list[str]:
    return [placed.item_id]


purchase = Saga(OrderPlaced, name="purchase", version=1, deadline=timedelta(hours=24), locks=one_item)


@purchase.child(order, needs_no_compensation=True)
def place(s: State[OrderPlaced]) -> OrderPlaced:
    """The order itself."""
    return s.start
