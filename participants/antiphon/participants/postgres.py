"""A participant's database in PostgreSQL: many transactions at once, each with its row locked.

What every command needs goes straight to the driver (`claim.py`). SQLAlchemy has the same transaction, for the handler
and for all that is rare.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ResourceClosedError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from antiphon.contracts.subjects import CommandAddress

from .claim import Claimed
from .databases import Busy, Manner
from .engines import first_line, open_engine
from .faults import Faults
from .inbox import Row, Spent
from .lender import sync_of
from .reasons import OwnWords
from .sessions import OVER, Lent, Session, Sessions
from .sql import SqlDatabase, columns_of, counts_of, ended_by_handler, refuse_to_end, row_of
from .tables import KEY, add, inbox, read, read_spent
from .transaction import Transaction

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Executable

_add = add(postgresql.insert)
_read_locked = read.with_for_update()
_forget = delete(inbox).where(*(column == bindparam(column.name) for column in KEY))


class PostgresTransaction(Transaction):
    """What a handler is given: the session on which the inbox row is claimed, and a connection if it asks for one."""

    __slots__ = ("_connection", "_lent", "_session")

    def __init__(self, address: CommandAddress, session: Session) -> None:
        super().__init__(address)
        self._session: Session | None = session
        self._connection: AsyncConnection | None = None
        self._lent: Lent | None = None

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection inside the transaction."""
        if self._connection is None:
            self._lent, self._connection = self._open().lend()
        return self._connection

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Execute one SQLAlchemy statement inside the transaction."""
        return await (self._connection or self._open().common).execute(statement, parameters)

    @property
    def connections(self) -> list[AsyncConnection]:
        """Those on which statements were executed."""
        return [self._open().common] if self._connection is None else [self._open().common, self._connection]

    def end(self) -> None:
        """Take back what the handler was given."""
        self._session = None
        if self._lent is not None:
            self._lent.end()
            sync_of(self.connection).close()

    def _open(self) -> Session:
        if self._session is None:
            raise ResourceClosedError(OVER)
        return self._session


class PostgresInbox:
    """The inbox within one transaction: the row itself is the lock, and is there before any handler runs."""

    _has_inserted = False
    _claimed: Claimed | None = None

    def __init__(self, address: CommandAddress, session: Session) -> None:
        self._session = session
        self._key = {"saga_type": address.saga.type, "saga_id": address.saga.id, "step": address.step, "element": 0}
        self.transaction: PostgresTransaction = PostgresTransaction(address, session)

    async def claim(self) -> Row | None:
        """Lock the row until the transaction ends, and read it."""
        try:
            return await self._claim()
        except OwnWords:
            raise
        # The driver's errors come as they are.
        except Exception as error:
            raise Busy(f"the inbox cannot be read: {first_line(error)}") from error

    async def settle(self, row: Row) -> None:
        """Write the row, together with the COMMIT."""
        assert self._claimed is not None, "the row was claimed"
        self._claimed.settle({**self._key, **columns_of(row)})

    async def leave(self) -> None:
        """Leave no row where `claim` has inserted one, which was its lock."""
        if self._has_inserted:
            await self._session.common.execute(_forget, self._key)

    async def spent(self, message: str) -> Spent:
        """The counts of a message's deliveries."""
        found = (await self._session.common.execute(read_spent, {"message": message})).one_or_none()
        return Spent(*found) if found else Spent()

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries, in this transaction."""
        return Spent(*(await self._session.common.execute(_add, counts_of(message, more))).one())

    async def _claim(self) -> Row | None:
        # The insert waits for an open transaction that has claimed the row, and then does nothing if that one was
        # committed. The row it found may have been purged when the select looks, hence the loop.
        self._session.begun = self._claimed = claimed = Claimed(self._session)
        self._has_inserted = await claimed.begin(self._key)
        while not self._has_inserted:
            found = (await self._session.common.execute(_read_locked, self._key)).one_or_none()
            if found is not None:
                return row_of(found)
            self._has_inserted = await claimed.insert(self._key)
        return None

    async def commit(self) -> None:
        """Commit, straight at the driver; through SQLAlchemy where no row was claimed.

        Raises:
            CommittedByItself: the handler has ended the transaction, and with it the lock of its command.
        """
        if self._claimed is None:
            await self._session.commit()
            return
        if self._session.begun is not self._claimed:
            raise ended_by_handler()
        await self._claimed.end()
        self._session.begun = None  # where it failed it may still be open, and is rolled back


def _refuse_to_end(connection: object, cursor: object, statement: str, *_: object) -> None:
    refuse_to_end(statement)


class _Perform:
    """One transaction, as the context in which a command is performed."""

    __slots__ = ("_address", "_database", "_inbox", "_session")

    def __init__(self, database: PostgresDatabase, address: CommandAddress) -> None:
        self._database, self._address = database, address

    async def __aenter__(self) -> PostgresInbox:
        self._session = session = await self._database.sessions.take()
        self._inbox = PostgresInbox(self._address, session)
        return self._inbox

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self._inbox.commit()
            except BaseException as failed:
                raise await self._roll_back(failed) from failed.__cause__
            self._database.forget(self._inbox.transaction)
            self._inbox.transaction.end()
            self._database.sessions.give(self._session)
        elif (meaning := await self._roll_back(error)) is not error:
            raise meaning

    async def _roll_back(self, error: BaseException) -> BaseException:
        """End badly, whoever cancels us meanwhile; what leaves the transaction: the error, or what it means."""
        meaning = error
        if isinstance(error, Exception):
            meaning = self._database.meaning(self._inbox.transaction, self._session, error)
        self._database.forget(self._inbox.transaction)
        self._inbox.transaction.end()
        try:
            await asyncio.shield(asyncio.ensure_future(roll_back(self._database.sessions, self._session)))
        except Exception as broken:
            if isinstance(error, Exception) and not isinstance(meaning, Busy):
                # Nothing could be rolled back. That is as good: the connection is gone.
                meaning = Busy(f"no rollback: {first_line(broken)}")
                meaning.__cause__ = broken
        return meaning


async def roll_back(sessions: Sessions, session: Session) -> None:
    """Roll back and give the session back; one that cannot is dropped, and its transaction ends with it."""
    try:
        if session.is_valid:
            await session.roll_back()
    except BaseException:
        await session.end()
        raise
    finally:
        sessions.give(session)


class PostgresDatabase(SqlDatabase):
    """READ COMMITTED, whatever the server's default: the claim must see what it waited for."""

    def __init__(self, url: str, connections: int) -> None:
        super().__init__(open_engine(url, connections=connections))
        self.sessions = Sessions(self._engine, connections)
        self._faults = Faults(self._engine.sync_engine)
        event.listen(self._engine.sync_engine, "before_cursor_execute", _refuse_to_end)

    def begin(self, address: CommandAddress, manner: Manner = "shared") -> _Perform:
        """A transaction for one command."""
        return _Perform(self, address)

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries."""
        async with self._transaction() as connection:
            try:
                return Spent(*(await connection.execute(_add, counts_of(message, more))).one())
            except SQLAlchemyError as error:
                raise Busy(f"it cannot be noted what became of a command: {first_line(error)}") from error

    def meaning(self, transaction: PostgresTransaction, session: Session, error: Exception) -> Exception:
        """The error that leaves a transaction, or `Busy` where the database gave the transaction up."""
        connections = [sync_of(each) for each in transaction.connections]
        return self._faults.meaning(connections, error, is_lost=session.is_lost)

    def forget(self, transaction: PostgresTransaction) -> None:
        """A transaction has ended, and with it what is known of its errors."""
        if self._faults:
            self._faults.forget(sync_of(each) for each in transaction.connections)

    async def close(self) -> None:
        """Let go of every connection."""
        await self.sessions.close()
        await super().close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        session = await self.sessions.take()
        lent, connection = session.lend()
        try:
            yield connection
            await connection.commit()
        finally:
            lent.end()
            sync_of(connection).close()
            with suppress(Exception):  # nothing can be rolled back where the connection is gone
                await asyncio.shield(asyncio.ensure_future(roll_back(self.sessions, session)))
