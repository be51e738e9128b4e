"""A database that forgets: for tests and for measuring what the rest costs. Nothing in it survives its process."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

from antiphon.contracts.wire import CommandAddress

from .inbox import Row
from .transaction import Transaction

if TYPE_CHECKING:
    from sqlalchemy import MetaData

Key = tuple[str, str, str]


class MemoryTransaction(Transaction):
    """A transaction whose effects are a list."""

    __slots__ = ("_effects",)

    def __init__(self, address: CommandAddress) -> None:
        super().__init__(address)
        self._effects: list[object] | None = None

    @property
    def effects(self) -> list[object]:
        """What a handler adds here is in the database's `effects` once the transaction is committed."""
        if self._effects is None:
            self._effects = []
        return self._effects

    def take_effects(self) -> list[object] | None:
        """What the handler added, if anything."""
        return self._effects


class MemoryInbox:
    """The inbox within one transaction, and its context manager."""

    __slots__ = ("_claimed", "_database", "_key", "_row", "transaction")

    def __init__(self, database: MemoryDatabase, address: CommandAddress) -> None:
        self._database = database
        self._key: Key = (address.saga.type, address.saga.id, address.step)
        self._claimed = False
        self._row: Row | None = None
        self.transaction = MemoryTransaction(address)

    async def claim(self) -> Row | None:
        """Wait until nobody else holds the row, and read it."""
        claims, key = self._database.claims, self._key
        while key in claims:
            waited_for = claims[key] = claims[key] or asyncio.Event()
            await waited_for.wait()
        claims[key] = None
        self._claimed = True
        return self._database.rows.get(key)

    async def settle(self, row: Row) -> None:
        """Keep the row for the commit."""
        self._row = row

    async def handed_back(self, sequence: int) -> int:
        """How many deliveries were no attempts."""
        return self._database.handed_back[sequence]

    async def __aenter__(self) -> MemoryInbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._row is not None:
            self._database.rows[self._key] = self._row
            if effects := self.transaction.take_effects():
                self._database.effects.extend(effects)
        if self._claimed and (waiting := self._database.claims.pop(self._key)):
            waiting.set()


class MemoryDatabase:
    """Rows and effects of one process, with the locks of a real database."""

    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}
        self.claims: dict[Key, asyncio.Event | None] = {}
        self.handed_back: Counter[int] = Counter()
        self.effects: list[object] = []
        """What handlers added to `MemoryTransaction.effects`, in the order of commits."""

    async def open(self, tables: MetaData | None = None) -> None:
        """Nothing to open; tables stay unmade, because there is no SQL here."""

    def begin(self, address: CommandAddress) -> MemoryInbox:
        """A transaction for one command."""
        return MemoryInbox(self, address)

    async def count_handed_back(self, sequence: int) -> None:
        """Note that a delivery was no attempt."""
        self.handed_back[sequence] += 1

    async def close(self) -> None:
        """Nothing to close."""
