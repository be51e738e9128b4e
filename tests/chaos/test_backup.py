"""Yesterday's streams beside today's databases, with real processes: every order ends once, as its services have it, or
waits for a person with the reason; whoever is told that effects belong to nobody starts them again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from antiphon.contracts import PlatformError, TooLate
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.coordinator.decision.history import KNOWS_MORE
from antiphon.order.data import load_orders
from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import Ended, Outcome, reconcile
from tests.support.backups import back_up, restore
from tests.support.commands import run_antiphon
from tests.support.orders import OrderApproved, approval, approved
from tests.support.processes import Fleet, fleet
from tests.support.server import Platform, platform, until

ORDERS: Final = load_orders()[:45]
OVER, CAUGHT, LATER = ORDERS[:12], ORDERS[12:35], ORDERS[35:]
"""Those that end before the backup, those that it catches, and those that are started after it."""
CHARGED, OVERTAKEN, CANCELLED = CAUGHT[:4], CAUGHT[4:8], CAUGHT[8:11]
"""Approved before the backup, while billing is away; of these some are cancelled after the backup; cancelled before."""
TAKEN_BACK, APPROVED, PATIENT = CAUGHT[11:14], CAUGHT[14:20], CAUGHT[20:]
"""Cancelled after the backup; approved after the backup; approved after the restore alone."""
SECONDS: Final = 120.0

Way = Literal["copied", "snapshot"]


@dataclass
class Shop:
    """The orders of a client over one platform, and how they ended as it was told."""

    up: Platform
    folder: Path
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])

    async def start(self, antiphon: Antiphon, orders: Iterable[OrderPlaced]) -> None:
        for placed in orders:
            await antiphon.start(approved, placed, id=placed.order_id)

    async def approve(self, antiphon: Antiphon, orders: Iterable[OrderPlaced]) -> None:
        for placed in orders:
            with suppress(TooLate):  # it was refused at once
                await signal(antiphon.handle(approved, placed.order_id))

    async def wait(self, antiphon: Antiphon, orders: Iterable[OrderPlaced]) -> dict[str, Outcome]:
        ended = dict[str, Outcome]()

        async def one(placed: OrderPlaced) -> None:
            outcome = await antiphon.handle(approved, placed.order_id).result(timeout=SECONDS)
            ended[f"order/{placed.order_id}"] = outcome.outcome

        await asyncio.gather(*map(one, orders))
        self.outcomes |= ended
        return ended

    async def cancel(self, antiphon: Antiphon, orders: Iterable[OrderPlaced], why: str) -> None:
        operator = antiphon.operator("ada", timeout=SECONDS)
        for placed in orders:
            await operator.saga(approved, placed.order_id).cancel(why)  # rejected where it was refused at once

    async def compare(self, running: Fleet, *options: str) -> dict[str, Any]:
        databases = [f"--database={name}={url}" for name, url in running.databases.items()]
        command = ["compare", "--app=tests.support.orders:approved", *databases, "--json", "--as=ada", *options]
        environment = {**os.environ, **self.up.environment("administrator")}
        ran = await asyncio.to_thread(run_antiphon, command, environment)
        found: dict[str, Any] = json.loads(ran.stdout) if ran.stdout else {}
        assert found, ran.stderr
        is_left = found["unknown"] or any(not each["is_paused"] for each in found["overtaken"])
        assert ran.returncode == (1 if is_left else 0), ran.stderr
        return found


async def signal(handle: Handle) -> None:
    """Approve an order, as soon as a coordinator runs that can tell what would come of it."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await handle.signal(approval, OrderApproved())
            except TooLate:
                raise
            except PlatformError:
                await asyncio.sleep(0.2)
            else:
                return


def states(running: Fleet, participant: str, step: str) -> dict[str, str]:
    """What an inbox says of a step, by the order."""
    with sqlite3.connect(running.databases[participant].removeprefix("sqlite:///")) as connection:
        rows = connection.execute("SELECT saga_id, state FROM antiphon_inbox WHERE step = ?", [step]).fetchall()
    connection.close()
    return dict(rows)


async def take(shop: Shop, running: Fleet, way: Way) -> Callable[[], Awaitable[None]]:
    """Back the streams up; what comes back restores them."""
    server, copy = shop.up.server, shop.folder / "backup"
    if way == "copied":
        server.stop()
        shutil.copytree(server.store, copy)
        server.start()

        async def from_copy() -> None:
            server.stop()
            shutil.rmtree(server.store)
            shutil.copytree(copy, server.store)
            server.start()

        return from_copy
    coordinators = [child for name, child in running.children.items() if name.startswith("coordinator")]
    for child in coordinators:
        child.is_away = True
        child.terminate()
        child.wait()
    backups = [await back_up(server.url, stream) for stream in (*shop.up.pairs.saga, *shop.up.pairs.events)]
    for child in coordinators:
        child.come_back()

    async def from_snapshots() -> None:
        for backup in backups:
            await restore(server.url, backup)
        await shop.up.set_up()

    return from_snapshots


@pytest.mark.parametrize(("way", "pairs"), [("copied", 1), ("snapshot", 1), ("snapshot", 2)])
async def test_with_the_streams_of_yesterday_every_order_ends_once_or_waits_with_the_reason(
    way: Way, pairs: int, tmp_path: Path
) -> None:
    with platform(tmp_path, pairs=pairs) as up:
        await up.set_up()
        shop = Shop(up, tmp_path)
        with fleet(up, tmp_path, saga="approved") as running:
            give_back, held = await live_on(shop, running, way)
        await give_back()
        found = await shop.compare(running)
        named = {each["saga"] for each in found["overtaken"]}
        assert named == {f"order/{each.order_id}" for each in (*TAKEN_BACK, *APPROVED) if each.order_id in held}
        assert set(found["unknown"]) == done_for_nobody(running)
        found = await shop.compare(running, "--pause")
        assert {each["saga"] for each in found["overtaken"] if each["is_paused"]} == named
        with fleet(up, tmp_path, saga="approved") as running:
            await end_all(shop, held)
            placed = {f"order/{each.order_id}": each for each in ORDERS}
            report = await reconcile(running.databases, Ended(shop.outcomes, placed))
            assert report.completed + report.compensated == len(ORDERS)


async def live_on(shop: Shop, running: Fleet, way: Way) -> tuple[Callable[[], Awaitable[None]], set[str]]:
    """Orders in all states, a backup in the middle, and all but a few of them ended; with what restores it, and the
    orders that had their goods at the backup."""
    async with Antiphon.connect(shop.up.servers, name="client") as antiphon:
        await shop.start(antiphon, OVER)
        await shop.approve(antiphon, OVER)
        await shop.wait(antiphon, OVER)
        billing = running.children["billing"]
        billing.stay_away()
        await shop.start(antiphon, CAUGHT)
        names = {each.order_id for each in CAUGHT}
        await until(lambda: names <= states(running, "inventory", "reserve_inventory").keys(), what="every reservation")
        reserved = states(running, "inventory", "reserve_inventory")
        await shop.approve(antiphon, [*CHARGED, *OVERTAKEN])
        await shop.cancel(antiphon, CANCELLED, "before the backup")
        await shop.wait(antiphon, CANCELLED)
    give_back = await take(shop, running, way)
    async with Antiphon.connect(shop.up.servers, name="client") as antiphon:
        await shop.cancel(antiphon, [*OVERTAKEN, *TAKEN_BACK], "after the backup")
        billing.come_back()
        await shop.start(antiphon, LATER)
        await shop.approve(antiphon, [*APPROVED, *LATER])
        await shop.wait(antiphon, [each for each in ORDERS if each not in PATIENT])
    return give_back, {name for name in names if reserved[name] == "done"}


def done_for_nobody(running: Fleet) -> set[str]:
    """The orders that were started after the backup, and of which an effect is there."""
    later = {each.order_id for each in LATER}
    return {
        f"order/{name}"
        for participant, step in (
            ("inventory", "reserve_inventory"),
            ("billing", "charge_customer"),
            ("shipping", "schedule_shipping"),
        )
        for name, state in states(running, participant, step).items()
        if state == "done" and name in later
    }


async def end_all(shop: Shop, held: set[str]) -> None:
    """Every order ends as it did; those that a person is needed for, once one has cancelled or approved them."""
    first = dict(shop.outcomes)
    async with Antiphon.connect(shop.up.servers, name="client") as antiphon:
        # The client says once more what it was not answered, with the same ids.
        await shop.start(antiphon, LATER)
        await shop.approve(antiphon, [*LATER, *PATIENT])
        await shop.wait(antiphon, [each for each in ORDERS if each not in (*TAKEN_BACK, *APPROVED)])
        for each in OVERTAKEN:
            if each.order_id in held:
                assert KNOWS_MORE in (await antiphon.handle(approved, each.order_id).result(timeout=SECONDS)).reason
        operator = antiphon.operator("ada", timeout=SECONDS)
        for each in (*TAKEN_BACK, *APPROVED):
            if each.order_id in held:
                assert KNOWS_MORE in (await antiphon.handle(approved, each.order_id).status()).paused
        await shop.cancel(antiphon, TAKEN_BACK, "it was cancelled before the restore")
        await shop.approve(antiphon, APPROVED)
        for each in (*TAKEN_BACK, *APPROVED):
            await operator.saga(approved, each.order_id).resume()
        await shop.wait(antiphon, [*TAKEN_BACK, *APPROVED])
        assert {key: shop.outcomes[key] for key in first} == first
