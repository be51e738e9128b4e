"""The choreographed order: what each service does when it hears of something, on its real tables, and no broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.contracts import DefinitionError, Event
from antiphon.coordinator import Choreography
from antiphon.order.choreographed import billing, inventory, shipping
from antiphon.order.choreographed.messages import (
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
from antiphon.order.choreographed.saga import choreographed_order
from antiphon.order.data import load_customers, load_orders
from antiphon.order.messages import OrderPlaced, ShippingScheduled
from antiphon.order.reconciliation import Ended, reconcile
from tests.integration.order.services import PARTICIPANTS, Services, services

assert all((inventory, billing, shipping)), "they add their reactions to the services as they are imported"


@dataclass
class Stage:
    """Lets events be heard, one after the other, until nobody has anything more to say."""

    shop: Services

    async def play(self, order: OrderCreated) -> list[type[Event]]:
        """All that is said about an order."""
        said: list[type[Event]] = []
        waiting: list[Event] = [order]
        while waiting:
            event = waiting.pop(0)
            said.append(type(event))
            for service in (self.shop.inventory, self.shop.billing, self.shop.shipping):
                if any(reaction.event is type(event) for reaction in service.participant.reactions):
                    answer = await service.react(event, saga=f"{CHOREOGRAPHED}/{order.order_id}")
                    waiting += [answer] if answer is not None else []
        return said


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """The three services, each with an empty database of its own."""
    async with services({each.name: f"sqlite:///{tmp_path / each.name}.db" for each in PARTICIPANTS}) as shop:
        yield Stage(shop)


def created(order: OrderPlaced, **changes: Any) -> OrderCreated:
    return msgspec.convert({**msgspec.to_builtins(order), **changes}, OrderCreated)


ORDERS = load_orders()
VALID = {each.customer_id for each in load_customers() if each.card == "valid"}
GOOD = next(order for order in ORDERS if order.customer_id in VALID)

DELIVERED = [OrderCreated, ItemsReserved, OrderPaid, ShippingScheduled]
OUT_OF_STOCK = [OrderCreated, InventoryReserveFailed]
UNPAID = [OrderCreated, ItemsReserved, PaymentFailed, InventoryReleased]
UNDELIVERED = [OrderCreated, ItemsReserved, OrderPaid, ShippingFailed, PaymentRefunded, InventoryReleased]


async def test_an_order_is_reserved_charged_and_scheduled_with_nobody_deciding(stage: Stage) -> None:
    assert await stage.play(created(GOOD)) == DELIVERED


async def test_what_is_out_of_stock_ends_at_once(stage: Stage) -> None:
    assert await stage.play(created(GOOD, item_id="sold-nowhere")) == OUT_OF_STOCK


async def test_a_declined_card_gives_the_stock_back(stage: Stage) -> None:
    assert await stage.play(created(GOOD, customer_id="c-999")) == UNPAID


async def test_an_undeliverable_parcel_gives_back_the_money_and_then_the_stock(stage: Stage) -> None:
    assert await stage.play(created(GOOD, address="PO Box 7")) == UNDELIVERED


async def test_the_books_balance_over_orders_of_every_kind(stage: Stage) -> None:
    orders = [created(order) for order in ORDERS[:30]] + [created(each, address="PO Box 7") for each in ORDERS[30:40]]
    said = {f"{CHOREOGRAPHED}/{order.order_id}": await stage.play(order) for order in orders}
    assert {tuple(each) for each in said.values()} >= {tuple(DELIVERED), tuple(UNPAID), tuple(UNDELIVERED)}
    ended = Ended(
        {
            saga: "completed" if each[-1] in choreographed_order.completes else "compensated"
            for saga, each in said.items()
        },
        {f"{CHOREOGRAPHED}/{order.order_id}": order for order in orders},
    )
    report = await reconcile(stage.shop.urls, ended)
    assert report.is_balanced, report.discrepancies


async def test_every_order_ends_with_an_event_that_says_so(stage: Stage) -> None:
    for order in ORDERS[:20]:
        *before, last = await stage.play(created(order))
        assert last in choreographed_order.ends
        assert not set(before) & set(choreographed_order.ends)


def choreography(**changes: Any) -> Choreography[OrderCreated]:
    settings: dict[str, Any] = {
        "name": choreographed_order.name,
        "version": 1,
        "deadline": choreographed_order.deadline,
        "flow": {OrderCreated: "inventory", ItemsReserved: "billing", OrderPaid: "shipping"},
        "completes": ShippingScheduled,
        **changes,
    }
    return Choreography(changes.pop("start", OrderCreated), **{k: v for k, v in settings.items() if k != "start"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a.b"}, "must be 1 to 64 characters"),
        ({"name": "lock"}, "a name of the platform"),
        ({"start": int}, "must start with an Event class"),
        ({"version": 0}, "versions count from 1"),
        ({"deadline": choreographed_order.deadline * 0}, "must lie in the future"),
        ({"completes": ()}, "never completes: name in completes="),
        ({"completes": (int,)}, "must end with Event classes, not <class 'int'>"),
        ({"completes": OrderCreated}, "would end with OrderCreated, which it starts with"),
        ({"compensates": OrderPlaced}, "OrderPlaced comes from clients"),
        ({"compensates": ShippingScheduled}, "cannot both complete and compensate it"),
        ({"flow": {}}, "does not say who reacts to OrderCreated"),
        ({"flow": {OrderCreated: ()}}, "OrderCreated stands in its flow, and nobody reacts to it"),
        ({"flow": {OrderCreated: "inventory", int: "billing"}}, "its flow consists of Event classes"),
        ({"flow": {OrderCreated: "inventory", OrderPlaced: "billing"}}, "OrderPlaced comes from clients"),
        ({"flow": {OrderCreated: "inventory", ShippingScheduled: "billing"}}, "in its flow, and ends it as well"),
        ({"turns": PaymentFailed}, "turns with PaymentFailed, which is not in its flow"),
    ],
)
def test_a_choreography_whose_end_nobody_could_recognise_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        choreography(**changes)
