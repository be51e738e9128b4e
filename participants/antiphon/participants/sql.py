"""SQLite and PostgreSQL through SQLAlchemy Core: the inbox's tables, and how each of the two claims a row."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, get_args
from weakref import WeakKeyDictionary

from msgspec.structs import asdict
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    ExceptionContext,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    event,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from antiphon.contracts.errors import Refused, Unavailable, Unrecoverable
from antiphon.contracts.subjects import CommandAddress

from .databases import Busy
from .engines import (
    BUSY_TIMEOUT_SECONDS,
    CREATE_TABLES,
    create_tables,
    first_line,
    open_engine,
    probe,
    trouble_of,
    unusable,
)
from .inbox import Answer, Row, RowState, Spent
from .reasons import OwnWords
from .transaction import Transaction

LOCKED_TRIES_MAX: Final = 3
"""How often a locked database is asked before the command is handed back."""
CREATE_LOCK: Final = 0x616E7469
"""The advisory lock under which PostgreSQL's tables are created: workers that start together would collide."""

CLAIMED: Final = "claimed"
"""The state of a new row in PostgreSQL until its transaction ends; never committed by the library."""

inbox_tables = MetaData()

inbox = Table(
    "antiphon_inbox",
    inbox_tables,
    Column("saga_type", String(64), primary_key=True),
    Column("saga_id", String(64), primary_key=True),
    Column("step", String(64), primary_key=True),
    Column("element", Integer, primary_key=True, autoincrement=False),  # 0, until steps run over lists
    Column("state", String(8), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("answer_type", Text),
    Column("answer", Text),
    Column("written_at", DateTime(timezone=True), nullable=False),  # so that old rows can be found and purged
)

deliveries = Table(
    "antiphon_deliveries",
    inbox_tables,
    Column("command", BigInteger, primary_key=True, autoincrement=False),  # its stream sequence
    Column("failed", Integer, nullable=False),
    Column("returned", Integer, nullable=False),
    Column("alone", Integer, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
)

_KEY = inbox.primary_key.columns
_ROW = ("state", "attempt", "answer_type", "answer")
_read = select(*(inbox.c[name] for name in _ROW)).where(*(column == bindparam(column.name) for column in _KEY))
_read_locked = _read.with_for_update()
_SPENT = Spent.__struct_fields__
_read_spent = select(*(deliveries.c[name] for name in _SPENT)).where(deliveries.c.command == bindparam("command"))

# The two dialects spell these alike, but SQLAlchemy has an insert for each.
_Insert = Callable[[Table], Any]


def _upsert(insert: _Insert) -> Any:
    new = insert(inbox)
    return new.on_conflict_do_update(
        index_elements=list(_KEY), set_={name: new.excluded[name] for name in (*_ROW, "written_at")}
    )


def _add(insert: _Insert) -> Any:
    new = insert(deliveries)
    more = {name: deliveries.c[name] + new.excluded[name] for name in _SPENT}
    upsert = new.on_conflict_do_update(
        index_elements=[deliveries.c.command], set_={**more, "written_at": new.excluded.written_at}
    )
    return upsert.returning(*(deliveries.c[name] for name in _SPENT))


_sqlite_settle, _sqlite_add = _upsert(sqlite.insert), _add(sqlite.insert)
_postgres_settle, _postgres_add = _upsert(postgresql.insert), _add(postgresql.insert)
_postgres_claim = (
    postgresql.insert(inbox)
    .values(state=CLAIMED, attempt=0, answer_type=None, answer=None, written_at=func.now())
    .on_conflict_do_nothing()
    .returning(inbox.c.state)
)


class SqlTransaction(Transaction):
    """What a handler is given: the connection on which the inbox row is claimed."""

    __slots__ = ("_connection",)

    def __init__(self, address: CommandAddress, connection: AsyncConnection) -> None:
        super().__init__(address)
        self._connection = connection

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection inside the transaction."""
        return self._connection


class SqlInbox:
    """The inbox within one SQL transaction."""

    _settle: Any

    def __init__(self, address: CommandAddress, connection: AsyncConnection) -> None:
        self._connection = connection
        self._key = {"saga_type": address.saga.type, "saga_id": address.saga.id, "step": address.step, "element": 0}
        self.transaction = SqlTransaction(address, connection)

    async def claim(self) -> Row | None:
        """Lock the row until the transaction ends, and read it."""
        try:
            return await self._claim()
        except OwnWords:
            raise
        # Drivers let errors of the network through as they are.
        except Exception as error:
            raise Busy(f"the inbox cannot be read: {first_line(error)}") from error

    async def settle(self, row: Row) -> None:
        """Write the row."""
        answer_type, answer = (row.answer.type, row.answer.data.decode()) if row.answer else (None, None)
        values = {"state": row.state, "attempt": row.attempt, "answer_type": answer_type, "answer": answer}
        await self._connection.execute(self._settle, {**self._key, **values, "written_at": datetime.now(UTC)})

    async def spent(self, sequence: int) -> Spent:
        """The counts of a message's deliveries."""
        found = (await self._connection.execute(_read_spent, {"command": sequence})).one_or_none()
        return Spent(*found) if found else Spent()

    async def _claim(self) -> Row | None:
        raise NotImplementedError


class SqliteInbox(SqlInbox):
    """The transaction began with the database's only write lock, so that reading the row is claiming it."""

    _settle = _sqlite_settle

    async def _claim(self) -> Row | None:
        return _row((await self._connection.execute(_read, self._key)).one_or_none())


class PostgresInbox(SqlInbox):
    """The row itself is the lock, and is there before any handler runs."""

    _settle = _postgres_settle

    async def _claim(self) -> Row | None:
        # The insert waits for an open transaction that has claimed the row, and then does nothing if that one was
        # committed. The row it found may have been purged when the select looks, hence the loop.
        while True:
            if (await self._connection.execute(_postgres_claim, self._key)).one_or_none() is not None:
                return None
            found = (await self._connection.execute(_read_locked, self._key)).one_or_none()
            if found is not None:
                return _row(found)


class CommittedByItself(OwnWords, RuntimeError):
    """A handler committed the transaction, which only the worker may."""


def _row(found: Any) -> Row | None:
    if found is None:
        return None
    state, attempt, answer_type, answer = found
    if state not in get_args(RowState):
        raise CommittedByItself(
            "an inbox row was committed before it was answered: a handler commits by itself. It must leave that to the "
            "worker; whether this command's effect is there has to be looked up."
        )
    return Row(state, attempt, None if answer_type is None else Answer(answer_type, answer.encode()))


class Fault:
    """An error of a statement or a commit, and what it means for the transaction."""

    __slots__ = ("error", "is_final", "is_passing")

    def __init__(self, error: BaseException, is_disconnect: bool) -> None:
        trouble = trouble_of(error)
        self.error = error
        # SQLAlchemy drops the connection, too, where a statement is cancelled, and that was the handler's own time-out.
        is_gone = is_disconnect and isinstance(error, Exception)
        self.is_final = is_gone or trouble in ("deadlock", "ended", "gone")
        """Whether nothing of the transaction can be committed any more, through no fault of its own."""
        self.is_passing = trouble == "locked"
        """Whether the statement would go well at another time, and the transaction could go on without it."""


def _is_closed(connection: Connection) -> bool:
    """Whether the driver's connection has broken."""
    if connection.closed or connection.invalidated:
        return False  # the author closed it, or SQLAlchemy did when a statement was cancelled
    driver: Any = connection.connection.driver_connection
    is_closed = getattr(driver, "is_closed", None)
    return bool(is_closed and is_closed())


class SqlDatabase:
    """What both databases have in common: an engine, and one transaction for each command."""

    _inbox: type[SqlInbox]
    _add: Any

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._faults: WeakKeyDictionary[Connection, Fault] = WeakKeyDictionary()
        """The first error of each open transaction, by its connection."""
        event.listen(engine.sync_engine, "handle_error", self._notice)
        event.listen(engine.sync_engine, "rollback_savepoint", self._forgive)

    async def open(self, tables: MetaData | None = None) -> None:
        """Connect, and create the inbox and the given tables where they are missing.

        Raises:
            PlatformError: the database cannot be used.
        """
        try:
            probe(self._engine)
            async with self._transaction() as connection:
                await connection.run_sync(create_tables, CREATE_LOCK, inbox_tables, tables)
        except (Busy, SQLAlchemyError, sqlite3.Error) as error:
            raise unusable(self._engine, error, "the database", CREATE_TABLES) from error

    def begin(self, address: CommandAddress) -> AbstractAsyncContextManager[SqlInbox]:
        """A transaction for one command."""
        return self._begin(address)

    @asynccontextmanager
    async def _begin(self, address: CommandAddress) -> AsyncGenerator[SqlInbox]:
        left_by: Exception | None = None
        try:
            async with self._transaction() as connection:
                try:
                    yield self._inbox(address, connection)
                    await connection.commit()  # here, where it is known what an error means
                except Exception as error:
                    left_by = self._meaning(connection, error)
                    raise left_by from left_by.__cause__
        except Exception as error:
            if left_by is None or error is left_by:
                raise
            # Nothing could be rolled back. That is as good: the connection is gone.
            raise left_by if isinstance(left_by, Busy) else Busy(f"no rollback: {first_line(error)}") from error

    def _meaning(self, connection: AsyncConnection, error: Exception) -> Exception:
        """The error that leaves the transaction: `error`, or `Busy` where the database gave the transaction up."""
        # An author's word stands, whatever the database did.
        if isinstance(error, Busy | Refused | Unavailable | Unrecoverable) or not self._is_given_up(connection, error):
            return error
        busy = Busy(f"the transaction was given up: {first_line(error)}")
        busy.__cause__ = error
        return busy

    def _is_given_up(self, connection: AsyncConnection, error: Exception) -> bool:
        """Whether the database ended a transaction for a reason that is no fault of the transaction.

        The database's first error decides, not what the author made of that error: after it nothing could be
        committed, so an error that was caught, or raised again as another one, has the same cause.
        """
        assert connection.sync_connection is not None
        fault = self._faults.get(connection.sync_connection)
        if fault is None:
            # Past SQLAlchemy: the author asked the driver, or another database, or the socket broke below it.
            return trouble_of(error) in ("deadlock", "ended") or _is_closed(connection.sync_connection)
        return fault.is_final or (fault.is_passing and getattr(error, "orig", None) is fault.error)

    def _notice(self, context: ExceptionContext) -> None:
        if context.connection is not None:
            fault = Fault(context.original_exception, context.is_disconnect)
            known = self._faults.get(context.connection)
            if (fault.is_final or fault.is_passing or context.is_disconnect) and (known is None or known.is_passing):
                self._faults[context.connection] = fault

    def _forgive(self, connection: Connection, name: str, context: object) -> None:
        """The savepoint was rolled back, so the transaction goes on: forget its error."""
        self._faults.pop(connection, None)

    async def note(self, sequence: int, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries."""
        row = {"command": sequence, **asdict(more), "written_at": datetime.now(UTC)}
        async with self._transaction() as connection:
            try:
                return Spent(*(await connection.execute(self._add, row)).one())
            except SQLAlchemyError as error:
                raise Busy(f"it cannot be noted what became of a command: {first_line(error)}") from error

    async def close(self) -> None:
        """Let go of every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._engine.begin())
            # asyncpg lets errors of the network and of the server's greeting through as they are.
            except Exception as error:
                raise Busy(f"no transaction can be begun: {first_line(error)}") from error
            yield connection


class SqliteDatabase(SqlDatabase):
    """One file, one writer at a time: within the process by a lock, between processes by SQLite's own."""

    _inbox = SqliteInbox
    _add = _sqlite_add

    def __init__(self, url: str, *, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        super().__init__(open_engine(url, busy_timeout_seconds=busy_timeout_seconds))
        self._writer = asyncio.Lock()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        async with self._writer, AsyncExitStack() as stack:
            yield await self._insist(stack)

    async def _insist(self, stack: AsyncExitStack, tries: int = 1) -> AsyncConnection:
        try:
            return await stack.enter_async_context(super()._transaction())
        except Busy as error:
            if tries == LOCKED_TRIES_MAX or trouble_of(error.__cause__) != "locked":
                raise
        return await self._insist(stack, tries + 1)


class PostgresDatabase(SqlDatabase):
    """READ COMMITTED, whatever the server's default: the claim must see what it waited for."""

    _inbox = PostgresInbox
    _add = _postgres_add

    def __init__(self, url: str, connections: int) -> None:
        super().__init__(open_engine(url, connections=connections))
