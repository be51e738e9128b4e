"""What the inbox says straight to PostgreSQL's driver: two round trips a command, whatever stands in a row, behind a
pooler, and over connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import PoolProxiedConnection

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import CommandAddress
from antiphon.deploy.local.postgres import Postgres
from antiphon.participants import Transaction, sessions
from antiphon.participants.databases import Busy
from antiphon.participants.inbox import Answer, Row
from antiphon.participants.literals import literal
from antiphon.participants.postgres import PostgresDatabase
from antiphon.participants.sessions import Session
from antiphon.participants.sql import CommittedByItself
from tests.support.server import until

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001
GONE = "DEALLOCATE antiphon_claim; DEALLOCATE antiphon_settle"
"""What a pooler does that gives the next transaction another session."""
ADDRESS = CommandAddress(SagaKey.of("order", "o1"), "stock", "reserve", "do", 1)
TEXTS = (
    "",
    "it's",
    "''",
    "\\",
    "\\'",
    "'; DROP TABLE antiphon_inbox; --",
    "E'\\x41'",
    "$1 $$ :name %s %(x)s",
    '{"a":"\\"b\\"","c":"\\u0000"}',
    "ä 🂡 \u2028 \u202e",
    "line\r\nline\ttab\x01",
)


async def opened(server: Postgres, **settings: str) -> PostgresDatabase:
    url = server.new_database()
    database = PostgresDatabase(url, 4)
    await database.open()
    for name, value in settings.items():
        async with database._engine.begin() as connection:
            found = (await connection.execute(text("SELECT current_database()"))).scalar_one()
            await connection.execute(text(f'ALTER DATABASE "{found}" SET {name} = {value}'))
    await database.close()
    return PostgresDatabase(url, 4)


async def perform(database: PostgresDatabase, row: Row, address: CommandAddress = ADDRESS) -> Row | None:
    """Claim, and write a row where there is none; what was found."""
    async with database.begin(address) as inbox:
        found = await inbox.claim()
        if found is None:
            await inbox.settle(row)
        return found


async def next_session(database: PostgresDatabase) -> Session:
    """The session that the next transaction gets."""
    session = await database.sessions.take()
    database.sessions.give(session)
    return session


async def first_connection(database: PostgresDatabase) -> Any:
    """Its connection of the driver's."""
    return (await next_session(database)).driver


@pytest.mark.parametrize("setting", ["on", "off"])
@pytest.mark.parametrize("whole", [False, True], ids=["prepared", "whole"])
async def test_what_stands_in_a_row_comes_back_as_it_was(postgres_server: Postgres, setting: str, whole: bool) -> None:
    database = await opened(postgres_server, standard_conforming_strings=setting)
    due = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    for number, said in enumerate(TEXTS, 1):
        at = CommandAddress(SagaKey.of("order", f"p{number}"), "stock", "reserve", "do", 1)
        if whole and number == 1:
            await perform(database, Row("done", 1, Answer("x.v1", b"{}")), ADDRESS)
            await (await first_connection(database)).execute(GONE)
        row = Row("claimed", number, Answer(said, said.encode()), 3, (f"3@{number}",), due, said, said)
        assert await perform(database, row, at) is None
        found = await perform(database, row, at)
        assert found is not None
        assert (found.answer, found.attempt, found.closed, found.digest) == (row.answer, number, said, said)
        assert (found.claim, found.runs, found.due_at) == (3, row.runs, due)
    await database.close()


@pytest.mark.parametrize("value", ["a\0b", True, 1.5, NAIVE, b"x"])
def test_what_no_column_has_is_not_written(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        literal(value)


async def test_a_command_without_statements_of_its_own_takes_two_round_trips(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    await perform(database, Row("done", 1, Answer("x.v1", b"{}")))
    driver = await first_connection(database)
    said: list[str] = []
    driver.add_query_logger(lambda query: said.append(query.query))
    ran: list[str] = []
    event.listen(
        database._engine.sync_engine, "before_cursor_execute", lambda c, cursor, statement, *rest: ran.append(statement)
    )
    at = CommandAddress(SagaKey.of("order", "o2"), "stock", "reserve", "do", 1)
    assert await perform(database, Row("done", 1, Answer("x.v1", b"{}")), at) is None
    await until(lambda: len(said) == 2, what="both round trips in the log")
    assert ran == []
    assert [each.partition("(")[0] for each in said] == [
        "BEGIN ISOLATION LEVEL READ COMMITTED; EXECUTE antiphon_claim",
        "EXECUTE antiphon_settle",
    ]
    assert said[1].endswith("; COMMIT")
    await database.close()


async def test_behind_a_pooler_that_knows_no_prepared_statement_they_are_sent_whole(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    done = Row("done", 1, Answer("x.v1", b"{}"))
    await perform(database, done)
    driver = await first_connection(database)
    await driver.execute(GONE)  # as where another session has the next transaction
    at = CommandAddress(SagaKey.of("order", "o2"), "stock", "reserve", "do", 1)
    assert await perform(database, done, at) is None
    assert await perform(database, done, at) == done
    await database.close()


async def test_a_statement_that_is_gone_at_the_commit_costs_no_attempt(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    done = Row("done", 1, Answer("x.v1", b"{}"))
    await perform(database, done)
    at = CommandAddress(SagaKey.of("order", "o2"), "stock", "reserve", "do", 1)
    inbox = database.begin(at)
    opened_inbox = await inbox.__aenter__()
    assert await opened_inbox.claim() is None
    await opened_inbox.transaction.connection.exec_driver_sql("DEALLOCATE antiphon_settle")
    await opened_inbox.settle(done)
    with pytest.raises(Busy):
        await inbox.__aexit__(None, None, None)
    assert await perform(database, done, at) is None
    assert await perform(database, done, at) == done
    await database.close()


async def test_a_connection_that_broke_while_it_was_idle_is_not_handed_out(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    done = Row("done", 1, Answer("x.v1", b"{}"))
    await perform(database, done)
    driver = await first_connection(database)
    driver.terminate()
    async with asyncio.timeout(120):
        while not driver.is_closed():
            await asyncio.sleep(0.01)
    at = CommandAddress(SagaKey.of("order", "o2"), "stock", "reserve", "do", 1)
    assert await perform(database, done, at) is None
    assert await perform(database, done, at) == done
    await database.close()


async def test_a_server_that_ended_the_session_costs_no_attempt(postgres_server: Postgres) -> None:
    database, other = await opened(postgres_server), None
    done = Row("done", 1, Answer("x.v1", b"{}"))
    await perform(database, done)
    process = (await first_connection(database)).get_server_pid()
    other = PostgresDatabase(str(database._engine.url.render_as_string(hide_password=False)).replace("+asyncpg", ""), 1)
    async with other._engine.begin() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend({process})"))
    await other.close()
    at = CommandAddress(SagaKey.of("order", "o2"), "stock", "reserve", "do", 1)
    found: list[Row | Busy | None] = []
    for _ in range(2):
        try:
            found.append(await perform(database, done, at))
        except Busy as busy:
            found.append(busy)
    assert found[-1] in (None, done)
    assert await perform(database, done, at) == done
    await database.close()


async def test_a_claim_that_was_cancelled_leaves_a_connection_that_works(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    done = Row("done", 1, Answer("x.v1", b"{}"))
    async with database.begin(ADDRESS) as inbox:
        assert await inbox.claim() is None
        waiting = asyncio.ensure_future(perform(database, done))
        await asyncio.wait({waiting}, timeout=0.2)
        assert not waiting.done(), "the row is locked"
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        await inbox.settle(done)
    assert await asyncio.gather(*(perform(database, done) for _ in range(4))) == [done] * 4

    await database.close()


async def waits_for_a_lock(database: PostgresDatabase) -> bool:
    """Whether a session of this database waits for a transaction of another one."""
    look = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    async with database._engine.connect() as connection:
        return bool((await connection.execute(look)).scalar_one())


async def test_a_row_that_is_there_is_locked_by_who_claims_it(postgres_server: Postgres) -> None:
    """A compensation and a late command look at it in one moment: the second sees what the first has made of it."""
    database = await opened(postgres_server)
    answer = Answer("x.v1", b"{}")
    await perform(database, Row("done", 1, answer))
    async with database.begin(ADDRESS) as inbox:
        assert await inbox.claim() == Row("done", 1, answer)
        second = asyncio.ensure_future(perform(database, Row("done", 1, answer)))
        while not second.done() and not await waits_for_a_lock(database):
            await asyncio.sleep(0.01)
        await inbox.settle(Row("undone", 1, answer))
    assert await second == Row("undone", 1, answer)
    await database.close()


# --- sessions that stay -----------------------------------------------------------------------------------------------


async def session_of(tx: Transaction) -> int:
    return int((await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one())


def numbered(number: int) -> CommandAddress:
    return CommandAddress(SagaKey.of("order", f"o{number}"), "stock", "reserve", "do", 1)


async def do(database: PostgresDatabase, number: int, handler: Callable[[Transaction], Awaitable[object]]) -> Any:
    """Perform a command as the worker does; what its handler returns."""
    async with database.begin(numbered(number)) as inbox:
        assert await inbox.claim() is None
        found = await handler(inbox.transaction)
        await inbox.settle(Row("done", 1, Answer("x.v1", b"{}")))
        return found


async def read(database: PostgresDatabase, statement: Any) -> Any:
    """What a statement finds, in a transaction of its own."""
    async with database.begin(ADDRESS) as inbox:
        return await inbox.transaction.execute(statement)


async def test_commands_one_after_the_other_have_the_same_session(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    both = asyncio.Barrier(2)

    async def together(tx: Transaction) -> int:
        await both.wait()
        return await session_of(tx)

    first, second = await asyncio.gather(do(database, 1, together), do(database, 2, together))
    assert first != second
    assert len({await do(database, number, session_of) for number in range(3, 8)}) == 1
    await database.close()


async def use_nothing(tx: Transaction) -> Transaction:
    return tx


async def use_connection(tx: Transaction) -> Transaction:
    assert tx.connection is tx.connection
    return tx


@pytest.mark.parametrize("use", [use_nothing, use_connection])
async def test_what_a_handler_was_given_ends_with_it(
    use: Callable[[Transaction], Awaitable[Transaction]], postgres_server: Postgres
) -> None:
    database = await opened(postgres_server)
    kept = await do(database, 1, use)

    async def meanwhile(tx: Transaction) -> None:
        """Another command, on the same session."""
        with pytest.raises(ResourceClosedError, match=r"ended|closed"):
            await kept.execute(text("SELECT 1"))
        with pytest.raises(ResourceClosedError, match=r"ended|closed"):
            await kept.connection.execute(text("SELECT 1"))

    await do(database, 2, meanwhile)
    await database.close()


async def test_a_connection_and_its_driver_are_nobodys_after_the_handler(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)

    async def keep(tx: Transaction) -> tuple[AsyncConnection, PoolProxiedConnection]:
        return tx.connection, await tx.connection.get_raw_connection()

    connection, raw = await do(database, 1, keep)

    async def meanwhile(tx: Transaction) -> None:
        with pytest.raises(ResourceClosedError):
            await connection.execute(text("SELECT 1"))
        for use in (raw.cursor, raw.commit, lambda: raw.driver_connection, lambda: raw.dbapi_connection):
            with pytest.raises(ResourceClosedError):
                use()
        raw.rollback()
        raw.close()
        raw.invalidate()
        await tx.execute(text("CREATE TABLE here (id INT)"))

    await do(database, 2, meanwhile)
    assert (await do(database, 3, lambda tx: tx.execute(text("SELECT count(*) FROM here")))).scalar_one() == 0
    await database.close()


async def test_a_handler_that_closes_its_connection_fails_and_the_session_goes_on(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)

    async def close(tx: Transaction) -> None:
        await tx.connection.close()

    with pytest.raises(CommittedByItself):
        await do(database, 1, close)
    assert await do(database, 1, session_of)
    await database.close()


async def test_the_error_of_one_command_is_not_held_against_the_next(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)

    async def deadlock(tx: Transaction) -> None:
        await tx.execute(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))

    async def fail(tx: Transaction) -> None:
        raise KeyError("no stock")

    with pytest.raises(Busy):
        await do(database, 1, deadlock)
    with pytest.raises(KeyError):
        await do(database, 2, fail)
    await database.close()


async def test_a_statement_left_behind_commits_nothing_and_reaches_no_other_command(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    left: list[asyncio.Future[Any]] = []

    async def leave_behind(tx: Transaction) -> None:
        left.append(asyncio.ensure_future(tx.execute(text("SELECT pg_sleep(100)"))))
        look = text("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(100)'")
        async with asyncio.timeout(120):
            while (await read(database, look)).one_or_none() is None:
                await asyncio.sleep(0.01)

    with pytest.raises(Busy):
        await do(database, 1, leave_behind)
    (found,) = await asyncio.gather(*left, return_exceptions=True)
    assert isinstance(found, Exception)
    async with asyncio.timeout(50):  # the server was told, or its sleep would hold the row
        assert await perform(database, Row("done", 1, Answer("x.v1", b"{}")), numbered(1)) is None
    await database.close()


async def test_who_finds_no_session_free_waits_for_one(postgres_server: Postgres) -> None:
    database = PostgresDatabase(postgres_server.new_database(), 1)
    await database.open()
    inside, leave = asyncio.Event(), asyncio.Event()

    async def stay(tx: Transaction) -> int:
        inside.set()
        await leave.wait()
        return await session_of(tx)

    first = asyncio.ensure_future(do(database, 1, stay))
    await inside.wait()
    others = [asyncio.ensure_future(do(database, number, session_of)) for number in (2, 3)]
    await asyncio.wait(others, timeout=0.1)
    assert not any(each.done() for each in others)
    others.pop().cancel()
    leave.set()
    assert await first == await others[0]
    assert await do(database, 4, session_of) == await first
    await database.close()


async def test_who_finds_none_for_long_is_busy(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CONNECT_SECONDS", 0.05)
    database = PostgresDatabase(postgres_server.new_database(), 1)
    await database.open()

    async def wait_for_another(tx: Transaction) -> None:
        with pytest.raises(Busy, match="all sessions"):
            await do(database, 2, session_of)

    await do(database, 1, wait_for_another)
    assert await do(database, 2, session_of)
    await database.close()
