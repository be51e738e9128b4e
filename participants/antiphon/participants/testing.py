"""For the tests of those who write participants: handlers without a broker, under the inbox's rules.

    async with Service.open(inventory) as service:
        reserved = await service.do(ReserveInventory(...), saga="order/o-1")
        assert await service.do(ReserveInventory(...), saga="order/o-1") == reserved    # again: from the inbox
        await service.undo(ReleaseInventory(...), saga="order/o-1")
        assert await service.execute(select(stock.c.available)) == [(10,)]

What a handler is given, and what it answers, goes through JSON as it does between processes.
The same object takes part in a rehearsal of whole sagas (`antiphon.coordinator.testing.rehearse`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import msgspec

from antiphon.contracts.envelope import Envelope, through_the_wire, unpack_raw
from antiphon.contracts.errors import AntiphonError, Refused
from antiphon.contracts.identity import CLIENT, SagaKey, dashed
from antiphon.contracts.messages import (
    Command,
    Compensation,
    Contract,
    Event,
    Refusal,
    Settled,
    Undone,
    answer_type,
    name_of,
    settle_type,
)
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import CommandAddress, Direction, FactAddress, event_subject
from antiphon.contracts.topology import Listener
from antiphon.link import Link
from antiphon.link.faults import settle_tracebacks

from .answering import fitting
from .databases import Database, Inbox, Manner, open_database
from .execution import Execution
from .inbox import Answer, Row, Spent
from .memory import MemoryDatabase
from .outside import Terms
from .participant import Participant
from .perform import Performing
from .procedures import DoProcedure, Procedure, SettleProcedure, UndoProcedure
from .reading import procedure_of
from .routing import Routing, Unheard
from .telling import BriefTelling
from .transaction import Transaction
from .worker import HANDLER_SECONDS_MAX, Worker

if TYPE_CHECKING:
    from sqlalchemy import Executable, MetaData

R = TypeVar("R", bound=Event)

SAGA = "test/1"
"""The saga that asks, where a test does not care which."""


class Superseded(AntiphonError):
    """The command came after its compensation, or after a later attempt, and was not carried out."""


class Service:
    """A participant with a database of its own, and nobody between it and a test. Made by `Service.open`."""

    def __init__(self, participant: Participant, database: Database) -> None:
        self.participant, self.database = participant, database
        self._performing = Performing(database, Terms("test", HANDLER_SECONDS_MAX, 0.0))
        self._telling = BriefTelling()

    @classmethod
    @asynccontextmanager
    async def open(cls, participant: Participant, database: str = "") -> AsyncGenerator[Service]:
        """Open a database for the length of an `async with` block, and create the participant's tables in it.

        Args:
            participant: whose handlers are to be called.
            database: its URL, as for a worker. When left out, SQLite in memory for a participant with tables, and
                `memory:` for one without.

        Raises:
            PlatformError: the database cannot be used.
        """
        settle_tracebacks()
        opened = open_database(database or ("sqlite://" if participant.tables is not None else "memory:"))
        try:
            await opened.open(participant.tables)
            yield cls(participant, opened)
        finally:
            await opened.close()

    @property
    def name(self) -> str:
        """The participant's name."""
        return self.participant.name

    @property
    def listener(self) -> Listener:
        """Its name and what it reacts to."""
        return self.participant.listener

    # --- what a coordinator would ask ---------------------------------------------------------------------------------

    async def do(self, command: Command[R], *, saga: str = SAGA, attempt: int = 1) -> R:
        """Deliver a command; the same once more is a redelivery.

        Args:
            command: the command.
            saga: who asks, as `type/id`. Each saga asks for a command once.
            attempt: which of the coordinator's commands for this step it is.

        Returns:
            The event it is answered with, by the handler or from the inbox.

        Raises:
            Refused: the business said no.
            Superseded: it must not be carried out any more.
            WrongShape: the command, or the event, holds what would not arrive as it is.
            AntiphonError: the event is larger than a worker may send; nothing was done.
            Exception: whatever the handler raised; nothing of it is in the database.
        """
        handler = self.participant.handlers[command.__contract__.type]
        address = self._address(type(command), "do", saga, attempt)
        answer = await self._answer(DoProcedure(handler, address, through_the_wire(command)), address)
        if answer.type == handler.reply.__contract__.type:
            return cast(R, unpack_raw(answer.data, handler.reply))
        reason = unpack_raw(answer.data, Refusal).reason
        is_refusal = answer.type == answer_type(command.__contract__, "refused")
        raise Refused(reason) if is_refusal else Superseded(reason)

    async def refusal(self, command: Command[Any], *, saga: str = SAGA, attempt: int = 1) -> str:
        """Deliver a command that the business must refuse.

        Args:
            command: the command.
            saga: who asks, as `type/id`.
            attempt: which of the coordinator's commands for this step it is.

        Returns:
            The reason of the refusal.

        Raises:
            AssertionError: it was carried out.
        """
        try:
            reply = await self.do(command, saga=saga, attempt=attempt)
        except Refused as refusal:
            return refusal.reason
        raise AssertionError(f"{self.name} was to refuse {command!r}, and answered {reply!r}.")

    async def undo(self, compensation: Compensation[Any], *, saga: str = SAGA, attempt: int = 1) -> bool:
        """Deliver a compensation.

        Args:
            compensation: the compensation.
            saga: who asks, as `type/id`.
            attempt: how often it was sent.

        Returns:
            Whether there was, or had been, an effect to take back.

        Raises:
            Exception: whatever the handler raised; nothing of it is in the database.
        """
        handler = self.participant.compensations[compensation.__contract__.type]
        address = self._address(compensation.__undoes__, "undo", saga, attempt)
        answer = await self._answer(UndoProcedure(handler, address, through_the_wire(compensation)), address)
        return unpack_raw(answer.data, Undone).found

    async def settle(self, command: type[Command[R]], *, saga: str = SAGA) -> R | None:
        """Ask what became of a command, as a coordinator asks about a pivot whose answer did not come.

        Args:
            command: the class of the command.
            saga: who asks, as `type/id`.

        Returns:
            The event it was answered with; None if it did not happen, and then it never will.
        """
        handler = self.participant.settlements[settle_type(command.__contract__)]
        address = self._address(command, "undo", saga, 1)
        answer = await self._answer(SettleProcedure(handler, address), address)
        settled = unpack_raw(answer.data, Settled)
        return cast(R, unpack_raw(settled.reply, command.__reply__)) if settled.happened else None

    async def react(self, event: Event, *, saga: str = SAGA, step: str = "") -> Event | None:
        """Let the participant hear an event; the same once more is a redelivery.

        Args:
            event: the event, whoever owns it.
            saga: in which saga, as `type/id`.
            step: the step at which its owner published it, where a saga has several events like it.

        Returns:
            The event that is published, which may be the one that stands for a refusal; None where nothing is.

        Raises:
            LookupError: the participant does not react to such events of such sagas.
            Exception: whatever the function raised; nothing of it is in the database.
        """
        contract, key = event.__contract__, SagaKey.of(*saga.split("/"))
        try:
            where = self._heard_at(key, contract, step)
            route = Routing(self.name, self.participant.reactions).find(where, contract.type)
        except Unheard:
            route = None
        if route is None:
            raise LookupError(f"{self.name} does not react to {contract.type} of saga type {key.type}.")
        address = CommandAddress(key, self.name, route.row, "undo" if route.reaction.undoes else "do", 1)
        answer = await self._answer(procedure_of(route, address, through_the_wire(event)), address)
        shapes = {each.__contract__.type: each for each in route.reaction.outcomes}
        return unpack_raw(answer.data, shapes[answer.type]) if answer.type else None

    def _heard_at(self, key: SagaKey, contract: Contract, step: str) -> FactAddress:
        """Where the event is stored: of a client, as what the participant hears it; else at a step, whoever asked."""
        if contract.owner != CLIENT:
            return FactAddress(key, contract.owner, contract.token, step or "said")
        is_signal = any(each.is_signal and each.event.__contract__ == contract for each in self.participant.reactions)
        return FactAddress(key, CLIENT, "signal", contract.token) if is_signal else FactAddress(key, CLIENT, "start")

    def _address(self, command: type[Command[Any]], direction: Direction, saga: str, attempt: int) -> CommandAddress:
        # The step is called after the command, so that a command and its compensation meet in one row of the inbox.
        key = SagaKey.of(*saga.split("/"))
        return CommandAddress(key, self.name, command.__contract__.token, direction, attempt)

    async def _answer(self, procedure: Procedure, address: CommandAddress) -> Answer:
        execution = Execution(address, procedure, Retry(), message=f"attempt {address.attempt}", deliveries=1)
        return await self._performing.perform(execution, partial(self._require_fitting, address))

    def _require_fitting(self, address: CommandAddress, answer: Answer) -> None:
        """Refuse what a worker refuses. Nothing is sent, so nothing else is made ready to be sent."""
        token = dashed(name_of(answer.type))
        if token:
            subject = event_subject(address.saga.path, self.name, token, address.step, address.attempt)
            now, data = datetime.now(UTC), msgspec.Raw(answer.data)
            fitting(Envelope(id=subject, source=self.name, type=answer.type, time=now, data=data), address.direction)

    # --- what became of it --------------------------------------------------------------------------------------------

    async def execute(self, statement: Executable) -> list[tuple[Any, ...]]:
        """Run a SQLAlchemy statement in the participant's database, in a transaction of its own.

        Returns:
            The rows; none for a statement that returns none.

        Raises:
            LookupError: the database is in memory; look at `effects`.
        """
        address = CommandAddress(SagaKey.of("test", "look"), self.name, "look", "do", 1)
        async with self.database.begin(address) as inbox:
            result = await inbox.transaction.execute(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

    @property
    def effects(self) -> list[object]:
        """What handlers added to `MemoryTransaction.effects` and was committed.

        Raises:
            LookupError: the database is not in memory; look with `execute`.
        """
        if not isinstance(self.database, MemoryDatabase):
            raise LookupError("effects are a list only in a database in memory; look into this one with `execute`.")
        return self.database.effects

    # --- as a part of a rehearsal -------------------------------------------------------------------------------------

    async def begin(self, link: Stage) -> Worker:
        """Begin to work on the commands that a link delivers, as a process of the participant would.

        Args:
            link: a link in memory, with all that a worker uses of a link.

        Returns:
            The worker, which has begun to pull.
        """
        database = Mortal(self.database, link)
        worker = Worker(
            self.participant,
            cast(Link, link),
            database,
            error_texts=True,
            telling=self._telling,
            chance=lambda: 0.5,
        )
        await worker.start()
        return worker


class Stage(Protocol):
    """A link in memory, which may have the process behind it die."""

    def reached(self, point: str) -> None:
        """Die here, if that was asked for: raise, and let nothing pass any more."""


class Mortal:
    """A database whose process may die right before or after a commit."""

    def __init__(self, database: Database, stage: Stage) -> None:
        self._database, self._stage = database, stage
        self.shares, self.lasts, self.number = database.shares, database.lasts, database.number

    async def open(self, tables: MetaData | None = None) -> None:
        """It is open."""

    def begin(self, address: CommandAddress, manner: Manner = "shared") -> AbstractAsyncContextManager[Inbox]:
        """A transaction for one command."""
        return self._begin(address, manner)

    @asynccontextmanager
    async def _begin(self, address: CommandAddress, manner: Manner) -> AsyncGenerator[Inbox]:
        async with self._database.begin(address, manner) as inbox:
            yield MortalInbox(inbox, self._stage)
        self._stage.reached("after commit")

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries; a process that died adds nothing."""
        self._stage.reached("note")
        return await self._database.note(message, more)

    async def end_runs(self, instance: str) -> None:
        """Note that the runs have ended that a process had begun."""
        await self._database.end_runs(instance)

    async def close(self) -> None:
        """It stays open."""


class MortalInbox:
    """The inbox within one transaction of a `Mortal` database."""

    def __init__(self, inbox: Inbox, stage: Stage) -> None:
        self._inbox, self._stage = inbox, stage

    @property
    def transaction(self) -> Transaction:
        """What the handler is given."""
        return self._inbox.transaction

    async def claim(self) -> Row | None:
        """Lock the row until the transaction ends, and read it."""
        return await self._inbox.claim()

    async def leave(self) -> None:
        """Leave no row where `claim` found none."""
        await self._inbox.leave()

    async def settle(self, row: Row) -> None:
        """Write the row."""
        await self._inbox.settle(row)
        self._stage.reached("before commit")

    async def spent(self, message: str) -> Spent:
        """The counts of a message's deliveries."""
        return await self._inbox.spent(message)

    async def note(self, message: str, more: Spent) -> Spent:
        """Add to the counts of a message's deliveries, in this transaction."""
        return await self._inbox.note(message, more)
