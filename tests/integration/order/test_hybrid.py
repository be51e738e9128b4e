"""The hybrid order: what is commanded and what is waited for, tested without a broker."""

from __future__ import annotations

from datetime import timedelta
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


UNSAID = "its deadline passed, and shipping has not said shipping.scheduled.v1"


def test_an_order_that_shipping_never_speaks_of_is_parked_at_its_deadline_and_goes_on_when_it_does() -> None:
    late = charged().is_not_parked().after(timedelta(hours=24)).is_parked(UNSAID).is_running()
    late.when_happened(SCHEDULED).is_completed().is_not_parked()
    late.when_happened(FAILED).is_not_parked().when_all_undone().is_compensated("undeliverable")


def test_a_cancel_that_was_noted_keeps_no_order_from_being_seen_as_late() -> None:
    noted = given(hybrid_order, ORDER).when(reserve_inventory, RESERVED).when_cancelled("changed my mind")
    noted.when(charge_order, PAID).after(timedelta(hours=24)).is_parked(UNSAID)


def test_an_order_that_is_charged_after_its_deadline_is_late_at_once() -> None:
    sent = (
        given(hybrid_order, ORDER).after(timedelta(hours=23, minutes=59, seconds=30)).when(reserve_inventory, RESERVED)
    )
    sent.after(timedelta(seconds=45)).is_not_parked().when(charge_order, PAID).is_parked(UNSAID)


def test_a_cancel_after_the_charge_is_told_who_decides_and_what_an_operator_may_do() -> None:
    asked = charged().when_cancelled("the customer called", user="ada")
    asked.rejects(
        "ada", "whether it goes forward or back is for shipping to say, by shipping.scheduled.v1 or shipping.fai"
    )
    asked.when_happened(SCHEDULED).is_completed()
    given_up = asked.when_resolved("ada", shipped, "shipping says it never will", happened=False)
    given_up.compensates(charge_order).when_all_undone().is_compensated("resolved by ada: shipping says it never will")
    asked.when_resolved("ada", shipped, "sent by hand", reply=SCHEDULED).is_completed()


def test_a_declined_card_gives_the_goods_back_and_shipping_never_hears_of_it() -> None:
    declined = given(hybrid_order, ORDER).when(reserve_inventory, RESERVED).when_refused(charge_order, "card declined")
    declined.compensates(reserve_inventory).when_undone(reserve_inventory).is_compensated("card declined")


def test_a_choreography_is_tested_in_the_same_sentences() -> None:
    given(choreographed_order, ORDER).when_happened(SCHEDULED).is_completed()
