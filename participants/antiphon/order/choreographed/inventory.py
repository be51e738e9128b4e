"""What inventory does by itself: it reserves for every order, and puts back what cannot be paid or delivered."""

from __future__ import annotations

from antiphon.participants import Transaction

from ..inventory import inventory, put_back, set_aside
from .messages import (
    CHOREOGRAPHED,
    InventoryReleased,
    InventoryReserveFailed,
    ItemsReserved,
    OrderCreated,
    PaymentFailed,
    PaymentRefunded,
)

__all__ = ["inventory"]


@inventory.reacts_to(OrderCreated, saga_type=CHOREOGRAPHED, refused=InventoryReserveFailed)
async def reserve_for_order(order: OrderCreated, tx: Transaction) -> ItemsReserved:
    """Set the pieces aside if there are as many."""
    reservation_id = await set_aside(order.order_id, order.item_id, order.quantity, tx)
    return ItemsReserved(reservation_id=reservation_id, item_id=order.item_id, quantity=order.quantity, order=order)


@inventory.reacts_to(PaymentFailed, saga_type=CHOREOGRAPHED, undoes=reserve_for_order)
async def release_unpaid(failed: PaymentFailed, reserved: ItemsReserved, tx: Transaction) -> InventoryReleased:
    """Put back what nobody pays for."""
    await put_back(reserved, tx)
    return InventoryReleased(reservation_id=reserved.reservation_id)


@inventory.reacts_to(PaymentRefunded, saga_type=CHOREOGRAPHED, undoes=reserve_for_order)
async def release_refunded(refunded: PaymentRefunded, reserved: ItemsReserved, tx: Transaction) -> InventoryReleased:
    """Put back what was paid for, and is not any more."""
    await put_back(reserved, tx)
    return InventoryReleased(reservation_id=reserved.reservation_id)
