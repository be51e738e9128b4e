"""What a database gives up for reasons of its own is no attempt: the command comes again, as often as it takes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from antiphon.contracts import Refused, Retry
from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import EVENTS
from antiphon.deploy.local.postgres import Postgres, postgres
from antiphon.link import set_up
from antiphon.link.setup import room_of
from antiphon.participants import Transaction, jobs, open_database
from antiphon.participants.databases import Busy
from antiphon.participants.engines import trouble_of
from antiphon.participants.faults import Fault
from antiphon.participants.inbox import Spent
from antiphon.participants.reasons import reason_of
from tests.support.server import until

from .places import PLACES, Place, acting
from .proxy import proxy
from .stock import RESERVED, Stock, Store, address, effects, sqlite_url

ONCE = Retry(attempts=1, first_seconds=100.0, factor=1.0, cap_seconds=100.0, jitter=0.0)


@pytest.fixture(autouse=True)
def _comes_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BUSY_SECONDS", 0.05)


@pytest.fixture
async def store(postgres_server: Postgres) -> AsyncIterator[Store]:
    found = Store("postgres", postgres_server.new_database())
    yield found
    await found.close()


async def end_me(tx: Transaction) -> None:
    """Have the server end this very connection, as an administrator or a failover does."""
    await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def lose_quietly(tx: Transaction) -> None:
    """The same, seen only when the worker goes on."""
    pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    url = tx.connection.engine.url.render_as_string(hide_password=False).replace("+asyncpg", "")
    database = open_database(url)
    async with database.begin(address("do", saga="administrator")) as inbox:
        await inbox.transaction.execute(text(f"SELECT pg_terminate_backend({pid})"))
    await database.close()


async def catch_and_go_on(tx: Transaction) -> None:
    try:
        await end_me(tx)
    except DBAPIError:
        return


async def catch_and_translate(tx: Transaction) -> None:
    try:
        await end_me(tx)
    except DBAPIError as error:
        raise ValueError("the stock cannot be read") from error


async def catch_and_forget(tx: Transaction) -> None:
    with_nothing = False
    try:
        await end_me(tx)
    except DBAPIError:
        with_nothing = True
    if with_nothing:
        raise KeyError("no stock")


async def go_straight_to_the_driver(tx: Transaction) -> None:
    driver = (await tx.connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")


LOSSES = [end_me, lose_quietly, catch_and_go_on, catch_and_translate, catch_and_forget, go_straight_to_the_driver]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("lose", LOSSES)
async def test_a_database_that_goes_away_inside_a_handler_costs_no_attempt(
    place: Place, lose: object, store: Store, tmp_path: Path
) -> None:
    async with acting(place, tmp_path, ONCE) as act:
        database, times = await store.open(), 0

        async def lose_twice(tx: Transaction) -> None:
            nonlocal times
            times += 1
            if times <= 2:
                await lose(tx)  # type: ignore[operator]

        await act.worker(database)
        await act.prepare("s1")
        act.act(lose_twice)
        message = await act.ask("s1")
        await act.is_done("s1")
        assert times == 3
        assert (await database.note(message, Spent())).failed == 0
        assert len(await store.effects()) == (1 if place in ("do", "react") else 2)


async def test_a_restart_of_the_database_inside_handlers_costs_no_attempt(tmp_path: Path) -> None:
    with postgres() as server:
        store = Store("postgres", server.new_database())
        async with acting("do", tmp_path, ONCE) as act:
            inside, restarted = 0, asyncio.Event()

            async def wait(tx: Transaction) -> None:
                nonlocal inside
                inside += 1
                if not restarted.is_set():
                    await restarted.wait()
                    await tx.execute(text("SELECT 1"))

            act.act(wait)
            await act.worker(await store.open())
            messages = [await act.ask(f"s{number}") for number in range(4)]
            await until(lambda: inside == 4, what="all of them inside")
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            restarted.set()
            for number in range(4):
                await act.is_done(f"s{number}")
            database = await store.open()
            assert [(await database.note(message, Spent())).failed for message in messages] == [0] * 4
            assert await store.effects() == ["reserved"] * 4
        await store.close()


async def test_a_commit_whose_confirmation_is_lost_is_answered_from_the_inbox(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    direct = Store("postgres", postgres_server.new_database())
    await direct.open()
    async with proxy(postgres_server.port) as (network, port), acting("do", tmp_path, ONCE) as act:
        broken = Store("postgres", direct.url.replace(str(postgres_server.port), str(port)))

        async def lose_the_next(tx: Transaction) -> None:
            network.commits_to_lose = 1

        act.act(lose_the_next)
        await act.worker(await broken.open())
        await act.ask("s1")
        await act.is_done("s1")
        assert network.lost == 1
        assert act.calls == 1
        assert await direct.effects() == ["reserved"]
        await broken.close()
    await direct.close()


@pytest.mark.parametrize("place", PLACES)
async def test_handlers_that_deadlock_are_no_attempts_and_all_are_done(
    place: Place, store: Store, tmp_path: Path
) -> None:
    """Pairs that lock two rows in opposite orders, each waiting for the other inside its transaction."""
    async with acting(place, tmp_path, ONCE) as act:
        deadlocks, met = 0, set[str]()
        meet = [asyncio.Barrier(2) for _ in range(10)]

        async def cross(tx: Transaction) -> None:
            nonlocal deadlocks
            pair, side = divmod(int(tx.saga_id), 2)
            first, second = (1001, 1002) if side == 0 else (1002, 1001)
            if tx.saga_id in met:
                return
            await lock_of_pair(tx, pair, first)
            met.add(tx.saga_id)
            await meet[pair].wait()
            try:
                await lock_of_pair(tx, pair, second)
            except DBAPIError:
                deadlocks += 1
                raise

        async def lock_of_pair(tx: Transaction, pair: int, number: int) -> None:
            await tx.execute(text(f"SELECT pg_advisory_xact_lock({pair * 10_000 + number})"))

        database = await store.open()
        await act.worker(database, concurrency=8, undo_concurrency=8)
        sagas = [str(number) for number in range(20)]
        for saga in sagas:
            await act.prepare(saga)
        act.act(cross)
        messages = list[str]()
        for one, other in zip(sagas[::2], sagas[1::2], strict=True):
            messages += [await act.ask(one), await act.ask(other)]
            await act.is_done(one)
            await act.is_done(other)
        assert deadlocks >= 10
        for message in messages:
            assert (await database.note(message, Spent())).failed == 0


async def test_serialization_failures_are_no_attempts(store: Store, tmp_path: Path) -> None:
    async with acting("do", tmp_path, ONCE) as act:
        both, met = asyncio.Barrier(2), set[str]()

        async def count(tx: Transaction) -> None:
            if tx.saga_id not in met:
                met.add(tx.saga_id)
                await tx.execute(text("SELECT 1"))
                await both.wait()
                raise_it = "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"
                await tx.execute(text(raise_it))

        act.act(count)
        await act.worker(await store.open())
        for saga in ("s1", "s2"):
            await act.ask(saga)
        for saga in ("s1", "s2"):
            await act.is_done(saga)
        assert met == {"s1", "s2"}


@pytest.mark.parametrize("place", PLACES)
async def test_an_answer_for_which_the_stream_has_no_room_costs_no_attempt(place: Place, tmp_path: Path) -> None:
    async with acting(place, tmp_path, ONCE) as act:
        administrator, database, gate = (
            act.playing.administrator,
            await Store("memory", "memory:").open(),
            asyncio.Event(),
        )

        async def wait(tx: Transaction) -> None:
            await gate.wait()

        await act.worker(database)
        await act.prepare("s1")
        act.act(wait)
        message = await act.ask("s1")
        await until(lambda: act.calls == 1, what="the call")
        room = await room_of(administrator, EVENTS)
        assert room is not None
        await set_up(administrator, [], events_bytes=room.used + 1, allowed=[Loss.SMALLER_BOUNDS])
        with capture_logs() as lines:
            gate.set()
            await until(lambda: sum(line["event"] == "event.rejected" for line in lines) >= 2, what="two refusals")
        assert "maximum bytes exceeded" in next(line["reason"] for line in lines if line["event"] == "event.rejected")
        await set_up(administrator, [], events_bytes=room.used + 100_000, allowed=[Loss.SMALLER_BOUNDS])
        await act.is_done("s1")
        spent = await database.note(message, Spent())
        assert (act.calls, spent.failed, spent.alone) == (1, 0, 0)


# --- and what is an attempt -------------------------------------------------------------------------------------------


async def once(store: Store, handler: object) -> object:
    return await Stock(on_reserve=handler).do(await store.open())  # type: ignore[arg-type]


async def test_a_time_out_of_the_handlers_own_is_an_attempt(store: Store) -> None:
    """It cancels a statement, which costs the connection, too."""

    async def time_out(tx: Transaction) -> None:
        async with asyncio.timeout(0.05):
            await tx.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(TimeoutError):
        await once(store, time_out)


async def test_a_word_of_the_authors_stands_whatever_the_database_did(store: Store) -> None:
    async def refuse(tx: Transaction) -> None:
        try:
            await end_me(tx)
        except DBAPIError:
            raise Refused("sold out") from None

    assert await once(store, refuse) == ("refused", "sold out")


async def test_a_deadlock_that_a_savepoint_took_back_is_forgotten(store: Store) -> None:
    async def recover(tx: Transaction) -> None:
        with pytest.raises(DBAPIError):
            async with tx.connection.begin_nested():
                await tx.execute(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))
        raise KeyError("something else")

    with pytest.raises(KeyError):
        await once(store, recover)


@pytest.mark.parametrize("state", ["55P03", "53100", "53200", "58030"])
async def test_a_lock_that_cannot_be_had_and_a_full_disk_are_no_attempts_unless_the_author_makes_something_of_it(
    state: str, store: Store
) -> None:
    sql = text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")

    async def wait_in_vain(tx: Transaction) -> None:
        await tx.execute(sql)

    async def make_something_of_it(tx: Transaction) -> None:
        try:
            await tx.execute(sql)
        except DBAPIError:
            raise KeyError("taken") from None

    with pytest.raises(Busy):
        await once(store, wait_in_vain)
    with pytest.raises(KeyError):
        await once(store, make_something_of_it)


async def test_a_locked_sqlite_file_is_no_attempt_where_the_handler_notices_it(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    database = await store.open()

    async def find_it_locked(tx: Transaction) -> None:
        await tx.execute(text("PRAGMA wal_checkpoint"))  # within a transaction: "database table is locked"

    with pytest.raises(Busy, match="given up"):
        await Stock(on_reserve=find_it_locked).do(database)
    assert await Stock().do(database) == RESERVED
    await store.close()


async def test_a_lock_that_a_savepoint_took_back_hides_no_later_one_in_sqlite(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    database = await store.open()

    async def find_it_locked_twice(tx: Transaction) -> None:
        with pytest.raises(DBAPIError):
            async with tx.connection.begin_nested():
                await tx.execute(text("PRAGMA wal_checkpoint"))
        await tx.execute(text("PRAGMA wal_checkpoint"))

    with pytest.raises(Busy, match="given up"):
        await Stock(on_reserve=find_it_locked_twice).do(database)
    await store.close()


async def test_what_breaks_a_constraint_is_an_attempt_and_named_without_a_value(postgres_server: Postgres) -> None:
    store = Store("postgres", postgres_server.new_database())

    async def twice(tx: Transaction) -> None:
        for _ in range(2):
            await tx.execute(insert(effects).values(number=7, what="Ada", key="4929 1234"))

    with pytest.raises(DBAPIError) as found:
        await once(store, twice)
    assert reason_of(found.value) == "IntegrityError (SQLSTATE 23505, constraint effects_pkey)"
    await store.close()


async def test_what_breaks_a_constraint_in_sqlite_is_named_without_a_value(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))

    async def twice(tx: Transaction) -> None:
        for _ in range(2):
            await tx.execute(insert(effects).values(number=7, what="Ada", key="4929 1234"))

    with pytest.raises(DBAPIError) as found:
        await once(store, twice)
    said = reason_of(found.value)
    assert said == "IntegrityError (SQLITE_CONSTRAINT_PRIMARYKEY, constraint effects.number)"
    await store.close()


@pytest.mark.parametrize(("code", "trouble"), [(5, "locked"), (6, "locked"), (7, "full"), (10, "full"), (13, "full")])
def test_what_sqlite_says_of_a_passing_trouble_is_known_by_its_code(code: int, trouble: str) -> None:
    error = sqlite3.OperationalError("in whatever words")
    error.sqlite_errorcode = code | 1 << 8  # an extended code
    assert trouble_of(error) == trouble
    assert Fault(error, is_disconnect=False).is_passing
