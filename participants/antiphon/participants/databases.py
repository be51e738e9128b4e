"""The participant's own database, as the worker needs it: one transaction for the inbox row and the effect."""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol

from antiphon.contracts.registration import DATABASE_MAX
from antiphon.contracts.subjects import CommandAddress

from .engines import FOR_PARTICIPANTS, require_driver
from .inbox import Row, Spent
from .transaction import Transaction

if TYPE_CHECKING:
    from sqlalchemy import MetaData


class Busy(Exception):
    """The database could not be had, or rolled the transaction back: locked for long, no free connection, away, a
    deadlock. Nothing is committed as far as is known, and this is no attempt."""


class ShareFailed(Exception):
    """The transactions that were committed together were rolled back, perhaps through the fault of another one. Nothing
    is committed, and this is no attempt: the command is performed again, in a transaction of its own."""


Manner = Literal["shared", "own", "slow"]
"""shared: may be committed together with others. own: committed by itself. slow: so too, and its statements take long,
so that they run beside the event loop."""


class Inbox(Protocol):
    """The inbox within one transaction, over the row of one command.

    Leaving the transaction normally commits it, leaving it with an exception undoes all of it.
    """

    @property
    def transaction(self) -> Transaction:
        """The transaction that the handler is given."""
        ...

    async def claim(self) -> Row | None:
        """Lock the row until the transaction ends, and read it. Comes first."""
        ...

    async def settle(self, row: Row) -> None:
        """Write the row."""
        ...

    async def leave(self) -> None:
        """Leave no row where `claim` found none."""
        ...

    async def spent(self, message: str) -> Spent:
        """The counts of a message's deliveries, by the id of the message."""
        ...

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries, in this transaction.

        Returns:
            The counts with `more` in them.
        """
        ...


class Database(Protocol):
    """A participant's database. Implementations pass one conformance suite."""

    @property
    def shares(self) -> bool:
        """Whether transactions are committed together, one after the other, so that a handler that waits for something
        else has others wait."""
        ...

    @property
    def lasts(self) -> bool:
        """Whether what was written is still there for the next process."""
        ...

    @property
    def number(self) -> int:
        """What tells this database from another one; 0 until it is open."""
        ...

    async def open(self, tables: MetaData | None = None) -> None:
        """Connect, and create the inbox and the given tables where they are missing."""
        ...

    def begin(self, address: CommandAddress, manner: Manner = "shared") -> AbstractAsyncContextManager[Inbox]:
        """A transaction for one command. What was written in it is durable once it was left.

        Args:
            address: the row of the inbox.
            manner: how the transaction is kept apart from those of other commands.

        Raises:
            ShareFailed: on leaving a shared transaction: it was rolled back together with others.
            Busy: on entering, or from `claim`: the database could not be had, and no handler has run. On leaving: the
                database gave the transaction up, and where that was at the commit, nobody knows what became of it; the
                inbox is asked the next time.
        """
        ...

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries. Durable on return.

        Returns:
            The counts with `more` in them.

        Raises:
            Busy: the database could not be had.
        """
        ...

    async def end_runs(self, instance: str) -> None:
        """Note that the runs outside a transaction have ended that a process had begun, because it is gone.

        Args:
            instance: the process.

        Raises:
            Busy: the database could not be had.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


def new_number() -> int:
    """A number for a database that no other one has."""
    return 1 + secrets.randbelow(DATABASE_MAX)


def open_database(url: str, *, connections: int = 16) -> Database:
    """A participant's database at a URL; nothing is connected yet.

    Args:
        url: `sqlite:///inventory.db` (three slashes and a relative path, four and an absolute one),
            `postgresql://user@host/name`, or `memory:`.
        connections: how many transactions may be open at once in PostgreSQL.

    Returns:
        The database, to be opened by `open` before a worker uses it; `serve` does that.

    Raises:
        PlatformError: no such kind of database, or the extra that brings its driver is not installed.
    """
    if url.partition(":")[0] == "memory":
        memory: Database = import_module(".memory", __package__).MemoryDatabase()
        return memory
    dialect, _ = require_driver(url, *FOR_PARTICIPANTS)
    # Here, so that who uses no SQL stays small and needs no extra.
    if dialect == "sqlite":
        sqlite: Database = import_module(".sqlite", __package__).SqliteDatabase(url)
        return sqlite
    postgres: Database = import_module(".postgres", __package__).PostgresDatabase(url, connections)
    return postgres
