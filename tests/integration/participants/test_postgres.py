"""What the inbox says straight to PostgreSQL's driver: two round trips a command, whatever stands in a row, behind a
pooler, and over connections that break."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, text

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import CommandAddress
from antiphon.participants.databases import Busy
from antiphon.participants.inbox import Answer, Row
from antiphon.participants.literals import literal
from antiphon.participants.postgres import PostgresDatabase
from tests.support.postgres import Postgres
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
    await database._engine.dispose()
    return database


async def perform(database: PostgresDatabase, row: Row, address: CommandAddress = ADDRESS) -> Row | None:
    """Claim, and write a row where there is none; what was found."""
    async with database.begin(address) as inbox:
        found = await inbox.claim()
        if found is None:
            await inbox.settle(row)
        return found


async def first_connection(database: PostgresDatabase) -> Any:
    """The driver's connection that the next transaction gets."""
    async with database._engine.connect() as connection:
        return (await connection.get_raw_connection()).driver_connection


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


async def test_a_connection_that_broke_while_it_was_idle_is_handed_out_once(postgres_server: Postgres) -> None:
    database = await opened(postgres_server)
    done = Row("done", 1, Answer("x.v1", b"{}"))
    await perform(database, done)
    driver = await first_connection(database)
    driver.terminate()
    async with asyncio.timeout(120):
        while not driver.is_closed():
            await asyncio.sleep(0.01)
    at = CommandAddress(SagaKey.of("order", "o2"), "stock", "reserve", "do", 1)
    with pytest.raises(Busy):
        await perform(database, done, at)
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
