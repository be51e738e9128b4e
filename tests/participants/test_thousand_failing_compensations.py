"""A thousand compensations that keep failing leave the same participant's commands alone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from antiphon.contracts import Unavailable
from antiphon.contracts.retry import Retry
from antiphon.contracts.wire import EVENTS_FILTER
from antiphon.participants import Transaction, open_database
from tests.support.server import until

from .play import Play, play
from .stock import Stock, sqlite_url, tables

FAILING = 1000
HEALTHY = 200
FOR_EVER = Retry(attempts=1_000_000, first_seconds=0.5, factor=2.0, cap_seconds=5.0)
MEDIAN_SECONDS_MAX = 0.05
WORST_SECONDS_MAX = 0.5


async def keep_failing(tx: Transaction) -> None:
    raise Unavailable("the shelf is stuck")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_thousand_failing_compensations_do_not_delay_healthy_commands(kind: str, tmp_path: Path) -> None:
    async with play(tmp_path) as playing:
        stock = Stock(on_release=keep_failing)
        database = open_database(sqlite_url(tmp_path) if kind == "sqlite" else "memory:")
        await database.open(tables)
        for number in range(FAILING):
            await stock.do(database, saga=f"f{number}")
        await asyncio.gather(*(playing.undo(f"f{number}", retry=FOR_EVER) for number in range(FAILING)))
        stock.calls.clear()
        await playing.worker(stock, database)
        await until(lambda: stock.calls.count("release") >= FAILING, seconds=40, what="every compensation failed once")
        seconds = sorted(await latencies(playing))
        failed_since = stock.calls.count("release")
        await until(lambda: stock.calls.count("release") > failed_since, what="compensations that still fail")
        assert seconds[HEALTHY // 2] < MEDIAN_SECONDS_MAX, seconds[:: HEALTHY // 10]
        assert seconds[-1] < WORST_SECONDS_MAX, seconds[:: HEALTHY // 10]
        await playing.workers[0].drain(grace_seconds=0.0)
        await database.close()


async def latencies(playing: Play) -> list[float]:
    """How long one healthy command after the other takes from being sent to its event, in seconds."""
    answered = asyncio.Event()
    await playing.link.subscribe(EVENTS_FILTER, lambda subject, *_: answered.set() if ".h" in subject else None)
    found = list[float]()
    for number in range(HEALTHY):
        answered.clear()
        sent = time.monotonic()
        await playing.do(f"h{number}")
        await answered.wait()
        found.append(time.monotonic() - sent)
    return found
