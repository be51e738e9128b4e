"""SQLAlchemy's connections over one connection of SQLite's: one for each command whose handler asks for it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from .engines import require_driver
from .loan import Loan
from .sqlite_connection import LentConnection
from .writer import Member, Writer


class Lender:
    """An engine whose pool has a single connection, in which what is lent takes turns.

    Args:
        url: `sqlite:///path`.
    """

    def __init__(self, url: str) -> None:
        _, complete = require_driver(url)
        self.engine: AsyncEngine = create_async_engine(
            complete, poolclass=StaticPool, creator=self._lend_first, pool_reset_on_return=None
        )
        self._first: _FirstLoan | None = None
        self._common: Connection | None = None
        self._record: Any = None
        """What the pool keeps of its connection."""
        event.listen(self.engine.sync_engine, "connect", self._keep)

    async def open(self, writer: Writer) -> None:
        """Have SQLAlchemy and whoever listens set the connection up, before its first transaction.

        Args:
            writer: of the connection.
        """
        self._first = _FirstLoan(writer)
        async with self.engine.connect():
            pass
        self._common = common = sync_of(self.lend(self._record.dbapi_connection))
        self._pooled: Any = common.connection
        self._nobodys = self._pooled.dbapi_connection
        self._first.is_over = True

    async def close(self) -> None:
        """Forget the connection."""
        if self._common is not None:
            self._common.close()
            self._common = None
        await self.engine.dispose()

    def lend(self, lent: LentConnection) -> AsyncConnection:
        """A connection for one command; whoever asked for it closes it."""
        self._record.dbapi_connection = lent
        connection = self.engine.sync_engine.connect()
        connection.begin()
        return AsyncConnection(self.engine, connection)

    def execute(self, lent: LentConnection, statement: Any, parameters: Any) -> Any:
        """Execute a statement for a handler that has asked for no connection: one is common to all of these, since to
        make one costs as much as a statement.

        What is lent stands behind the common connection for this statement alone: results know where they are from, and
        must not be a way to another command's transaction.
        """
        assert self._common is not None
        self._pooled.dbapi_connection = lent
        try:
            return self._common.execute(statement, parameters)
        finally:
            self._pooled.dbapi_connection = self._nobodys

    def _lend_first(self) -> LentConnection:
        """What the pool asks for when it connects, and what listeners for that are given."""
        assert self._first is not None, "the database is not open"
        return LentConnection(self._first)

    def _keep(self, connection: object, record: Any) -> None:
        self._record = record


def sync_of(connection: AsyncConnection) -> Connection:
    """SQLAlchemy's synchronous connection behind an asynchronous one."""
    assert connection.sync_connection is not None
    return connection.sync_connection


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
