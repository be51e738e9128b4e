"""A participant's database in PostgreSQL: many transactions at once, each with its row locked.

The statements that every command needs go straight to the driver, in two round trips: BEGIN with the claim, and the row
with the COMMIT. They are prepared once for each connection; behind a pooler that gives each transaction another session
they are sent whole. SQLAlchemy has the same transaction, for the handler and for all that is rare.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from antiphon.contracts.subjects import CommandAddress

from .databases import Busy, Manner
from .engines import first_line, open_engine, sqlstate_of
from .faults import Faults
from .inbox import Row
from .lender import sync_of
from .literals import Statement, insert_of, upsert_of
from .sql import SqlDatabase, SqlInbox, columns_of, ended_by_handler, refuse_to_end, refused, row_of
from .tables import KEY, KEY_NAMES, ROW, add, inbox, read, upsert

CLAIMED: Final = "claimed"
"""The state of a new row until its transaction ends. The library commits it with a number in `claim` only."""
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
NOTHING_INSERTED: Final = "INSERT 0 0"
"""What PostgreSQL says of an insert that found the row there."""

NAME: Final = "antiphon_"
"""How the names of prepared statements begin."""
POOLED: Final = ("26000", "42P05")
"""No prepared statement has the name, or another one has: a pooler gives each transaction another session."""

_read_locked = read.with_for_update()
_forget = delete(inbox).where(*(column == bindparam(column.name) for column in KEY))
_dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
_types = {name: column.type.compile(_dialect) for name, column in inbox.columns.items()}
_CLAIM: Final = Statement(
    f"{NAME}claim", insert_of, inbox.name, KEY_NAMES, [*KEY_NAMES, "state", "attempt", "written_at"], _types
)
_SETTLE: Final = Statement(f"{NAME}settle", upsert_of, inbox.name, KEY_NAMES, [*KEY_NAMES, *ROW, "written_at"], _types)


class Begun:
    """The transaction that a claim has begun, with the methods by which SQLAlchemy's adapter of asyncpg ends one.

    Args:
        driver: asyncpg's connection.
        notes: what is known of that connection, for as long as it stands.
    """

    def __init__(self, driver: Any, notes: dict[Any, Any]) -> None:
        self._driver, self._notes = driver, notes
        self._last = ""

    async def begin(self, key: Mapping[str, Any]) -> bool:
        """Begin, and insert the row that is the lock, where there is none with its key; whether that was so."""
        if self._notes.get(NAME) is None:
            await self._prepare()
        try:
            return await self.insert(key, f"{BEGIN}; ")
        except Exception as error:
            if sqlstate_of(error) not in POOLED:
                raise
        self._notes[NAME] = False
        await self._driver.execute("ROLLBACK")
        return await self.insert(key, f"{BEGIN}; ")

    async def insert(self, key: Mapping[str, Any], before: str = "") -> bool:
        """Insert the row, as `begin` does."""
        row = {**key, "state": CLAIMED, "attempt": 0, "written_at": datetime.now(UTC)}
        said = await self._driver.execute(before + self._call(_CLAIM, row))
        return bool(said != NOTHING_INSERTED)

    def settle(self, row: Mapping[str, Any]) -> None:
        """Write the row together with the COMMIT."""
        self._last = self._call(_SETTLE, row)

    async def end(self) -> None:
        """Commit."""
        last, self._last = self._last, ""
        try:
            await self._driver.execute(f"{last}; COMMIT" if last else "COMMIT")
        except Exception as error:
            if sqlstate_of(error) not in POOLED:
                raise
            self._notes[NAME] = False
            raise Busy(f"the row could not be written: {first_line(error)}") from error

    async def commit(self) -> None:
        """Roll back: who commits over SQLAlchemy's connection is a handler, and the library does not.

        Raises:
            CommittedByItself: always.
        """
        await self.rollback()
        raise refused("COMMIT")

    async def rollback(self) -> None:
        """Roll back."""
        self._last = ""
        await self._driver.execute("ROLLBACK")

    def _call(self, statement: Statement, values: Mapping[str, Any]) -> str:
        return statement.call(values) if self._notes[NAME] else statement.text(values)

    async def _prepare(self) -> None:
        try:
            await self._driver.execute(f"{_CLAIM.prepare}; {_SETTLE.prepare}")
        except Exception as error:
            if sqlstate_of(error) not in POOLED:
                raise
            self._notes[NAME] = False
        else:
            self._notes[NAME] = True


class PostgresInbox(SqlInbox):
    """The row itself is the lock, and is there before any handler runs."""

    settle_statement = upsert(postgresql.insert)
    add_statement = add(postgresql.insert)

    _has_inserted = False
    _begun: Begun | None = None

    async def settle(self, row: Row) -> None:
        """Write the row, together with the COMMIT."""
        assert self._begun is not None, "the row was claimed"
        self._begun.settle({**self._key, **columns_of(row)})

    async def leave(self) -> None:
        """Leave no row where `claim` has inserted one, which was its lock."""
        if self._has_inserted:
            await self._connection.execute(_forget, self._key)

    async def _claim(self) -> Row | None:
        # The insert waits for an open transaction that has claimed the row, and then does nothing if that one was
        # committed. The row it found may have been purged when the select looks, hence the loop.
        driver, begun = self._begin()
        self._begun, insert = begun, begun.begin
        while True:
            try:
                self._has_inserted = await insert(self._key)
            except Exception:
                if driver.is_closed():  # SQLAlchemy would hand it out again
                    await self._connection.invalidate()
                raise
            if self._has_inserted:
                return None
            found = (await self._connection.execute(_read_locked, self._key)).one_or_none()
            if found is not None:
                return row_of(found)
            insert = begun.insert

    def _begin(self) -> tuple[Any, Begun]:
        """Have SQLAlchemy take the transaction for its own: it would begin one with the first statement, and ends the
        one that it knows of. The driver's connection, and the transaction that is to be begun on it."""
        connection = sync_of(self._connection)
        adapted: Any = connection.connection.dbapi_connection
        adapted._transaction = begun = Begun(adapted.driver_connection, connection.info)
        return adapted.driver_connection, begun

    async def commit(self) -> None:
        """Commit, straight at the driver; through SQLAlchemy where no row was claimed.

        Raises:
            CommittedByItself: the handler has ended the transaction, and with it the lock of its command.
        """
        if self._begun is None:
            await self._connection.commit()
            return
        connection = sync_of(self._connection)
        if connection.closed:
            raise ended_by_handler()
        adapted: Any = connection.connection.dbapi_connection
        if adapted._transaction is not self._begun:
            raise ended_by_handler()
        await self._begun.end()
        adapted._transaction = None  # where it failed it may still be open, and is rolled back


def _refuse_to_end(connection: object, cursor: object, statement: str, *_: object) -> None:
    refuse_to_end(statement)


class _Perform:
    """One transaction, as the context in which a command is performed."""

    __slots__ = ("_address", "_connection", "_database", "_inbox")

    def __init__(self, database: PostgresDatabase, address: CommandAddress) -> None:
        self._database, self._address = database, address

    async def __aenter__(self) -> PostgresInbox:
        self._connection = await self._database.connect()
        self._inbox = PostgresInbox(self._address, self._connection)
        return self._inbox

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self._inbox.commit()
            except BaseException as failed:
                raise await self._roll_back(failed) from failed.__cause__
            sync_of(self._connection).close()  # nothing is left to be said to the server
        elif (meaning := await self._roll_back(error)) is not error:
            raise meaning

    async def _roll_back(self, error: BaseException) -> BaseException:
        """End badly, whoever cancels us meanwhile; what leaves the transaction: the error, or what it means."""
        meaning = error
        if isinstance(error, Exception):
            meaning = self._database.meaning(sync_of(self._connection), error)
        try:
            await asyncio.shield(asyncio.ensure_future(self._connection.close()))
        except Exception as broken:
            if isinstance(error, Exception) and not isinstance(meaning, Busy):
                # Nothing could be rolled back. That is as good: the connection is gone.
                meaning = Busy(f"no rollback: {first_line(broken)}")
                meaning.__cause__ = broken
        return meaning


class PostgresDatabase(SqlDatabase):
    """READ COMMITTED, whatever the server's default: the claim must see what it waited for."""

    _inbox = PostgresInbox

    def __init__(self, url: str, connections: int) -> None:
        super().__init__(open_engine(url, connections=connections))
        self._faults = Faults(self._engine.sync_engine)
        event.listen(self._engine.sync_engine, "before_cursor_execute", _refuse_to_end)

    def begin(self, address: CommandAddress, manner: Manner = "shared") -> _Perform:
        """A transaction for one command."""
        return _Perform(self, address)

    async def connect(self) -> AsyncConnection:
        """A connection out of the pool, in a transaction as far as SQLAlchemy knows.

        Raises:
            Busy: none could be had.
        """
        try:
            connection = await self._engine.connect()
        # asyncpg lets errors of the network and of the server's greeting through as they are.
        except Exception as error:
            raise Busy(f"no transaction can be begun: {first_line(error)}") from error
        sync_of(connection).begin()  # which says nothing to the server
        return connection

    def meaning(self, connection: Connection, error: Exception) -> Exception:
        """The error that leaves a transaction, or `Busy` where the database gave the transaction up."""
        return self._faults.meaning(connection, error)
