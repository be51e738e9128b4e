"""`python -m tests.integration.platform.registering SERVERS SECONDS`: a process that only registers, ever again."""

from __future__ import annotations

import asyncio
import sys

from antiphon.link import Link
from antiphon.link.registration import registered
from antiphon.order.inventory import inventory
from antiphon.participants.capabilities import capabilities_of


async def main(servers: str, renew_seconds: float) -> None:
    link = await Link.connect(servers, name="inventory")
    async with registered(link, capabilities_of(inventory), renew_seconds):
        await link.failure


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
