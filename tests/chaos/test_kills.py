"""Real processes, killed with SIGKILL at every named point: every saga ends, no effect twice, none lost, all traces
whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from antiphon.link.killpoints import POINTS
from antiphon.order.data import load_orders
from tests.support.processes import fleet, run_orders
from tests.support.server import FORMS_AND_PAIRS, Form, platform, until
from tests.support.traced import traced

from .test_halts import KILLS as HALTS

ORDERS = 40
OUTSIDE_POINTS = {"worker.claimed", "worker.outside_done"}
"""Of handlers with effects outside the database, which the order system has none of: `test_killed` has them."""
WORKER_POINTS = sorted({point for point in POINTS if point.startswith("worker.")} - OUTSIDE_POINTS)
COORDINATOR_POINTS = {
    "coordinator.pulled": ("parallel", ORDERS),
    "coordinator.between_appends": ("parallel", ORDERS),
    "coordinator.appended": ("parallel", ORDERS),
    "coordinator.before_tell": ("purchase", ORDERS // 4),
    "coordinator.lock_appended": ("purchase", ORDERS // 4),
}
"""Each with a saga that gets there, and how many of it: only parallel steps make two appends for one fact, and only a
child or a lock is something to tell others of. The points at which sagas stand still are in `test_halts`."""
IN_PAIRS = ("coordinator.before_tell", "pairs")
"""Once with sagas spread over several pairs of streams: children, parents and locks are in different ones then."""
ACK_WAIT_SECONDS = 3.0
"""What a killed worker held is delivered again after this time; in production after thirty seconds."""


def test_no_point_of_a_coordinator_is_left_out() -> None:
    ours = COORDINATOR_POINTS.keys() | {kill.partition(":")[0] for kills in HALTS.values() for kill in kills}
    assert ours == {point for point in POINTS if point.startswith("coordinator.")}


@pytest.mark.parametrize("point", WORKER_POINTS)
async def test_a_participant_killed_anywhere_costs_no_effect(point: str, tmp_path: Path) -> None:
    """The second of the three participants, so that sagas are under way on both sides of it."""
    with platform(tmp_path) as up:
        await up.set_up(ack_wait_seconds=ACK_WAIT_SECONDS)
        async with traced(up, tmp_path, "exporter.projected:1"):
            with fleet(up, tmp_path, {"billing": f"{point}:5"}) as running:
                report = await run_orders(up, running, load_orders()[:ORDERS])
                assert running.children["billing"].was_killed, running.logs()
    assert not report.discrepancies
    assert report.completed + report.compensated == ORDERS


@pytest.mark.parametrize(("point", "form"), [*((point, "plain") for point in COORDINATOR_POINTS), IN_PAIRS])
async def test_a_coordinator_killed_anywhere_costs_no_decision(point: str, form: Form, tmp_path: Path) -> None:
    """Both coordinators die there, so that whoever gets the fact next is a fresh process."""
    saga, count = COORDINATOR_POINTS[point]
    with platform(tmp_path, form) as up:
        await up.set_up()
        kill_at = {"coordinator-1": f"{point}:9", "coordinator-2": f"{point}:11"}
        async with traced(up, tmp_path, "exporter.exported:1"):
            with fleet(up, tmp_path, kill_at, saga=saga) as running:
                report = await run_orders(up, running, load_orders()[:count])
                killed = [child for child in running.children.values() if child.was_killed]
                assert killed, running.logs()
    assert not report.discrepancies
    assert report.completed + report.compensated == count


@pytest.mark.parametrize("form", FORMS_AND_PAIRS)
async def test_a_server_killed_in_mid_run_loses_nothing(form: Form, tmp_path: Path) -> None:
    """kill -9 of nats-server while sagas are under way; it comes back on the same port with the same store."""
    with platform(tmp_path, form) as up:
        await up.set_up()
        async with traced(up, tmp_path):
            with fleet(up, tmp_path) as running:
                orders = load_orders()[: 2 * ORDERS]
                run = asyncio.ensure_future(run_orders(up, running, orders, seconds=90))
                await until(running.is_writing, what="the participants' databases")
                await asyncio.sleep(1.0)  # somewhere in the middle; where does not matter
                up.server.kill()
                up.server.start()
                report = await run
    assert not report.discrepancies
    assert report.completed + report.compensated == len(orders)
