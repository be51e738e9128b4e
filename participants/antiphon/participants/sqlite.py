"""A participant's database in SQLite: one file, one writer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from .databases import Busy
from .engines import BUSY_TIMEOUT_SECONDS, open_engine, trouble_of
from .inbox import Row
from .sql import SqlDatabase, SqlInbox, row_of
from .tables import add, read, upsert

LOCKED_TRIES_MAX: Final = 3
"""How often a locked database is asked before the command is handed back."""


class SqliteInbox(SqlInbox):
    """The transaction began with the database's only write lock, so that reading the row is claiming it."""

    settle_statement = upsert(sqlite.insert)
    add_statement = add(sqlite.insert)

    async def _claim(self) -> Row | None:
        return row_of((await self._connection.execute(read, self._key)).one_or_none())


class SqliteDatabase(SqlDatabase):
    """One file, one writer at a time: within the process by a lock, between processes by SQLite's own."""

    _inbox = SqliteInbox

    def __init__(self, url: str, *, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        super().__init__(open_engine(url, busy_timeout_seconds=busy_timeout_seconds))
        self._writer = asyncio.Lock()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        async with self._writer, AsyncExitStack() as stack:
            yield await self._insist(stack)

    async def _insist(self, stack: AsyncExitStack, tries: int = 1) -> AsyncConnection:
        try:
            return await stack.enter_async_context(super()._transaction())
        except Busy as error:
            if tries == LOCKED_TRIES_MAX or trouble_of(error.__cause__) != "locked":
                raise
        return await self._insist(stack, tries + 1)
