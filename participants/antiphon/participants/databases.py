"""The participant's own database, as the worker needs it: one transaction for the inbox row and the effect."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.subjects import CommandAddress

from .inbox import Row, Spent
from .transaction import Transaction

if TYPE_CHECKING:
    from sqlalchemy import MetaData


class Busy(Exception):
    """The database could not be had, or took the transaction back: locked for long, out of connections, away, a
    deadlock. Nothing happened as far as anybody knows, nobody is to blame, and this is no attempt."""


class Inbox(Protocol):
    """The inbox within one transaction, over the row of one command.

    Leaving the transaction normally commits it, leaving it with an exception undoes all of it.
    """

    @property
    def transaction(self) -> Transaction:
        """What the handler is given."""
        ...

    async def claim(self) -> Row | None:
        """Keep everybody else from this row until the transaction ends, and read it. Comes first."""
        ...

    async def settle(self, row: Row) -> None:
        """Write the row."""
        ...

    async def spent(self, sequence: int) -> Spent:
        """What became of the deliveries of the command with this stream sequence."""
        ...


class Database(Protocol):
    """A participant's database. Implementations pass one conformance suite."""

    async def open(self, tables: MetaData | None = None) -> None:
        """Connect, and create the inbox and the given tables where they are missing."""
        ...

    def begin(self, address: CommandAddress) -> AbstractAsyncContextManager[Inbox]:
        """A transaction for one command.

        Raises:
            Busy: on entering, or from `claim`: the database could not be had, and no handler has run. On leaving: the
                database gave the transaction up, and where that was at the commit, nobody knows what became of it; the
                inbox is asked the next time.
        """
        ...

    async def note(self, sequence: int, more: Spent) -> Spent:
        """Add to what became of a command's deliveries; gives all of it. Durable on return.

        Raises:
            Busy: the database could not be had.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


def open_database(url: str, *, connections: int = 16) -> Database:
    """The database at a URL; nothing is connected yet.

    Args:
        url: `sqlite:///inventory.db` (three slashes and a relative path, four and an absolute one),
            `postgresql://user@host/name`, or `memory:`.
        connections: how many transactions may be open at once in PostgreSQL.

    Raises:
        PlatformError: no such kind of database, or the extra that brings its driver is not installed.
    """
    scheme, _, rest = url.partition(":")
    database: Database
    match scheme.partition("+")[0]:
        case "memory":
            database = import_module(".memory", __package__).MemoryDatabase()
        case "sqlite":
            database = _sql("sqlite", "aiosqlite").SqliteDatabase(f"sqlite+aiosqlite:{rest}")
        case "postgresql" | "postgres":
            database = _sql("postgres", "asyncpg").PostgresDatabase(f"postgresql+asyncpg:{rest}", connections)
        case _:
            raise PlatformError(
                f"{scheme!r} is no database that a participant can use. Give sqlite:///path, postgresql://… or memory:."
            )
    return database


def _sql(extra: str, driver: str) -> Any:
    """The SQL databases; imported only by who uses them, so that the others stay small and need no extra."""
    try:
        import_module(driver)
        return import_module(".sql", __package__)
    except ModuleNotFoundError as error:
        raise PlatformError(
            f"this database needs the package {error.name!r}, which is not installed. "
            f"Run: pip install 'antiphon[{extra}]'"
        ) from None
