"""The server has no room left in mid-run: nothing is taken that cannot be kept, and with room again all sagas end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from antiphon.contracts import PlatformError
from antiphon.contracts.topology import REGISTRATIONS_BYTES_MAX
from antiphon.coordinator.client.client import Antiphon
from antiphon.link import Link
from antiphon.link.setup import api
from antiphon.order.data import load_orders
from antiphon.order.saga import order
from tests.support.processes import fleet, run_orders
from tests.support.server import platform, until

STORE_BYTES = REGISTRATIONS_BYTES_MAX + 1_000_000
"""As much as set-up insists on, and a little."""

EVENTS_BYTES = 900_000
"""More than all orders need, so that the server is full before the stream is."""

ROOM_BYTES = 300_000
"""What is left once somebody else has filled the store: enough for some of the orders."""

PIECE_BYTES = 100_000


async def test_sagas_that_stand_still_for_want_of_room_end_when_there_is_some(tmp_path: Path) -> None:
    with platform(tmp_path, store_bytes=STORE_BYTES) as up:
        await up.set_up(ack_wait_seconds=3.0, events_bytes=EVENTS_BYTES)
        stranger = await up.connect("administrator")
        await api(stranger, "STREAM.CREATE.BALLAST", {"name": "BALLAST", "subjects": ["ballast"], "storage": "file"})
        while await room(stranger) > ROOM_BYTES + PIECE_BYTES:
            await stranger.store("ballast", bytes(PIECE_BYTES))
        with fleet(up, tmp_path) as running:
            orders = load_orders()[:120]
            run = asyncio.ensure_future(run_orders(up, running, orders, seconds=90))
            coordinators = [running.children[f"coordinator-{number}"].log for number in (1, 2)]
            await until(
                lambda: run.done() or any("insufficient resources" in log.read_text() for log in coordinators),
                seconds=60,
                what="a server without room",
            )
            assert not run.done(), "there was room for all of it"
            async with Antiphon.connect(up.servers, name="client") as antiphon:
                with pytest.raises(PlatformError, match=r"no room for .* so nothing has changed: insufficient"):
                    await antiphon.start(order, load_orders()[200], id="one-too-many")
            await api(stranger, "STREAM.DELETE.BALLAST")
            report = await run
            assert not any(child.exits for child in running.children.values()), running.logs()
        await stranger.close()
    assert not report.discrepancies
    assert report.completed + report.compensated == len(orders)


async def room(link: Link) -> int:
    """How many bytes the server can still store."""
    return STORE_BYTES - int((await api(link, "INFO"))["storage"])
