"""A small participant whose handlers do what a test tells them to, over any of the databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from sqlalchemy.ext.asyncio import create_async_engine

from antiphon.contracts import Command, Compensation, Event, Retry, SagaKey, TooLarge
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.messages import Refusal, Settled, Undone, settle_type
from antiphon.contracts.subjects import CommandAddress, Direction
from antiphon.participants import Database, Participant, Transaction, open_database
from antiphon.participants.attempts import Suspect
from antiphon.participants.databases import Busy, Manner
from antiphon.participants.execution import Execution
from antiphon.participants.inbox import Answer, Spent
from antiphon.participants.memory import MemoryDatabase, MemoryTransaction
from antiphon.participants.outside import Terms
from antiphon.participants.perform import Performing
from antiphon.participants.procedures import DoProcedure, SettleProcedure, UndoProcedure
from antiphon.participants.reasons import reason_of
from antiphon.participants.under_lock import Unsendable


class Reserved(Event, name="stock.reserved", owner="stock"):
    reservation_id: str


class Reserve(Command[Reserved], name="stock.reserve"):
    pieces: int = 1


class Release(Compensation[Reserve], name="stock.release"):
    reason: str = "the test says so"


tables = MetaData()
effects = Table(
    "effects", tables, Column("number", Integer, primary_key=True), Column("what", String), Column("key", String)
)


class Noted(NamedTuple):
    """An effect in memory."""

    what: str
    key: str


Then = Callable[[Transaction], Awaitable[None]]
"""What a handler does after its effect and before it returns."""


async def nothing(tx: Transaction) -> None:
    """A handler that returns at once."""


async def write(tx: Transaction, what: str) -> None:
    """Note an effect in the transaction."""
    if isinstance(tx, MemoryTransaction):
        tx.effects.append(Noted(what, tx.idempotency_key))
    else:
        await tx.execute(insert(effects).values(what=what, key=tx.idempotency_key))


@dataclass
class Stock:
    """The participant, and what it was asked to do while it does it."""

    on_reserve: Then = nothing
    on_release: Then = nothing
    calls: list[str] = field(default_factory=list[str])
    reservation_id: str = "r-1"
    released: list[Reserved] = field(default_factory=list[Reserved])

    def __post_init__(self) -> None:
        self.participant = participant = Participant("stock", tables=tables)

        @participant.handles(Reserve)
        async def reserve(command: Reserve, tx: Transaction) -> Reserved:
            self.calls.append("reserve")
            await write(tx, "reserved")
            await self.on_reserve(tx)
            return Reserved(reservation_id=self.reservation_id)

        @participant.compensates(Reserve)
        async def release(command: Release, reserved: Reserved, tx: Transaction) -> None:
            self.calls.append("release")
            self.released.append(reserved)
            await write(tx, "released")
            await self.on_release(tx)

    async def do(
        self,
        database: Database,
        attempt: int = 1,
        *,
        saga: str = "s1",
        deliveries: int = 1,
        is_retriable: bool = False,
        is_alone: bool = False,
        manner: Manner = "shared",
    ) -> object:
        """Deliver the command; gives the answer's payload."""
        where, retry = address("do", attempt, saga), Retry(attempts=3)
        handler = self.participant.handlers[Reserve.__contract__.type]
        procedure = DoProcedure(handler, where, Reserve(), is_retriable)
        execution = Execution(where, procedure, retry, f"do {attempt}", deliveries)
        execution.manner = manner
        return await deliver(execution, database, is_alone)

    async def undo(self, database: Database, attempt: int = 1, *, saga: str = "s1", deliveries: int = 1) -> object:
        """Deliver the compensation; gives the answer's payload."""
        handler = self.participant.compensations[Release.__contract__.type]
        where = address("undo", attempt, saga)
        procedure = UndoProcedure(handler, where, Release())
        return await deliver(Execution(where, procedure, Retry(attempts=3), f"undo {attempt}", deliveries), database)

    async def settle(self, database: Database, attempt: int = 1, *, saga: str = "s1", deliveries: int = 1) -> object:
        """Ask what became of the command; gives the reply, or None where it never happened."""
        handler = self.participant.settlements[settle_type(Reserve.__contract__)]
        where = address("undo", attempt, saga)
        procedure = SettleProcedure(handler, where)
        return await deliver(Execution(where, procedure, Retry(attempts=3), f"settle {attempt}", deliveries), database)


async def deliver(execution: Execution, database: Database, is_alone: bool = False) -> object:
    """Have a command performed, and note what became of it, as a worker does."""
    performing = Performing(database, Terms("worker", 10.0, 1.0))
    if is_alone:
        await database.note(execution.message, Spent(alone=1))
        execution.is_alone = True
    try:
        return read(await performing.perform(execution, seal))
    except (Busy, Suspect):
        raise
    except Exception as error:
        failed = execution.retry.attempts if isinstance(error, Unsendable) else 1
        failure = await performing.fail(execution, seal, reason_of(error), failed, lambda _: 0.0)
        if failure.answer is None:
            raise
        return read(failure.answer)


RESERVED = Reserved(reservation_id="r-1")
FOUND, NOT_FOUND = Undone(found=True), Undone(found=False)
ANSWER_CHARS_MAX = 1000


def seal(answer: Answer) -> None:
    """The bound on answers, lower than the real one."""
    if len(answer.data) > ANSWER_CHARS_MAX:
        raise TooLarge(f"{len(answer.data)} bytes")


def read(answer: Answer) -> object:
    """What an answer says, with its kind where it is a no."""
    kind = answer.type.removesuffix(".v1").rpartition(".")[2]
    if kind == "reserved":
        return unpack_raw(answer.data, Reserved)
    if kind == "done":
        return unpack_raw(answer.data, Undone)
    if kind == "settled":
        settled = unpack_raw(answer.data, Settled)
        return read(Answer(settled.type, settled.reply)) if settled.happened else None
    return kind, unpack_raw(answer.data, Refusal).reason


def address(direction: Direction, attempt: int = 1, saga: str = "s1") -> CommandAddress:
    """Where a command of the saga's only step is addressed to."""
    return CommandAddress(SagaKey.of("order", saga), "stock", "reserve", direction, attempt)


def effects_in(database: MemoryDatabase) -> list[str]:
    """What `write` noted and was committed."""
    return [found[0] for found in database.effects if isinstance(found, Noted)]


class Gate:
    """Holds a handler inside its transaction until the test opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, tx: Transaction) -> None:
        self.reached.set()
        await self.opened.wait()


class Store:
    """One kind of database, and any number of workers' views of the same one."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url
        self._opened: list[Database] = []

    async def open(self) -> Database:
        """Another worker's database: the same data over connections of its own."""
        if self.kind == "memory" and self._opened:
            return self._opened[0]
        database = open_database(self.url)
        await database.open(tables)
        self._opened.append(database)
        return database

    async def effects(self) -> list[str]:
        """What was committed, in order, seen from outside."""
        if self.kind == "memory":
            database = self._opened[0]
            assert isinstance(database, MemoryDatabase)
            return effects_in(database)
        engine = create_async_engine(
            self.url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")
        )
        try:
            async with engine.connect() as connection:
                found = await connection.execute(select(effects.c.what).order_by(effects.c.number))
                return list(found.scalars())
        finally:
            await engine.dispose()

    async def close(self) -> None:
        """Close what was opened."""
        for database in self._opened:
            await database.close()


def sqlite_url(folder: Path) -> str:
    """A SQLite file in a folder."""
    return f"sqlite:///{folder / 'stock.db'}"
