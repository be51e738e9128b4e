"""One command's share in a group of transactions in SQLite, and what its handler is given of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection

from antiphon.contracts.subjects import CommandAddress

from .databases import Busy, Manner
from .engines import trouble_of
from .faults import meaning_of
from .lender import Lender, sync_of
from .loan import Loan
from .prepared import Prepared
from .sql import ended_by_handler
from .sqlite_connection import LentConnection
from .thread import Thread
from .transaction import Transaction
from .writer import Writer

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Executable


class Share:
    """One transaction of a group: its place in the group, and the connection as it is lent to it.

    Args:
        writer: of the connection.
        lender: of the connection.
        thread: of the database.
        manner: how the transaction is kept apart from others.
    """

    __slots__ = ("_connection", "_lender", "_lent", "_loan", "_manner", "_member", "_thread", "_writer")

    def __init__(self, writer: Writer, lender: Lender, thread: Thread, manner: Manner) -> None:
        self._writer, self._lender, self._thread = writer, lender, thread
        self._manner: Manner = manner
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
            self._connection = self._lender.lend(LentConnection(self._loan))
        return self._connection

    def execute(self, statement: Any, parameters: Any) -> Any:
        """Execute one SQLAlchemy statement at once."""
        self._loan.check()
        if self._lent is None:
            self._lent = LentConnection(self._loan)
        return self._lender.execute(self._lent, statement, parameters)

    async def begin(self) -> None:
        """Wait for the turn.

        Raises:
            Busy: the database could not be had.
        """
        self._member = await self._writer.enter(self._manner)
        self._loan = Loan(self._writer, self._member, self._thread if self._manner == "slow" else None)

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
            sync_of(self._connection).close()
        lost = self._writer.give_up(self._member)
        if not isinstance(error, Exception) or (lost is not None and not isinstance(lost, Busy)):
            return error
        if loan.constraint is not None:  # SQLite did what the handler's own tables told it to
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
        if self._loan.is_ended:
            raise ended_by_handler()
        self._loan.is_over = True
        if self._connection is not None:
            sync_of(self._connection).commit()
            sync_of(self._connection).close()


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
