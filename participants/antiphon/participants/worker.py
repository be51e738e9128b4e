"""The worker: pull a command, carry it out once, store its answer, ack; in this order, so that a crash repeats a step
rather than losing one.

Nothing is acked before its answer is stored, and nothing is answered before its effect is. In between lies the inbox: a
command that comes again finds there what was done and is answered with the same bytes.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final, assert_never

import msgspec
import structlog

from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack_raw
from antiphon.contracts.errors import Forged, Refused, TooLarge, Unavailable, UnknownType, Unusable
from antiphon.contracts.killpoints import reached
from antiphon.contracts.messages import AnswerKind, Contract, Refusal, Undone, answer_type
from antiphon.contracts.parked import Parked, parked_kind
from antiphon.contracts.retry import parse_retry
from antiphon.contracts.topology import PARTICIPANT_ACK_WAIT_SECONDS, SAGA, participant_consumer_name
from antiphon.contracts.wire import CommandAddress, Direction, dashed, event_subject, parse_command
from antiphon.link import AlreadyStored, Delivery, Link, Outcome, Pull
from antiphon.link.link import missing

from .databases import Database, Inbox, open_database
from .inbox import (
    AlreadyUndone,
    Answer,
    NothingToUndo,
    Row,
    RunCompensation,
    RunHandler,
    SendAgain,
    Superseded,
    decide,
)
from .participant import CommandHandler, CompensationHandler, Participant
from .transaction import Busy

log = structlog.get_logger()

CONCURRENCY: Final = 32
"""Commands one worker holds at once, and as many compensations."""

LEASE_SECONDS: Final = PARTICIPANT_ACK_WAIT_SECONDS / 3
"""How often the worker says that it still works on what it holds."""

GRACE_SECONDS: Final = 10.0
"""How long a drain waits for handlers before it hands back what they hold."""

HAND_BACK_SECONDS: Final = 1.0
"""How soon a command comes again whose answer could not be stored, or whose database was busy."""

ATTACH_SECONDS: Final = 0.5
"""How long a worker listens for a refusal of its first pulls."""


class Exhausted(Exception):
    """No attempt is left."""


class Worker:
    """One process's share of a participant's commands.

    Args:
        participant: what it handles.
        link: its connection.
        database: where its inbox and its effects are.
        concurrency: how many commands, and how many compensations, it holds at once.
        chance: a source of numbers in [0, 1) for the jitter of retries.
    """

    def __init__(
        self,
        participant: Participant,
        link: Link,
        database: Database,
        *,
        concurrency: int = CONCURRENCY,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._participant, self._link, self._database = participant, link, database
        self._concurrency, self._chance = concurrency, chance
        self._loop = asyncio.get_running_loop()
        self._pulls: list[Pull] = []
        self._held: dict[Delivery, asyncio.Task[None]] = {}
        self._limits = {
            type_: asyncio.Semaphore(handler.concurrency)
            for type_, handler in participant.handlers.items()
            if handler.concurrency is not None
        }

    async def start(self) -> None:
        """Begin to pull. Compensations have a pull of their own, so that commands never wait behind them.

        Raises:
            StreamMissing: there is no consumer for this participant; the sentence has the command that creates it.
        """
        directions: tuple[Direction, ...] = ("undo", "do")
        for direction in directions:
            consumer = participant_consumer_name(self._participant.name, direction)
            self._pulls.append(await self._link.pull(SAGA, consumer, self._concurrency, self._take))
        await asyncio.sleep(ATTACH_SECONDS)
        for pull in self._pulls:
            if pull.refused:
                raise missing(SAGA, pull.consumer)
        self._loop.call_later(LEASE_SECONDS, self._keep_leases)

    async def drain(self) -> None:
        """Take nothing new, let handlers finish, and hand back what they cannot finish in time."""
        for pull in self._pulls:
            pull.stop()
        if self._held:
            await asyncio.wait(list(self._held.values()), timeout=GRACE_SECONDS)
        for task in list(self._held.values()):
            task.cancel()
        await asyncio.gather(*self._held.values(), return_exceptions=True)
        end = self._loop.time() + HAND_BACK_SECONDS
        while any(pull.held for pull in self._pulls) and self._loop.time() < end:
            await asyncio.sleep(0.01)

    def _take(self, delivery: Delivery) -> None:
        task = self._loop.create_task(self._work(delivery))
        self._held[delivery] = task
        task.add_done_callback(lambda _: self._held.pop(delivery, None))

    def _keep_leases(self) -> None:
        """Extend what is held. Once a third of the ack wait, for all at once: most commands never see it."""
        for delivery in self._held:
            delivery.in_progress()
        self._loop.call_later(LEASE_SECONDS, self._keep_leases)

    # --- one command --------------------------------------------------------------------------------------------------

    async def _work(self, delivery: Delivery) -> None:
        """Carry one delivery to its end, whatever happens."""
        reached("worker.pulled")
        try:
            call = self._read(delivery)
        except Unusable as error:
            self._set_aside(delivery, error)
            return
        try:
            await self._carry_out(call)
        except asyncio.CancelledError:
            await self._hand_back_uncounted(delivery, 0.0)
        except Busy as error:
            log.warning("command.database_busy", error=str(error), **call.facts)
            await self._hand_back_uncounted(delivery, HAND_BACK_SECONDS)
        except Exception as error:  # a defect of ours: the command comes again
            log.error("command.faulty", error=repr(error), exc_info=error, **call.facts)
            delivery.hand_back(HAND_BACK_SECONDS)

    def _read(self, delivery: Delivery) -> _Call:
        """Decode a command.

        Raises:
            Unusable: it is none that this participant can carry out.
        """
        address = parse_command(delivery.subject)
        envelope = decode(delivery.data, delivery.subject)
        if envelope.id != delivery.subject:
            raise Forged(f"the envelope says {envelope.id[:200]!r}", subject=delivery.subject)
        handler: CommandHandler | CompensationHandler | None
        shape: Any = None
        if address.direction == "do":
            if (handler := self._participant.handlers.get(envelope.type)) is not None:
                shape = handler.command
        elif (handler := self._participant.compensations.get(envelope.type)) is not None:
            shape = handler.compensation
        if handler is None:
            raise UnknownType(
                f"{self._participant.name} has no handler to {address.direction} {envelope.type!r}; deploy one",
                subject=delivery.subject,
            )
        return _Call(delivery, address, envelope, handler, unpack_raw(envelope.data, shape, delivery.subject))

    async def _carry_out(self, call: _Call) -> None:
        """Run the transaction, and decide by how it ended what the saga is told."""
        limit = self._limits.get(call.envelope.type)
        try:
            if limit is None:
                event = await self._in_transaction(call)
            else:
                async with limit:
                    event = await self._in_transaction(call)
        except Refused as error:
            if call.address.direction == "undo":
                # A compensation cannot be refused for good, or the saga could never end.
                await self._failed(call, Unavailable(f"refused: {error.reason}"))
                return
            event = await self._store_refusal(call, error)
        except TooLarge as error:
            event = call.plain("exhausted", Refusal(reason=f"the answer is too large: {error.reason}"))
        except Exhausted as error:
            event = call.plain("exhausted", Refusal(reason=str(error)))
        except Busy:
            raise
        except Exception as error:
            await self._failed(call, error)
            return
        reached("worker.committed")
        self._answer(call.delivery, event)

    async def _in_transaction(self, call: _Call) -> Event:
        """Claim the row, do what the inbox says, and have the answer encoded before anything is committed."""
        async with self._database.begin(call.address) as inbox:
            row = await inbox.claim()
            event = await self._do(call, inbox, row)
            reached("worker.in_transaction")
        return event

    async def _do(self, call: _Call, inbox: Inbox, row: Row | None) -> Event:
        decision = decide(row, call.address.direction, call.address.attempt)
        match decision:
            case RunHandler():
                await self._count_attempt(call, inbox)
                assert isinstance(call.handler, CommandHandler)
                reply = await call.handler.call(call.command, inbox.transaction)
                answer = Answer(call.handler.reply.__contract__.type, bytes(pack(reply)))
                event = call.event(answer)
                await inbox.settle(Row("done", call.address.attempt, answer))
                return event
            case RunCompensation(answer=answer):
                await self._count_attempt(call, inbox)
                assert isinstance(call.handler, CompensationHandler)
                earned = unpack_raw(answer.data, call.handler.reply)
                await call.handler.call(call.command, earned, inbox.transaction)
                await inbox.settle(Row("undone", row.attempt if row else 0, answer))
                return call.plain("done", Undone(found=True))
            case NothingToUndo(attempt=attempt):
                await inbox.settle(Row("void", attempt))
                return call.plain("done", Undone(found=False))
            case AlreadyUndone(found=found):
                return call.plain("done", Undone(found=found))
            case SendAgain(answer=answer):
                return call.event(answer)
            case Superseded(reason=reason):
                return call.plain("superseded", Refusal(reason=reason))
            case _:
                assert_never(decision)

    async def _store_refusal(self, call: _Call, error: Refused) -> Event:
        """Everything the handler wrote is rolled back by now; keep the refusal, if nothing else came in between."""
        async with self._database.begin(call.address) as inbox:
            row = await inbox.claim()
            decision = decide(row, "do", call.address.attempt)
            if isinstance(decision, RunHandler):
                answer = Answer(answer_type(call.contract, "refused"), bytes(pack(Refusal(reason=error.reason))))
                event = call.event(answer)
                await inbox.settle(Row("refused", call.address.attempt, answer))
                return event
            return await self._do(call, inbox, row)

    # --- attempts -----------------------------------------------------------------------------------------------------

    async def _count_attempt(self, call: _Call, inbox: Inbox) -> None:
        """Count before the handler is called, so that a command which kills its workers runs out of attempts too.

        Raises:
            Exhausted: none is left.
        """
        delivery = call.delivery
        if delivery.deliveries == 1:
            return
        call.attempt = delivery.deliveries - await inbox.handed_back(delivery.sequence)
        attempts_max = parse_retry(call.envelope.retry).attempts
        if call.attempt > attempts_max:
            raise Exhausted(f"all {attempts_max} attempts began and none came to an end")

    async def _failed(self, call: _Call, error: Exception) -> None:
        """Try again after a while, or say that no attempt is left."""
        retry = parse_retry(call.envelope.retry)
        reason = error.reason if isinstance(error, Unavailable) else repr(error)
        log.warning("command.failed", error=reason, try_number=call.attempt, of=retry.attempts, **call.facts)
        if call.attempt >= retry.attempts:
            self._answer(call.delivery, call.plain("exhausted", Refusal(reason=reason)))
            return
        wait = retry.wait_seconds(call.attempt, self._chance())
        at_least = error.retry_after if isinstance(error, Unavailable) and error.retry_after else 0.0
        call.delivery.hand_back(max(wait, at_least))

    async def _hand_back_uncounted(self, delivery: Delivery, delay_seconds: float) -> None:
        """Hand back what was no attempt; the inbox remembers it, because the server counts every delivery."""
        try:
            await self._database.count_handed_back(delivery.sequence)
        except Exception as error:
            log.warning("command.hand_back_not_counted", error=repr(error), subject=delivery.subject)
        delivery.hand_back(delay_seconds)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, delivery: Delivery, event: Event) -> None:
        """Store the event, then ack the command."""

        def settle(outcome: Outcome) -> None:
            if isinstance(outcome, int | AlreadyStored):
                reached("worker.event_stored")
                delivery.ack()
            else:
                log.warning("event.not_stored", error=str(outcome), subject=event.subject)
                delivery.hand_back(HAND_BACK_SECONDS)

        self._link.publish(event.subject, event.data, "", settle)

    def _set_aside(self, delivery: Delivery, error: Unusable) -> None:
        """Park a command nobody can carry out, and tell its saga, which must not wait for it for ever."""
        log.error("command.parked", error=str(error), subject=delivery.subject)
        parked = Parked(
            kind=parked_kind(error),
            reason=str(error),
            noticed_by=self._participant.name,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            data=delivery.data,
        )

        def settle(outcome: Outcome) -> None:
            if isinstance(outcome, int):
                self._answer_unusable(delivery, error)
            else:
                delivery.hand_back(HAND_BACK_SECONDS)

        self._link.publish(parked.destination, parked.encode(), "", settle)

    def _answer_unusable(self, delivery: Delivery, error: Unusable) -> None:
        try:
            address = parse_command(delivery.subject)
            contract = self._contract_of(decode(delivery.data, delivery.subject).type)
        except Unusable:
            delivery.end(error.reason)
            return
        kind = answer_type(contract, "exhausted")
        answer = Answer(kind, bytes(pack(Refusal(reason=error.reason))))
        self._answer(delivery, _event(delivery, address, answer, None, ""))

    def _contract_of(self, type_: str) -> Contract:
        """The contract a type claims, known to this participant or not: its saga knows it."""
        name, _, version = type_.rpartition(".v")
        if not name or not version.isdigit():
            raise UnknownType(f"{type_!r} is not a versioned type")
        return Contract(name, int(version), self._participant.name)


class Event(msgspec.Struct, frozen=True):
    """An answer, encoded."""

    subject: str
    data: bytes


class _Call:
    """A decoded command on its way through the worker."""

    __slots__ = ("address", "attempt", "command", "delivery", "envelope", "handler", "started")

    def __init__(
        self,
        delivery: Delivery,
        address: CommandAddress,
        envelope: Envelope,
        handler: CommandHandler | CompensationHandler,
        command: Any,
    ) -> None:
        self.delivery, self.address, self.envelope = delivery, address, envelope
        self.handler, self.command = handler, command
        self.attempt = 1
        self.started = _now()

    @property
    def contract(self) -> Contract:
        """The contract of the command or compensation."""
        found: Contract = type(self.command).__contract__
        return found

    @property
    def facts(self) -> dict[str, object]:
        """What every log line about it says."""
        return {"saga": str(self.address.saga), "step": self.address.step, "direction": self.address.direction}

    def event(self, answer: Answer) -> Event:
        """The event that carries an answer.

        Raises:
            TooLarge: it is larger than the protocol allows.
        """
        return _event(self.delivery, self.address, answer, self.started, self.envelope.traceparent)

    def plain(self, kind: AnswerKind, payload: Refusal | Undone) -> Event:
        """The event of an answer that has no class of its own."""
        return self.event(Answer(answer_type(self.contract, kind), bytes(pack(payload))))


def _event(
    delivery: Delivery, address: CommandAddress, answer: Answer, started: datetime | None, traceparent: str
) -> Event:
    token = dashed(answer.type.rpartition(".v")[0])
    subject = event_subject(address.saga.path, address.participant, token, address.step, address.attempt)
    envelope = Envelope(
        id=subject,
        source=address.participant,
        type=answer.type,
        time=_now(),
        data=msgspec.Raw(answer.data),
        command=str(delivery.sequence),
        started=started,
        traceparent=traceparent,
    )
    return Event(subject, encode(envelope))


def _now() -> datetime:
    return datetime.now(timezone.utc)


async def serve(
    participant: Participant,
    servers: str | list[str],
    database_url: str,
    *,
    concurrency: int = CONCURRENCY,
    name: str | None = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain it.

    Args:
        participant: what it handles.
        servers: URLs of NATS servers.
        database_url: `sqlite:///file`, `postgresql://...` or `memory:`.
        concurrency: how many commands, and how many compensations, it holds at once.
        name: the connection's name; the participant's if left out.

    Raises:
        PlatformError: server, streams, rights or database are not as they must be; the sentence has the remedy.
    """
    database = open_database(database_url)
    await database.open(participant.tables)
    link = await Link.connect(servers, name=name or participant.name)
    try:
        worker = Worker(participant, link, database, concurrency=concurrency)
        told = _signals()
        await worker.start()
        log.info("participant.ready", participant=participant.name, commands=sorted(participant.handlers))
        waiting = asyncio.ensure_future(told.wait())
        await asyncio.wait({waiting, link.failure}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if link.failure.done():
            raise link.failure.result()
        await worker.drain()
        log.info("participant.drained", participant=participant.name)
    finally:
        await link.close()
        await database.close()


def _signals() -> asyncio.Event:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told
