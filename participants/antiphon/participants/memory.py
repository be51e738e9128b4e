"""A database in memory, for tests and benchmarks. Nothing in it survives its process."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from antiphon.contracts.subjects import CommandAddress

from .databases import Manner, new_number
from .inbox import Row, Spent
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

    __slots__ = ("_claimed", "_database", "_key", "_noted", "_row", "transaction")

    def __init__(self, database: MemoryDatabase, address: CommandAddress) -> None:
        self._database = database
        self._key: Key = (address.saga.type, address.saga.id, address.step)
        self._claimed = False
        self._row: Row | None = None
        self._noted: list[tuple[str, Spent]] = []
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

    async def leave(self) -> None:
        """Leave no row where there was none: nothing was written."""

    async def spent(self, message: str) -> Spent:
        """The counts of a message's deliveries."""
        found = self._database.spent.get(message, Spent())
        for each, added in self._noted:
            found = found.plus(added) if each == message else found
        return found

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries, at the commit."""
        self._noted.append((message, more))
        return await self.spent(message)

    async def __aenter__(self) -> MemoryInbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            for message, more in self._noted:
                self._database.spent[message] = self._database.spent.get(message, Spent()).plus(more)
        if kind is None and self._row is not None:
            self._database.rows[self._key] = self._row
            if effects := self.transaction.take_effects():
                self._database.effects.extend(effects)
        if self._claimed and (waiting := self._database.claims.pop(self._key)):
            waiting.set()


class MemoryDatabase:
    """Rows and effects of one process, with the locks of a real database."""

    shares = False
    lasts = False

    def __init__(self) -> None:
        self.number = new_number()
        self.rows: dict[Key, Row] = {}
        self.claims: dict[Key, asyncio.Event | None] = {}
        self.spent: dict[str, Spent] = {}
        self.effects: list[object] = []
        """What handlers added to `MemoryTransaction.effects`, in the order of commits."""

    async def open(self, tables: MetaData | None = None) -> None:
        """Nothing to open; tables stay unmade, because there is no SQL here."""

    def begin(self, address: CommandAddress, manner: Manner = "shared") -> MemoryInbox:
        """A transaction for one command."""
        return MemoryInbox(self, address)

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries."""
        found = self.spent[message] = self.spent.get(message, Spent()).plus(more)
        return found

    async def end_runs(self, instance: str) -> None:
        """Nothing: what is in memory is gone with its process."""

    async def close(self) -> None:
        """Nothing to close."""
