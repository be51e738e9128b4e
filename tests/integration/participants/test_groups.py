"""Commands that are committed together: what one of them does, or has done to it, is its own matter alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Integer, MetaData, Table, event, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import registry

from antiphon.contracts import Refused, Unavailable
from antiphon.participants import Transaction, writer
from antiphon.participants.databases import Busy
from antiphon.participants.inbox import Spent
from antiphon.participants.loan import RolledBack
from antiphon.participants.sql import CommittedByItself
from antiphon.participants.sqlite import SqliteDatabase
from antiphon.participants.testing import Service
from antiphon.participants.writer import SavepointLost
from tests.support.server import until

from .stock import RESERVED, Gate, Stock, Store, effects, sqlite_url, write

MANY = 64
BLOCKED_SECONDS = 0.1
"""How long we watch that something does not happen."""


@pytest.fixture(autouse=True)
def _groups_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, who is ready joins."""
    monkeypatch.setattr(writer, "GROUP_SECONDS", 1e6)


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[Store]:
    found = Store("sqlite", sqlite_url(tmp_path))
    yield found
    await found.close()


async def open_sqlite(store: Store) -> SqliteDatabase:
    database = await store.open()
    assert isinstance(database, SqliteDatabase)
    return database


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many members each COMMIT had."""
    found, commit = list[int](), writer.Writer._commit

    def counted(self: writer.Writer, group: writer.Group) -> None:
        found.append(len(group.released))
        commit(self, group)

    monkeypatch.setattr(writer.Writer, "_commit", counted)
    return found


def number_of(tx: Transaction) -> int:
    return int(tx.saga_id)


async def do_all(stock: Stock, database: Any, count: int = MANY) -> list[Any]:
    """All at once; gives the answers, or what was raised."""
    doing = [asyncio.create_task(stock.do(database, saga=str(number))) for number in range(count)]
    return await asyncio.gather(*doing, return_exceptions=True)


# --- each for itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["raises", "refuses", "is cancelled"])
async def test_of_many_at_once_exactly_those_that_ended_well_are_committed(end: str, store: Store) -> None:
    doing = dict[str, asyncio.Task[object]]()

    async def every_tenth(tx: Transaction) -> None:
        if number_of(tx) % 10:
            return
        if end == "raises":
            raise Unavailable("the shelf is stuck")
        if end == "refuses":
            raise Refused("out of stock")
        doing[tx.saga_id].cancel()
        await asyncio.Event().wait()

    stock, database = Stock(on_reserve=every_tenth), await store.open()
    for number in range(MANY):
        doing[str(number)] = asyncio.create_task(stock.do(database, saga=str(number)))
    answers = await asyncio.gather(*doing.values(), return_exceptions=True)
    others = [number for number in range(MANY) if number % 10]
    assert [number for number, answer in enumerate(answers) if answer == RESERVED] == others
    assert await store.effects() == ["reserved"] * len(others)
    again = await do_all(Stock(reservation_id="r-1"), await store.open())
    assert again == [("refused", "out of stock") if end == "refuses" and not n % 10 else RESERVED for n in range(MANY)]


async def test_commands_that_are_ready_share_one_commit(sqlite_store: Store, commits: list[int]) -> None:
    stock, database = Stock(), await open_sqlite(sqlite_store)
    commits.clear()
    assert await do_all(stock, database, 20) == [RESERVED] * 20
    assert sum(commits) == 20
    assert len(commits) < 20


async def test_a_lone_command_waits_for_nobody(sqlite_store: Store, commits: list[int]) -> None:
    database = await open_sqlite(sqlite_store)
    commits.clear()
    for saga in ("1", "2"):
        assert await Stock().do(database, saga=saga) == RESERVED
    assert commits == [1, 1]


async def test_a_group_is_closed_at_its_largest_number(
    sqlite_store: Store, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MEMBERS_MAX", 4)
    database = await open_sqlite(sqlite_store)
    commits.clear()
    assert await do_all(Stock(), database, 10) == [RESERVED] * 10
    assert commits == [4, 4, 2]


async def test_a_group_takes_nobody_after_its_time(
    sqlite_store: Store, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GROUP_SECONDS", 0.0)
    database = await open_sqlite(sqlite_store)
    commits.clear()
    assert await do_all(Stock(), database, 5) == [RESERVED] * 5
    assert commits == [1] * 5


async def test_commands_of_a_group_run_one_after_the_other_and_one_rollback_takes_only_its_own(
    sqlite_store: Store,
) -> None:
    """Savepoints are a stack: interleaved, the rollback of the first would take the second's rows."""
    gate, inside, most = Gate(), 0, 0

    async def wait_then_fail(tx: Transaction) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            if tx.saga_id == "0":
                await gate(tx)
                raise Unavailable("the shelf is stuck")
        finally:
            inside -= 1

    stock, database = Stock(on_reserve=wait_then_fail), await open_sqlite(sqlite_store)
    doing = asyncio.create_task(do_all(stock, database, 3))
    await gate.reached.wait()
    await asyncio.sleep(BLOCKED_SECONDS)
    assert stock.calls == ["reserve"]
    gate.opened.set()
    answers = await doing
    assert isinstance(answers[0], Unavailable)
    assert answers[1:] == [RESERVED, RESERVED]
    assert most == 1
    assert await sqlite_store.effects() == ["reserved"] * 2


async def test_an_answer_that_is_known_waits_for_the_commit_of_what_it_was_read_from(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that it read may be one that this very group has written."""
    database = await open_sqlite(sqlite_store)
    with held(monkeypatch, "_committed") as (reached, go_on):
        first = asyncio.create_task(Stock().do(database))
        second = asyncio.create_task(Stock().do(database, deliveries=2))
        await until(reached.is_set, what="the COMMIT")
        await asyncio.sleep(BLOCKED_SECONDS)
        assert not first.done()
        assert not second.done()
        go_on.set()
        assert (await first, await second) == (RESERVED, RESERVED)
    assert await sqlite_store.effects() == ["reserved"]


# --- the COMMIT -------------------------------------------------------------------------------------------------------


class held:
    """Holds what the writer does on its thread until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        self._patch, self._what = monkeypatch, what
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __enter__(self) -> tuple[threading.Event, threading.Event]:
        work: Callable[[writer.Writer], None] = getattr(writer.Writer, self._what)

        def slowly(this: writer.Writer) -> None:
            self.reached.set()
            self.go_on.wait(120)
            work(this)

        self._patch.setattr(writer.Writer, self._what, slowly)
        return self.reached, self.go_on

    def __exit__(self, *_: object) -> None:
        self.go_on.set()


async def test_a_slow_commit_does_not_keep_the_event_loop(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await open_sqlite(sqlite_store)
    with held(monkeypatch, "_committed") as (reached, go_on):
        first = asyncio.create_task(Stock().do(database, saga="1"))
        await until(reached.is_set, what="the COMMIT")
        second = asyncio.create_task(Stock().do(database, saga="2"))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not first.done()
        assert not second.done()
        go_on.set()
        assert (await first, await second) == (RESERVED, RESERVED)


async def test_who_is_cancelled_during_the_commit_does_not_disturb_it(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_sqlite(sqlite_store)
    with held(monkeypatch, "_committed") as (reached, go_on):
        doing = [asyncio.create_task(Stock().do(database, saga=str(number))) for number in range(3)]
        await until(reached.is_set, what="the COMMIT")
        doing[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await doing[0]
        go_on.set()
        assert await asyncio.gather(*doing[1:]) == [RESERVED, RESERVED]
    stock = Stock()
    assert await stock.do(database, saga="0", deliveries=2) == RESERVED
    assert stock.calls == []


async def test_who_is_cancelled_before_its_turn_leaves_it_to_the_next(sqlite_store: Store) -> None:
    gate, database = Gate(), await open_sqlite(sqlite_store)
    first = asyncio.create_task(Stock(on_reserve=gate).do(database, saga="0"))
    await gate.reached.wait()
    waiting = [asyncio.create_task(Stock().do(database, saga=str(number))) for number in (1, 2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.opened.set()
    assert (await first, await waiting[1]) == (RESERVED, RESERVED)
    assert await sqlite_store.effects() == ["reserved"] * 2


async def test_who_is_cancelled_when_it_has_just_got_its_turn_leaves_it_to_the_next(sqlite_store: Store) -> None:
    database = await open_sqlite(sqlite_store)
    turns = database._writer
    assert turns is not None
    first = await turns.enter()
    second, third = asyncio.create_task(turns.enter()), asyncio.create_task(turns.enter())
    await asyncio.sleep(0)
    assert turns.give_up(first) is None
    second.cancel()  # its turn has come, and its task was not told yet
    member = await third
    assert second.cancelled()
    assert turns.has_turn(member)
    turns.give_up(member)


@pytest.mark.parametrize("is_caught", [False, True])
async def test_a_constraint_that_rolls_all_back_costs_its_culprit_an_attempt_and_nobody_else(
    sqlite_store: Store, is_caught: bool
) -> None:
    """SQLite ends the whole transaction for `RAISE(ROLLBACK)` and `ON CONFLICT ROLLBACK`, as where a disk is full."""

    async def on_forbidden(tx: Transaction) -> None:
        if tx.saga_id == "1":
            try:
                await tx.execute(text("INSERT INTO only_one VALUES (1)"))
            except IntegrityError:
                if not is_caught:
                    raise

    database = await open_sqlite(sqlite_store)
    connection = database._connection
    assert connection is not None
    connection.execute("CREATE TABLE only_one (number INTEGER PRIMARY KEY ON CONFLICT ROLLBACK)")
    connection.execute("INSERT INTO only_one VALUES (1)")
    found = await asyncio.gather(
        *(Stock(on_reserve=on_forbidden).do(database, saga=str(number)) for number in range(3)), return_exceptions=True
    )
    assert isinstance(found[1], RolledBack if is_caught else IntegrityError)
    assert all(isinstance(each, Busy) or each == RESERVED for each in (found[0], found[2])), "no attempt of theirs"
    for number in (0, 2):
        assert await Stock().do(database, saga=str(number)) == RESERVED
    assert await sqlite_store.effects() == ["reserved"] * 2


shelves = MetaData()
shelf = Table("shelf", shelves, Column("number", Integer, primary_key=True))
box = Table(
    "box",
    shelves,
    Column("number", Integer, primary_key=True),
    Column("shelf", ForeignKey("shelf.number", deferrable=True, initially="DEFERRED")),
)


@pytest.fixture
def foreign_keys() -> Iterator[None]:
    """SQLAlchemy's own recipe for SQLite."""

    def turn_on(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    event.listen(Engine, "connect", turn_on)
    yield
    event.remove(Engine, "connect", turn_on)


@pytest.mark.usefixtures("foreign_keys")
async def test_what_fails_at_the_commit_costs_its_culprit_an_attempt_and_nobody_else(sqlite_store: Store) -> None:
    async def on_no_shelf(tx: Transaction) -> None:
        if tx.saga_id == "7":
            await tx.execute(insert(box).values(shelf=404))

    database = await open_sqlite(sqlite_store)
    await database.open(shelves)
    stock = Stock(on_reserve=on_no_shelf)
    answers = await do_all(stock, database, 20)
    assert isinstance(answers.pop(7), sqlite3.IntegrityError)
    assert answers == [RESERVED] * 19
    assert await sqlite_store.effects() == ["reserved"] * 19
    assert (await database.note("do 1", Spent())).failed == 1


async def test_a_disk_that_is_full_fails_what_was_rolled_back_as_busy_and_is_no_attempt(sqlite_store: Store) -> None:
    database = await open_sqlite(sqlite_store)
    size = "x" * 20_000

    async def fill(tx: Transaction) -> None:
        if tx.saga_id == "7":
            await tx.execute(insert(effects).values(what=size * 20, key=""))

    connection = database._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 20}")
    answers = await do_all(Stock(on_reserve=fill), database, 20)
    assert isinstance(answers[7], Busy)
    done = [answer for answer in answers if answer == RESERVED]
    assert len(done) + sum(isinstance(answer, Busy) for answer in answers) == 20
    assert await sqlite_store.effects() == ["reserved"] * len(done)
    assert (await database.note("do 1", Spent())).failed == 0
    connection.execute("PRAGMA max_page_count = 1000000")
    assert await do_all(Stock(), database, 20) == [RESERVED] * 20


async def test_a_transaction_that_sqlite_rolled_back_fails_all_of_its_group_as_busy(sqlite_store: Store) -> None:
    """What SQLite does by itself on SQLITE_IOERR, SQLITE_NOMEM and SQLITE_FULL, by the same way out."""
    database = await open_sqlite(sqlite_store)
    calls = 0

    async def lose(tx: Transaction) -> None:
        nonlocal calls
        if tx.saga_id == "2" and not calls:
            calls += 1
            assert database._connection is not None
            database._connection.execute("ROLLBACK")
            await write(tx, "committed by itself")

    answers = await do_all(Stock(on_reserve=lose), database, 5)
    assert [type(answer) for answer in answers[:3]] == [Busy] * 3
    assert answers[3:] == [RESERVED] * 2
    assert await sqlite_store.effects() == ["reserved"] * 2
    assert (await database.note("do 1", Spent())).failed == 0


async def test_a_handler_that_goes_on_after_sqlite_rolled_back_commits_nothing(sqlite_store: Store) -> None:
    database = await open_sqlite(sqlite_store)

    async def lose_and_return(tx: Transaction) -> None:
        assert database._connection is not None
        database._connection.execute("ROLLBACK")

    with pytest.raises(Busy):
        await Stock(on_reserve=lose_and_return).do(database)
    assert await sqlite_store.effects() == []


async def test_a_commit_that_an_io_error_ends_is_busy_for_all(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_sqlite(sqlite_store)
    fails = True
    committed = writer.Writer._committed

    def fail(this: writer.Writer) -> None:
        if fails:
            this._roll_back()
            raise sqlite3.OperationalError("disk I/O error")
        committed(this)

    monkeypatch.setattr(writer.Writer, "_committed", fail)
    answers = await do_all(Stock(), database, 5)
    assert [type(answer) for answer in answers] == [Busy] * 5
    fails = False
    assert await do_all(Stock(), database, 5) == [RESERVED] * 5


# --- what a handler may do with its transaction -----------------------------------------------------------------------


async def test_a_session_on_the_connection_writes_into_the_commands_transaction(store: Store) -> None:
    if store.kind == "memory":
        pytest.skip("it has no connection")

    async def by_session(tx: Transaction) -> None:
        async with AsyncSession(bind=tx.connection) as session:
            await session.execute(insert(effects).values(what="by session", key=""))
            await session.commit()  # of the session: the transaction is the worker's
        if tx.saga_id == "fails":
            raise Unavailable("the shelf is stuck")

    database, stock = await store.open(), Stock(on_reserve=by_session)
    with pytest.raises(Unavailable):
        await stock.do(database, saga="fails")
    assert await store.effects() == []
    assert await stock.do(database, saga="works") == RESERVED
    assert await store.effects() == ["reserved", "by session"]


class Effect:
    """An effect as an object of the ORM."""

    def __init__(self, what: str) -> None:
        self.what, self.key = what, ""


registry().map_imperatively(Effect, effects)


async def by_commit(session: AsyncSession) -> None:
    session.add(Effect("by commit"))
    await session.commit()  # a flush: the transaction is the worker's


async def by_flush(session: AsyncSession) -> None:
    session.add(Effect("added"))
    await session.flush()
    found = (await session.scalars(select(Effect).where(effects.c.what == "added"))).one()
    found.what = "changed"
    await session.flush()


async def by_savepoint(session: AsyncSession) -> None:
    session.add(Effect("kept"))
    async with session.begin_nested() as savepoint:
        session.add(Effect("tried"))
        await session.flush()
        await savepoint.rollback()
    await session.flush()


async def by_nothing(session: AsyncSession) -> None:
    session.add(Effect("forgotten"))


@pytest.mark.parametrize(
    ("write_objects", "written"),
    [(by_commit, ["by commit"]), (by_flush, ["changed"]), (by_savepoint, ["kept"]), (by_nothing, [])],
)
async def test_objects_of_the_orm_are_written_with_the_answer_if_they_are_flushed(
    write_objects: Callable[[AsyncSession], Awaitable[None]], written: list[str], store: Store
) -> None:
    if store.kind == "memory":
        pytest.skip("it has no connection")

    async def by_session(tx: Transaction) -> None:
        async with AsyncSession(bind=tx.connection) as session:
            await write_objects(session)
        if tx.saga_id == "fails":
            raise Unavailable("the shelf is stuck")

    database, stock = await store.open(), Stock(on_reserve=by_session)
    with pytest.raises(Unavailable):
        await stock.do(database, saga="fails")
    assert await store.effects() == []
    assert await stock.do(database, saga="works") == RESERVED
    assert await stock.do(database, saga="works") == RESERVED  # from the inbox
    assert await store.effects() == ["reserved", *written]


async def test_a_savepoint_of_the_handlers_own_is_rolled_back_alone(store: Store) -> None:
    if store.kind == "memory":
        pytest.skip("it has no connection")

    async def try_and_fail(tx: Transaction) -> None:
        async def fail() -> None:
            async with tx.connection.begin_nested():
                await write(tx, "tried")
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        async with tx.connection.begin_nested():
            await write(tx, "kept")

    assert await Stock(on_reserve=try_and_fail).do(await store.open()) == RESERVED
    assert await store.effects() == ["reserved", "kept"]


async def test_a_transaction_without_a_claim_is_committed(store: Store) -> None:
    """As that in which a test looks into the database of a service."""
    if store.kind == "memory":
        pytest.skip("it has no connection")
    async with Service.open(Stock().participant, store.url) as service:
        await service.execute(insert(effects).values(what="by hand", key=""))
        assert await service.execute(select(effects.c.what)) == [("by hand",)]


COMMITS = [
    "COMMIT",
    " commit;",
    "END",
    "/* now */ COMMIT",
    "-- now\nCOMMIT",
    "BEGIN",
    "ROLLBACK",
    "rollback transaction",
]


@pytest.mark.parametrize("statement", COMMITS)
async def test_a_statement_that_ends_the_transaction_is_refused_before_it_does(
    statement: str, sqlite_store: Store
) -> None:
    async def end_it(tx: Transaction) -> None:
        await tx.execute(text(statement))

    with pytest.raises(CommittedByItself, match="must leave"):
        await Stock(on_reserve=end_it).do(await open_sqlite(sqlite_store))
    assert await sqlite_store.effects() == []


async def driver_of(tx: Transaction) -> Any:
    return (await tx.connection.get_raw_connection()).driver_connection


async def commit_connection(tx: Transaction) -> None:
    await tx.connection.commit()


async def commit_driver(tx: Transaction) -> None:
    await (await driver_of(tx)).commit()


async def script_to_driver(tx: Transaction) -> None:
    await (await driver_of(tx)).executescript("SELECT 1;")


async def statement_to_driver(tx: Transaction) -> None:
    await (await driver_of(tx)).execute("COMMIT")


@pytest.mark.parametrize("commit", [commit_connection, commit_driver, script_to_driver, statement_to_driver])
async def test_a_commit_is_refused_before_it_happens(commit: Any, sqlite_store: Store) -> None:
    with pytest.raises(CommittedByItself, match="must leave COMMIT"):
        await Stock(on_reserve=commit).do(await open_sqlite(sqlite_store))
    assert await sqlite_store.effects() == []


async def test_a_handler_that_ends_its_savepoint_fails_and_the_others_are_done(sqlite_store: Store) -> None:
    async def release(tx: Transaction) -> None:
        if tx.saga_id == "2":
            await tx.execute(text(writer.RELEASE))

    answers = await do_all(Stock(on_reserve=release), await open_sqlite(sqlite_store), 5)
    assert isinstance(answers.pop(2), SavepointLost)
    assert answers == [RESERVED] * 4
    assert await sqlite_store.effects() == ["reserved"] * 4


async def test_a_handler_that_asks_the_driver_finds_the_names_of_aiosqlite(sqlite_store: Store) -> None:
    found = list[object]()

    async def ask(tx: Transaction) -> None:
        driver = await driver_of(tx)
        async with driver.execute("SELECT what FROM effects") as cursor:
            found.extend([row async for row in cursor])
        cursor = await driver.executemany("INSERT INTO effects (what) VALUES (?)", [("a",), ("b",)])
        found.append(cursor.rowcount)
        found.extend(await driver.execute_fetchall("SELECT what FROM effects WHERE what < ?", ("c",)))

    assert await Stock(on_reserve=ask).do(await open_sqlite(sqlite_store)) == RESERVED
    assert found == [("reserved",), 2, ("a",), ("b",)]


async def test_results_may_be_streamed(sqlite_store: Store) -> None:
    found = list[object]()

    async def stream(tx: Transaction) -> None:
        await write(tx, "second")
        async with tx.connection.stream(effects.select()) as result:
            found.extend([row.what async for row in result])

    assert await Stock(on_reserve=stream).do(await open_sqlite(sqlite_store)) == RESERVED
    assert found == ["reserved", "second"]


# --- left behind ------------------------------------------------------------------------------------------------------


async def by_transaction(tx: Transaction, kept: Any) -> None:
    await write(tx, "left behind")


async def by_connection(tx: Transaction, kept: tuple[AsyncConnection, Any]) -> None:
    await kept[0].execute(insert(effects).values(what="left behind", key=""))


async def by_driver(tx: Transaction, kept: tuple[AsyncConnection, Any]) -> None:
    await kept[1].driver.execute("INSERT INTO effects (what) VALUES ('left behind')")


async def by_adapted_connection(tx: Transaction, kept: tuple[AsyncConnection, Any]) -> None:
    kept[1].adapted.cursor().execute("INSERT INTO effects (what) VALUES ('left behind')")


async def by_new_connection(tx: Transaction, kept: tuple[AsyncConnection, Any]) -> None:
    async with kept[0].engine.begin() as connection:
        await connection.execute(insert(effects).values(what="left behind", key=""))


async def by_result(tx: Transaction, kept: tuple[AsyncConnection, Any]) -> None:
    kept[1].result.context.root_connection.execute(insert(effects).values(what="left behind", key=""))


async def by_rollback(tx: Transaction, kept: tuple[AsyncConnection, Any]) -> None:
    await kept[1].driver.rollback()
    kept[1].adapted.rollback()
    raise ValueError("what was rolled back must be there")


class Kept:
    driver: Any
    adapted: Any
    result: Any


WAYS = [
    by_transaction,
    by_connection,
    by_driver,
    by_adapted_connection,
    by_new_connection,
    by_result,
    by_rollback,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_that_was_left_behind_cannot_touch_the_next_ones_transaction(
    way: Any, sqlite_store: Store
) -> None:
    gate, go_on, ended = Gate(), asyncio.Event(), asyncio.Event()
    errors = list[BaseException]()

    async def linger(tx: Transaction) -> None:
        kept = Kept()
        kept.result = await tx.execute(text("SELECT 1"))
        connection = tx.connection
        raw = await connection.get_raw_connection()
        kept.driver, kept.adapted = raw.driver_connection, raw.dbapi_connection

        async def later() -> None:
            await go_on.wait()
            try:
                await way(tx, (connection, kept))
            except Exception as error:
                errors.append(error)
            ended.set()

        tasks.append(asyncio.create_task(later()))

    tasks = list[asyncio.Task[None]]()
    database = await open_sqlite(sqlite_store)
    assert await Stock(on_reserve=linger).do(database, saga="left") == RESERVED
    second = asyncio.create_task(Stock(on_reserve=gate).do(database, saga="next"))
    await gate.reached.wait()
    go_on.set()
    await ended.wait()
    gate.opened.set()
    assert await second == RESERVED
    assert len(errors) == 1
    assert await sqlite_store.effects() == ["reserved"] * 2


# --- other processes --------------------------------------------------------------------------------------------------


async def test_two_databases_on_one_file_under_load_hand_nothing_back(sqlite_store: Store) -> None:
    one, other = await open_sqlite(sqlite_store), await open_sqlite(sqlite_store)
    both = (do_all_in_turn(one, "a"), do_all_in_turn(other, "b"))
    assert list(await asyncio.gather(*both)) == [[RESERVED] * 200] * 2
    assert await sqlite_store.effects() == ["reserved"] * 400


async def do_all_in_turn(database: SqliteDatabase, name: str) -> list[object]:
    """As a worker does with twenty places."""
    stock, found = Stock(), list[object]()

    async def place(first: int) -> None:
        for number in range(first, 200, 20):
            found.append(await stock.do(database, saga=f"{name}{number}"))

    await asyncio.gather(*(place(first) for first in range(20)))
    return found


async def test_the_lock_is_left_to_another_process_that_wants_it(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always somebody who waits for the next group, and yet the other one is not starved."""
    monkeypatch.setattr(writer, "MEMBERS_MAX", 2)
    one, other = await open_sqlite(sqlite_store), await open_sqlite(sqlite_store)
    is_over = False

    async def hog(place: int) -> None:
        number = 0
        while not is_over:
            number += 1
            await Stock().do(one, saga=f"{place}-{number}")

    hogs = [asyncio.create_task(hog(place)) for place in range(8)]
    for number in range(20):
        assert await Stock().do(other, saga=f"other-{number}") == RESERVED
    is_over = True
    await asyncio.gather(*hogs)


async def test_after_it_has_met_another_process_the_lock_is_left_free_for_a_moment(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ROOM_SECONDS", 0.5)
    gate, database = Gate(), await open_sqlite(sqlite_store)
    other = sqlite3.connect(tmp_path / "stock.db", isolation_level=None, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    first = asyncio.create_task(Stock().do(database, saga="1"))
    await asyncio.sleep(0)
    other.execute("ROLLBACK")
    assert await first == RESERVED
    second = asyncio.create_task(Stock(on_reserve=gate).do(database, saga="2"))
    for _ in range(5):
        await asyncio.sleep(0)
    other.execute("BEGIN IMMEDIATE")
    assert not gate.reached.is_set()
    other.execute("ROLLBACK")
    gate.opened.set()
    assert await second == RESERVED
    other.close()


async def test_what_waits_when_the_database_is_closed_is_busy(sqlite_store: Store) -> None:
    gate, database = Gate(), await open_sqlite(sqlite_store)
    first = asyncio.create_task(Stock(on_reserve=gate).do(database, saga="1"))
    await gate.reached.wait()
    second = asyncio.create_task(Stock().do(database, saga="2"))
    await asyncio.sleep(0)
    first.cancel()
    closing = asyncio.create_task(database.close())
    with pytest.raises(Busy, match="closed"):
        await second
    with pytest.raises(asyncio.CancelledError):
        await first
    await closing
    assert await Stock().do(database, saga="2") == RESERVED
