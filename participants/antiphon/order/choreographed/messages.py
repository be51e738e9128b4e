"""What the services say to each other where nobody commands. An event carries what whoever comes next needs to know."""

from __future__ import annotations

from typing import Final

from antiphon.contracts import Event

from ..messages import InventoryReserved, OrderPlaced, PaymentCharged

CHOREOGRAPHED: Final = "choreographed-order"
"""The saga type. Reactions hear events of these sagas only: in the other style the coordinator says what comes next."""


class OrderCreated(OrderPlaced, name="order.created"):
    """A customer has ordered, and whoever has a part in it takes it from here."""


# --- inventory --------------------------------------------------------------------------------------------------------


class ItemsReserved(InventoryReserved, name="inventory.reserved", version=2, owner="inventory"):
    """Pieces are set aside, and this is for which order: no command will say so."""

    order: OrderCreated


class InventoryReserveFailed(Event, name="inventory.reserve.failed", owner="inventory"):
    """The pieces cannot be had; nothing was set aside."""

    reason: str


class InventoryReleased(Event, name="inventory.released", owner="inventory"):
    """What was set aside is back on the shelf."""

    reservation_id: str


# --- billing ----------------------------------------------------------------------------------------------------------


class OrderPaid(PaymentCharged, name="payment.charged", version=2, owner="billing"):
    """A customer's card was charged, and this is for which order."""

    order: OrderCreated


class PaymentFailed(Event, name="payment.failed", owner="billing"):
    """The card cannot be charged; nothing was taken."""

    reason: str


class PaymentRefunded(Event, name="payment.refunded", owner="billing"):
    """The customer has the money back."""

    charge_id: str


# --- shipping ---------------------------------------------------------------------------------------------------------


class ShippingFailed(Event, name="shipping.failed", owner="shipping"):
    """No carrier takes the parcel."""

    reason: str
