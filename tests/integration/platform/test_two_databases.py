"""Two processes of one participant that use different databases by mistake, and a database that is older than the
journals: what was done is taken back by whoever knows of it, and nobody says that there was nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from antiphon.contracts import Retry
from antiphon.coordinator.client.client import Handle
from antiphon.participants.procedures import ROW_IS_MISSING
from tests.integration.platform.test_coordinator import company
from tests.integration.platform.test_refunds import SHOP, Gateway, Ordered, shop, stuck, till, works

SAGAS = 20
SOON = Retry(attempts=1, first_seconds=0.05, factor=1, cap_seconds=0.05)


async def test_what_one_process_has_done_another_one_with_its_own_database_does_not_call_nothing(
    tmp_path: Path,
) -> None:
    gateway, saga = Gateway(), shop(SOON)
    gateway.is_there = True
    async with company(tmp_path, "plain", ("till",)) as there, AsyncExitStack() as stack:
        await there.coordinate(sagas=[saga])
        for name in ("one", "two"):
            await works(there, stack, till(gateway, is_outside=False), tmp_path / f"{name}.db")
        client = await there.client()
        handles = [await client.start(saga, Ordered(number=n), id=f"order-{n}") for n in range(SAGAS)]
        outcomes = await asyncio.gather(*(handle.result(timeout=240) for handle in handles))
    assert {each.outcome for each in outcomes} == {"compensated"}
    assert gateway.paid == Counter(range(SAGAS))


async def test_a_database_that_is_older_than_the_journals_says_so_and_waits_for_a_person(tmp_path: Path) -> None:
    gateway = Gateway()
    async with company(tmp_path, "plain", ("till",)) as there, AsyncExitStack() as stack:
        await there.coordinate(sagas=[SHOP])
        first = await works(there, stack, till(gateway, is_outside=False), tmp_path / "today.db")
        handle = await (await there.client()).start(SHOP, Ordered(number=1), id="order-1")
        await stuck(handle)
        await first.drain(5.0)
        gateway.is_there = True
        await works(there, stack, till(gateway, is_outside=False), tmp_path / "yesterday.db")
        asks = (await there.client("operator")).operator("ada", timeout=120).saga(SHOP, handle.id)
        await asks.retry("charge")
        await says(handle, ROW_IS_MISSING)
        await asks.resolve("charge", "refunded by hand")
        assert (await handle.result(timeout=120)).outcome == "compensated"
    assert gateway.paid == {}


async def says(handle: Handle, why: str) -> None:
    """Wait until a saga waits for a person for this reason."""
    async with asyncio.timeout(120):
        while why not in (await handle.status()).parked:
            await asyncio.sleep(0.05)
