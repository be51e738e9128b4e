"""An inbox in memory: for tests, for benchmarks, and for participants whose effects are not in a database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from antiphon.contracts.wire import CommandAddress

from .inbox import Row
from .transaction import Transaction

if TYPE_CHECKING:
    from sqlalchemy import MetaData

Key = tuple[str, str, str]


class MemoryDatabase:
    """Rows in a dictionary; a transaction holds the lock of its row until it ends."""

    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}
        self._locks: dict[Key, asyncio.Lock] = {}
        self._handed_back: Counter[int] = Counter()

    async def open(self, tables: MetaData | None = None) -> None:
        """Nothing to open."""

    @asynccontextmanager
    async def begin(self, address: CommandAddress) -> AsyncIterator[MemoryInbox]:
        """A transaction: its row is written when the block ends without an exception."""
        key = (address.saga.type, address.saga.id, address.step)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        inbox = MemoryInbox(self, key, address)
        async with lock:
            yield inbox
            if inbox.written is not None:
                self.rows[key] = inbox.written
        if not lock.locked():
            self._locks.pop(key, None)

    async def count_handed_back(self, sequence: int) -> None:
        """Count in memory."""
        self._handed_back[sequence] += 1

    def handed_back(self, sequence: int) -> int:
        """How often a command was handed back."""
        return self._handed_back[sequence]

    async def close(self) -> None:
        """Nothing to close."""


class MemoryInbox:
    """The inbox within one transaction."""

    def __init__(self, database: MemoryDatabase, key: Key, address: CommandAddress) -> None:
        self._database, self._key = database, key
        self.transaction = Transaction(address)
        self.written: Row | None = None

    async def claim(self) -> Row | None:
        """The row; the transaction holds its lock already."""
        return self._database.rows.get(self._key)

    async def settle(self, row: Row) -> None:
        """Keep the row for the commit."""
        self.written = row

    async def handed_back(self, sequence: int) -> int:
        """How often a command was handed back."""
        return self._database.handed_back(sequence)


