"""A participant with a thousand compensations that keep failing, and healthy commands among them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from antiphon.contracts import Unavailable
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import EVENTS_FILTER
from antiphon.participants import Transaction, open_database
from tests.support.server import until

from .play import Play, play
from .stock import Stock, sqlite_url, tables

FAILING: Final = 1000
HEALTHY: Final = 200
FOR_EVER: Final = Retry(attempts=1_000_000, first_seconds=0.5, factor=2.0, cap_seconds=5.0)


@dataclass(frozen=True)
class Answered:
    """What a healthy command saw from when it was sent to when its event was stored."""

    seconds: float
    compensations: int
    """How many compensations failed meanwhile."""


@dataclass
class Crowd:
    """The participant at work."""

    playing: Play
    stock: Stock
    said: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0

    @property
    def failed(self) -> int:
        """How many compensations were tried so far."""
        return self.stock.calls.count("release")

    async def answered(self) -> Answered:
        """Send one healthy command and wait for its event."""
        self.said.clear()
        began, failed = time.monotonic(), self.failed
        await self.playing.do(f"h{self.sent}")
        self.sent += 1
        await self.said.wait()
        return Answered(time.monotonic() - began, self.failed - failed)

    async def until_more_fail(self) -> None:
        """Wait until one more has failed: they have not been given up."""
        before = self.failed
        await until(lambda: self.failed > before, what="compensations that still fail")


@asynccontextmanager
async def crowd(folder: Path, kind: str, failing: int = FAILING) -> AsyncIterator[Crowd]:
    """Have every compensation failed once, and keep failing for the length of a block.

    Args:
        folder: where the server's files and the database go.
        kind: of database, `memory` or `sqlite`.
        failing: how many compensations fail.
    """
    async with play(folder) as playing:
        stock = Stock(on_release=_keep_failing)
        database = open_database(sqlite_url(folder) if kind == "sqlite" else "memory:")
        await database.open(tables)
        for number in range(failing):
            await stock.do(database, saga=f"f{number}")
        await asyncio.gather(*(playing.undo(f"f{number}", retry=FOR_EVER) for number in range(failing)))
        stock.calls.clear()
        await playing.worker(stock, database)
        found = Crowd(playing, stock)
        await until(lambda: found.failed >= failing, what="every compensation failed once")
        await playing.link.subscribe(EVENTS_FILTER, lambda subject, *_: found.said.set() if ".h" in subject else None)
        yield found
        await playing.workers[0].drain(grace_seconds=0.0)
        await database.close()


async def _keep_failing(tx: Transaction) -> None:
    raise Unavailable("the shelf is stuck")
