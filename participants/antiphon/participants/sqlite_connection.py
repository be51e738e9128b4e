"""A lent SQLite connection in the shapes that are asked for: as SQLAlchemy's dialect for aiosqlite adapts a driver's,
and with the names of aiosqlite's own for a handler that asks SQLAlchemy for the driver. Each await completes at once,
but for a slow handler's."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any

from .loan import Loan, await_nothing


class _Rows:
    """What two kinds of cursors have in common: all rows of a statement are fetched with it."""

    arraysize = 1

    def __init__(self, loan: Loan, cursor: sqlite3.Cursor) -> None:
        self._loan, self._cursor = loan, cursor
        self._rows: deque[Any] = deque()

    @property
    def description(self) -> Any:
        """The columns."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows were written."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The number of the last row that was inserted."""
        return self._cursor.lastrowid

    def _next(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def _some(self, size: int | None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def _rest(self) -> list[Any]:
        rows = list(self._rows)
        self._rows.clear()
        return rows


# --- what SQLAlchemy asks of a driver ---------------------------------------------------------------------------------


class LentConnection:
    """A driver's connection, as SQLAlchemy's dialect for aiosqlite adapts one."""

    isolation_level: Any = None

    def __init__(self, loan: Loan) -> None:
        self.loan = loan
        self._connection = DriverConnection(loan)
        """What SQLAlchemy calls the driver's connection."""

    def cursor(self, server_side: bool = False) -> LentCursor:
        """A cursor, which is lent with the connection. That of a stream has all rows at once, too."""
        return LentCursor(self.loan, self.loan.connection.cursor())

    def commit(self) -> None:
        """Refused while a handler is at work.

        Raises:
            CommittedByItself: it is.
        """
        if not self.loan.is_over:
            raise self.loan.refuse_commit()
        await_nothing()

    def rollback(self) -> None:
        """Undo what the handler did so far."""
        await_nothing()
        self.loan.take_back()

    def close(self) -> None:
        """Nothing: the connection is the database's."""

    def terminate(self) -> None:
        """Nothing: the connection is the database's."""

    def create_function(self, *arguments: Any, **options: Any) -> None:
        """Add a function to SQL."""
        self.loan.connection.create_function(*arguments, **options)


class LentCursor(_Rows):
    """A cursor, as SQLAlchemy's dialect for aiosqlite adapts one."""

    server_side = False

    def execute(self, sql: str, parameters: Any = ()) -> None:
        """Run a statement."""
        self._rows = deque(self._loan.execute(self._cursor, sql, () if parameters is None else parameters))

    def executemany(self, sql: str, rows: Any) -> None:
        """Run a statement for each row of parameters."""
        self._rows = deque(self._loan.execute(self._cursor, sql, rows, many=True))

    def fetchone(self) -> Any:
        """The next row, or None."""
        return self._next()

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows."""
        return self._some(size)

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return self._rest()

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self._rows.popleft()

    def setinputsizes(self, *sizes: Any) -> None:
        """Nothing: SQLite needs no sizes."""

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Nothing: the rows are here, and SQLAlchemy's result reads them without an await."""


# --- what a handler finds that asks SQLAlchemy for the driver ---------------------------------------------------------


class DriverConnection:
    """The connection with the names of aiosqlite's."""

    isolation_level: Any = None
    row_factory: Any = None

    def __init__(self, loan: Loan) -> None:
        self._loan = loan

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._loan.connection.in_transaction

    @property
    def total_changes(self) -> int:
        """How many rows were written over this connection."""
        return self._loan.connection.total_changes

    def cursor(self) -> Returned:
        """A cursor."""
        return Returned(self._cursor())

    def execute(self, sql: str, parameters: Any = ()) -> Returned:
        """A cursor that has run a statement."""
        return Returned(self._execute(sql, parameters))

    def executemany(self, sql: str, rows: Any) -> Returned:
        """A cursor that has run a statement for each row of parameters."""
        return Returned(self._execute(sql, rows, many=True))

    def execute_fetchall(self, sql: str, parameters: Any = ()) -> Returned:
        """The rows of a statement."""
        return Returned(self._fetchall(sql, parameters))

    def executescript(self, script: str) -> Returned:
        """Refused: SQLite's driver commits before a script.

        Raises:
            CommittedByItself: always.
        """
        raise self._loan.refuse_commit()

    async def commit(self) -> None:
        """Refused.

        Raises:
            CommittedByItself: always.
        """
        raise self._loan.refuse_commit()

    async def rollback(self) -> None:
        """Undo what the handler did so far."""
        self._loan.take_back()

    async def close(self) -> None:
        """Nothing: the connection is the database's."""

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        """Add a function to SQL."""
        self._loan.check()
        self._loan.connection.create_function(*arguments, **options)

    async def _cursor(self) -> DriverCursor:
        cursor = self._loan.connection.cursor()
        cursor.row_factory = self.row_factory
        return DriverCursor(self._loan, cursor)

    async def _execute(self, sql: str, parameters: Any, many: bool = False) -> DriverCursor:
        cursor = await self._cursor()
        await (cursor.executemany if many else cursor.execute)(sql, parameters)
        return cursor

    async def _fetchall(self, sql: str, parameters: Any) -> list[Any]:
        return await (await self._execute(sql, parameters)).fetchall()


class DriverCursor(_Rows):
    """A cursor with the names of aiosqlite's."""

    async def execute(self, sql: str, parameters: Any = ()) -> DriverCursor:
        """Run a statement."""
        self._rows = deque(await self._loan.execute_async(self._cursor, sql, parameters))
        return self

    async def executemany(self, sql: str, rows: Any) -> DriverCursor:
        """Run a statement for each row of parameters."""
        self._rows = deque(await self._loan.execute_async(self._cursor, sql, rows, many=True))
        return self

    async def fetchone(self) -> Any:
        """The next row, or None."""
        return self._next()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows."""
        return self._some(size)

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return self._rest()

    async def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while self._rows:
            yield self._rows.popleft()

    async def __aenter__(self) -> DriverCursor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Returned:
    """What aiosqlite's methods return: it is awaited, or a context manager that closes the cursor."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._value: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> Any:
        self._value = await self._coroutine
        return self._value

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self._value, DriverCursor):
            await self._value.close()
