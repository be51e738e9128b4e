"""The inbox in a team's own database, through SQLAlchemy Core: SQLite as the embedded default, PostgreSQL elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    event,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.wire import CommandAddress

from .inbox import Answer, Row, RowState
from .transaction import Busy, Transaction

BUSY_TIMEOUT_MS: Final = 5_000
"""How long SQLite waits for another process that writes, before the command is handed back."""

CLAIMED: Final = "claimed"
"""The state of a row inside the transaction that made it; nobody else ever sees it."""

METADATA: Final = MetaData()

INBOX: Final = Table(
    "antiphon_inbox",
    METADATA,
    Column("saga_type", String(64), primary_key=True),
    Column("saga_id", String(64), primary_key=True),
    Column("step", String(64), primary_key=True),
    Column("element", Integer, primary_key=True, default=0),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("answer_type", String(200)),
    Column("answer", LargeBinary),
    Column("written_at", DateTime(timezone=True), nullable=False),
)

HANDED_BACK: Final = Table(
    "antiphon_handed_back",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("times", Integer, nullable=False),
)


class SqlTransaction(Transaction):
    """A transaction with a connection."""

    __slots__ = ("_connection",)

    def __init__(self, address: CommandAddress, connection: AsyncConnection) -> None:
        super().__init__(address)
        self._connection = connection

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection inside the transaction."""
        return self._connection


class SqlInbox:
    """The inbox within one database transaction."""

    def __init__(self, address: CommandAddress, connection: AsyncConnection, insert: Any) -> None:
        self._connection, self._insert = connection, insert
        self._key = {
            "saga_type": address.saga.type,
            "saga_id": address.saga.id,
            "step": address.step,
            "element": 0,
        }
        self.transaction = SqlTransaction(address, connection)

    async def claim(self) -> Row | None:
        """Insert the row, or wait for whoever holds it and read it.

        The insert comes first: under READ COMMITTED a look before it would miss a row that is about to be committed.
        """
        fresh = self._insert(INBOX).values(**self._key, state=CLAIMED, attempt=0, written_at=_now())
        inserted = await self._connection.execute(fresh.on_conflict_do_nothing())
        if inserted.rowcount == 1:
            return None
        found = (await self._connection.execute(select(INBOX).where(*self._where()).with_for_update())).one()
        answer = Answer(found.answer_type, found.answer) if found.answer_type else None
        state: RowState = found.state
        return Row(state, found.attempt, answer)

    async def settle(self, row: Row) -> None:
        """Write the claimed row."""
        answer = row.answer
        await self._connection.execute(
            INBOX.update()
            .where(*self._where())
            .values(
                state=row.state,
                attempt=row.attempt,
                answer_type=answer.type if answer else None,
                answer=answer.data if answer else None,
                written_at=_now(),
            )
        )

    async def handed_back(self, sequence: int) -> int:
        """How often a command was handed back."""
        found = await self._connection.execute(select(HANDED_BACK.c.times).where(HANDED_BACK.c.sequence == sequence))
        return found.scalar_one_or_none() or 0

    def _where(self) -> list[Any]:
        return [INBOX.c[name] == value for name, value in self._key.items()]


class SqlDatabase:
    """What both databases have in common."""

    insert: Any

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def open(self, tables: MetaData | None = None) -> None:
        """Connect and create what is missing.

        Raises:
            PlatformError: the database cannot be had.
        """
        try:
            for metadata in (METADATA, *([tables] if tables is not None else [])):
                await self._create(metadata)
        except (DBAPIError, OSError) as error:
            where = self.engine.url.render_as_string(hide_password=True)
            raise PlatformError(f"the database {where} cannot be opened: {error}. Check its URL and its rights.") from error

    async def _create(self, metadata: MetaData) -> None:
        """Create tables; two workers that start together may both try, and the second finds them there."""
        for last in (False, True):
            try:
                async with self.engine.begin() as connection:
                    await connection.run_sync(metadata.create_all)
                return
            except DBAPIError:
                if last:
                    raise

    @asynccontextmanager
    async def begin(self, address: CommandAddress) -> AsyncIterator[SqlInbox]:
        """A transaction: commits when the block ends without an exception."""
        async with self.engine.begin() as connection:
            yield SqlInbox(address, connection, self.insert)

    async def count_handed_back(self, sequence: int) -> None:
        """Note it in a transaction of its own."""
        note = self.insert(HANDED_BACK).values(sequence=sequence, times=1)
        again = note.on_conflict_do_update(index_elements=["sequence"], set_={"times": HANDED_BACK.c.times + 1})
        async with self.engine.begin() as connection:
            await connection.execute(again)

    async def close(self) -> None:
        """Let go of every connection."""
        await self.engine.dispose()


class PostgresDatabase(SqlDatabase):
    """PostgreSQL at its default isolation; the claimed row keeps command and compensation apart."""

    def __init__(self, url: str, connections: int) -> None:
        super().__init__(create_async_engine(url, pool_size=connections, max_overflow=0, pool_pre_ping=True))
        self.insert = postgresql.insert


class SqliteDatabase(SqlDatabase):
    """SQLite in WAL mode, synced at every commit, one writer at a time."""

    def __init__(self, url: str) -> None:
        super().__init__(create_async_engine(url))
        self.insert = sqlite.insert
        self._writing = asyncio.Lock()
        event.listen(self.engine.sync_engine, "connect", _prepare)
        # The driver would begin on the first write and then fail at once if another process writes; IMMEDIATE waits.
        event.listen(self.engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    @asynccontextmanager
    async def begin(self, address: CommandAddress) -> AsyncIterator[SqlInbox]:
        """A transaction, once no other of this process writes.

        Raises:
            Busy: another process held the database for too long. No handler has run.
        """
        async with self._writing:
            connection = await self.engine.connect()
            try:
                try:
                    await connection.begin()
                except OperationalError as error:
                    raise Busy(f"the database is locked by another process: {error.orig}") from None
                yield SqlInbox(address, connection, self.insert)
                await connection.commit()
            finally:
                await connection.close()

    async def count_handed_back(self, sequence: int) -> None:
        """Note it in a transaction of its own, after whoever writes."""
        async with self._writing:
            await super().count_handed_back(sequence)


def _prepare(connection: Any, record: Any) -> None:
    """SQLAlchemy's recipe for SQLite: the driver keeps its hands off transactions."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()


def _now() -> datetime:
    return datetime.now(timezone.utc)
