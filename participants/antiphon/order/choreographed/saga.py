"""Where a choreographed order begins, and which events say that it is over. In between it is led by nobody."""

from __future__ import annotations

from datetime import timedelta

from antiphon.coordinator import Choreography

from ..messages import ShippingScheduled
from .messages import (
    CHOREOGRAPHED,
    InventoryReleased,
    InventoryReserveFailed,
    ItemsReserved,
    OrderCreated,
    OrderPaid,
    PaymentFailed,
    PaymentRefunded,
    ShippingFailed,
)

choreographed_order = Choreography(
    OrderCreated,
    name=CHOREOGRAPHED,
    version=1,
    deadline=timedelta(hours=24),
    flow={
        OrderCreated: "inventory",
        ItemsReserved: "billing",
        OrderPaid: "shipping",
        PaymentFailed: "inventory",
        ShippingFailed: "billing",
        PaymentRefunded: "inventory",
    },
    completes=ShippingScheduled,
    compensates=(InventoryReserveFailed, InventoryReleased),
    turns=(PaymentFailed, ShippingFailed),
)
