"""What the services of the order system say to each other.

Amounts are whole cents: money that is added up in several databases must not round.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from antiphon.contracts import Command, Compensation, Event

ORCHESTRATED: Final = "order"
"""The saga type in which all is commanded; the other styles have their own."""

Quantity = Annotated[int, Meta(ge=1, le=1_000)]
Cents = Annotated[int, Meta(ge=0, le=1_000_000_00)]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2."""


class OrderPlaced(Event, name="order.placed"):
    """A customer has ordered. It has no owner, so clients may publish it; a saga starts with it."""

    order_id: str
    customer_id: str
    item_id: str
    quantity: Quantity
    amount: Cents
    recipient: str
    address: str
    country: Country


# --- inventory --------------------------------------------------------------------------------------------------------


class InventoryReserved(Event, name="inventory.reserved", owner="inventory"):
    """So many pieces of an item are set aside. It says all that undoing needs: a compensation is handed this answer."""

    reservation_id: str
    item_id: str
    quantity: Quantity


class ReserveInventory(Command[InventoryReserved], name="inventory.reserve"):
    """Set aside so many pieces of an item."""

    order_id: str
    item_id: str
    quantity: Quantity


class ReleaseInventory(Compensation[ReserveInventory], name="inventory.release"):
    """Put back what was set aside."""

    order_id: str
    reason: str


# --- billing ----------------------------------------------------------------------------------------------------------


class PaymentCharged(Event, name="payment.charged", owner="billing"):
    """A customer's card was charged."""

    charge_id: str
    customer_id: str
    amount: Cents


class ChargeCustomer(Command[PaymentCharged], name="payment.charge"):
    """Charge a customer's card."""

    order_id: str
    customer_id: str
    amount: Cents
    reservation_id: str


class RefundCustomer(Compensation[ChargeCustomer], name="payment.refund"):
    """Give the money back."""

    order_id: str
    reason: str


# --- shipping ---------------------------------------------------------------------------------------------------------


class ShippingScheduled(Event, name="shipping.scheduled", owner="shipping"):
    """A carrier will fetch the parcel."""

    shipment_id: str
    country: Country
    carrier: str


class ScheduleShipping(Command[ShippingScheduled], name="shipping.schedule"):
    """Have a carrier fetch and deliver the parcel. Nothing undoes it: a parcel on its way is out of our hands."""

    order_id: str
    reservation_id: str
    recipient: str
    address: str
    country: Country


# --- loyalty ----------------------------------------------------------------------------------------------------------


class PointsGranted(Event, name="loyalty.granted", owner="loyalty"):
    """A customer who paid has been thanked. Orders record it, and nothing follows."""

    customer_id: str
    points: Annotated[int, Meta(ge=0)]
