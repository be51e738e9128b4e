"""What a handler waits for, and who waits for that: in SQLite all others of its participant would."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from structlog.testing import capture_logs

from antiphon.contracts import Retry
from antiphon.participants import Outside, Participant, Transaction, calling, loan, manners, writer
from antiphon.participants.execution import Execution
from antiphon.participants.loan import StatementCancelled
from antiphon.participants.manners import Manners
from antiphon.participants.procedures import DoProcedure, WrongReply
from antiphon.participants.sqlite import SqliteDatabase
from tests.support.server import until

from .play import Play, play
from .stock import RESERVED, Gate, Release, Reserve, Reserved, Stock, Store, address, sqlite_url, tables
from .test_groups import commits, held, sqlite_store
from .test_outside import Shop

__all__ = ["commits", "sqlite_store"]

ACK_WAIT_SECONDS = 0.6


@pytest.fixture
async def playing(tmp_path: Path) -> AsyncIterator[Play]:
    async with play(tmp_path) as found:
        yield found


async def sqlite(folder: Path) -> SqliteDatabase:
    database = SqliteDatabase(sqlite_url(folder))
    await database.open(tables)
    return database


# --- a handler that waits for something else --------------------------------------------------------------------------


async def test_a_handler_that_waits_has_others_wait_once_and_is_committed_by_itself_from_then_on(
    playing: Play, tmp_path: Path, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GROUP_SECONDS", 1e6)
    gate, database, sagas = Gate(), await sqlite(tmp_path), [f"s{number}" for number in range(10)]

    async def wait_once(tx: Transaction) -> None:
        if tx.saga_id == "waits":
            await gate(tx)

    with capture_logs() as logs:
        stock = Stock(on_reserve=wait_once, on_release=wait_once)
        worker = await playing.worker(stock, database)
        await playing.do("waits")
        await gate.reached.wait()
        await until(lambda: [line for line in logs if line["event"] == "handler.waits"], what="a line in the log")
        for saga in sagas:
            await playing.do(saga)
        await until(lambda: worker.held == len(sagas) + 1, what="all of them held")
        gate.opened.set()
        for saga in ("waits", *sagas):
            await playing.answer(saga, "stock-reserved")
        await playing.is_settled()
    assert commits[-len(sagas) - 1 :] == [1] * (len(sagas) + 1)
    assert stock.calls == ["reserve"] * (len(sagas) + 1)
    (line,) = [line for line in logs if line["event"] == "handler.waits"]
    assert (line["type"], line["direction"]) == ("stock.reserve.v1", "do")
    assert "in __call__" in line["stands_at"]
    assert "outside=True" in line["advice"]
    await database.close()


def test_of_handlers_of_one_kind_that_wait_the_first_alone_is_told_of() -> None:
    learnt, waiting = Manners("stock", shares=True), list[Execution]()
    for number in range(3):
        stock = Stock()
        where = address("do", saga=str(number))
        procedure = DoProcedure(stock.participant.handlers["stock.reserve.v1"], where, Reserve())
        execution = Execution(where, procedure, Retry(), "do 1", 1)
        learnt.set(execution, "stock.reserve.v1")
        waiting.append(execution)
    with capture_logs() as logs:
        for execution in waiting:
            assert execution.on_wait is not None
            execution.on_wait()
    assert [line["event"] for line in logs] == ["handler.waits"]


async def test_a_handler_with_effects_outside_that_begins_before_it_waits_is_told_of_once(
    playing: Play, tmp_path: Path
) -> None:
    gate, shop, database = Gate(), Shop(), await sqlite(tmp_path)
    shop.writes = False

    async def begin_and_wait(outside: Outside) -> None:
        await gate(await outside.begin())

    async def wait_and_begin(outside: Outside) -> None:
        await asyncio.sleep(10 * calling.LOOK_SECONDS)
        await outside.begin()

    with capture_logs() as logs:
        await playing.worker(shop, database)
        shop.on_do = wait_and_begin
        await playing.do("s1")
        await playing.answer("s1", "stock-reserved")
        assert [line for line in logs if line["log_level"] == "warning"] == []
        shop.on_do = begin_and_wait
        await playing.do("s2")
        await until(lambda: [line for line in logs if line["event"] == "handler.began_early"], what="a line in the log")
        gate.opened.set()
        await playing.answer("s2", "stock-reserved")
        await playing.do("s3")
        await playing.answer("s3", "stock-reserved")
        await playing.is_settled()
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert (line["type"], line["direction"]) == ("stock.reserve.v1", "do")
    assert "begin()" in line["advice"]
    await database.close()


async def test_a_slow_handler_that_holds_the_database_for_long_is_told_of(
    playing: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manners, "SLOW_LOOKS", 10)
    gate, database, participant = Gate(), await sqlite(tmp_path), Participant("stock", tables=tables)

    class Slow:
        def __init__(self) -> None:
            self.participant = participant

    @participant.handles(Reserve, slow=True)
    async def reserve(command: Reserve, tx: Transaction) -> Reserved:
        await gate(tx)
        return RESERVED

    with capture_logs() as logs:
        await playing.worker(Slow(), database)
        await playing.do("s1")
        await until(lambda: [line for line in logs if line["event"] == "handler.holds"], what="a line in the log")
        gate.opened.set()
        await playing.answer("s1", "stock-reserved")
        await playing.is_settled()
    (line,) = [line for line in logs if line["event"] == "handler.holds"]
    assert (line["saga"].partition("/")[2], line["type"]) == ("s1", "stock.reserve.v1")
    assert "in __call__" in line["stands_at"]
    await database.close()


async def test_where_nobody_waits_for_it_a_handler_may_wait(playing: Play) -> None:
    gate = Gate()
    with capture_logs() as logs:
        await playing.worker(Stock(on_reserve=gate))
        await playing.do("s1")
        await gate.reached.wait()
        await asyncio.sleep(10 * calling.LOOK_SECONDS)
        gate.opened.set()
        await playing.answer("s1", "stock-reserved")
    assert [line for line in logs if line["event"] == "handler.waits"] == []


async def test_a_handler_that_keeps_the_loop_does_not_wait(playing: Play, tmp_path: Path) -> None:
    """Nor does one whose loop others keep, while it waits for nothing."""

    def keep_the_loop() -> None:
        time.sleep(2 * calling.LOOK_SECONDS * calling.LOOKS)

    async def compute(tx: Transaction) -> None:
        for _ in range(3):
            keep_the_loop()
            await tx.connection.execute(select(1))

    database = await sqlite(tmp_path)
    with capture_logs() as logs:
        await playing.worker(Stock(on_reserve=compute), database)
        await playing.do("s1")
        await playing.answer("s1", "stock-reserved")
    assert [line for line in logs if line["event"] == "handler.waits"] == []
    await database.close()


# --- a disk that is slow ----------------------------------------------------------------------------------------------


async def test_a_commit_that_takes_long_costs_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await sqlite(tmp_path)
    async with play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as playing:
        with held(monkeypatch, "_committed") as (reached, go_on):
            stock = Stock()
            await playing.worker(stock, database, ack_wait_seconds=ACK_WAIT_SECONDS)
            for saga in ("s1", "s2", "s3"):
                await playing.do(saga)
            await until(reached.is_set, what="the COMMIT")
            await asyncio.sleep(2.5 * ACK_WAIT_SECONDS)
            assert (await playing.consumer())["num_redelivered"] == 0
            go_on.set()
            for saga in ("s1", "s2", "s3"):
                await playing.answer(saga, "stock-reserved")
            await playing.is_settled()
        assert stock.calls == ["reserve"] * 3
    await database.close()


async def test_a_statement_that_takes_long_is_logged_with_the_advice(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loan, "SLOW_SECONDS", -1.0)

    async def ask(tx: Transaction) -> None:
        await tx.execute(text("SELECT 'long'"))

    database = await sqlite_store.open()
    with capture_logs() as logs:
        assert await Stock(on_reserve=ask).do(database) == RESERVED
    line = next(line for line in logs if line.get("statement") == "SELECT 'long'")
    assert line["event"] == "statement.slow"
    assert "slow=True" in line["advice"]
    with capture_logs() as logs:
        assert await Stock(on_reserve=ask).do(database, saga="s2", manner="slow") == RESERVED
    assert logs == []


# --- slow handlers ----------------------------------------------------------------------------------------------------

FOR_EVER = "WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many) SELECT count(n) FROM many"


def test_what_is_slow_is_declared() -> None:
    stock = Participant("stock")

    @stock.handles(Reserve, slow=True)
    async def reserve(command: Reserve, tx: Transaction) -> Reserved:
        raise WrongReply

    @stock.compensates(Reserve, slow=True)
    async def release(command: Release, reserved: Reserved, tx: Transaction) -> None:
        raise WrongReply

    @stock.reacts_to(Reserved, saga_type="order", slow=True, needs_no_compensation=True)
    async def count(reserved: Reserved, tx: Transaction) -> None:
        raise WrongReply

    assert stock.handlers["stock.reserve.v1"].is_slow
    assert stock.compensations["stock.release.v1"].is_slow
    assert stock.reactions[0].is_slow


async def test_a_slow_handlers_statements_leave_the_loop_to_others(sqlite_store: Store) -> None:
    """Its statement waits for what only the event loop can give."""
    may_go_on, begun = threading.Event(), threading.Event()
    seen = list[str]()

    def wait() -> int:
        seen.append(threading.current_thread().name)
        begun.set()
        return int(may_go_on.wait(120))

    async def ask(tx: Transaction) -> None:
        raw = await tx.connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.create_function("wait", 0, wait)
        assert (await tx.execute(select(func.wait()))).scalar() == 1
        assert (await (await driver.execute("SELECT wait()")).fetchone()) == (1,)

    doing = asyncio.create_task(Stock(on_reserve=ask).do(await sqlite_store.open(), manner="slow"))
    await until(begun.is_set, what="the statement")
    may_go_on.set()
    assert await doing == RESERVED
    assert seen == ["antiphon-sqlite"] * 2
    assert await sqlite_store.effects() == ["reserved"]


@pytest.mark.parametrize("statement", [FOR_EVER, f"INSERT INTO effects (number) {FOR_EVER}"])
async def test_a_slow_statement_ends_where_its_command_is_cancelled(statement: str, sqlite_store: Store) -> None:
    gate = Gate()
    gate.opened.set()

    async def ask(tx: Transaction) -> None:
        await gate(tx)
        await tx.execute(text(statement))

    database = await sqlite_store.open()
    doing = asyncio.create_task(Stock(on_reserve=ask).do(database, manner="slow"))
    await gate.reached.wait()
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert await sqlite_store.effects() == []
    assert await Stock().do(database) == RESERVED


@pytest.mark.parametrize("statement", [FOR_EVER, f"INSERT INTO effects (number) {FOR_EVER}"])
async def test_a_time_out_of_a_slow_handlers_own_is_an_attempt(statement: str, sqlite_store: Store) -> None:
    async def time_out(tx: Transaction) -> None:
        async with asyncio.timeout(0.05):
            await tx.execute(text(statement))

    database = await sqlite_store.open()
    with pytest.raises(TimeoutError):
        await Stock(on_reserve=time_out).do(database, manner="slow")
    assert await sqlite_store.effects() == []
    assert await Stock().do(database) == RESERVED


@pytest.mark.parametrize("statement", [FOR_EVER, f"INSERT INTO effects (number) {FOR_EVER}"])
async def test_a_slow_handler_that_hides_its_time_out_has_failed(statement: str, sqlite_store: Store) -> None:
    """As in PostgreSQL, the statement that is cancelled takes its transaction with it."""

    async def go_on(tx: Transaction) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await tx.execute(text(statement))

    async def ask(tx: Transaction) -> None:
        await tx.connection.execute(select(1))

    database = await sqlite_store.open()
    with pytest.raises(StatementCancelled):
        await Stock(on_reserve=go_on).do(database, manner="slow")
    assert await sqlite_store.effects() == []
    assert await Stock(on_reserve=ask).do(database) == RESERVED


async def test_what_a_slow_handler_leaves_running_ends_before_the_next_command(sqlite_store: Store) -> None:
    left = list[asyncio.Task[object]]()

    async def leave_it(tx: Transaction) -> None:
        left.append(asyncio.create_task(tx.execute(text(FOR_EVER))))
        await asyncio.sleep(0.02)
        raise KeyError

    database = await sqlite_store.open()
    with pytest.raises(KeyError):
        await Stock(on_reserve=leave_it).do(database, manner="slow")
    assert await Stock().do(database, saga="s2") == RESERVED
    await asyncio.wait(left)
    assert left[0].exception() is not None
    assert await sqlite_store.effects() == ["reserved"]
