"""What the order saga asks of whom, and in which order: sentences about its definition, without a broker or a clock."""

from __future__ import annotations

from datetime import timedelta

import pytest

from antiphon.coordinator.testing import Scenario, given
from antiphon.order.data import load_orders
from antiphon.order.messages import (
    ChargeCustomer,
    InventoryReserved,
    PaymentCharged,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
    ShippingScheduled,
)
from antiphon.order.saga import charge_customer, order, reserve_inventory, schedule_shipping

PLACED = load_orders()[0]
ID = PLACED.order_id

RESERVED = InventoryReserved(reservation_id="r-1", item_id=PLACED.item_id, quantity=PLACED.quantity)
CHARGED = PaymentCharged(charge_id="c-1", customer_id=PLACED.customer_id, amount=PLACED.amount)
SCHEDULED = ShippingScheduled(shipment_id="s-1", country=PLACED.country, carrier="Quai Express")


@pytest.fixture
def placed() -> Scenario:
    """Nobody has answered yet."""
    return given(order, PLACED, id=ID)


@pytest.fixture
def reserved(placed: Scenario) -> Scenario:
    """The goods are set aside, and the card is being charged."""
    return placed.when(reserve_inventory, RESERVED)


@pytest.fixture
def charged(reserved: Scenario) -> Scenario:
    """The card is charged, and the parcel is being scheduled."""
    return reserved.when(charge_customer, CHARGED)


def test_an_order_that_everybody_agrees_to_is_reserved_charged_and_sent(placed: Scenario) -> None:
    (
        placed.sends(reserve_inventory, ReserveInventory(order_id=ID, item_id=PLACED.item_id, quantity=PLACED.quantity))
        .when(reserve_inventory, RESERVED)
        .sends(
            charge_customer,
            ChargeCustomer(order_id=ID, customer_id=PLACED.customer_id, amount=PLACED.amount, reservation_id="r-1"),
        )
        .when(charge_customer, CHARGED)
        .sends(
            schedule_shipping,
            ScheduleShipping(
                order_id=ID,
                reservation_id="r-1",
                recipient=PLACED.recipient,
                address=PLACED.address,
                country=PLACED.country,
            ),
        )
        .when(schedule_shipping, SCHEDULED)
        .is_completed()
    )


def test_what_is_out_of_stock_costs_nobody_anything(placed: Scenario) -> None:
    placed.when_refused(reserve_inventory, "out of stock").sends_nothing().is_compensated("out of stock")


def test_a_declined_card_gives_the_stock_back(reserved: Scenario) -> None:
    (
        reserved.when_refused(charge_customer, "card declined")
        .compensates(
            reserve_inventory, ReleaseInventory(order_id=ID, reason="charge_customer was refused: card declined")
        )
        .when_undone(reserve_inventory)
        .is_compensated("card declined")
    )


def test_what_cannot_be_delivered_is_refunded_and_then_put_back(charged: Scenario) -> None:
    (
        charged.when_refused(schedule_shipping, "undeliverable")
        .when_all_undone()
        .has_compensated(charge_customer, reserve_inventory)
        .is_compensated("undeliverable")
    )


@pytest.fixture
def asked_after(charged: Scenario) -> Scenario:
    """Shipping gave no answer; whether a carrier was told has to be found out."""
    return charged.when_timed_out(schedule_shipping).settles(schedule_shipping)


def test_a_parcel_that_was_scheduled_after_all_is_not_refunded(asked_after: Scenario) -> None:
    asked_after.when_settled(schedule_shipping, SCHEDULED).sends_nothing().is_completed()


def test_a_parcel_that_was_never_scheduled_is_refunded_and_put_back(asked_after: Scenario) -> None:
    (
        asked_after.when_settled(schedule_shipping, None)
        .when_all_undone()
        .has_compensated(charge_customer, reserve_inventory)
        .is_compensated("schedule_shipping did not happen")
    )


def test_once_shipping_was_asked_for_a_customer_can_cancel_only_if_it_is_refused(charged: Scenario) -> None:
    cancelled = charged.when_cancelled("changed my mind").sends_nothing().has_noted("changed my mind")
    cancelled.when(schedule_shipping, SCHEDULED).is_completed()
    cancelled.when_refused(schedule_shipping, "undeliverable").compensates(charge_customer)


def test_a_customer_who_cancels_gets_back_what_was_done(reserved: Scenario) -> None:
    # The charge is under way, so it may have happened.
    refund = RefundCustomer(order_id=ID, reason="cancelled: changed my mind")
    cancelled = reserved.when_cancelled("changed my mind").compensates(charge_customer, refund)
    cancelled.when_all_undone().has_compensated(charge_customer, reserve_inventory)


def test_an_order_that_nobody_answers_is_undone_after_a_day(reserved: Scenario) -> None:
    waiting = reserved.after(timedelta(hours=23)).is_running().sends_nothing()
    waiting.after(timedelta(hours=1)).compensates(charge_customer).is_compensating("its deadline passed")
