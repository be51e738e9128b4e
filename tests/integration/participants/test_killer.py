"""A command that kills its workers comes to an end, and no command that was there by chance ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from antiphon.contracts import Retry
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.messages import Refusal
from antiphon.contracts.payloads import Parked
from antiphon.contracts.subjects import Direction
from antiphon.contracts.topology import PARKED
from antiphon.participants import Transaction
from antiphon.participants.memory import MemoryDatabase
from tests.support.processes import Child, supervised
from tests.support.server import until

from .killer import ACK_WAIT_SECONDS, CONCURRENCY, EXIT_CODE, EXITS, KILLER
from .play import Play, play
from .reactor import Ordered, Reactor
from .stock import Gate, Stock, Store, sqlite_url
from .test_worker import ONCE

TWICE = Retry(attempts=2, first_seconds=0.01, factor=1.0, cap_seconds=0.01)
DEATHS = 1 + 2
"""One among the others, which says nothing about any of them, and two alone, which are its attempts."""


@pytest.mark.parametrize(
    ("direction", "kind", "code"),
    [("do", "sqlite", -9), ("do", "sqlite", EXIT_CODE), ("do", "postgres", -9), ("undo", "sqlite", -9)],
)
async def test_a_command_that_kills_its_workers_is_exhausted_and_no_other(
    direction: Direction, kind: str, code: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """All others have a single attempt, so that one death held against them would be one too many."""
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    store = Store(kind, server.new_database() if server else sqlite_url(tmp_path))
    others: list[str] = []
    async with play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as playing:
        if direction == "undo":
            await Stock().do(await store.open(), saga=KILLER)
            await playing.undo(KILLER, retry=TWICE)
        else:
            await playing.do(KILLER, retry=TWICE)
        async with worker(playing, store, tmp_path, exits=code == EXIT_CODE) as child:
            token = "stock-reserve-exhausted" if direction == "do" else "stock-release-exhausted"
            # Four processes start before it comes, one after the other, beside all other tests.
            answer = asyncio.create_task(playing.answer(KILLER, token))
            while not answer.done():  # there are always others: some begun, some waiting, when the process dies
                for _ in range(3 * CONCURRENCY - await open_commands(playing)):
                    others.append(f"other-{len(others)}")
                    await playing.do(others[-1], retry=ONCE)
                await asyncio.wait({answer}, timeout=0.03)
            reason = unpack_raw((await answer).data, Refusal).reason
            for other in others:
                await playing.answer(other, "stock-reserved")
            assert reason == "no attempt is left: 0 failed, and 2 took the worker with them"
            assert child.exits == [code] * DEATHS
            await playing.is_settled("do")
            await playing.is_settled("undo")
    done = ["reserved"] * len(others)
    assert await store.effects() == (["reserved", *done] if direction == "undo" else done)
    await store.close()


async def open_commands(playing: Play) -> int:
    """How many commands were not brought to an end."""
    found = await playing.consumer("do")
    return int(found["num_pending"] + found["num_ack_pending"])


@asynccontextmanager
async def worker(playing: Play, store: Store, folder: Path, *more: str, exits: bool = False) -> AsyncIterator[Child]:
    """A participant's process, started again as often as it dies."""
    await store.open()
    arguments = ["tests.integration.participants.killer", playing.up.servers, store.url, *more]
    environment = {**playing.up.environment("stock"), **({EXITS: "1"} if exits else {})}
    child = Child("stock", arguments, environment, folder / "stock.log")
    with supervised({"stock": child}):
        yield child


async def test_a_reaction_that_kills_its_worker_waits_for_a_person_and_no_other_does(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    listeners = [Reactor().participant.listener]
    async with play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS, listeners=listeners) as playing:
        await playing.tell(Ordered(), KILLER)
        others = [f"other-{number}" for number in range(20)]
        for other in others:
            await playing.tell(Ordered(), other)
        async with worker(playing, store, tmp_path, "reacting") as child:
            parked = msgspec.json.decode((await playing.parked()).data, type=Parked)
            assert KILLER in parked.subject
            assert parked.reason == "2 attempts took the worker with them"
            assert child.exits[:DEATHS] == [-9] * DEATHS
            for other in others:
                await playing.follows(other, "stock-set-aside", "on-shop-ordered")
        kinds = [message.subject for message in await playing.administrator.read_all(PARKED, ["parked.>"])]
        assert set(kinds) == {"parked.fault.stock.client"}
    assert await store.effects() == ["set aside"] * len(others)
    await store.close()


async def test_what_was_lost_is_performed_one_at_a_time_and_holds_up_nobody(tmp_path: Path) -> None:
    async with play(tmp_path, ack_wait_seconds=0.3) as playing:
        lost = [f"lost-{number}" for number in range(CONCURRENCY)]
        for saga in lost:
            await playing.do(saga, retry=ONCE)
        await lose(playing, len(lost))
        gate, stock = Gate(), Stock()

        async def wait(tx: Transaction) -> None:
            if len(stock.calls) == 1:
                await gate(tx)

        stock.on_reserve = wait
        await playing.worker(stock, MemoryDatabase(), concurrency=CONCURRENCY)
        await gate.reached.wait()
        for number in range(3 * CONCURRENCY):
            await playing.do(f"fresh-{number}", retry=ONCE)
            await playing.answer(f"fresh-{number}", "stock-reserved")
        answered = [saga for saga in lost if await playing.answers(saga)]
        assert answered == [], "they had to wait for the one that is performed alone"
        gate.opened.set()
        for saga in lost:
            await playing.answer(saga, "stock-reserved")
        assert len(stock.calls) == len(lost) + 3 * CONCURRENCY


async def test_lost_commands_wait_for_their_turn_in_the_worker_and_are_not_handed_back(tmp_path: Path) -> None:
    async with play(tmp_path, ack_wait_seconds=0.3) as playing:
        lost = [f"lost-{number}" for number in range(CONCURRENCY)]
        for saga in lost:
            await playing.do(saga, retry=ONCE)
        await lose(playing, len(lost))
        stock = Stock()
        worker = await playing.worker(stock, MemoryDatabase(), concurrency=CONCURRENCY, ack_wait_seconds=0.3)
        for saga in lost:
            await playing.answer(saga, "stock-reserved")
        await playing.is_settled()
        assert len(stock.calls) == len(lost)
        assert worker.counts.totals["redeliveries", ("stock",)] == len(lost), "each was delivered here once"


async def test_no_more_lost_commands_wait_in_a_worker_than_it_has_places(tmp_path: Path) -> None:
    async with play(tmp_path, ack_wait_seconds=0.3) as playing:
        lost = [f"lost-{number}" for number in range(4 * CONCURRENCY)]
        for saga in lost:
            await playing.do(saga, retry=ONCE)
        await lose(playing, len(lost))
        gate = Gate()
        stock = Stock(on_reserve=gate)
        database = MemoryDatabase()
        settings = {"concurrency": CONCURRENCY, "undo_concurrency": 1, "ack_wait_seconds": 0.3}
        worker = await playing.worker(stock, database, **settings)
        await gate.reached.wait()
        places = CONCURRENCY + 1
        await until(lambda: sum(spent.returned for spent in database.spent.values()) > places, what="some handed back")
        assert worker.held <= 1 + places + CONCURRENCY
        gate.opened.set()
        for saga in lost:
            await playing.answer(saga, "stock-reserved")
        assert len(stock.calls) == len(lost)


async def test_a_worker_that_drains_hands_back_what_waits_for_its_turn(tmp_path: Path) -> None:
    async with play(tmp_path, ack_wait_seconds=0.3) as playing:
        lost = [f"lost-{number}" for number in range(3)]
        for saga in lost:
            await playing.do(saga, retry=ONCE)
        await lose(playing, len(lost))
        gate = Gate()
        worker = await playing.worker(Stock(on_reserve=gate), ack_wait_seconds=0.3)
        await gate.reached.wait()
        await until(lambda: worker.held == len(lost))
        draining = asyncio.create_task(worker.drain())
        await until(lambda: worker.held == 1, what="only the one that is performed")
        await playing.worker(Stock(), MemoryDatabase(), ack_wait_seconds=0.3)
        done = [saga for saga in lost if await playing.answers(saga)]
        while len(done) < len(lost) - 1:
            await asyncio.sleep(0.02)
            done = [saga for saga in lost if await playing.answers(saga)]
        gate.opened.set()
        await draining


async def lose(playing: Play, commands: int) -> None:
    """Take commands as a worker does that dies with all it holds."""
    link = await playing.up.connect("stock", name="lost")
    pull = await link.pull("SAGA", "stock", commands, lambda _: None)
    await until(lambda: pull.held == commands, what=f"{commands} commands held")
    await link.close()
