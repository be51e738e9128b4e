"""PostgreSQL's sessions, which stay with their SQLAlchemy connections, so that no command checks one out of a pool.

Whichever ended last is taken first: where little is to be done few sessions do it, and these have all of it prepared.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util.concurrency import greenlet_spawn

from .databases import Busy
from .engines import CONNECT_SECONDS, first_line


class Begun(Protocol):
    """A transaction, as SQLAlchemy's adapter of asyncpg ends it."""

    async def commit(self) -> None:
        """Commit."""
        ...

    async def rollback(self) -> None:
        """Roll back."""
        ...


class Session:
    """One session, and SQLAlchemy's connections over it.

    Args:
        engine: whose it is.
        pooled: what the engine's pool gave.
    """

    def __init__(self, engine: AsyncEngine, pooled: PoolProxiedConnection) -> None:
        self._engine, self._pooled = engine, pooled
        self._adapted: Any = pooled.dbapi_connection
        self.driver: Any = pooled.driver_connection
        """asyncpg's connection."""
        self.is_prepared: bool | None = None
        """Whether the library's statements are prepared; None where that was not tried."""
        self.common = self._connect(pooled)
        """For statements of whoever asks for no connection: to make one costs half as much as a statement."""

    @property
    def is_valid(self) -> bool:
        """Whether it was not ended by us: SQLAlchemy ends it where a statement is cancelled, or where it was lost."""
        return self._pooled.is_valid

    @property
    def is_lost(self) -> bool:
        """Whether the server or the network ended it, and nothing has acted on that yet."""
        return self._pooled.is_valid and bool(self.driver.is_closed())

    @property
    def begun(self) -> Begun | None:
        """The transaction that SQLAlchemy would end: ours, or one that it has begun with a statement."""
        found: Begun | None = self._adapted._transaction
        return found

    @begun.setter
    def begun(self, begun: Begun | None) -> None:
        self._adapted._transaction = begun
        if hasattr(self._adapted, "_started"):  # before SQLAlchemy 2.1
            self._adapted._started = begun is not None

    async def commit(self) -> None:
        """Commit what was begun, if anything was. Where that fails it may still be open."""
        if (begun := self.begun) is not None:
            await begun.commit()
            self.begun = None

    async def roll_back(self) -> None:
        """Roll back what was begun, if anything was."""
        begun, self.begun = self.begun, None
        if begun is not None:
            await begun.rollback()

    def lend(self) -> tuple[Lent, AsyncConnection]:
        """A connection for one command, in the transaction that is open or that its first statement begins."""
        lent = Lent(self._pooled)
        return lent, self._connect(lent)

    def forget(self) -> None:
        """Drop what was lost."""
        if self._pooled.is_valid:
            self._pooled.invalidate()

    async def end(self) -> None:
        """Take leave of the server, which ends a statement that goes on, and with it the locks of its transaction."""
        if self._pooled.is_valid:
            await greenlet_spawn(self._pooled.invalidate)

    def _connect(self, pooled: PoolProxiedConnection) -> AsyncConnection:
        connection = Connection(self._engine.sync_engine, connection=pooled)
        connection.begin()  # which says nothing to the server
        return AsyncConnection(self._engine, connection)


class Lent(PoolProxiedConnection):
    """A session as the connection of one command has it: nobody gives it back, and it is nobody's afterwards.

    Args:
        pooled: what the engine's pool gave.
    """

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        self._pooled = pooled
        self._is_over = False

    def end(self) -> None:
        """The command has ended."""
        self._is_over = True

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override] # writable with SQLAlchemy, which never writes it here
        """SQLAlchemy's adapter of the driver's connection."""
        return self._open().dbapi_connection

    @property
    def driver_connection(self) -> Any:  # type: ignore[override] # the same
        """asyncpg's connection."""
        return self._open().driver_connection

    @property
    def info(self) -> Any:
        """Notes of anybody's about the session."""
        return self._open().info

    @property
    def record_info(self) -> Any:
        """The same, for as long as the pool knows it."""
        return self._open().record_info

    @property
    def is_valid(self) -> bool:
        """Whether statements can be executed."""
        return not self._is_over and self._pooled.is_valid

    @property
    def is_detached(self) -> bool:
        """It never is."""
        return False

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """For one statement."""
        return self._open().cursor(*arguments, **options)

    def commit(self) -> None:
        """Commit what was begun."""
        self._open().commit()

    def rollback(self) -> None:
        """Roll back what was begun."""
        if self.is_valid:
            self._pooled.rollback()

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Drop the session."""
        if self.is_valid:
            self._pooled.invalidate(e, soft)

    def detach(self) -> None:
        """Refuse: it is the worker's.

        Raises:
            ResourceClosedError: always.
        """
        raise ResourceClosedError("the connection of a handler's transaction cannot be detached: it is the worker's")

    def close(self) -> None:
        """Nobody gives back what is the worker's."""

    def _close_special(self, transaction_reset: bool = False) -> None:
        """The same, by the name that SQLAlchemy has for it after a rollback."""

    def _open(self) -> PoolProxiedConnection:
        if self._is_over:
            raise ResourceClosedError(OVER)
        return self._pooled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._open().dbapi_connection, name)


OVER = "the transaction of this handler has ended, since the handler returned, raised or was cancelled"


class Sessions:
    """The sessions of one database.

    Args:
        engine: makes them; its pool has room for all.
        count: how many there are at most.
    """

    def __init__(self, engine: AsyncEngine, count: int) -> None:
        self._engine = engine
        self._idle: list[Session] = []
        self._free = asyncio.Semaphore(count)
        self._is_closed = False

    async def take(self) -> Session:
        """A session for one transaction, to be given back.

        Raises:
            Busy: none could be had.
        """
        if self._free.locked():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._free.acquire()
            except TimeoutError:
                raise Busy("no transaction can be begun: all sessions have one that goes on") from None
        else:
            await self._free.acquire()  # at once
        while self._idle:
            session = self._idle.pop()
            if session.is_valid and not session.is_lost:
                return session
            session.forget()
        try:
            return Session(self._engine, await greenlet_spawn(self._engine.sync_engine.raw_connection))
        except BaseException as error:
            self._free.release()
            # asyncpg lets errors of the network and of the server's greeting through as they are.
            if isinstance(error, Exception):
                raise Busy(f"no transaction can be begun: {first_line(error)}") from error
            raise

    def give(self, session: Session) -> None:
        """Take a session back, in which no transaction is open."""
        if session.is_valid and not session.is_lost and not self._is_closed:
            self._idle.append(session)
        else:
            session.forget()
        self._free.release()

    async def close(self) -> None:
        """Close those that are idle; the others end when they are given back."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().end()
