"""Antiphon's client: `python -m tests.bench.databases.client URL LOAD` runs a load and says what it saw.

By the public client, a handle for each saga: the peer's client is what one would write by hand, too.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop

from antiphon.coordinator import Antiphon
from tests.bench.load import Driver, Load, Seen

from .shop import OrderPlaced, order


async def drive(url: str, load: Load) -> Seen:
    """Start sagas and see them end.

    Raises:
        ExceptionGroup: one of them did not complete.
    """
    async with Antiphon.connect(url) as antiphon, asyncio.TaskGroup() as group:

        async def run(saga_id: str) -> None:
            handle = await antiphon.start(order, OrderPlaced(id=saga_id), id=saga_id)
            ended = await handle.result()
            if ended.outcome != "completed":
                raise RuntimeError(f"{saga_id} is {ended.outcome}: {ended.reason}")
            driver.ended(saga_id)

        def begin(saga_id: str) -> None:
            group.create_task(run(saga_id))

        driver = Driver(load, begin)
        return await driver.run()


if __name__ == "__main__":
    _, server, what = sys.argv
    seen = uvloop.run(drive(server, msgspec.json.decode(what, type=Load)))
    sys.stdout.buffer.write(msgspec.json.encode(seen))
