"""Old sagas purged by real processes, killed on the way: whatever is half purged answers as before, and is purged in
the end; sagas that run meanwhile are not touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from antiphon.contracts import AlreadyStarted, SagaKey, TooLate, subjects
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.client import Antiphon, Outcome
from antiphon.coordinator.runtime.retention import AT_ONCE
from antiphon.link import Link
from antiphon.link.killpoints import POINTS
from antiphon.order.data import load_orders
from antiphon.order.messages import OrderPlaced
from antiphon.order.saga import order
from tests.support.processes import ARCHIVE, KEEP_ENDS, RETENTION, Fleet, fleet, run_orders, supervised
from tests.support.server import FORMS, Form, Platform, platform, until

ORDERS: Final = 32
ARRIVED: Final = AT_ONCE + 3
"""With so many sagas at a point of their purge at least three have been purged."""
KEEPERS: Final = ("coordinator-1", "coordinator-2")


def keys_of(orders: list[OrderPlaced]) -> list[SagaKey]:
    return [SagaKey.of(order.name, each.order_id) for each in orders]


@asynccontextmanager
async def linked(up: Platform, user: str) -> AsyncIterator[Link]:
    link = await up.connect(user)
    try:
        yield link
    finally:
        await link.close()


async def left_of(link: Link, key: SagaKey) -> list[str]:
    """What the streams hold of a saga, without the saga itself in it."""
    found = await link.read_all(SAGA, [subjects.whole_saga_filter(key)])
    found += await link.read_all(EVENTS, [subjects.saga_events_filter(key)])
    return [message.subject.replace(key.path, "*") for message in found]


async def not_purged(link: Link, keys: list[SagaKey], left: int = 1) -> list[SagaKey]:
    return [key for key in keys if len(await left_of(link, key)) > left]


async def until_purged(link: Link, keys: list[SagaKey], left: int = 1) -> None:
    """Until nothing but their ends is left, of all but one, whose event is the last of the stream."""
    async with asyncio.timeout(120):
        while len(await not_purged(link, keys, left)) > 1:
            await asyncio.sleep(0.05)


async def result_of_start(client: Antiphon, placed: OrderPlaced) -> Outcome:
    return await (await client.start(order, placed, id=placed.order_id)).result(timeout=120)


async def check_answers(client: Antiphon, placed: OrderPlaced, before: Outcome) -> None:
    """A saga that has ended answers as such, whatever is left of it."""
    handle = client.handle(order, placed.order_id)
    assert await handle.result(timeout=120) == before
    assert await result_of_start(client, placed) == before
    with pytest.raises(AlreadyStarted):
        await result_of_start(client, replace(placed, quantity=placed.quantity + 1))
    with pytest.raises(TooLate, match="it has ended"):
        await handle.cancel("too late")
    assert (await handle.status()).state == before.outcome


@pytest.mark.parametrize("point", sorted(each for each in POINTS if each.startswith("retention.")))
async def test_a_coordinator_killed_while_it_purges_leaves_nothing_that_answers_wrongly(
    point: str, tmp_path: Path
) -> None:
    """The first coordinator purges and dies there, some sagas in, and stays away; the second one, which keeps all for
    ever, is asked what is left. Then the first comes back."""
    orders = load_orders()[:ORDERS]
    keys = keys_of(orders)
    with platform(tmp_path) as up:
        await up.set_up()
        running = Fleet(up, tmp_path, {"coordinator-1": f"{point}:{ARRIVED}"}, order.name)
        keeper = running.children["coordinator-1"]
        keeper.environment |= {RETENTION: f"{order.name}=1s"}
        if "archived" in point:
            keeper.environment |= {ARCHIVE: str(tmp_path / "archive")}
        if "end_events" in point:
            keeper.environment |= {KEEP_ENDS: "1"}
        keeper.is_away = True
        with supervised(running.children):
            async with Antiphon.connect(up.servers) as client, linked(up, "administrator") as link:
                handles = [await client.start(order, each, id=each.order_id) for each in orders]
                before = [await handle.result(timeout=120) for handle in handles]
                await until(lambda: keeper.process and keeper.process.poll() is not None, what="the kill")
                assert len(await not_purged(link, keys)) < ORDERS
                for placed, outcome, key in zip(orders, before, keys, strict=True):
                    if await left_of(link, key):
                        await check_answers(client, placed, outcome)
                if "archived" in point:
                    assert len(await not_purged(link, keys)) > len(keys) - ARRIVED
                keeper.come_back()
                await until_purged(link, keys, 0 if "end_events" in point else 1)
                for placed, outcome, key in zip(orders, before, keys, strict=True):
                    if await left_of(link, key):
                        handle = client.handle(order, placed.order_id)
                        assert await handle.result(timeout=120) == outcome
            assert keeper.was_killed, running.logs()


@pytest.mark.parametrize("form", FORMS)
async def test_old_sagas_are_purged_while_others_run_and_their_coordinators_are_killed(
    form: Form, tmp_path: Path
) -> None:
    """Both coordinators purge, and one of them is killed again and again; the books agree with the outcomes."""
    first, second = load_orders()[:40], load_orders()[40:120]
    with platform(tmp_path, form) as up:
        await up.set_up()
        with fleet(up, tmp_path) as running:
            for name in KEEPERS:
                child = running.children[name]
                child.environment |= {RETENTION: f"{order.name}=1s"}
                child.kill()
            async with linked(up, "coordinator") as link:
                for orders in (first, second):
                    run = asyncio.ensure_future(run_orders(up, running, orders))
                    for name in (*KEEPERS, *KEEPERS):
                        await asyncio.sleep(0.7)  # somewhere in the middle; where does not matter
                        running.children[name].kill()
                    report = await run
                    assert report.completed + report.compensated >= len(orders)
                await until_purged(link, keys_of([*first, *second]))
                assert all(running.children[name].was_killed for name in KEEPERS), running.logs()
                await check_outcomes(up, [*first, *second])


async def check_outcomes(up: Platform, orders: list[OrderPlaced]) -> None:
    """All answer with an outcome, and none of them a second time."""
    async with Antiphon.connect(up.servers, credentials=up.credentials("client")) as client:
        for placed in orders:
            before = await client.handle(order, placed.order_id).result(timeout=120)
            assert await result_of_start(client, placed) == before
