"""A participant's database in SQLite: one file, one connection, whose transactions are committed in groups."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from antiphon.contracts.subjects import CommandAddress

from .databases import Busy, Manner, ShareFailed
from .engines import BUSY_TIMEOUT_SECONDS, first_line, require_driver, trouble_of
from .faults import meaning_of
from .inbox import Row, Spent
from .prepared import Prepared
from .sql import SqlDatabase, columns_of, counts_of, row_of
from .sqlite_connection import LentConnection, Loan
from .tables import KEY, ROW, SPENT, add, read, read_spent, upsert
from .thread import Thread
from .transaction import Transaction
from .writer import Member, Writer

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Executable

LOCKED_TRIES_MAX: Final = 3
"""How many times the busy timeout a locked database is waited for before the command is handed back."""

_KEY: Final = [column.name for column in KEY]
_READ: Final = Prepared(read)
_READ_SPENT: Final = Prepared(read_spent)
_SETTLE: Final = Prepared(upsert(sqlite.insert), [*_KEY, *ROW, "written_at"])
_ADD: Final = Prepared(add(sqlite.insert), ["message", *SPENT, "written_at"])


class SqliteTransaction(Transaction):
    """What a handler is given. SQLAlchemy's connection is made where the handler first asks for it."""

    __slots__ = ("_share",)

    def __init__(self, address: CommandAddress, share: Share) -> None:
        super().__init__(address)
        self._share = share

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection inside the transaction."""
        return self._share.connection

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Execute one SQLAlchemy statement inside the transaction."""
        share = self._share
        return (
            share.execute(statement, parameters)
            if share.is_quick
            else await share.connection.execute(statement, parameters)
        )


class Share:
    """One transaction of a group: its place in the group, and the connection as it is lent to it.

    Args:
        database: whose connection it is; opened.
        writer: of that connection.
        manner: how the transaction is kept apart from others.
    """

    __slots__ = ("_connection", "_database", "_lent", "_loan", "_manner", "_member", "_writer")

    def __init__(self, database: SqliteDatabase, writer: Writer, manner: Manner) -> None:
        self._database, self._writer, self._manner = database, writer, manner
        self._lent: LentConnection | None = None
        self._connection: AsyncConnection | None = None

    @property
    def is_quick(self) -> bool:
        """Whether statements run on the event loop, over no connection of the handler's own."""
        return self._connection is None and self._manner != "slow"

    @property
    def connection(self) -> AsyncConnection:
        """SQLAlchemy's connection over the driver's."""
        if self._connection is None:
            self._loan.check()
            self._connection = self._database.lend(LentConnection(self._loan))
        return self._connection

    def execute(self, statement: Any, parameters: Any) -> Any:
        """Execute one SQLAlchemy statement at once."""
        self._loan.check()
        if self._lent is None:
            self._lent = LentConnection(self._loan)
        return self._database.common.execute(self._lent, statement, parameters)

    async def begin(self) -> None:
        """Wait for the share.

        Raises:
            Busy: the database could not be had.
        """
        self._member = await self._writer.enter(self._manner)
        self._loan = Loan(self._writer, self._member, self._database.thread if self._manner == "slow" else None)

    def one(self, statement: Prepared, values: dict[str, Any]) -> Any:
        """Run one of the library's statements, which are quick, on the event loop; gives its first row."""
        loan = self._loan
        loan.check()
        try:
            return statement.one(loan.connection, values)
        except sqlite3.Error as error:
            loan.notice(error)
            raise

    async def commit(self) -> None:
        """End well, and wait until that is durable.

        Raises:
            Exception: nothing is committed; see `Writer.leave` and `Database.begin`.
        """
        try:
            await self._end_connection()
        except BaseException as error:
            raise await self.roll_back(error) from None
        await self._writer.leave(self._member)

    async def roll_back(self, error: BaseException) -> BaseException:
        """End badly.

        Returns:
            What leaves the transaction: the error, or what it means for the command.
        """
        loan = self._loan
        await loan.end()
        if self._connection is not None:
            self._close(self._connection)
        lost = self._writer.give_up(self._member)
        if not isinstance(error, Exception) or (lost is not None and not isinstance(lost, Busy)):
            return error
        # Where the handler's own time-out ended a statement, SQLite did what it was told.
        is_given_up = lost is not None and not loan.interrupted
        if loan.fault is not None:
            is_given_up = is_given_up or loan.fault.is_meant_by(error)
        else:  # another database may have said it
            is_given_up = is_given_up or trouble_of(error) in ("deadlock", "ended")
        return meaning_of(error, is_given_up)

    async def _end_connection(self) -> None:
        """Do what SQLAlchemy does at a commit, and take the connection back."""
        if self._loan.running is not None:  # the handler did not wait for it
            await asyncio.wait((self._loan.running,))
        self._loan.check_complete()
        self._loan.is_over = True
        if self._connection is not None:
            _sync(self._connection).commit()
            self._close(self._connection)

    def _close(self, connection: AsyncConnection) -> None:
        _sync(connection).close()


def _sync(connection: AsyncConnection) -> Connection:
    assert connection.sync_connection is not None
    return connection.sync_connection


class Common:
    """SQLAlchemy's connection for all statements of handlers that ask for none of their own: to make one for each
    command costs as much as a statement.

    Args:
        connection: over what is lent to nobody.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = _sync(connection)
        self._pooled: Any = self._connection.connection
        self._nobodys = self._pooled.dbapi_connection

    def execute(self, lent: LentConnection, statement: Any, parameters: Any) -> Any:
        """Execute a statement over a connection that is lent for this statement only: results know where they are from,
        and must not be a way to another command's transaction."""
        self._pooled.dbapi_connection = lent
        try:
            return self._connection.execute(statement, parameters)
        finally:
            self._pooled.dbapi_connection = self._nobodys

    def close(self) -> None:
        """Give it back to the pool."""
        self._connection.close()


class SqliteInbox:
    """The inbox within one transaction, which began with the database's only write lock, so that reading the row is
    claiming it. Also its context manager."""

    __slots__ = ("_address", "_database", "_key", "_manner", "_share", "transaction")

    transaction: Transaction

    def __init__(self, database: SqliteDatabase, address: CommandAddress, manner: Manner) -> None:
        self._database, self._manner = database, manner
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

    def __init__(self, url: str, *, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        super().__init__(_open_engine(url, self._lend_first))
        self.thread = Thread("antiphon-sqlite")
        self._busy_timeout_seconds = busy_timeout_seconds
        self._opening = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        self._first: _FirstLoan | None = None
        self._lending: Any = None
        """What SQLAlchemy's pool keeps of its only connection."""
        event.listen(self._engine.sync_engine, "connect", self._keep_record)

    def begin(self, address: CommandAddress, manner: Manner = "shared") -> SqliteInbox:  # type: ignore[override]
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
            self.common.close()
        await self._engine.dispose()
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.shield(self.thread.run(connection.close))  # which may write all that was committed
        self.thread.stop()

    async def begin_share(self, manner: Manner) -> Share:
        """Wait for a turn in a transaction.

        Raises:
            Busy: the database could not be had.
        """
        writer = self._writer or await self._connect()
        share = Share(self, writer, manner)
        await share.begin()
        return share

    def lend(self, lent: LentConnection) -> AsyncConnection:
        """SQLAlchemy's connection for one command."""
        self._lending.dbapi_connection = lent
        connection = self._engine.sync_engine.connect()
        connection.begin()
        return AsyncConnection(self._engine, connection)

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
                    await asyncio.shield(self.thread.run(self._open_file))
                    assert self._connection is not None
                    seconds = self._busy_timeout_seconds * LOCKED_TRIES_MAX
                    writer = Writer(self._connection, self.thread, seconds)
                    self._first = _FirstLoan(writer)
                    async with self._engine.connect():
                        pass
                except sqlite3.Error as error:
                    raise Busy(f"no transaction can be begun: {first_line(error)}") from error
                self.common = Common(self.lend(self._lending.dbapi_connection))
                self._first.is_over = True
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

    def _lend_first(self) -> LentConnection:
        """What SQLAlchemy's pool asks for when it connects, and what listeners for that are given."""
        assert self._first is not None, "the database is not open"
        return LentConnection(self._first)

    def _keep_record(self, connection: object, record: Any) -> None:
        self._lending = record


class _FirstLoan(Loan):
    """The connection before the first transaction, as settings want it: statements are committed by themselves."""

    __slots__ = ()

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer, Member("own", 0.0), None)

    def check(self) -> None:
        """Afterwards it is nobody's."""
        if self.is_over:
            super().check()

    def take_back(self) -> None:
        """There is nothing to take back."""


def _open_engine(url: str, lend: Any) -> AsyncEngine:
    _, complete = require_driver(url)
    return create_async_engine(complete, poolclass=StaticPool, creator=lend, pool_reset_on_return=None)
