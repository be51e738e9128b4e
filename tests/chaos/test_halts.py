"""Coordinators killed while they pause and resume a saga type: what was asked for holds, and no saga is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from antiphon.contracts import PlatformError, UnknownSaga
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.order.data import load_orders
from antiphon.order.saga import order
from tests.support.processes import fleet
from tests.support.server import Platform, platform
from tests.support.traced import traced

ORDERS = 30

KILLS = {
    "after the append, and in the middle of the walk": ("coordinator.halt_appended:1", "coordinator.halt_walking:1"),
    "after the others were told": ("coordinator.halt_told:1", "coordinator.halt_told:2"),
}


PAUSED = "all sagas of its type are paused by ada: a test"


async def wait_paused(handle: Handle) -> None:
    """A coordinator that was killed before its announcement left the process has told nobody: then the others know
    once the request is delivered again."""
    async with asyncio.timeout(120):
        while True:
            with suppress(PlatformError, UnknownSaga):
                if (await handle.status()).paused == PAUSED:
                    return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("kills", KILLS.values(), ids=list(KILLS))
async def test_a_coordinator_killed_while_it_pauses_or_resumes_loses_no_saga(
    kills: tuple[str, str], tmp_path: Path
) -> None:
    kill_at: dict[str, str] = dict(zip(("coordinator-1", "coordinator-2"), kills, strict=True))
    with platform(tmp_path) as up:
        await up.set_up()
        async with traced(up, tmp_path):
            with fleet(up, tmp_path, kill_at) as running:
                await pause_and_resume(up)
                assert [child for child in running.children.values() if child.was_killed], running.logs()


async def pause_and_resume(up: Platform) -> None:
    """Start orders while their type stands still, have it go on, and wait until all have ended."""
    async with Antiphon.connect(up.servers, name="client") as antiphon:
        orders = antiphon.operator("ada", timeout=120).saga_type(order)
        assert (await orders.pause("a test")).is_accepted
        handles = [await antiphon.start(order, placed, id=placed.order_id) for placed in load_orders()[:ORDERS]]
        await wait_paused(handles[-1])
        for _ in range(2):  # the second finds it resumed, or does what the first died of
            await orders.resume()
        outcomes = await asyncio.gather(*(handle.result(timeout=120) for handle in handles))
    assert {outcome.outcome for outcome in outcomes} <= {"completed", "compensated"}
