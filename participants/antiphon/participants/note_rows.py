"""Notes in PostgreSQL: a row for each process in an unlogged table, and an advisory lock of the process's session."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Any, Final

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from .engines import POOLED, first_line, open_engine, sqlstate_of
from .lender import sync_of
from .literals import Statement, upsert_of
from .notes import Left

log = structlog.get_logger()

CREATE_LOCK: Final = 0x68656C64
"""The advisory lock under which the table is created: processes that start together would collide."""

WRITE_SECONDS: Final = 0.02
"""How long is at least between two writes: what comes and goes in between is never noted."""
SILENT_SECONDS: Final = 1.5
"""A session can be lost while its process lives, which then comes back. So whoever is not just starting waits until a
process has been silent for two turns of its lease."""
RESTART_SECONDS: Final = 5
"""For so long after the database's start no free lock proves anything: all sessions were lost, and are coming back."""

_CREATE: Final = text(
    "CREATE UNLOGGED TABLE IF NOT EXISTS antiphon_held (instance TEXT PRIMARY KEY, participant TEXT NOT NULL,"
    " lock BIGINT NOT NULL, replies TEXT NOT NULL, written_at TIMESTAMPTZ NOT NULL) WITH (fillfactor = 50)"
)
_EXISTS: Final = text("SELECT to_regclass('antiphon_held') IS NOT NULL")
_WAIT: Final = text("SELECT pg_advisory_lock(:lock)")
_LOCK: Final = text("SELECT pg_try_advisory_lock(:lock)")
_UNLOCK: Final = text("SELECT pg_advisory_unlock(:lock)")
_WRITE: Final = Statement(
    "antiphon_note",
    upsert_of,
    "antiphon_held",
    ["instance"],
    ["instance", "participant", "lock", "replies"],
    {"instance": "TEXT", "participant": "TEXT", "lock": "BIGINT", "replies": "TEXT"},
    {"written_at": "clock_timestamp()"},
)
_OTHERS: Final = text(
    "SELECT instance, lock FROM antiphon_held WHERE participant = :participant AND instance <> :instance"
    " AND clock_timestamp() - written_at > make_interval(secs => :silent)"
    " AND clock_timestamp() - pg_postmaster_start_time() > make_interval(secs => :restart)"
)
_READ: Final = text(
    "SELECT replies, extract(epoch FROM clock_timestamp() - written_at)::float8 FROM antiphon_held"
    " WHERE instance = :instance"
)
_FORGET: Final = text("DELETE FROM antiphon_held WHERE instance = :instance")


class NoteRows:
    """The notes of one participant's processes, in one table.

    Args:
        database_url: of the participant's database.
        participant: its processes only look at each other's notes.
        instance: the name of this process.
    """

    def __init__(self, database_url: str, participant: str, instance: str) -> None:
        self._engine = open_engine(database_url, connections=1).execution_options(isolation_level="AUTOCOMMIT")
        self._who = {"participant": participant, "instance": instance}
        self._lock_number = secrets.randbits(62)
        self._session: AsyncConnection | None = None
        self._in_use = asyncio.Lock()
        self._replies: Sequence[str] = ()
        self._is_due = False
        self._writing: asyncio.Task[None] | None = None
        self._taken: dict[str, int] = {}
        """By their instances: the locks of the dead, which are held here."""
        self._is_failing = False
        self._is_pooled = False
        """Whether a pooler gives each statement another session, so that none is prepared."""

    async def open(self) -> None:
        """Connect, create the table where it is missing, and write the row under a lock of this session."""
        async with self._in_use:
            await self._open()

    def write(self, replies: Sequence[str]) -> None:
        """Have it written soon, together with what comes until then."""
        self._replies, self._is_due = replies, True
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def dead(self, is_starting: bool) -> list[Left]:
        """The rows whose locks can be had."""
        silent = 0.0 if is_starting else SILENT_SECONDS
        async with self._in_use:
            session = await self._connected()
            found = await session.execute(_OTHERS, {**self._who, "silent": silent, "restart": RESTART_SECONDS})
            return [left for instance, lock in found.all() if (left := await self._take(session, instance, lock))]

    async def forget(self, left: Left) -> None:
        """Remove the row, then the lock."""
        async with self._in_use:
            session = await self._connected()
            await session.execute(_FORGET, {"instance": left.instance})
            await session.execute(_UNLOCK, {"lock": self._taken.pop(left.instance)})

    async def close(self) -> None:
        """Remove the own row; the lock goes with the session."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait((self._writing,))
        async with self._in_use:
            if self._session is not None:
                with contextlib.suppress(Exception):  # the database is away, and the row is one of a dead process
                    await self._session.execute(_FORGET, self._who)
                await self._disconnect()
        await self._engine.dispose()

    async def _take(self, session: AsyncConnection, instance: str, lock: int) -> Left | None:
        if self._taken.get(instance) != lock and not (await session.execute(_LOCK, {"lock": lock})).scalar():
            return None
        found = (await session.execute(_READ, {"instance": instance})).one_or_none()
        if found is None:  # somebody else has handed all of it back meanwhile
            await session.execute(_UNLOCK, {"lock": lock})
            return None
        self._taken[instance] = lock
        replies, age_seconds = found
        return Left(instance, tuple(replies.split("\n")) if replies else (), age_seconds)

    async def _write_all(self) -> None:
        while self._is_due:
            self._is_due = False
            try:
                async with self._in_use:
                    await self._write(await self._connected())
                self._is_failing = False
            except Exception as error:
                if not self._is_failing:
                    log.warning("held.unnoted", reason=first_line(error))
                self._is_failing = True
            await asyncio.sleep(WRITE_SECONDS)

    async def _write(self, session: AsyncConnection) -> None:
        values: dict[str, Any] = {**self._who, "lock": self._lock_number, "replies": "\n".join(self._replies)}
        driver: Any = sync_of(session).connection.driver_connection
        # Straight to the driver: this comes fifty times a second, and SQLAlchemy would take longer than the database.
        try:
            if not self._is_pooled:
                try:
                    await driver.execute(_WRITE.call(values))
                    return
                except Exception as error:
                    if sqlstate_of(error) not in POOLED:
                        raise
                    self._is_pooled = True
            await driver.execute(_WRITE.text(values))
        except BaseException:
            await self._disconnect()
            raise

    async def _connected(self) -> AsyncConnection:
        """The session that has the lock."""
        if self._session is not None and (self._session.closed or self._session.invalidated):
            await self._disconnect()
        return self._session or await self._open()

    async def _open(self) -> AsyncConnection:
        self._taken.clear()
        session = await self._engine.connect()
        try:
            if not (await session.execute(_EXISTS)).scalar():
                await session.execute(_WAIT, {"lock": CREATE_LOCK})
                await session.execute(_CREATE)
                await session.execute(_UNLOCK, {"lock": CREATE_LOCK})
            await session.execute(text("SET synchronous_commit = off"))
            if not (await session.execute(_LOCK, {"lock": self._lock_number})).scalar():
                raise ConnectionError("another process is taking this one for dead")
            self._session = session
            await self._prepare(session)
            await self._write(session)
        except BaseException:
            await session.close()
            self._session = None
            raise
        return session

    async def _prepare(self, session: AsyncConnection) -> None:
        driver: Any = sync_of(session).connection.driver_connection
        try:
            await driver.execute(_WRITE.prepare)
        except Exception as error:
            if sqlstate_of(error) not in POOLED:
                raise

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):
                await session.invalidate()
                await session.close()
