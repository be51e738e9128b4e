"""A cluster of three: one node is killed with SIGKILL in mid-run, and no saga notices but by waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from antiphon.order.data import load_orders
from tests.support.processes import Fleet, fleet, run_orders
from tests.support.server import platform, until


@pytest.mark.parametrize("node", [0, 1, 2])
async def test_a_node_killed_in_mid_run_loses_nothing(node: int, tmp_path: Path) -> None:
    with platform(tmp_path, nodes=3) as up:
        await up.set_up(ack_wait_seconds=3.0)
        with fleet(up, tmp_path) as running:
            orders = load_orders()[:60]
            run = asyncio.ensure_future(run_orders(up, running, orders, seconds=120))
            await under_way(running)
            up.nodes[node].kill()
            up.nodes[node].start()
            report = await run
    assert not report.discrepancies
    assert report.completed + report.compensated == len(orders)


async def under_way(running: Fleet) -> None:
    """Wait until the participants have begun to write things down."""
    await until(running.is_writing, what="the participants' databases")
    await asyncio.sleep(1.5)  # somewhere in the middle; where does not matter
