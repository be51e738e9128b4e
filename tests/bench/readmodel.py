"""`python -m tests.bench.readmodel`: how fast the read model is built from nothing, and how fast it answers.

The streams of many finished and some open sagas are written as coordinators and participants would have written them.
Then the model is built from them in SQLite and, where it is installed, in PostgreSQL, and asked what `antiphon list`
asks.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.table import Table

from antiphon.contracts import SagaKey
from antiphon.contracts.errors import Ambiguous
from antiphon.coordinator.definition.saga import Saga
from antiphon.deploy.local.postgres import postgres
from antiphon.deploy.readmodel.model import Model, Query, opened
from antiphon.deploy.readmodel.projector import Projector
from antiphon.link import Link, Outcome
from tests.support.server import platform
from tests.support.trip import PARTICIPANTS, TripAsked, make_trip
from tests.unit.decide.life import Life
from tests.unit.decide.walk import Written, messages_of

SAGAS: Final = 100_000
TYPES: Final = ("order", "refund", "delivery")
CUSTOMERS: Final = 1000
BLOCK: Final = 200
"""Sagas that are under way together, so that their messages are mixed as they would be."""
UNACKED_MAX: Final = 2000
ASKS: Final = 30

DAY_NS: Final = 86_400 * 10**9


def customer(start: TripAsked) -> dict[str, str]:
    return {"customer_id": start.traveller}


def trip(broken: str = "") -> Saga[TripAsked]:
    saga = make_trip(broken=broken)
    saga.keys = customer
    return saga


def completed() -> Life:
    life = Life(trip())
    life.start()
    for step in ("book_room", "book_seat", "charge_card"):
        life.answer(step)
    return life


def compensated() -> Life:
    life = compensating()
    life.undone("book_seat")
    life.undone("book_room")
    return life


def compensating() -> Life:
    life = running()
    life.answer("book_seat")
    life.answer("charge_card", "refused")
    return life


def running() -> Life:
    life = Life(trip())
    life.start()
    life.answer("book_room")
    return life


def parked() -> Life:
    life = Life(trip("book_seat"))
    life.start()
    life.answer("book_room")
    return life


SHARES: Final[tuple[tuple[Callable[[], Life], int], ...]] = (
    (completed, 910),
    (compensated, 50),
    (running, 30),
    (compensating, 5),
    (parked, 5),
)
"""Of a thousand sagas."""


class Writer:
    """Fills both streams."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._events = 0
        self._unacked = 0
        self._room = asyncio.Event()
        self._lives = [life for made, share in SHARES for life in [messages_of(made())] * share]

    async def write(self, sagas: int) -> int:
        """Write the lives of so many sagas, and return how many messages that were."""
        total = 0
        for first in range(0, sagas, BLOCK):
            block = [self._begin(number) for number in range(first, min(sagas, first + BLOCK))]
            for stage in range(max(len(each.life) for each in block)):
                for each in block:
                    if stage < len(each.life):
                        total += 1
                        await self._publish(*self._told(each, stage))
        while self._unacked:
            await self._wait()
        return total

    def _begin(self, number: int) -> Written:
        key = SagaKey.of(TYPES[number % len(TYPES)], f"s-{number:06}")
        return Written(self._lives[number * 7 % len(self._lives)], key, b"c-%03d" % (number % CUSTOMERS))

    def _told(self, saga: Written, stage: int) -> tuple[str, bytes]:
        subject, data, is_event = saga.message(stage, self._events)
        self._events += is_event
        return subject, data

    async def _publish(self, subject: str, data: bytes) -> None:
        self._unacked += 1
        self._link.publish(subject, data, "", self._on_stored)
        if self._unacked >= UNACKED_MAX:
            await self._wait()

    async def _wait(self) -> None:
        self._room.clear()
        await self._room.wait()

    def _on_stored(self, outcome: Outcome) -> None:
        if not isinstance(outcome, int):
            raise outcome
        self._unacked -= 1
        self._room.set()


async def build(link: Link, model: Model) -> tuple[int, float]:
    """Build the model from nothing: how many sagas, in how many seconds."""
    projector, began = Projector(link, model, await model.new_generation()), time.perf_counter()
    while await advance(projector):
        pass
    await model.make_live(projector.generation)
    seconds = time.perf_counter() - began
    await model.sweep()
    return projector.sagas, seconds


async def advance(projector: Projector) -> int:
    """One step of the projector; a busy server may need a second try."""
    try:
        return await projector.advance()
    except Ambiguous:
        return await projector.advance()


def questions() -> dict[str, Query]:
    """What is asked, by what `antiphon list` takes."""
    now_ns = time.time_ns()
    return {
        "(nothing)": Query(),
        "--state running --sort age": Query(state="running", sort="age"),
        "--state completed --type refund": Query(state="completed", type="refund"),
        "--parked": Query(parked=True),
        "--key customer_id=c-018": Query(keys={"customer_id": "c-018"}),
        "--key customer_id=c-018 --state running": Query(keys={"customer_id": "c-018"}, state="running"),
        "--state running --older-than 1d": Query(state="running", started_before_ns=now_ns - DAY_NS),
        "--sort changed --type order": Query(sort="changed", type="order"),
        "--limit 1000": Query(limit=1000),
    }


async def milliseconds(ask: Callable[[], Awaitable[object]]) -> list[float]:
    """How long an answer takes, several times."""
    found: list[float] = []
    for _ in range(ASKS):
        began = time.perf_counter()
        await ask()
        found.append((time.perf_counter() - began) * 1000)
    return sorted(found)


async def measure(link: Link, name: str, url: str, console: Console) -> None:
    """Build the model and question it."""
    async with opened(url, writes=True) as model:
        sagas, seconds = await build(link, model)
    console.print(f"{name}: {sagas:,} sagas from nothing in {seconds:.1f} s: {sagas / seconds:,.0f} sagas/s")
    table = Table("antiphon list …", "rows", "p50 ms", "p99 ms", title=name)
    async with opened(url) as reader:
        for text, query in questions().items():
            rows = len(await reader.find(query))
            times = await milliseconds(lambda query=query: reader.find(query))  # type: ignore[misc]
            table.add_row(text, str(rows), f"{statistics.median(times):.1f}", f"{times[-1]:.1f}")
    console.print(table)


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """The databases there are on this machine."""
    found = {"SQLite": f"sqlite:///{folder}/sagas.db"}
    try:
        with postgres() as server:
            yield {**found, "PostgreSQL": server.new_database()}
    except LookupError:
        yield found


async def run(sagas: int, console: Console) -> None:
    """Everything, once."""
    with (
        TemporaryDirectory(prefix="antiphon-readmodel-") as folder,
        platform(Path(folder), participants=PARTICIPANTS) as up,
        databases(Path(folder)) as urls,
    ):
        await up.set_up()
        link = await up.connect("administrator")
        try:
            began = time.perf_counter()
            messages = await Writer(link).write(sagas)
            console.print(f"{messages:,} messages of {sagas:,} sagas written in {time.perf_counter() - began:.0f} s")
            for name, url in urls.items():
                await measure(link, name, url, console)
        finally:
            await link.close()


def main() -> None:
    """Measure, and print tables."""
    options = argparse.ArgumentParser(prog="python -m tests.bench.readmodel", description=__doc__)
    options.add_argument("--sagas", type=int, default=SAGAS, help="how many there are (default %(default)s)")
    arguments = options.parse_args()
    asyncio.run(run(arguments.sagas, Console()))


if __name__ == "__main__":
    main()
