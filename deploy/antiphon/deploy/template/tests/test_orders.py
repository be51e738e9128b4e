"""Whole orders in memory: a real coordinator, the real handlers on SQLite, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from antiphon.coordinator.testing import Rehearsal, rehearse
from antiphon.participants.testing import Service
from sqlalchemy import func, select

from shop.billing import billing, charges
from shop.messages import OrderPlaced
from shop.saga import order
from shop.stock import shelf, stock

PLACED = OrderPlaced(item="grinder", quantity=2, customer="ada", amount=9_900)


@dataclass
class Stage:
    """The rehearsal, and the two services with their databases."""

    rehearsal: Rehearsal
    stock: Service
    billing: Service

    async def pieces(self) -> int:
        """How many grinders are on the shelf; a new database has three."""
        rows = await self.stock.execute(select(shelf.c.pieces).where(shelf.c.item == "grinder"))
        return int(rows[0][0])

    async def charged(self) -> int:
        """How much all customers have paid."""
        rows = await self.billing.execute(select(func.coalesce(func.sum(charges.c.amount), 0)))
        return int(rows[0][0])


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with (
        Service.open(stock) as shelves,
        Service.open(billing) as cards,
        rehearse([order], [shelves, cards]) as rehearsal,
    ):
        yield Stage(rehearsal, shelves, cards)


async def test_an_order_takes_the_goods_and_the_money(stage: Stage) -> None:
    saga = await stage.rehearsal.start(order, PLACED)
    assert saga.outcome() == "completed"
    assert (await stage.pieces(), await stage.charged()) == (1, 9_900)


async def test_an_order_that_is_too_expensive_leaves_nothing_behind(stage: Stage) -> None:
    dear = OrderPlaced(item="grinder", quantity=2, customer="ada", amount=99_900)
    saga = await stage.rehearsal.start(order, dear)
    assert saga.outcome() == "compensated"
    assert "more than the limit" in saga.status().reason
    assert (await stage.pieces(), await stage.charged()) == (3, 0)


async def test_nothing_is_lost_and_nothing_doubled_when_billing_dies(stage: Stage) -> None:
    stage.rehearsal.crash("billing", "after commit")
    saga = await stage.rehearsal.start(order, PLACED)
    await stage.rehearsal.run(timedelta(minutes=5))
    assert saga.outcome() == "completed"
    assert (await stage.pieces(), await stage.charged()) == (1, 9_900)
