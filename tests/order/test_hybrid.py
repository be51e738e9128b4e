"""The hybrid order: what is commanded and what is waited for, tested without a broker."""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.coordinator.testing import given
from antiphon.order.choreographed.messages import OrderCreated, OrderPaid, ShippingFailed
from antiphon.order.choreographed.saga import choreographed_order
from antiphon.order.data import load_orders
from antiphon.order.hybrid.messages import ChargeOrder, RefundOrder
from antiphon.order.hybrid.saga import charge_order, hybrid_order, reserve_inventory, shipped
from antiphon.order.messages import InventoryReserved, ShippingScheduled

ORDER = msgspec.convert(msgspec.to_builtins(load_orders()[0]), OrderCreated)
RESERVED = InventoryReserved(reservation_id="r-1", item_id=ORDER.item_id, quantity=ORDER.quantity)
PAID = OrderPaid(charge_id="c-1", customer_id=ORDER.customer_id, amount=ORDER.amount, order=ORDER)
SCHEDULED = ShippingScheduled(shipment_id="s-1", country=ORDER.country, carrier="Nordpaket")
FAILED = ShippingFailed(reason="undeliverable: no carrier goes there")


def charged() -> Any:
    """An order that is reserved and charged, and waits for shipping."""
    return (
        given(hybrid_order, ORDER)
        .when(reserve_inventory, RESERVED)
        .sends(charge_order, ChargeOrder(order=ORDER, reservation_id="r-1"))
        .when(charge_order, PAID)
        .waits_for(shipped)
    )


def test_an_order_is_complete_once_shipping_has_scheduled_it_by_itself() -> None:
    charged().when_happened(SCHEDULED).is_completed()


def test_what_shipping_refuses_by_itself_gives_back_the_money_and_then_the_goods() -> None:
    refused = charged().when_happened(FAILED)
    reason = "shipping-scheduled was refused: undeliverable: no carrier goes there"
    refused = refused.compensates(charge_order, RefundOrder(order_id=ORDER.order_id, reason=reason))
    refused.when_undone(charge_order).compensates(reserve_inventory).when_undone(reserve_inventory).is_compensated()


def test_a_cancel_after_the_charge_was_sent_waits_for_what_shipping_says() -> None:
    late = given(hybrid_order, ORDER).when(reserve_inventory, RESERVED).when_cancelled("changed my mind")
    late.when(charge_order, PAID).when_happened(SCHEDULED).is_completed()
    late.when(charge_order, PAID).when_happened(FAILED).when_all_undone().is_compensated("undeliverable")


def test_a_declined_card_gives_the_goods_back_and_shipping_never_hears_of_it() -> None:
    declined = given(hybrid_order, ORDER).when(reserve_inventory, RESERVED).when_refused(charge_order, "card declined")
    declined.compensates(reserve_inventory).when_undone(reserve_inventory).is_compensated("card declined")


def test_a_choreography_is_tested_in_the_same_sentences() -> None:
    given(choreographed_order, ORDER).when_happened(SCHEDULED).is_completed()
