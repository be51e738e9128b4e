"""What a killed worker held is handed back at once by whoever sees that it is dead.

The consumers have an ack wait that is longer than any of these tests may take.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from antiphon.participants import note_files, note_rows
from antiphon.participants.databases import Busy
from antiphon.participants.memory import MemoryDatabase
from antiphon.participants.notes import Left, open_notes
from tests.support.processes import Child
from tests.support.server import until

from .holder import GATE
from .play import Play, come, play
from .stock import Gate, Stock, Store, sqlite_url
from .test_worker import ONCE

HELD = 16
ACK_WAIT_SECONDS = 300.0


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(note_rows, "RESTART_SECONDS", 0)
    found: str = request.param
    return found


@asynccontextmanager
async def store_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A database that outlives its processes."""
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    store = Store(kind, server.new_database() if server else sqlite_url(folder))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def holder(
    playing: Play, store: Store, folder: Path, *, ack_wait_seconds: float = ACK_WAIT_SECONDS
) -> AsyncIterator[Child]:
    """A process that holds all commands there are, one of them inside its transaction."""
    gate = folder / GATE
    arguments = ["tests.integration.participants.holder", playing.up.servers, store.url, gate, ack_wait_seconds]
    child = Child("stock", [str(each) for each in arguments], playing.up.environment("stock"), folder / "stock.log")
    child.launch()
    try:

        async def holds_all() -> bool | None:
            return True if await noted(store.url) == HELD else None

        await come(holds_all, f"{HELD} commands held and noted")
        yield child
    finally:
        child.signal(signal.SIGCONT)
        child.kill()
        child.wait()


async def noted(url: str) -> int:
    """How many deliveries the processes of a database have noted."""
    path = url.partition("sqlite:///")[2]
    if path:
        files = await asyncio.to_thread(lambda: list(Path(f"{path}-held").glob("stock.*")))
        return sum([len(note_files._read("", await asyncio.to_thread(each.read_bytes)).replies) for each in files])
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as connection:
        there = (await connection.execute(text("SELECT to_regclass('antiphon_held') IS NOT NULL"))).scalar()
        rows = (await connection.execute(text("SELECT replies FROM antiphon_held"))).all() if there else []
    await engine.dispose()
    return sum(len(replies.split("\n")) for (replies,) in rows if replies)


@pytest.mark.parametrize("survivor", ["alive", "started"])
async def test_what_a_killed_worker_held_is_answered_by_another_one_before_the_ack_wait_is_over(
    survivor: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sagas = [f"held-{number}" for number in range(HELD)]
    async with (
        store_of(kind, tmp_path, request) as store,
        play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as playing,
    ):
        for saga in sagas:
            await playing.do(saga, retry=ONCE)
        database = await store.open()  # before the holder has SQLite's only write lock
        async with holder(playing, store, tmp_path) as child:
            notes = open_notes(store.url, "stock", "survivor")
            settings = {"notes": notes, "ack_wait_seconds": ACK_WAIT_SECONDS}
            if survivor == "alive":
                await playing.worker(Stock(), database, **settings)
            child.kill()
            child.wait()
            if survivor == "started":
                await playing.worker(Stock(), database, **settings)
            for saga in sagas:
                await playing.answer(saga, "stock-reserved")
        assert await store.effects() == ["reserved"] * HELD
        await playing.close()
        playing.workers.clear()


class Noted:
    """Notes that say what a test wants."""

    def __init__(self, *left: Left) -> None:
        self.left, self.written, self.forgotten = list(left), list[Sequence[str]](), list[str]()
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    def write(self, replies: Sequence[str]) -> None:
        self.written.append(replies)

    async def dead(self, is_starting: bool) -> list[Left]:
        left, self.left = self.left, []
        return left

    async def forget(self, left: Left) -> None:
        self.forgotten.append(left.instance)

    async def close(self) -> None:
        self.is_open = False


ANOTHERS = "$JS.ACK.SAGA.billing.1.1.1.1700000000000000000.0"


@pytest.mark.parametrize("is_old", [False, True])
async def test_only_what_may_still_be_held_by_the_dead_is_handed_back(is_old: bool, tmp_path: Path) -> None:
    """What it said last before an ack wait has long been delivered to somebody else. And a right is missing to speak
    of other consumers, without which a process ends."""
    async with play(tmp_path, "accounts", ack_wait_seconds=ACK_WAIT_SECONDS) as playing:
        await playing.do("held")
        link = await playing.up.connect("stock", name="dead")
        pull = await link.pull("SAGA", "stock", 1, lambda delivery: replies.append(delivery.reply))
        replies: list[str] = []
        await until(lambda: replies)
        await link.close()
        assert pull.held == 1
        left = Left("dead", (*replies, ANOTHERS, "evt.1.order.held.stock.lie.1", "$JS.ACK.x"), 60.0 if is_old else 0.5)
        notes, stock = Noted(left), Stock()
        worker = await playing.worker(stock, MemoryDatabase(), notes=notes)
        assert notes.forgotten == ["dead"]
        await playing.do("fresh")
        await playing.answer("fresh", "stock-reserved")
        if not is_old:
            await playing.answer("held", "stock-reserved")
        assert len(stock.calls) == (1 if is_old else 2)
        await worker._link.flushed()
        assert not worker._link.failure.done()


async def test_a_database_that_is_locked_for_a_moment_has_nothing_handed_back_twice(tmp_path: Path) -> None:
    class Locked(MemoryDatabase):
        refusals = 2

        async def end_runs(self, instance: str) -> None:
            if self.refusals:
                self.refusals -= 1
                raise Busy("the database is locked")
            await super().end_runs(instance)

    class Kept(Noted):
        async def dead(self, is_starting: bool) -> list[Left]:
            return [each for each in self.left if each.instance not in self.forgotten]

    async with play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as playing:
        await playing.do("held")
        link = await playing.up.connect("stock", name="dead")
        replies: list[str] = []
        await link.pull("SAGA", "stock", 1, lambda delivery: replies.append(delivery.reply))
        await until(lambda: replies)
        await link.close()
        notes, gate = Kept(Left("dead", tuple(replies), 0.5)), Gate()
        worker = await playing.worker(Stock(on_reserve=gate), Locked(), notes=notes)
        await gate.reached.wait()
        await until(lambda: notes.forgotten)
        gate.opened.set()
        await playing.answer("held", "stock-reserved")
        await playing.is_settled()
        assert worker.counts.totals["redeliveries", ("stock",)] == 1


async def test_what_is_held_is_noted_before_its_handler_runs_and_no_longer_than_it_is_held(tmp_path: Path) -> None:
    notes, at_the_call = Noted(), list[Sequence[str]]()
    stock = Stock()

    async def look(tx: object) -> None:
        at_the_call.append(notes.written[-1])

    stock.on_reserve = look
    async with play(tmp_path) as playing:
        worker = await playing.worker(stock, MemoryDatabase(), notes=notes)
        await playing.do("held")
        await playing.answer("held", "stock-reserved")
        await playing.is_settled()
        ((reply,),) = at_the_call
        assert reply.startswith("$JS.ACK.SAGA.stock.1.")
        await until(lambda: notes.written[-1] == [])
        assert notes.is_open
        await worker.drain()
        assert not notes.is_open


async def test_a_worker_that_cannot_note_anything_works_all_the_same(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    notes = open_notes(store.url, "stock", "one")
    database = await store.open()
    (tmp_path / f"{store.url.rpartition('/')[2]}-held").write_text("a file where the folder would be")
    async with play(tmp_path) as playing:
        await playing.worker(Stock(), database, notes=notes)
        await playing.do("held")
        await playing.answer("held", "stock-reserved")
        await playing.close()
        playing.workers.clear()
    await store.close()


async def test_what_cannot_be_taken_over_now_is_taken_over_later(tmp_path: Path) -> None:
    class Away(Noted):
        async def dead(self, is_starting: bool) -> list[Left]:
            if is_starting:
                raise ConnectionError("the database is away")
            return await super().dead(is_starting)

    notes = Away(Left("dead", (), 0.5))
    async with play(tmp_path) as playing:
        await playing.worker(Stock(), MemoryDatabase(), notes=notes)
        await until(lambda: notes.forgotten)
        await asyncio.sleep(0)
