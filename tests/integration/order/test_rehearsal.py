"""Orders from start to end, through the three services' own handlers, in memory and in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from antiphon.contracts import SagaKey
from antiphon.contracts.subjects import signal_subject
from antiphon.coordinator.definition.choreography import AnySaga
from antiphon.coordinator.testing import Rehearsal, rehearse
from antiphon.order.billing import cards
from antiphon.order.choreographed import billing as choreographed_billing
from antiphon.order.choreographed.inventory import inventory
from antiphon.order.choreographed.messages import OrderCreated
from antiphon.order.choreographed.saga import choreographed_order
from antiphon.order.choreographed.shipping import shipping
from antiphon.order.data import load_customers, load_orders
from antiphon.order.hybrid import shipping as hybrid_shipping
from antiphon.order.hybrid.billing import billing
from antiphon.order.hybrid.saga import hybrid_order
from antiphon.order.inventory import stock
from antiphon.order.loyalty import ledger as thanking
from antiphon.order.loyalty import loyalty
from antiphon.order.messages import OrderPlaced
from antiphon.order.saga import order
from antiphon.participants.testing import Service

assert all((choreographed_billing, hybrid_shipping)), "they add to the services as they are imported"

VALID = next(each for each in load_customers() if each.card == "valid" and each.limit > 10_000)
PLACED = replace(load_orders()[0], customer_id=VALID.customer_id, amount=9_900)
CREATED = msgspec.convert(msgspec.to_builtins(PLACED), OrderCreated)
FORWARD = ["reserve_inventory", "charge_customer", "schedule_shipping"]
NOWHERE = replace(PLACED, country="NZ")
"""No carrier goes there."""


@dataclass
class Shop:
    """The rehearsal, and the services that take part in it."""

    rehearsal: Rehearsal
    inventory: Service
    billing: Service
    services: list[Service]

    async def sold(self) -> int:
        """How many pieces of the ordered item are set aside."""
        found = await self.inventory.execute(
            select(stock.c.initial - stock.c.available).where(stock.c.item_id == PLACED.item_id)
        )
        return int(found[0][0])

    async def charged(self) -> int:
        """How much the customer was charged, in cents."""
        found = await self.billing.execute(select(cards.c.charged).where(cards.c.customer_id == PLACED.customer_id))
        return int(found[0][0])


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(Service.open(each)) for each in (inventory, billing, shipping)]
        sagas: list[AnySaga] = [order, choreographed_order, hybrid_order]
        yield Shop(await stack.enter_async_context(rehearse(sagas, services)), services[0], services[1], services)


async def test_an_order_is_reserved_charged_and_sent(shop: Shop) -> None:
    saga = await shop.rehearsal.start(order, PLACED)
    assert (saga.outcome(), saga.sent()) == ("completed", FORWARD)
    assert (await shop.sold(), await shop.charged()) == (PLACED.quantity, PLACED.amount)


async def test_an_order_that_is_sent_as_a_signal_starts_nothing(shop: Shop) -> None:
    """Nobody has started it, so nobody would see the stock, the money and the parcel again."""
    key, type_ = SagaKey.of(choreographed_order.name, "never-started"), OrderCreated.__contract__.type
    for signal in (OrderCreated.__contract__.token, "whatever"):
        await shop.rehearsal.put(signal_subject(key, signal), type_, CREATED)
    await shop.rehearsal.run(timedelta(minutes=5))
    assert (await shop.sold(), await shop.charged()) == (0, 0)
    assert [each.kind for each in shop.rehearsal.parked] == ["undecodable", "undecodable"]


async def test_what_cannot_be_delivered_costs_nothing(shop: Shop) -> None:
    saga = await shop.rehearsal.start(order, NOWHERE)
    assert (saga.outcome(), saga.sent()[3:]) == ("compensated", ["undo charge_customer", "undo reserve_inventory"])
    assert "no carrier goes to NZ" in saga.status().reason
    assert (await shop.sold(), await shop.charged()) == (0, 0)


@pytest.mark.parametrize("when", ["before commit", "after commit"])
@pytest.mark.parametrize("who", ["inventory", "billing", "shipping"])
async def test_a_service_that_dies_takes_and_charges_once(shop: Shop, who: str, when: str) -> None:
    shop.rehearsal.crash(who, "before commit" if when == "before commit" else "after commit")
    saga = await shop.rehearsal.start(order, PLACED)
    assert saga.outcome() is None
    await shop.rehearsal.run(timedelta(minutes=5))
    assert (saga.outcome(), saga.sent()) == ("completed", FORWARD)
    assert (await shop.sold(), await shop.charged()) == (PLACED.quantity, PLACED.amount)


async def test_a_service_that_is_away_for_an_hour_delays_an_order_and_no_more(shop: Shop) -> None:
    await shop.rehearsal.stop("billing")
    saga = await shop.rehearsal.start(order, PLACED)
    await shop.rehearsal.run(timedelta(hours=1))
    assert (saga.outcome(), saga.sent()) == (None, FORWARD[:2])
    await shop.rehearsal.restart("billing")
    await shop.rehearsal.run()
    assert saga.outcome() == "completed"


async def test_an_order_whose_card_nobody_charges_is_given_up_after_a_day(shop: Shop) -> None:
    await shop.rehearsal.stop("billing")
    saga = await shop.rehearsal.start(order, PLACED)
    await shop.rehearsal.run(timedelta(days=30))
    assert saga.sent()[2:] == ["undo charge_customer"]
    await shop.rehearsal.restart("billing")
    await shop.rehearsal.run()
    assert (saga.outcome(), saga.status().reason) == ("compensated", "its deadline passed")
    assert (await shop.sold(), await shop.charged()) == (0, 0)


async def test_an_order_whose_shipping_answers_late_is_asked_after_and_not_refunded(shop: Shop) -> None:
    shop.rehearsal.slow("shipping", timedelta(minutes=2))
    saga = await shop.rehearsal.start(order, PLACED)
    await shop.rehearsal.run(timedelta(minutes=5))
    assert (saga.outcome(), saga.sent()) == ("completed", [*FORWARD, "undo schedule_shipping"])
    assert (await shop.sold(), await shop.charged()) == (PLACED.quantity, PLACED.amount)


@pytest.mark.parametrize("saga", [choreographed_order, hybrid_order], ids=lambda saga: saga.name)
async def test_in_the_other_styles_an_order_goes_the_same_ways(saga: AnySaga, shop: Shop) -> None:
    sent = await shop.rehearsal.start(saga, CREATED, id="a")
    undelivered = await shop.rehearsal.start(saga, replace(CREATED, order_id="b", country="NZ"), id="b")
    declined = await shop.rehearsal.start(saga, replace(CREATED, order_id="c", customer_id="c-999"), id="c")
    assert [each.outcome() for each in (sent, undelivered, declined)] == ["completed", "compensated", "compensated"]
    assert "no carrier goes to NZ" in undelivered.status().reason
    assert "no customer c-999" in declined.status().reason
    assert (await shop.sold(), await shop.charged()) == (PLACED.quantity, PLACED.amount)


@pytest.mark.parametrize(("saga", "pieces"), [(order, PLACED), (hybrid_order, CREATED)], ids=["order", "hybrid-order"])
async def test_loyalty_thanks_once_for_what_is_paid_and_no_order_waits_for_it(
    shop: Shop, saga: AnySaga, pieces: OrderPlaced
) -> None:
    async with Service.open(loyalty) as thanks, rehearse([saga], [*shop.services, thanks]) as rehearsal:
        await rehearsal.stop("loyalty")
        sent = await rehearsal.start(saga, pieces, id="a")
        await rehearsal.start(saga, replace(pieces, order_id="b", country="NZ"), id="b")
        await rehearsal.start(saga, replace(pieces, order_id="c", customer_id="c-999"), id="c")
        assert sent.outcome() == "completed"
        await rehearsal.restart("loyalty")
        rehearsal.crash("loyalty", "after commit")
        await rehearsal.run(timedelta(minutes=2))
        lines = await thanks.execute(select(thanking.c.account, thanking.c.amount, thanking.c.saga))
    points = PLACED.amount // 100
    assert sorted(map(tuple, lines)) == [(VALID.customer_id, points, f"{saga.name}/{id}") for id in "ab"]


async def test_a_choreographed_order_whose_billing_stays_away_is_late_and_goes_on_once_it_is_back(shop: Shop) -> None:
    await shop.rehearsal.stop("billing")
    saga = await shop.rehearsal.start(choreographed_order, CREATED)
    await shop.rehearsal.run(timedelta(hours=25))
    assert saga.status().parked == "its deadline passed, and billing has not reacted to inventory.reserved.v2"
    await shop.rehearsal.restart("billing")
    await shop.rehearsal.run()
    assert (saga.outcome(), saga.status().parked) == ("completed", "")
