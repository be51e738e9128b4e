"""A participant's database in SQLite: one file, one connection, whose transactions are committed in groups."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from antiphon.contracts.subjects import CommandAddress

from .databases import Busy, Manner, ShareFailed
from .engines import BUSY_TIMEOUT_SECONDS, first_line
from .inbox import Row, Spent
from .lender import Lender
from .prepared import Prepared
from .share import Share, SqliteTransaction
from .sql import SqlDatabase, columns_of, counts_of, row_of
from .tables import KEY, ROW, SPENT, add, read, read_spent, upsert
from .thread import Thread
from .transaction import Transaction
from .writer import Writer

LOCKED_TRIES_MAX: Final = 3
"""How many times the busy timeout a locked database is waited for before the command is handed back."""

_KEY: Final = [column.name for column in KEY]
_READ: Final = Prepared(read)
_READ_SPENT: Final = Prepared(read_spent)
_SETTLE: Final = Prepared(upsert(sqlite.insert), [*_KEY, *ROW, "written_at"])
_ADD: Final = Prepared(add(sqlite.insert), ["message", *SPENT, "written_at"])


class SqliteInbox:
    """The inbox within one transaction, which began with the database's only write lock, so that reading the row is
    claiming it. Also its context manager."""

    __slots__ = ("_address", "_database", "_key", "_manner", "_share", "transaction")

    transaction: Transaction

    def __init__(self, database: SqliteDatabase, address: CommandAddress, manner: Manner) -> None:
        self._database = database
        self._manner: Manner = manner
        self._key = {"saga_type": address.saga.type, "saga_id": address.saga.id, "step": address.step, "element": 0}
        self._address = address

    async def claim(self) -> Row | None:
        """Lock the row until the transaction ends, and read it."""
        try:
            found = self._share.one(_READ, {**self._key})
        except sqlite3.Error as error:
            raise Busy(f"the inbox cannot be read: {first_line(error)}") from error
        return row_of(found)

    async def settle(self, row: Row) -> None:
        """Write the row."""
        self._share.one(_SETTLE, {**self._key, **columns_of(row)})

    async def leave(self) -> None:
        """Leave no row where `claim` found none: nothing was written."""

    async def spent(self, message: str) -> Spent:
        """The counts of a message's deliveries."""
        found = self._share.one(_READ_SPENT, {"message": message})
        return Spent(*found) if found else Spent()

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries, in this transaction."""
        return Spent(*self._share.one(_ADD, counts_of(message, more)))

    async def __aenter__(self) -> SqliteInbox:
        self._share = await self._database.begin_share(self._manner)
        self.transaction = SqliteTransaction(self._address, self._share)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self._share.commit()
        elif (meaning := await self._share.roll_back(error)) is not error:
            raise meaning


class SqliteDatabase(SqlDatabase):
    """One file, one writer at a time: within the process by turns, between processes by SQLite's own lock.

    Args:
        url: `sqlite:///path`.
        busy_timeout_seconds: a third of how long another process's transaction is waited for.
    """

    shares = True
    lasts = True

    def __init__(self, url: str, *, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        self._lender = Lender(url)
        super().__init__(self._lender.engine)
        self._thread = Thread("antiphon-sqlite")
        self._busy_timeout_seconds = busy_timeout_seconds
        self._opening = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None
        self._writer: Writer | None = None

    def begin(self, address: CommandAddress, manner: Manner = "shared") -> SqliteInbox:
        """A transaction for one command."""
        return SqliteInbox(self, address, manner)

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries."""
        try:
            try:
                return await self._note(message, more, "shared")
            except ShareFailed:
                return await self._note(message, more, "own")
        except sqlite3.Error as error:
            raise Busy(f"it cannot be noted what became of a command: {first_line(error)}") from error

    async def _note(self, message: str, more: Spent, manner: Manner) -> Spent:
        share = await self.begin_share(manner)
        try:
            found = Spent(*share.one(_ADD, counts_of(message, more)))
        except BaseException as error:
            raise await share.roll_back(error) from None
        await share.commit()
        return found

    async def close(self) -> None:
        """Let go of the connection, once the COMMIT that has begun has ended."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()
        await self._lender.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.shield(self._thread.run(connection.close))  # which may write all that was committed
        self._thread.stop()

    async def begin_share(self, manner: Manner) -> Share:
        """Wait for a turn in a transaction.

        Raises:
            Busy: the database could not be had.
        """
        writer = self._writer or await self._connect()
        share = Share(writer, self._lender, self._thread, manner)
        await share.begin()
        return share

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        share = await self.begin_share("own")
        try:
            yield share.connection
        except BaseException as error:
            meaning = await share.roll_back(error)
            if meaning is error:
                raise
            raise meaning from error
        await share.commit()

    # --- opening ------------------------------------------------------------------------------------------------------

    async def _connect(self) -> Writer:
        async with self._opening:
            if self._writer is None:
                try:
                    await asyncio.shield(self._thread.run(self._open_file))
                    assert self._connection is not None
                    seconds = self._busy_timeout_seconds * LOCKED_TRIES_MAX
                    writer = Writer(self._connection, self._thread, seconds)
                    await self._lender.open(writer)
                except sqlite3.Error as error:
                    raise Busy(f"no transaction can be begun: {first_line(error)}") from error
                self._writer = writer
            return self._writer

    def _open_file(self) -> None:
        """On the thread. What it opened is kept, whoever was cancelled meanwhile."""
        if self._connection is not None:
            return
        dialect, url = self._engine.dialect, self._engine.url
        arguments, options = dialect.create_connect_args(url)
        mine = {"isolation_level": None, "check_same_thread": False, "timeout": self._busy_timeout_seconds}
        connect: Any = sqlite3.connect  # whose options SQLAlchemy has read from the URL
        connection: sqlite3.Connection = connect(*arguments, **{**options, **mine})
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA busy_timeout = 0")  # from here on the event loop waits, not SQLite
        except BaseException:
            connection.close()
            raise
        self._connection = connection
