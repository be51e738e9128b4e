"""Handlers that end their transaction, which only the worker may: a failed attempt with one sentence, on each database,
whatever they used for it, and nothing of it is committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, registry

from antiphon.contracts import Retry
from antiphon.deploy.local.postgres import Postgres
from antiphon.participants import Outside, Participant, Transaction
from antiphon.participants.databases import Database, Manner
from antiphon.participants.execution import Execution
from antiphon.participants.procedures import DoProcedure
from antiphon.participants.sql import CommittedByItself

from .stock import (
    FOUND,
    RESERVED,
    Reserve,
    Reserved,
    Stock,
    Store,
    address,
    deliver,
    effects,
    sqlite_url,
    tables,
    write,
)

End = Callable[[Transaction], Awaitable[None]]


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty database of each kind that has connections."""
    if request.param == "sqlite":
        found = Store("sqlite", sqlite_url(tmp_path))
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        found = Store("postgres", server.new_database())
    yield found
    await found.close()


# --- what ends a transaction ------------------------------------------------------------------------------------------


async def rollback_of_the_connection(tx: Transaction) -> None:
    await tx.connection.rollback()


async def rollback_below_asyncio(tx: Transaction) -> None:
    await tx.connection.run_sync(Connection.rollback)


async def rollback_of_the_root(tx: Transaction) -> None:
    root = tx.connection.get_transaction()
    assert root is not None
    await root.rollback()


async def close_of_the_root(tx: Transaction) -> None:
    root = tx.connection.get_transaction()
    assert root is not None
    await root.close()


async def rollback_with_a_savepoint_open(tx: Transaction) -> None:
    await tx.connection.begin_nested()
    await tx.connection.rollback()


async def rollback_of_a_session(tx: Transaction) -> None:
    async with AsyncSession(bind=tx.connection) as session:
        await session.execute(insert(effects).values(what="by session", key=""))
        await session.rollback()


async def rollback_of_a_session_below_asyncio(tx: Transaction) -> None:
    def roll_back(connection: Connection) -> None:
        with Session(bind=connection) as session:
            session.execute(insert(effects).values(what="by session", key=""))
            session.rollback()

    await tx.connection.run_sync(roll_back)


class Effect:
    """An effect as an object of the ORM."""

    def __init__(self, what: str) -> None:
        self.what, self.key, self.number = what, "", 1001


registry().map_imperatively(Effect, effects)


async def flush_that_fails(tx: Transaction) -> None:
    async with AsyncSession(bind=tx.connection) as session:
        session.add_all([Effect("first"), Effect("second")])
        with pytest.raises(IntegrityError):
            await session.flush()


async def close_of_the_connection(tx: Transaction) -> None:
    await tx.connection.close()


async def commit_of_the_connection(tx: Transaction) -> None:
    await tx.connection.commit()


async def commit_below_asyncio(tx: Transaction) -> None:
    await tx.connection.run_sync(Connection.commit)


async def commit_of_the_root(tx: Transaction) -> None:
    root = tx.connection.get_transaction()
    assert root is not None
    await root.commit()


async def commit_that_is_caught(tx: Transaction) -> None:
    with suppress(CommittedByItself, SQLAlchemyError):
        await tx.connection.commit()


async def commit_as_a_statement(tx: Transaction) -> None:
    await tx.execute(text("COMMIT"))


async def rollback_as_a_statement(tx: Transaction) -> None:
    await tx.execute(text("ROLLBACK"))


ENDS = [
    rollback_of_the_connection,
    rollback_below_asyncio,
    rollback_of_the_root,
    close_of_the_root,
    rollback_with_a_savepoint_open,
    rollback_of_a_session,
    rollback_of_a_session_below_asyncio,
    flush_that_fails,
    close_of_the_connection,
    commit_of_the_connection,
    commit_below_asyncio,
    commit_of_the_root,
    commit_that_is_caught,
    commit_as_a_statement,
    rollback_as_a_statement,
]
MANNERS: list[Manner] = ["shared", "own", "slow"]


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("end", ENDS)
async def test_a_handler_that_ends_its_transaction_is_a_failed_attempt(end: End, manner: Manner, store: Store) -> None:
    database = await store.open()
    with pytest.raises(CommittedByItself, match="must leave"):
        await Stock(on_reserve=end).do(database, manner=manner)
    assert await store.effects() == []
    assert await Stock().do(database, manner=manner) == RESERVED
    assert await store.effects() == ["reserved"]


@pytest.mark.parametrize("end", [end for end in ENDS if "close_of_the_conn" not in end.__name__])
async def test_what_it_does_afterwards_is_not_committed_either(end: End, store: Store) -> None:
    async def end_and_write(tx: Transaction) -> None:
        with suppress(CommittedByItself):
            await end(tx)
        with suppress(SQLAlchemyError):
            await write(tx, "afterwards")

    database = await store.open()
    if "statement" in end.__name__:  # it was not executed, so nothing has ended
        assert await Stock(on_reserve=end_and_write).do(database) == RESERVED
        assert await store.effects() == ["reserved", "afterwards"]
        return
    with pytest.raises(CommittedByItself, match="savepoint"):
        await Stock(on_reserve=end_and_write).do(database)
    assert await store.effects() == []


@pytest.mark.parametrize("end", ENDS)
async def test_a_compensation_that_ends_its_transaction_is_a_failed_attempt(end: End, store: Store) -> None:
    database = await store.open()
    assert await Stock().do(database) == RESERVED
    with pytest.raises(CommittedByItself, match="must leave"):
        await Stock(on_release=end).undo(database)
    assert await store.effects() == ["reserved"]
    assert await Stock().undo(database) == FOUND
    assert await store.effects() == ["reserved", "released"]


@pytest.mark.parametrize("end", ENDS)
async def test_in_a_group_only_who_ends_it_fails(end: End, store: Store) -> None:
    async def third(tx: Transaction) -> None:
        if tx.saga_id == "2":
            await end(tx)

    stock, database = Stock(on_reserve=third), await store.open()
    doing = [asyncio.create_task(stock.do(database, saga=str(number))) for number in range(5)]
    answers: list[Any] = await asyncio.gather(*doing, return_exceptions=True)
    assert isinstance(answers.pop(2), CommittedByItself)
    assert answers == [RESERVED] * 4
    assert await store.effects() == ["reserved"] * 4


@pytest.mark.parametrize("end", ENDS)
async def test_a_handler_with_effects_outside_that_ends_its_transaction_is_a_failed_attempt(
    end: End, store: Store
) -> None:
    participant, ends = Participant("stock", tables=tables), [end]

    @participant.handles(Reserve, outside=True)
    async def reserve(command: Reserve, outside: Outside) -> Reserved:
        tx = await outside.begin()
        await write(tx, "reserved")
        while ends:
            await ends.pop()(tx)
        return RESERVED

    async def do(database: Database, deliveries: int) -> object:
        where = address("do")
        procedure = DoProcedure(participant.handlers[Reserve.__contract__.type], where, Reserve(), is_retriable=False)
        return await deliver(Execution(where, procedure, Retry(attempts=3), "do 1", deliveries), database)

    database = await store.open()
    with pytest.raises(CommittedByItself, match="must leave"):
        await do(database, 1)
    assert await store.effects() == []
    assert await do(database, 2) == RESERVED
    assert await store.effects() == ["reserved"]


# --- what does not ----------------------------------------------------------------------------------------------------


async def savepoint_left_open(tx: Transaction) -> None:
    await tx.connection.begin_nested()
    await write(tx, "more")


async def savepoint_of_a_session_left_open(tx: Transaction) -> None:
    session = AsyncSession(bind=tx.connection)
    await session.begin_nested()
    await session.execute(insert(effects).values(what="more", key=""))


async def commit_of_a_session(tx: Transaction) -> None:
    async with AsyncSession(bind=tx.connection) as session:
        await session.execute(insert(effects).values(what="more", key=""))
        await session.commit()


async def close_of_a_session(tx: Transaction) -> None:
    session = AsyncSession(bind=tx.connection)
    await session.execute(insert(effects).values(what="more", key=""))
    await session.close()


async def session_below_asyncio(tx: Transaction) -> None:
    def write_more(connection: Connection) -> None:
        with Session(bind=connection) as session:
            session.execute(insert(effects).values(what="more", key=""))
            session.commit()

    await tx.connection.run_sync(write_more)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize(
    "write_more",
    [
        savepoint_left_open,
        savepoint_of_a_session_left_open,
        commit_of_a_session,
        close_of_a_session,
        session_below_asyncio,
    ],
)
async def test_what_ends_no_transaction_loses_nothing(write_more: End, manner: Manner, store: Store) -> None:
    assert await Stock(on_reserve=write_more).do(await store.open(), manner=manner) == RESERVED
    assert await store.effects() == ["reserved", "more"]
