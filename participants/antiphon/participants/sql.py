"""What SQLite and PostgreSQL have in common, through SQLAlchemy Core: the inbox's rows, and what an error means."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

import structlog
from msgspec.structs import asdict
from sqlalchemy import MetaData
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from antiphon.contracts.errors import PlatformError

from .databases import Busy
from .engines import CREATE_TABLES, first_line, probe, trouble_of, unusable
from .inbox import Answer, Row, RowState, Spent
from .reasons import Misuse
from .tables import KEY_NAMES, end_runs, migrate, read_runs

MIGRATE_TRIES: Final = 20
"""How often a worker that starts asks for the tables, while a transaction of an older worker holds them."""
MIGRATE_AGAIN_SECONDS: Final = 1.0
GONE_SECONDS: Final = 60.0
"""How long the command is still expected whose run ended with its process. It is handed back, or its lease ends."""

STATES: Final = frozenset(get_args(RowState))

_ENDS_TRANSACTIONS: Final = re.compile(
    r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*(begin|commit|end|abort|rollback(?!\s+(?:transaction\s+)?to\b))\b",
    re.IGNORECASE | re.DOTALL,
)
_MAY_END: Final = frozenset("AaBbCcEeRr-/; \t\r\n\f")
"""What such a statement may begin with: others are not looked at."""

log = structlog.get_logger()


class CommittedByItself(Misuse):
    """A handler ended the transaction, or tried to, which only the worker may."""


def ended_by_handler() -> CommittedByItself:
    """The error for a handler that has returned, and had ended its transaction before."""
    return CommittedByItself(
        "a handler has ended its transaction, by a rollback, a commit or a close, by a flush that failed and was "
        "caught, or by cancelling a statement. It must leave that to the worker; to undo a part, use a savepoint. "
        "Nothing of it is committed."
    )


def refuse_to_end(sql: str) -> None:
    """Refuse a statement that begins or ends a transaction.

    Raises:
        CommittedByItself: it is one.
    """
    if sql[:1] in _MAY_END and (found := _ENDS_TRANSACTIONS.match(sql)):
        raise refused(found.group(1).upper())


def refused(what: str) -> CommittedByItself:
    """The error for a handler that would end its transaction."""
    return CommittedByItself(f"a handler must leave {what} to the worker; it was not executed")


def row_of(found: Any) -> Row | None:
    """A row of the table, as the inbox's rules take it.

    Raises:
        CommittedByItself: it was committed in the state in which only an open transaction has it.
    """
    if found is None:
        return None
    state, attempt, answer_type, answer, claim, runs, due_at, digest, closed = found
    if state not in STATES or (state == "claimed" and not claim):
        raise CommittedByItself(
            "an inbox row was committed before it was answered: a handler commits by itself. It must leave that to the "
            "worker; whether this command's effect is there has to be looked up."
        )
    stored = None if answer_type is None else Answer(answer_type, answer.encode())
    if not claim and not closed:
        return Row(state, attempt, stored)
    due = None if due_at is None else due_at.replace(tzinfo=UTC) if due_at.tzinfo is None else due_at
    return Row(state, attempt, stored, claim, tuple(runs.split()), due, digest or "", closed or "")


def columns_of(row: Row) -> dict[str, Any]:
    """The columns of a row beside its key."""
    answer_type, answer = (row.answer.type, row.answer.data.decode()) if row.answer else (None, None)
    return {
        "state": row.state,
        "attempt": row.attempt,
        "answer_type": answer_type,
        "answer": answer,
        "claim": row.claim,
        "runs": " ".join(row.runs),
        "due_at": row.due_at,
        "digest": row.digest or None,
        "closed": row.closed or None,
        "written_at": datetime.now(UTC),
    }


def counts_of(message: str, more: Spent) -> dict[str, Any]:
    """The columns of a message's counts."""
    return {"message": message, **asdict(more), "written_at": datetime.now(UTC)}


class SqlDatabase:
    """What both databases have in common: an engine, and one transaction for each command."""

    shares = False
    lasts = True

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine, self.number = engine, 0

    async def open(self, tables: MetaData | None = None) -> None:
        """Connect, and create the inbox and the given tables where they are missing.

        Raises:
            PlatformError: the database cannot be used.
        """
        try:
            probe(self._engine)
            await self._migrate(tables)
        except PlatformError as error:
            raise unusable(self._engine, error, "the database", "") from None
        except (Busy, SQLAlchemyError, sqlite3.Error) as error:
            raise unusable(self._engine, error, "the database", CREATE_TABLES) from error

    async def _migrate(self, tables: MetaData | None) -> None:
        """Columns can be added only while no transaction holds the tables; others must not wait behind us for long."""
        for left in reversed(range(MIGRATE_TRIES)):
            try:
                async with self._transaction() as connection:
                    self.number = await connection.run_sync(migrate, tables)
            except SQLAlchemyError as error:
                if trouble_of(error) != "locked" or not left:
                    raise
                log.warning("tables.wait", reason="a transaction of another worker holds the inbox", tries_left=left)
                await asyncio.sleep(MIGRATE_AGAIN_SECONDS)
            else:
                return

    async def end_runs(self, instance: str) -> None:
        """Note that the runs outside a transaction have ended that a process had begun."""
        async with self._transaction() as connection:
            try:
                found = (await connection.execute(read_runs, {"of_instance": f"%@{instance}%"})).all()
                for key, runs in ((dict(zip(KEY_NAMES, row[:-1], strict=True)), row[-1].split()) for row in found):
                    left = [each for each in runs if each.partition("@")[2] != instance]
                    if len(left) < len(runs):
                        changes = {"left": " ".join(left), "due": datetime.now(UTC) + timedelta(seconds=GONE_SECONDS)}
                        await connection.execute(
                            end_runs, {f"its_{name}": value for name, value in key.items()} | changes
                        )
            except SQLAlchemyError as error:
                raise Busy(f"it cannot be noted that a process is gone: {first_line(error)}") from error

    async def close(self) -> None:
        """Let go of every connection."""
        await self._engine.dispose()

    def _transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        raise NotImplementedError
