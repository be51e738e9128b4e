"""Rows of an inbox removed, in each database that keeps any: of one saga, and of those whose journals are gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import SagaKey
from antiphon.participants import Database
from antiphon.participants.engines import open_engine
from antiphon.participants.inbox import Answer, Row
from antiphon.participants.purging import PAGE, Over, forget_saga, purge_inbox
from antiphon.participants.tables import inbox

from .stock import Store, address, sqlite_url

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)
DONE = Row("done", 1, Answer("stock.reserved.v1", b'{"name": "Ada"}'))


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    is_file = request.param == "sqlite"
    url = sqlite_url(tmp_path) if is_file else request.getfixturevalue("postgres_server").new_database()
    found = Store(request.param, url)
    yield found
    await found.close()


async def settle(database: Database, *sagas: str) -> None:
    for saga in sagas:
        async with database.begin(address("do", saga=saga)) as held:
            await held.claim()
            await held.settle(DONE)


async def left(store: Store) -> list[str]:
    engine = open_engine(store.url)
    try:
        async with engine.connect() as connection:
            return list(await connection.scalars(select(inbox.c.saga_id).order_by(inbox.c.saga_id)))
    finally:
        await engine.dispose()


async def test_the_rows_of_one_saga_are_deleted_and_no_others(store: Store) -> None:
    database = await store.open()
    await settle(database, "s1", "s_1", "s11")
    assert await forget_saga(store.url, SagaKey.of("order", "s_1")) == 1
    assert await forget_saga(store.url, SagaKey.of("order", "s_1")) == 0
    assert await left(store) == ["s1", "s11"]


async def test_rows_go_once_their_journals_are_gone_and_they_are_old(store: Store) -> None:
    database = await store.open()
    names = [f"s{number:04d}" for number in range(2 * PAGE + 7)]
    await settle(database, *names)
    over = {SagaKey.of("order", name) for name in names if int(name[1:]) % 3}
    asked = list[SagaKey]()

    async def are_over(keys: list[SagaKey]) -> Over:
        asked.extend(keys)
        return Over(over & {*keys}, ())

    assert await purge_inbox(store.url, NOW - timedelta(hours=1), are_over) == (0, 0)
    assert asked == []
    assert await purge_inbox(store.url, LATER, are_over) == (len(over), 0)
    assert len(asked) == len({*asked}) == len(names)
    assert await left(store) == [name for name in names if int(name[1:]) % 3 == 0]


async def test_the_rows_of_reactions_stay_for_as_long_as_the_ends_do(store: Store) -> None:
    """A start that a client stores again is heard by participants, whatever coordinators make of it."""
    database, key = await store.open(), SagaKey.of("order", "s1")
    reacted = replace(address("do", saga="s1"), step="on-order-placed-1")
    async with database.begin(reacted) as held:
        await held.claim()
        await held.settle(DONE)
    await settle(database, "s1")

    async def are_purged(keys: list[SagaKey]) -> Over:
        return Over(keys, ())

    async def are_gone(keys: list[SagaKey]) -> Over:
        return Over(keys, keys)

    assert await purge_inbox(store.url, LATER, are_purged) == (1, 0)
    assert await left(store) == ["s1"]
    assert await forget_saga(store.url, key) == 1
    async with database.begin(reacted) as held:
        assert await held.claim() == Row("done", 1, Answer("stock.reserved.v1", b"{}"))
        await held.leave()
    assert await forget_saga(store.url, key) == 0
    assert await purge_inbox(store.url, LATER, are_gone, with_gone=True) == (1, 0)
    assert await left(store) == []


async def test_the_rows_of_sagas_that_the_server_does_not_know_stay_unless_that_is_meant(store: Store) -> None:
    """It may be the wrong server, or one with the streams of yesterday."""
    await settle(await store.open(), "s1", "s2", "s3")
    known = {SagaKey.of("order", "s2")}

    async def are_over(keys: list[SagaKey]) -> Over:
        return Over(keys, {*keys} - known)

    assert await purge_inbox(store.url, LATER, are_over) == (1, 2)
    assert await left(store) == ["s1", "s3"]
    assert await purge_inbox(store.url, LATER, are_over, with_gone=True) == (2, 0)
    assert await left(store) == []


async def test_a_database_without_an_inbox_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="there is no such file"):
        await forget_saga(f"sqlite:///{tmp_path}/other.db", SagaKey.of("order", "s1"))
    (tmp_path / "other.db").touch()
    with pytest.raises(PlatformError, match=r"cannot be used .* Is it the participant's database"):
        await forget_saga(f"sqlite:///{tmp_path}/other.db", SagaKey.of("order", "s1"))
    with pytest.raises(PlatformError, match="no database"):
        await forget_saga("mysql://x", SagaKey.of("order", "s1"))
