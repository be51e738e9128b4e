"""The load that a client puts on a platform, whichever it is, and what it saw."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec

PATIENCE_SECONDS: Final = 120.0
OPEN_LOOP_TICK_SECONDS: Final = 0.005


Shape = Literal["plain", "diamond", "compensated"]
"""Three steps in a row; one step, then two at once, then one; three steps in a row of which the last is refused."""


class Load(msgspec.Struct, frozen=True):
    """How many sagas, and when the next one starts: so many at once, or so many a second whatever becomes of them.

    Args:
        name: what it is called in the tables.
        round: keeps the ids of its sagas apart from those of other rounds.
        sagas: how many it has.
        seconds: for how long sagas start, where none are counted: as long for a slow system as for a quick one.
        shape: how its sagas go; their ids begin with it.
    """

    name: str
    round: int
    sagas: int = 0
    seconds: float = 0.0
    in_flight: int = 0
    per_second: int = 0
    shape: Shape = "plain"


class Seen(msgspec.Struct, frozen=True):
    """What the client saw of one load."""

    sagas: int
    sagas_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float


class Driver:
    """Starts sagas as its load says and times each from its start to its end.

    Args:
        load: how many, and when.
        begin: sends the start of the saga with the given id, and returns without waiting.
    """

    def __init__(self, load: Load, begin: Callable[[str], None]) -> None:
        self._load, self._begin = load, begin
        self._began: dict[str, float] = {}
        self._took: list[float] = []
        self._count = 0
        self._opened = 0.0
        # Loads follow each other on one server, and their names are for people.
        self._prefix = f"{load.shape}-{load.name.replace(' ', '-')}-{load.round}"
        self._done = asyncio.get_running_loop().create_future()

    def ended(self, saga_id: str) -> None:
        """Note that a saga has ended; those of other loads are ignored."""
        began = self._began.pop(saga_id, None)
        if began is None:
            return
        self._took.append(time.perf_counter() - began)
        if self._load.in_flight and self._has_more():
            self._start()
        elif not self._began and not self._has_more():
            self._done.set_result(None)

    async def run(self) -> Seen:
        """Run the load until its last saga has ended.

        Raises:
            TimeoutError: sagas are missing.
        """
        self._opened, cpu = time.perf_counter(), time.process_time()
        if self._load.per_second:
            await self._at_a_rate()
        for _ in range(self._load.in_flight):
            if self._has_more():
                self._start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._done
        took = sorted(self._took)
        return Seen(
            sagas=len(took),
            sagas_per_second=len(took) / self._elapsed(),
            p50_ms=statistics.median(took) * 1e3,
            p99_ms=took[int(len(took) * 0.99)] * 1e3,
            cpu_seconds=time.process_time() - cpu,
        )

    async def _at_a_rate(self) -> None:
        while self._count < self._load.sagas:
            due = int(self._elapsed() * self._load.per_second) + 1
            while self._count < min(due, self._load.sagas):
                self._start()
            await asyncio.sleep(OPEN_LOOP_TICK_SECONDS)

    def _has_more(self) -> bool:
        if self._load.sagas:
            return self._count < self._load.sagas
        return self._elapsed() < self._load.seconds

    def _elapsed(self) -> float:
        """Seconds since the load began."""
        return time.perf_counter() - self._opened

    def _start(self) -> None:
        saga_id = f"{self._prefix}-{self._count}"
        self._count += 1
        self._began[saga_id] = time.perf_counter()
        self._begin(saga_id)
