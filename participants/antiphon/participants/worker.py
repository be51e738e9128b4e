"""The loop of a participant: pull a command or an event, perform it, store what comes of it, and only then ack.

Whatever goes wrong on the way leaves the message unacked, so that it comes again, and the inbox makes that harmless.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec
import structlog

from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, Envelope, decode, encode, unpack_raw
from antiphon.contracts.errors import (
    Ambiguous,
    Conflict,
    Forged,
    Refused,
    TooLarge,
    Unavailable,
    Undecodable,
    Unrecoverable,
    Unusable,
    WrongShape,
)
from antiphon.contracts.headers import traceparent_header
from antiphon.contracts.identity import dashed
from antiphon.contracts.messages import Contract
from antiphon.contracts.payloads import WITHDRAWN, Parked, ParkedKind, parked_kind
from antiphon.contracts.reader import CommandKind, answer_kind, name_of
from antiphon.contracts.retry import parse_retry
from antiphon.contracts.subjects import CommandAddress, Direction, event_subject, parse_command, parse_fact
from antiphon.contracts.topology import (
    EVENTS,
    PARTICIPANT_ACK_WAIT_SECONDS,
    SAGA,
    participant_consumer_name,
    reactions_consumer_name,
)
from antiphon.link import AlreadyStored, Delivery, Link, Outcome, Pull, Rejected, killpoints
from antiphon.tracing.telemetry import context
from antiphon.tracing.telemetry.counts import Counts

from .calling import END_SECONDS, Call, Raised, tame
from .databases import Busy, Database
from .inbox import Answer, Spent
from .participant import AnyHandler, CommandHandler, Participant
from .perform import AlreadyDone, Asked, Exhausted, Resting, Suspect, negative, perform
from .reaction import REACTION_RETRY
from .reasons import OwnWords, is_said_on_purpose, reason_of
from .routing import Route, Routing, Unheard

CONCURRENCY: Final = 16
"""How many commands a worker performs at once, unless told otherwise."""
ANSWER_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 512
"""How large an answer to a command may be: a little below the limit, so that it still fits when a later attempt, with
longer numbers, gets it again, or when a settlement carries it."""
BUSY_SECONDS: Final = 1.0
"""How long a command rests on average after the database could not be had, or its answer was rejected."""
PUBLISH_TRIES_MAX: Final = 10
PUBLISH_AGAIN_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 10.0
"""How long running handlers may go on after SIGTERM; below the 30 s after which container platforms kill."""
CANCEL_SECONDS: Final = END_SECONDS + 2.0
"""How long those that were cancelled then may take: to end, and to have it noted."""
WAIT_SECONDS_MAX: Final = 366 * 86400.0
"""The longest time that a handler may ask for before its next attempt."""
HANDLER_SECONDS_MAX: Final = 600.0
"""How long a handler may run. One that never returned would hold its row, and all who ask about it, for ever."""
TURN_SECONDS: Final = 1.0
"""How long a command rests on average that has to be performed alone while another one is."""
ELSEWHERE_SECONDS: Final = 0.2
"""How long a command rests that arrives during a drain, lest it come straight back while our requests still stand."""

log = structlog.get_logger()


class NoHandler(OwnWords):
    """Nobody in this worker knows the type of a command. Another version of the participant may."""


class NotForUs(Exception):
    """An event was delivered that no version of this participant reacts to."""


class Overdue(OwnWords):
    """A handler ran for longer than handlers may, and was cancelled."""


class NotItsTurn(Exception):
    """The command is to be performed alone, and another one is just now."""


class Held:
    """A command or event this worker has: from its delivery until it is acked, handed back or ended."""

    __slots__ = (
        "address",
        "answer_type",
        "asked",
        "data",
        "delivery",
        "end_reason",
        "is_leaving",
        "is_overdue",
        "overdue",
        "publishes",
        "step",
        "subject",
        "task",
        "ticks",
        "traceparent",
        "type",
    )

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.task: asyncio.Task[None] | None = None
        self.address: CommandAddress | None = None
        """The row of the inbox."""
        self.step = ""
        """What the subject of the answer names."""
        self.asked: Asked | None = None
        self.type = self.traceparent = self.answer_type = ""
        self.subject, self.data = "", b""
        """The event, once it is sealed."""
        self.publishes = 0
        self.ticks = 0
        """How many turns of the lease timer it has seen."""
        self.is_overdue = False
        """Whether its task was cancelled because it had been held for too long."""
        self.overdue = ""
        """Where its handler stood then; empty if no handler was at work."""
        self.is_leaving = False
        """Whether its task was cancelled because this worker ends, which is no fault of the command."""
        self.end_reason = ""
        """Why the command must not be delivered again although it was not performed."""

    @property
    def is_event(self) -> bool:
        """Whether nobody asked for it."""
        return self.delivery.stream == EVENTS

    @property
    def number(self) -> int:
        """Under which number it is noted what became of its deliveries: the two streams count alike."""
        return -self.delivery.sequence if self.is_event else self.delivery.sequence


class Worker:
    """Performs the commands of one participant, and reacts to events as it does.

    Args:
        participant: the handlers.
        link: a connection that may pull the participant's commands and store its events.
        database: where its inbox is, opened.
        concurrency: how many commands are held at once; no more than that are ever fetched.
        undo_concurrency: the same for compensations, which have places of their own so that those which keep failing
            leave the commands alone; half as many when left out.
        reaction_concurrency: the same for events, if the participant reacts to any; as many as commands when left out.
        ack_wait_seconds: what the consumers are configured with; the lease is extended at a third of it.
        handler_seconds: how long a command may be held; then its handler is cancelled, which is a failed attempt.
        error_texts: whether the texts of handlers' errors travel, into journals and traces; else only their classes.
        chance: draws from [0, 1), for the jitter of delays.
    """

    def __init__(
        self,
        participant: Participant,
        link: Link,
        database: Database,
        *,
        concurrency: int = CONCURRENCY,
        undo_concurrency: int | None = None,
        reaction_concurrency: int | None = None,
        ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS,
        handler_seconds: float = HANDLER_SECONDS_MAX,
        error_texts: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._participant, self._link, self._database = participant, link, database
        self.counts = Counts()
        name = participant.name
        self._places = [
            (SAGA, participant_consumer_name(name, "do"), concurrency),
            (SAGA, participant_consumer_name(name, "undo"), undo_concurrency or undo_places(concurrency)),
        ]
        if participant.reactions:
            self._places.append((EVENTS, reactions_consumer_name(name), reaction_concurrency or concurrency))
        self._hearing = Routing(name, participant.reactions)
        self._lease_seconds, self._handler_seconds = ack_wait_seconds / 3, handler_seconds
        self._chance, self._error_texts = chance, error_texts
        self._loop = asyncio.get_running_loop()
        tame(self._loop)
        self._limits = {
            kind: asyncio.Semaphore(handler.concurrency)
            for kind, handler in participant.handlers.items()
            if handler.concurrency is not None
        }
        self._held: set[Held] = set()
        self._deaf: set[asyncio.Task[Any]] = set()
        """Handlers that go on although they were cancelled and their deliveries are settled."""
        self._alone: Held | None = None
        """What is performed alone just now."""
        self._unnoted: dict[int, Spent] = {}
        """What the database could not be told yet, by the numbers of what was delivered."""
        self._rested = set[int]()
        """What used to kill its worker and was laid to rest by this one: it may be called when it comes back."""
        self._lease: asyncio.TimerHandle | None = None
        self._draining = False
        self._idle = asyncio.Event()
        self.pulls: list[Pull] = []

    async def start(self) -> None:
        """Begin to pull."""
        self._lease = self._loop.call_later(self._lease_seconds, self._extend_leases)
        for stream, consumer, places in self._places:
            self.pulls.append(await self._link.pull(stream, consumer, places, self._take))

    async def drain(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Take nothing more, let what is running end within the grace, and hand the rest back, which is no attempt."""
        self._draining = True
        await asyncio.gather(*(pull.drain() for pull in self.pulls))
        if not await self._is_idle(grace_seconds):
            for held in self._held:
                if held.task is not None:
                    held.is_leaving = True
                    held.task.cancel()
            await self._is_idle(CANCEL_SECONDS)
        if self._lease is not None:
            self._lease.cancel()
        self._link.flush()
        log.info("participant.drained", participant=self._participant.name, left=len(self._held) + len(self._deaf))

    @property
    def held(self) -> int:
        """How many commands this worker has."""
        return len(self._held)

    @property
    def deaf(self) -> int:
        """How many handlers go on although they were cancelled."""
        return len(self._deaf)

    # --- one command --------------------------------------------------------------------------------------------------

    def _take(self, delivery: Delivery) -> None:
        killpoints.reached("worker.pulled")
        if delivery.deliveries > 1:
            self.counts.add("redeliveries", self._participant.name)
        held = Held(delivery)
        self._held.add(held)
        work = self._hand_back(held, ELSEWHERE_SECONDS) if self._draining else self._work(held)
        held.task = self._loop.create_task(work)

    async def _work(self, held: Held) -> None:
        """Bring one command to an end: its event is on its way, or it is handed back, or set aside."""
        try:
            await self._attempt(held)
        except asyncio.CancelledError:
            if held.is_leaving:
                await self._hand_back(held, 0.0)
            else:  # the loop ends, and an author's code may have ended it: that this delivery was lost may be its fault
                held.delivery.drop()
                self._forget(held)
        # A mistake in this file must not keep a command for ever: its lease would be extended with those of the others.
        # And SystemExit, whoever raises it, would go through asyncio and end the process.
        except BaseException as error:
            self._log("worker.faulted", held, exc_info=error)
            self._let_go(held)
        finally:
            if held.asked is not None and held.asked.call.goes_on:
                self._leave_behind(held, held.asked.call)

    async def _attempt(self, held: Held) -> None:
        try:
            asked, handler = self._read_event(held) if held.is_event else self._read(held)
        except NotForUs:
            self._settle(held)
            return
        except BaseException as error:
            await self._set_aside(held, self._unusable(held, error))
            return
        try:
            if self._unnoted:
                await self._note_what_is_left()
            try:
                await self._perform(held, asked, handler)
            except Suspect:
                await self._perform_alone(held, asked, handler)
            if held.is_event and held.delivery.deliveries > 1 and not await self._is_nobody_called(held, asked):
                return
        except BaseException as error:
            await self._end_without_answer(held, asked, error)
        else:
            self._publish(held) if held.subject else self._settle(held)

    async def _end_without_answer(self, held: Held, asked: Asked, raised: BaseException) -> None:
        """Whatever came in the way of an answer: say whether that was an attempt, and when the next one is.

        Our own cancels are known by what we noted of them. That a task was cancelled says nothing: a handler's time-out
        may have cancelled its own.
        """
        if held.is_leaving:
            raise asyncio.CancelledError from raised  # the process ends; that is no fault of this command
        if isinstance(raised, asyncio.CancelledError) and not held.is_overdue:
            raise raised  # by the end of the loop: a handler's own cancels come as `Raised`
        match self._meaning(held, raised):
            case Busy() as error:
                self._log("database.busy", held, reason=str(error))
                await self._hand_back(held, self._jittered(BUSY_SECONDS))
            case NotItsTurn():
                await self._hand_back(held, self._jittered(TURN_SECONDS))
            case Resting() as error:
                await self._lay_to_rest(held, asked, str(error))
            case AlreadyDone() as error:
                await self._park_and_end(held, str(error))
            case error:
                await self._fail(held, asked, error)

    def _meaning(self, held: Held, raised: BaseException) -> BaseException:
        """What is to be said of what was raised."""
        is_verdict = isinstance(raised, Refused | Unavailable | Unrecoverable)
        if held.overdue and not is_verdict:
            goes_on = held.asked is not None and held.asked.call.goes_on
            return Overdue(held.overdue + (", and it goes on although it was cancelled" if goes_on else ""))
        if held.is_overdue and not is_verdict:
            return Busy(f"after {self._handler_seconds:g} s its turn had not come, or its commit had not ended")
        return raised.error if isinstance(raised, Raised) else raised

    def _unusable(self, held: Held, error: BaseException) -> Unusable:
        """What keeps a message from being read. An author's class may raise anything where it is made."""
        if isinstance(error, Unusable):
            return error
        self._log("message.faulted", held, exc_info=error)
        return WrongShape(f"{held.type}: {reason_of(error, self._error_texts)}", subject=held.delivery.subject)

    def _leave_behind(self, held: Held, call: Call) -> None:
        """Go on without a handler that does not end. It can reach nothing of ours: its transaction is rolled back."""
        assert call.task is not None
        self._deaf.add(call.task)
        call.task.add_done_callback(self._on_deaf_end)
        self._log("handler.deaf", held, stack=call.stack())

    def _on_deaf_end(self, task: asyncio.Task[Any]) -> None:
        self._deaf.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, lest asyncio complain that nobody did

    def _read(self, held: Held) -> tuple[Asked, AnyHandler | None]:
        """Read a command and find its handler.

        Raises:
            Unusable: no worker can use it.
        """
        delivery = held.delivery
        address = held.address = parse_command(delivery.subject)
        held.step = address.step
        envelope = self._open(held)
        handler = self._participant.handler(address.direction, envelope.type)
        payload = unpack_raw(envelope.data, handler.shape, delivery.subject) if handler else None
        retry, retriable = _retry(envelope.retry), envelope.retriable
        held.asked = Asked(address, payload, retry, held.number, delivery.deliveries, retriable)
        return held.asked, handler

    def _read_event(self, held: Held) -> tuple[Asked, Route | None]:
        """Read an event and find the reaction to it.

        Raises:
            NotForUs: there is none, and never was.
            Unusable: no worker can use it.
        """
        delivery = held.delivery
        where = parse_fact(delivery.subject)
        envelope = self._open(held)
        if envelope.source != where.source:
            raise Forged(f"the envelope's source is {envelope.source[:80]!r}", subject=delivery.subject)
        try:
            heard = self._hearing.find(where, envelope.type)
        except Unheard:
            held.address = CommandAddress(where.saga, self._participant.name, where.step, "do", 1)
            held.asked = Asked(held.address, None, REACTION_RETRY, held.number, delivery.deliveries)
            return held.asked, None
        if heard is None:
            raise NotForUs
        reaction = heard.reaction
        payload = unpack_raw(envelope.data, reaction.event, delivery.subject)
        direction: Direction = "undo" if reaction.undoes else "do"
        held.address = CommandAddress(where.saga, self._participant.name, heard.row, direction, 1)
        held.step = heard.step
        held.asked = Asked(held.address, payload, reaction.retry, held.number, delivery.deliveries, heard=heard)
        held.asked.has_rested = held.number in self._rested
        return held.asked, heard

    def _open(self, held: Held) -> Envelope:
        """The envelope of what was delivered, if it says the same as its subject."""
        delivery = held.delivery
        envelope = decode(delivery.data, delivery.subject)
        if envelope.id != delivery.subject:
            raise Forged(f"the envelope says {envelope.id[:200]!r}", subject=delivery.subject)
        held.type, held.traceparent = envelope.type, envelope.traceparent
        return envelope

    async def _perform_alone(self, held: Held, asked: Asked, handler: AnyHandler | Route | None) -> None:
        """Perform a command that may have killed its worker, one of them at a time.

        That it begins is durable first: if the worker dies now, it is known of which command, and of no other.
        """
        if self._alone is not None:
            raise NotItsTurn
        self._alone = held
        try:
            await self._database.note(asked.sequence, Spent(alone=1))
            asked.is_alone = True
            self._log("command.alone", held, lost=asked.lost)
            await self._perform(held, asked, handler)
        finally:
            self._alone = None

    async def _perform(self, held: Held, asked: Asked, handler: AnyHandler | Route | None) -> None:
        def seal(answer: Answer) -> None:
            self._seal(held, answer, asked)

        context.enter(asked.address, held.traceparent)
        if handler is None:
            raise NoHandler(f"{self._participant.name} has no handler for {held.type}")
        if isinstance(handler, CommandHandler) and handler.concurrency is not None:
            async with self._limits[held.type]:
                await perform(handler, asked, self._database, seal)
        else:
            await perform(handler, asked, self._database, seal)

    # --- when it cannot be performed ----------------------------------------------------------------------------------

    async def _fail(self, held: Held, asked: Asked, error: BaseException) -> None:
        """Try again later, or say that the attempts have run out. A reaction is tried for ever."""
        is_final = isinstance(error, (Exhausted, Unrecoverable))
        failed = asked.retry.attempts if is_final else 1
        # What no attempt will mend may be mended by another version of a participant that reacts, but not soon.
        # What failed has come to an end, so the deliveries lost before were not this command's fault.
        verdict = Spent(failed, asked.lost, -1 if asked.is_alone else 0)
        spent = await self._note(held, verdict)
        tries = spent.attempts if spent else asked.tries or asked.deliveries
        reason = reason_of(error, self._error_texts)
        # One traceback an attempt, found by the saga, the step and the attempt that the journal names.
        trace = {} if is_said_on_purpose(error) else {"exc_info": error}
        if held.is_event:
            if (is_final or tries % asked.retry.attempts == 0) and not await self._park(held, _kind_of(error), reason):
                return
        elif is_final or tries >= asked.retry.attempts:
            self._log("attempts.exhausted", held, reason=reason, tries=tries, **trace)
            if isinstance(error, NoHandler):
                if not await self._park(held, "unhandled", reason):
                    return
                held.end_reason = reason
            self._answer_exhausted(held, held.type, reason)
            return
        self.counts.add("attempts", self._participant.name, _name_in(held.type), "failed")
        delay = asked.retry.wait_seconds(tries, self._chance())
        if isinstance(error, Unavailable):
            delay = max(delay, _seconds_of(error.retry_after))
        self._log("attempt.failed", held, reason=reason, tries=tries, again_in_seconds=round(delay, 3), **trace)
        self._let_go(held, delay)

    async def _set_aside(self, held: Held, error: Unusable) -> None:
        """Park what no worker can use. A command is answered as exhausted, so that its saga does not wait for it.

        What is forged gets no answer: it is nobody's command.
        """
        reason = reason_of(error)
        self._log("command.unusable", held, reason=error.reason)
        if not await self._park(held, parked_kind(error), reason):
            return
        held.end_reason = reason
        if isinstance(error, Undecodable) and not held.is_event:
            self._answer_exhausted(held, held.type or _type_in(held.delivery.data), reason)
        else:
            self._settle(held)

    async def _park_and_end(self, held: Held, reason: str) -> None:
        """Set aside an event to which this participant must not react."""
        self._log("event.unhandled", held, reason=reason)
        if await self._park(held, "unhandled", reason):
            held.end_reason = reason
            self._settle(held)

    async def _lay_to_rest(self, held: Held, asked: Asked, reason: str) -> None:
        """Leave a reaction alone for long that has killed its worker time and again, and have a person know.

        Only a worker that did this itself calls it afterwards: one that dies of it forgets, and the next one begins
        with the rest.
        """
        self._log("reaction.rests", held, reason=reason)
        if await self._park(held, "fault", reason):
            self._rested.add(held.number)
            await self._hand_back(held, asked.retry.cap_seconds)

    async def _is_nobody_called(self, held: Held, asked: Asked) -> bool:
        """Take back that a person was called for a reaction, which is done now; false where that could not be stored.

        Raises:
            Busy: it cannot be found out just now whether one was.
        """
        spent = await self._database.note(held.number, Spent())
        return spent.attempts < asked.retry.attempts or await self._park(held, "fault", WITHDRAWN)

    async def _park(self, held: Held, kind: ParkedKind, reason: str) -> bool:
        """Store it in PARKED, so that a person sees it; where that fails, hand it back and say so."""
        delivery = held.delivery
        parked = Parked(
            kind=kind,
            reason=reason,
            noticed_by=self._participant.name,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            data=delivery.data,
        )
        try:
            await self._link.store(parked.destination, parked.encode())
        except (Conflict, AlreadyStored, Rejected, Ambiguous) as error:
            self._log("parking.failed", held, reason=str(error))
            self._let_go(held)
            return False
        return True

    def _answer_exhausted(self, held: Held, command_type: str, reason: str) -> None:
        contract = _contract_of(command_type)
        if contract is None:
            self._settle(held)
            return
        self._seal(held, negative(contract, "exhausted", reason), held.asked)
        self._publish(held)

    async def _hand_back(self, held: Held, delay_seconds: float) -> None:
        """Have the command delivered again, without counting this delivery as an attempt."""
        is_alone = held.asked is not None and held.asked.is_alone
        await self._note(held, Spent(returned=1, alone=-1 if is_alone else 0))
        if held.asked is not None and held.asked.call.goes_on:
            held.delivery.drop()  # unacked, so that nobody begins while what is left of it may still be at work
            self._forget(held)
        else:
            self._let_go(held, delay_seconds)

    async def _note(self, held: Held, more: Spent) -> Spent | None:
        """Tell the database what became of a delivery; where it cannot be told now, with the next command.

        It is noted before the command is handed back. After a crash in between it seems that the delivery was lost,
        and the command is performed alone, once more than was allowed.
        """
        number = held.number
        try:
            return await self._database.note(number, more)
        except Exception as error:
            self._unnoted[number] = self._unnoted.get(number, Spent()).plus(more)
            self._log("delivery.unnoted", held, reason=reason_of(error, with_text=True))
            return None

    async def _note_what_is_left(self) -> None:
        """Tell the database what it could not be told before.

        Raises:
            Busy: it cannot be told now, either.
        """
        while self._unnoted:
            sequence, more = self._unnoted.popitem()
            try:
                await self._database.note(sequence, more)
            except BaseException:
                self._unnoted[sequence] = self._unnoted.get(sequence, Spent()).plus(more)
                raise

    # --- its answer ---------------------------------------------------------------------------------------------------

    def _seal(self, held: Held, answer: Answer, asked: Asked | None) -> None:
        """Make the event, so that after the commit it has only to be sent. A reaction may have none."""
        address, name, asks = held.address, self._participant.name, str(held.delivery.sequence)
        assert address is not None, "what has no address is set aside without an answer"
        held.answer_type, held.subject = answer.type, ""
        if not answer.type:
            return
        tries = asked.tries + asked.lost if asked else 0
        held.subject = event_subject(address.saga.path, name, _token(answer.type), held.step, address.attempt)
        held.data = encode(
            Envelope(
                id=held.subject,
                source=name,
                type=answer.type,
                time=datetime.now(UTC),
                data=msgspec.Raw(answer.data),
                command="" if held.is_event else asks,
                reacts=asks if held.is_event else "",
                started=asked.started if asked else None,
                tries=tries if tries > 1 else 0,
                traceparent=held.traceparent,
            )
        )
        if address.direction == "do" and len(held.data) > ANSWER_BYTES_MAX:
            raise TooLarge(f"{len(held.data)} bytes, and the limit is {ANSWER_BYTES_MAX}", subject=held.subject)

    def _publish(self, held: Held) -> None:
        held.publishes += 1
        headers = traceparent_header(held.data)
        self._link.publish(held.subject, held.data, headers, lambda outcome: self._on_outcome(held, outcome))

    def _on_outcome(self, held: Held, outcome: Outcome) -> None:
        match outcome:
            case int() | AlreadyStored():
                killpoints.reached("worker.event_stored")
                self._count(held, outcome)
                self._settle(held)
            # The event can be stored once only, so sending it again is safe, and quicker than a redelivery.
            case Ambiguous() if held.publishes < PUBLISH_TRIES_MAX and not self._draining:
                self._loop.call_later(PUBLISH_AGAIN_SECONDS, self._publish, held)
            case Ambiguous():
                self._log("event.unconfirmed", held, reason=str(outcome))
                held.delivery.drop()
                self._forget(held)
            case Rejected() | Conflict():
                self._log("event.rejected", held, reason=str(outcome))
                self._let_go(held)

    def _count(self, held: Held, outcome: Outcome) -> None:
        """Count an attempt whose answer is durable, or an answer that was there before."""
        asked, kind = held.asked, self._outcome_of(held)
        if asked is None or isinstance(outcome, AlreadyStored) or (asked.started is None and kind != "exhausted"):
            self.counts.add("duplicates", self._participant.name)
            return
        labels = (self._participant.name, _name_in(held.type), kind)
        self.counts.add("attempts", *labels)
        if asked.started is not None and self.counts.record is not None:
            self.counts.took("handler_seconds", (datetime.now(UTC) - asked.started).total_seconds(), *labels)

    def _outcome_of(self, held: Held) -> str:
        """How a command was answered, or what a reaction came to."""
        asked = held.asked
        if asked is None:
            return ""
        if asked.heard is not None:
            refused = asked.heard.reaction.refused
            return "refused" if refused is not None and held.answer_type == refused.__contract__.type else "done"
        kind: CommandKind = asked.address.direction
        if kind == "undo" and held.type in self._participant.settlements:
            kind = "settle"
        return _outcome_in(kind, held.type, held.answer_type)

    def _settle(self, held: Held) -> None:
        if held.end_reason:
            held.delivery.end(held.end_reason)
        else:
            held.delivery.ack()
        self._forget(held)

    # --- what is held -------------------------------------------------------------------------------------------------

    def _forget(self, held: Held) -> None:
        self._held.discard(held)
        if self._draining and not self._held:
            self._idle.set()

    def _let_go(self, held: Held, delay_seconds: float | None = None) -> None:
        """Have the command delivered again, after a second or so if nobody knows better."""
        held.delivery.hand_back(self._jittered(BUSY_SECONDS) if delay_seconds is None else delay_seconds)
        self._forget(held)

    async def _is_idle(self, seconds: float) -> bool:
        """Wait until nothing is held."""
        try:
            async with asyncio.timeout(seconds):
                while self._held:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _extend_leases(self) -> None:
        """Keep what has been held since the turn before: for at least one third of the ack wait, at most two."""
        self._lease = self._loop.call_later(self._lease_seconds, self._extend_leases)
        for held in self._held:
            held.ticks += 1
            if held.ticks > 1:
                held.delivery.in_progress()
            if held.ticks * self._lease_seconds > self._handler_seconds and not held.is_overdue and held.task:
                self._cancel_overdue(held, held.task)

    def _cancel_overdue(self, held: Held, task: asyncio.Task[None]) -> None:
        """End what has been held for too long, and say where it stands, while it still stands there."""
        held.is_overdue = True
        if held.asked is not None and held.asked.call.goes_on:
            call, ran = held.asked.call, f"its handler had not returned after {self._handler_seconds:g} s"
            held.overdue = f"{ran}: it stood at {call.whereabouts()}"
            self._log("handler.overdue", held, after_seconds=self._handler_seconds, stack=call.stack())
        task.cancel()

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.5 + self._chance())

    def _log(self, what: str, held: Held, **facts: Any) -> None:
        """Say something of what is held, with what `show` calls it: saga, step and attempt."""
        address = held.address
        about = {"saga": str(address.saga), "step": address.step, "attempt": address.attempt} if address else {}
        facts |= {"subject": held.delivery.subject, "sequence": held.delivery.sequence, **about}
        try:
            log.warning(what, **facts)
        except BaseException:  # an error of an author's that cannot be printed
            log.warning(what, **{name: fact for name, fact in facts.items() if name != "exc_info"})


def _kind_of(error: BaseException) -> ParkedKind:
    return "unhandled" if isinstance(error, NoHandler) else "fault"


def undo_places(concurrency: int) -> int:
    """How many compensations are held at once where nobody said so."""
    return max(1, concurrency // 2)


class _Typed(msgspec.Struct):
    type: str


def _type_in(data: bytes) -> str:
    """The type of a message whose rest may be unreadable; empty if that is, too."""
    try:
        return msgspec.json.decode(data, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


_VERSIONED = re.compile(r"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.v([1-9][0-9]{0,8})")


def _contract_of(message_type: str) -> Contract | None:
    """The contract that a type on the wire names, whether or not its class is known here."""
    found = _VERSIONED.fullmatch(message_type)
    return Contract(found.group(1), int(found.group(2)), "") if found else None


@lru_cache(maxsize=1024)
def _name_in(message_type: str) -> str:
    """A type without its version."""
    return message_type.rpartition(".v")[0]


@lru_cache(maxsize=1024)
def _outcome_in(kind: CommandKind, sent_type: str, answer_type: str) -> str:
    """How a command, compensation or settlement was answered."""
    return answer_kind(kind, name_of(sent_type), _token(answer_type)) or "done"


@lru_cache(maxsize=1024)
def _token(message_type: str) -> str:
    """What stands in a subject for a type: its name without the version, dashed."""
    return dashed(_name_in(message_type))


_retry = lru_cache(maxsize=1024)(parse_retry)
"""There are as many different texts as steps in all definitions."""


def _seconds_of(asked: object) -> float:
    """How long a handler asked to wait; 0 where that is no length of time."""
    try:
        seconds = asked.total_seconds() if isinstance(asked, timedelta) else float(asked)  # type: ignore[arg-type]
    except BaseException:  # whatever an author's number does
        return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), WAIT_SECONDS_MAX)
