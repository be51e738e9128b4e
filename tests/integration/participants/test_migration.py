"""The inbox's tables as an earlier release left them, opened by this one, while workers of both use them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from antiphon.contracts.errors import PlatformError
from antiphon.participants import open_database
from antiphon.participants.engines import open_engine
from tests.support.server import until

from .stock import RESERVED, Stock, Store, address

pytestmark = pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)


def first_tables(time: str) -> list[str]:
    """What version 1 created."""
    return [
        "CREATE TABLE antiphon_inbox (saga_type VARCHAR(64) NOT NULL, saga_id VARCHAR(64) NOT NULL, "
        "step VARCHAR(64) NOT NULL, element INTEGER NOT NULL, state VARCHAR(8) NOT NULL, attempt INTEGER NOT NULL, "
        f"answer_type TEXT, answer TEXT, written_at {time} NOT NULL, "
        "PRIMARY KEY (saga_type, saga_id, step, element))",
        "CREATE TABLE antiphon_deliveries (command BIGINT NOT NULL, failed INTEGER NOT NULL, "
        f"returned INTEGER NOT NULL, alone INTEGER NOT NULL, written_at {time} NOT NULL, PRIMARY KEY (command))",
    ]


INSERT = text(
    "INSERT INTO antiphon_inbox (saga_type, saga_id, step, element, state, attempt, answer_type, answer, written_at) "
    "VALUES (:saga_type, :saga_id, :step, 0, 'done', 1, 'stock.reserved.v1', :answer, :now)"
)
"""As workers of version 1 write a row."""


async def make_first(engine: AsyncEngine, *sagas: str) -> None:
    async with engine.begin() as connection:
        time = "TIMESTAMP WITH TIME ZONE" if engine.dialect.name == "postgresql" else "DATETIME"
        for statement in first_tables(time):
            await connection.execute(text(statement))
        for saga in sagas:
            await write_first(connection, saga)


async def write_first(connection: AsyncConnection, saga: str) -> None:
    where = address("do", 1, saga)
    row = {"saga_type": where.saga.type, "saga_id": where.saga.id, "step": where.step}
    await connection.execute(INSERT, {**row, "answer": '{"reservation_id":"r-1"}', "now": NOW})


async def test_tables_of_the_first_version_get_their_columns_and_keep_their_rows(store: Store) -> None:
    engine = open_engine(store.url)
    await make_first(engine, "s1")
    database, stock = await store.open(), Stock()
    assert await stock.do(database, saga="s1") == RESERVED
    assert stock.calls == []
    async with engine.begin() as connection:  # a worker of the first version goes on
        await write_first(connection, "s2")
    assert await stock.do(database, saga="s2") == RESERVED
    assert stock.calls == []
    assert await stock.do(database, saga="s3") == RESERVED
    assert stock.calls == ["reserve"]
    await engine.dispose()


async def test_workers_that_start_together_migrate_once(store: Store) -> None:
    engine = open_engine(store.url)
    await make_first(engine, "s1")
    databases = [open_database(store.url) for _ in range(4)]
    await asyncio.gather(*(database.open() for database in databases))
    assert await Stock().do(await store.open(), saga="s1") == RESERVED
    async with engine.connect() as connection:
        of_inbox = text("SELECT version FROM antiphon_schema WHERE part = 'inbox'")
        assert (await connection.execute(of_inbox)).all() == [(2,)]
    assert len({database.number for database in databases}) == 1
    assert databases[0].number
    for database in databases:
        await database.close()
    await engine.dispose()


async def test_a_newer_database_is_refused_in_a_sentence(store: Store) -> None:
    await store.open()
    engine = open_engine(store.url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE antiphon_schema SET version = 3"))
    database = open_database(store.url)
    with pytest.raises(PlatformError, match=r"its inbox has version 3, .* no version above 2\. Start the participant"):
        await database.open()
    await database.close()
    await engine.dispose()


async def test_a_migration_waits_for_a_transaction_of_an_older_worker(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = open_engine(store.url)
    await make_first(engine)
    database = open_database(store.url)
    async with engine.begin() as connection:
        await write_first(connection, "s1")
        opening = asyncio.create_task(database.open())
        if engine.dialect.name == "postgresql":
            await until(lambda: "tables.wait" in capsys.readouterr().out, what="a migration that waits")
    await opening
    assert await Stock().do(await store.open(), saga="s1") == RESERVED
    await database.close()
    await engine.dispose()
