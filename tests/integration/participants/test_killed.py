"""Processes that are killed at each point between a handler's end and the ack, of a first delivery and of a second, and
two processes on one file: each command is done once and answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from antiphon.contracts.topology import PARKED
from antiphon.deploy.local.postgres import Postgres
from tests.support.processes import Child, supervised

from .plain import ACK_WAIT_SECONDS, is_refused
from .play import Play, play
from .stock import Store, effects, sqlite_url

POINTS = ("worker.in_transaction", "worker.released", "worker.committed", "worker.event_stored")
OUTSIDE_POINTS = (
    "worker.claimed",
    "worker.outside_done",
    "worker.in_transaction",
    "worker.committed",
    "worker.event_stored",
)
COUNT = 30


def child(
    playing: Play, store: Store, folder: Path, name: str = "stock", kill_at: str = "", outside: Path | None = None
) -> Child:
    arguments = ["tests.integration.participants.plain", playing.up.servers, store.url]
    arguments += [str(outside)] if outside else []
    return Child(name, arguments, playing.up.environment("stock"), folder / f"{name}.log", kill_at)


async def all_are_answered(playing: Play, sagas: list[str]) -> None:
    for saga in sagas:
        await playing.answer(saga, "stock-reserve-refused" if is_refused(saga) else "stock-reserved")


async def keys(store: Store) -> list[str]:
    """The idempotency keys of the effects."""
    engine = create_async_engine(
        store.url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")
    )
    try:
        async with engine.connect() as connection:
            return sorted((await connection.execute(select(effects.c.key))).scalars())
    finally:
        await engine.dispose()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_process_that_is_killed_there_does_each_command_once(
    point: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if (kind, point) == ("postgres", "worker.released"):
        pytest.skip("a transaction of PostgreSQL's is nobody else's")
    server: Postgres | None = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    store = Store(kind, server.new_database() if server else sqlite_url(tmp_path))
    await store.open()
    sagas = [str(number) for number in range(COUNT)]
    async with play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as playing:
        for saga in sagas:
            await playing.do(saga)
        # In its first life in the middle of others, in its second with what was delivered a second time.
        stock = child(playing, store, tmp_path, kill_at=f"{point}:4 {point}:1")
        with supervised({"stock": stock}):
            await all_are_answered(playing, sagas)
            await playing.is_settled()
        assert stock.exits[:2] == [-9, -9]
        assert await playing.administrator.read_all(PARKED, ["parked.>"]) == []
    assert await keys(store) == sorted(f"order/{saga}/reserve" for saga in sagas if not is_refused(saga))
    await store.close()


@pytest.mark.parametrize("point", OUTSIDE_POINTS)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_process_that_is_killed_beside_the_outside_calls_it_under_one_key(
    point: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: Postgres | None = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    store = Store(kind, server.new_database() if server else sqlite_url(tmp_path))
    await store.open()
    sagas, outside = [f"s{number}" for number in range(COUNT)], tmp_path / "outside"
    async with play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as playing:
        for saga in sagas:
            await playing.do(saga)
        stock = child(playing, store, tmp_path, kill_at=f"{point}:4 {point}:1", outside=outside)
        with supervised({"stock": stock}):
            await all_are_answered(playing, sagas)
            await playing.is_settled()
        assert stock.exits[:2] == [-9, -9]
        assert await playing.administrator.read_all(PARKED, ["parked.>"]) == []
    expected = sorted(f"order/{saga}/reserve" for saga in sagas)
    assert await keys(store) == expected
    assert sorted(set(outside.read_text().split())) == expected
    await store.close()


async def test_two_processes_on_one_sqlite_file_find_it_locked_never(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    await store.open()
    sagas = [f"s{number}" for number in range(300)]
    async with play(tmp_path, ack_wait_seconds=30) as playing:
        children = {name: child(playing, store, tmp_path, name) for name in ("one", "other")}
        with supervised(children):
            for saga in sagas:
                await playing.do(saga)
            await all_are_answered(playing, sagas)
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in children}
    for log in logs.values():
        assert "locked" not in log
        assert "busy" not in log
    assert await keys(store) == sorted(f"order/{saga}/reserve" for saga in sagas)
    await store.close()
