"""A SQLite connection as it is lent to one command after the other, and taken back when the command ends: a handler
that was left behind cannot touch the next one's transaction, and none ends its own.

Statements run on the event loop's own thread, so that none costs a hop between threads; a slow handler's run on the
database's thread, one hop each.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy.util.concurrency import await_only, in_greenlet

from .engines import first_line
from .faults import Fault
from .reasons import OwnWords
from .sql import CommittedByItself, refuse_to_end, refused
from .thread import Thread
from .writer import Member, Writer

SLOW_SECONDS: Final = 0.1
"""A statement that keeps the event loop for longer than this is logged."""
STATEMENT_CHARS_MAX: Final = 200
"""How much of a statement is logged."""
INTERRUPT_SECONDS: Final = 0.05
"""How far apart a statement is interrupted until it ends: one that had not begun would not hear of the first time."""

_TO_SAVEPOINT: Final = "ROLLBACK TO"
"""How SQLAlchemy begins to roll a savepoint back."""

log = structlog.get_logger()


class StatementCancelled(OwnWords):
    """A handler's own time-out ended a statement and its transaction with it, and the handler goes on all the same."""


class RolledBack(OwnWords):
    """A constraint has rolled the handler's transaction back, and the handler went on all the same."""


class Loan:
    """The connection as one command has it, inside its savepoint.

    Args:
        writer: of the connection.
        member: the command's part in a group; it has its turn.
        thread: where statements run; None for the event loop's own.
    """

    __slots__ = (
        "_member",
        "_thread",
        "_writer",
        "connection",
        "constraint",
        "fault",
        "interrupted",
        "is_ended",
        "is_over",
        "running",
    )

    def __init__(self, writer: Writer, member: Member, thread: Thread | None) -> None:
        self._writer, self._member, self._thread = writer, member, thread
        self.connection = writer.connection
        self.is_over = False
        """Whether the command has ended."""
        self.is_ended = False
        """Whether the handler ended its transaction, or tried to and went on."""
        self.interrupted = False
        """Whether a statement was cancelled by the handler: SQLite may have rolled its transaction back."""
        self.constraint: sqlite3.IntegrityError | None = None
        """The error of a constraint that has rolled all back: `RAISE(ROLLBACK)`, `ON CONFLICT ROLLBACK`."""
        self.fault: Fault | None = None
        """The first error that may mean that SQLite gave the transaction up."""
        self.running: asyncio.Future[Any] | None = None
        """The statement that runs on the thread."""

    def check(self) -> None:
        """Refuse a statement that would touch another command's transaction, or be committed by itself.

        Raises:
            sqlite3.Error: it must not run.
            RolledBack: a constraint has ended the transaction before.
        """
        if self.is_over or not self._writer.has_turn(self._member):
            raise sqlite3.ProgrammingError(
                "the transaction of this handler has ended, since the handler returned, raised or was cancelled"
            )
        self.check_complete()
        if not self.connection.in_transaction:
            if self.constraint is not None:
                reason = first_line(self.constraint)
                raise RolledBack(f"a constraint has rolled back the transaction ({reason}); nothing of it is committed")
            raise sqlite3.OperationalError("SQLite has rolled the transaction back after an earlier error")

    def check_complete(self) -> None:
        """Refuse to go on after a statement was cancelled: SQLite may have rolled back what was before.

        Raises:
            StatementCancelled: one was.
        """
        if self.interrupted:
            raise StatementCancelled("a statement was cancelled, and its transaction with it")

    def execute(self, cursor: sqlite3.Cursor, sql: str, parameters: Any, many: bool = False) -> Sequence[Any]:
        """Run a statement for SQLAlchemy, and fetch its rows."""
        refuse_to_end(sql)
        if self._thread is not None and in_greenlet():
            return await_only(self._beside_the_loop(self._thread, partial(self._run, cursor, sql, parameters, many)))
        await_nothing()
        return self._run_timed(cursor, sql, parameters, many)

    async def execute_async(
        self, cursor: sqlite3.Cursor, sql: str, parameters: Any, many: bool = False
    ) -> Sequence[Any]:
        """Run a statement for a handler that asks the driver, and fetch its rows."""
        refuse_to_end(sql)
        if self._thread is not None:
            return await self._beside_the_loop(self._thread, partial(self._run, cursor, sql, parameters, many))
        return self._run_timed(cursor, sql, parameters, many)

    def take_back(self) -> None:
        """Undo what was done in this loan so far: the handler rolls back or closes, or its session does. The command
        fails, as it does on PostgreSQL, where its lock would be lost."""
        if not self.is_over:
            self.is_ended = True
            self.check()
            self._writer.take_back()

    def refuse_commit(self) -> CommittedByItself:
        """The error for a handler that commits; the command fails also where it is caught."""
        self.is_ended = True
        return refused("COMMIT")

    async def end(self) -> None:
        """Take the connection back; what runs on the thread ends first."""
        self.is_over = True
        if self.running is not None:
            await self._interrupt(self.running)

    def _run_timed(self, cursor: sqlite3.Cursor, sql: str, parameters: Any, many: bool) -> Sequence[Any]:
        began = time.perf_counter()
        try:
            return self._run(cursor, sql, parameters, many)
        finally:
            took = time.perf_counter() - began
            if took > SLOW_SECONDS:
                _say_slow(sql, took)

    def _run(self, cursor: sqlite3.Cursor, sql: str, parameters: Any, many: bool) -> Sequence[Any]:
        self.check()
        try:
            if many:
                cursor.executemany(sql, parameters)
            else:
                cursor.execute(sql, parameters)
            rows = () if cursor.description is None else cursor.fetchall()
        except sqlite3.Error as error:
            self.notice(error)
            raise
        if self.fault is not None and sql.startswith(_TO_SAVEPOINT):
            self.fault = None  # the savepoint was rolled back, so the transaction goes on
        return rows

    def notice(self, error: sqlite3.Error) -> None:
        """Keep the first error that may mean that SQLite gave the transaction up, and whose doing it was."""
        if isinstance(error, sqlite3.IntegrityError) and not self.connection.in_transaction:
            self.constraint = error
        fault = Fault(error, is_disconnect=False)
        if fault.is_passing and self.fault is None:
            self.fault = fault

    async def _beside_the_loop(self, thread: Thread, run: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        self.running = running = thread.run(run)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.interrupted = True
            await self._interrupt(running)
            raise
        finally:
            self.running = None

    async def _interrupt(self, running: asyncio.Future[Any]) -> None:
        """End a statement and wait for that, whoever cancels us meanwhile."""
        while not running.done():
            self.connection.interrupt()
            with suppress(asyncio.CancelledError):
                await asyncio.wait((running,), timeout=INTERRUPT_SECONDS)
        running.exception()  # looked at, lest asyncio complain that nobody did


def await_nothing() -> None:
    """SQLAlchemy demands of a driver that each of its asynchronous calls awaits something."""
    if in_greenlet():
        await_only(_AT_ONCE)


class _AtOnce:
    """An awaitable that completes at once."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


_AT_ONCE: Final = _AtOnce()


def _say_slow(sql: str, seconds: float) -> None:
    log.warning(
        "statement.slow",
        seconds=round(seconds, 3),
        statement=sql[:STATEMENT_CHARS_MAX],
        advice="it kept the event loop; declare its handler slow=True, and it runs on a thread",
    )
