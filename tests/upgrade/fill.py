"""`python -m tests.upgrade.fill PART`: a client of whichever release runs this fills a store.

PART is `store` while coordinators and participants run, which bring sagas to where a test wants them, and `unread` when
none does.
"""

from __future__ import annotations

import asyncio
import os
import sys

from antiphon.coordinator import Antiphon

from .sagas import require_release
from .scenarios import ENDED, OPEN, OPERATOR, PAUSED, PAUSED_PARTICIPANT, PAUSED_TYPE, UNREAD, begin, live


async def fill_store(antiphon: Antiphon) -> None:
    """Begin sagas of every kind, and pause what is to be found paused."""
    for is_last in (False, True):
        some = [scenario for scenario in (*ENDED, *OPEN) if scenario.is_last == is_last]
        await asyncio.gather(*(live(antiphon, scenario) for scenario in some))
    operator = antiphon.operator(OPERATOR)
    assert (await operator.saga_type(PAUSED_TYPE).pause("a rest")).is_accepted
    assert (await operator.participant(PAUSED_PARTICIPANT).pause("a rest")).is_accepted
    await asyncio.gather(*(live(antiphon, scenario) for scenario in PAUSED))


async def fill(part: str) -> None:
    """Connect, and fill."""
    async with Antiphon.connect(os.environ["NATS_URL"]) as antiphon:
        if part == "store":
            await fill_store(antiphon)
        else:
            for scenario in UNREAD:
                await begin(antiphon, scenario)
    require_release()


if __name__ == "__main__":
    asyncio.run(fill(sys.argv[1]))
