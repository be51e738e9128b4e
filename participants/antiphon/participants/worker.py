"""The loop of a participant: pull a command or an event, perform it, store what comes of it, and only then ack.

Whatever goes wrong on the way leaves the message unacked, so that it comes again, and the inbox makes that harmless.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from antiphon.contracts.topology import (
    EVENTS,
    PARTICIPANT_ACK_WAIT_SECONDS,
    SAGA,
    participant_consumer_name,
    reactions_consumer_name,
)
from antiphon.link import Delivery, Link, Pull, killpoints
from antiphon.link.leases import lease_seconds
from antiphon.tracing.telemetry import context
from antiphon.tracing.telemetry.counts import Counts

from .answering import Answering
from .attempts import Suspect, Tally
from .calling import END_SECONDS, tame
from .databases import Database
from .execution import Execution
from .failing import Failing
from .job import Job
from .jobs import Jobs
from .manners import Manners
from .notes import Notes
from .outside import Terms
from .overdue import TimeLimit
from .parking import Parking
from .participant import Participant
from .perform import Performing
from .reading import NotForUs, Reader
from .takeover import Takeover
from .telling import Telling
from .turn import Turn

CONCURRENCY: Final = 16
"""How many commands a worker performs at once, unless told otherwise."""
CLOSE_CONCURRENCY: Final = 2
"""How many of the operators' closes a worker has at once. None of them calls a handler."""
GRACE_SECONDS: Final = 10.0
"""How long running handlers may go on after SIGTERM; below the 30 s after which container platforms kill."""
CANCEL_SECONDS: Final = END_SECONDS + 2.0
"""How long those that were cancelled then may take: to end, and to have it noted."""
HANDLER_SECONDS_MAX: Final = 600.0
"""How long a handler may run. One that never returned would hold its row, and all who ask about it, for ever."""
ELSEWHERE_SECONDS: Final = 0.2
"""How long a command rests that arrives during a drain, lest it come straight back while our requests still stand."""

log = structlog.get_logger()


class Worker:
    """Performs the commands of one participant, and reacts to events as it does.

    Args:
        participant: the handlers.
        link: a connection that may pull the participant's commands and store its events.
        database: where its inbox is, opened.
        concurrency: how many commands are held at once; no more than that are ever fetched. Where sagas are spread over
            several pairs of streams, each has an equal share, and one at least.
        undo_concurrency: the same for compensations, which have places of their own so that those which keep failing
            leave the commands alone; half as many when left out.
        reaction_concurrency: the same for events, if the participant reacts to any; as many as commands when left out.
        ack_wait_seconds: what the consumers are configured with, if that is shorter than the default. Leases are
            extended at a quarter of it, and a worker that stood still for longer gives up what it held.
        handler_seconds: how long a command may be held; then its handler is cancelled, which is a failed attempt.
        error_texts: whether the texts of handlers' errors travel, into journals and traces; else only their classes.
        telling: what the log says of failed attempts.
        chance: draws from [0, 1), for the jitter of delays.
        instance: names this process; made up when left out.
        notes: where this process notes what it holds, for the one after it; see `open_notes`.

    Raises:
        RuntimeError: no event loop is running.
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
        telling: Telling | None = None,
        chance: Callable[[], float] = random.random,
        instance: str = "",
        notes: Notes | None = None,
    ) -> None:
        self._participant, self._link, self._database = participant, link, database
        self.counts = Counts()
        name, instance = participant.name, instance or secrets.token_hex(8)
        held_at_once = [
            (SAGA, participant_consumer_name(name, "do"), concurrency),
            (SAGA, participant_consumer_name(name, "undo"), undo_concurrency or undo_places(concurrency)),
            (SAGA, participant_consumer_name(name, "close"), CLOSE_CONCURRENCY),
        ]
        if participant.reactions:
            held_at_once.append((EVENTS, reactions_consumer_name(name), reaction_concurrency or concurrency))
        self._places = [
            (name, consumer, places)
            for stream, consumer, total in held_at_once
            for name, places in zip(link.pairs.names(stream), link.pairs.shared(total), strict=True)
        ]
        self._ack_wait_seconds, self._time_limit = ack_wait_seconds, TimeLimit(handler_seconds)
        self._turn_seconds = lease_seconds(ack_wait_seconds)
        self._loop = asyncio.get_running_loop()
        tame(self._loop)
        self._limits = {
            kind: asyncio.Semaphore(handler.concurrency)
            for kind, handler in participant.handlers.items()
            if handler.concurrency is not None
        }
        rested = set[str]()
        self._jobs = Jobs(chance)
        self._tally, self._manners = Tally(database), Manners(name, database.shares)
        self._reader = Reader(participant, rested, lasts=database.lasts)
        self._performing = Performing(database, Terms(instance, handler_seconds, 3 * ack_wait_seconds))
        self._answering = Answering(participant, link, self._jobs, self.counts)
        self._failing = Failing(
            self._jobs,
            self._tally,
            self._performing,
            Parking(name, link, self._jobs),
            self._answering,
            rested=rested,
            handler_seconds=handler_seconds,
            error_texts=error_texts,
            telling=telling or Telling(),
            chance=chance,
        )
        consumers = {(stream, consumer) for stream, consumer, _ in self._places}
        self._takeover = Takeover(notes, link, database, self._jobs, consumers, ack_wait_seconds)
        self._alone = Turn(waiting_max=sum(places for _, _, places in self._places))
        self._turn: asyncio.TimerHandle | None = None
        self.pulls: list[Pull] = []

    async def start(self) -> None:
        """Take over from the dead, and begin to pull.

        Whether the server accepts that, `antiphon.link.require_accepted` finds out.
        """
        await self._takeover.begin()
        self._turn = self._loop.call_later(self._turn_seconds, self._look_after_all)
        for stream, consumer, places in self._places:
            self.pulls.append(await self._link.pull(stream, consumer, places, self._take, self._ack_wait_seconds))

    async def drain(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Take nothing more, let what is running end within the grace, and hand the rest back, which is no attempt.

        Args:
            grace_seconds: how long handlers may go on before they are cancelled; longer where the server still has
                requests to serve, which on a cluster takes some seconds.
        """
        began = self._loop.time()
        self._jobs.is_draining = True
        self._alone.close()
        await asyncio.gather(*(pull.drain() for pull in self.pulls))
        if not await self._jobs.is_idle(max(0.0, grace_seconds - (self._loop.time() - began))):
            for job in self._jobs.held:
                if job.task is not None:
                    job.is_leaving = True
                    job.task.cancel()
            await self._jobs.is_idle(CANCEL_SECONDS)
        if self._turn is not None:
            self._turn.cancel()
        self._link.flush()
        await self._takeover.end()

    @property
    def held(self) -> int:
        """How many commands and events this worker has."""
        return len(self._jobs.held)

    @property
    def deaf(self) -> int:
        """How many handlers go on although they were cancelled."""
        return len(self._time_limit.deaf)

    # --- one job ------------------------------------------------------------------------------------------------------

    def _take(self, delivery: Delivery) -> None:
        killpoints.reached("worker.pulled")
        if delivery.deliveries > 1:
            self.counts.add("redeliveries", self._participant.name)
        job = Job(delivery)
        self._jobs.take(job)
        is_late = self._jobs.is_draining
        work = self._failing.hand_back(job, ELSEWHERE_SECONDS) if is_late else self._work(job)
        job.task = self._loop.create_task(work)

    async def _work(self, job: Job) -> None:
        """Bring one job to an end: its answer is on its way, or the message is handed back, or set aside."""
        try:
            await self._attempt(job)
        except asyncio.CancelledError:
            if job.is_leaving:
                await self._failing.hand_back(job, 0.0)
            else:  # the loop ends, and an author's code may have ended it: that this delivery was lost may be its fault
                self._jobs.drop(job)
        # A mistake in this file must not keep a command for ever: its lease would be extended with those of the others.
        # And SystemExit, whoever raises it, would go through asyncio and end the process.
        except BaseException as error:
            job.log("worker.faulted", exc_info=error)
            self._jobs.hand_back(job)
        finally:
            if job.execution is not None and job.execution.call.goes_on:
                self._time_limit.leave_behind(job, job.execution.call)

    async def _attempt(self, job: Job) -> None:
        try:
            execution = self._reader.read_event(job) if job.is_event else self._reader.read(job)
        except NotForUs:
            self._jobs.settle(job)
            return
        except BaseException as error:
            await self._failing.set_aside(job, error)
            return
        try:
            if self._tally.pending:
                await self._tally.add_pending()
            try:
                await self._perform(job, execution)
            except Suspect:
                await self._perform_alone(job, execution)
            if job.is_event and job.delivery.deliveries > 1 and not await self._failing.withdraw(job, execution):
                return
        except BaseException as error:
            await self._failing.end(job, execution, error)
        else:
            self._answering.send(job)

    async def _perform(self, job: Job, execution: Execution) -> None:
        context.enter(execution.address, job.traceparent)
        self._manners.set(execution, job.type)
        seal = partial(self._answering.seal, job)
        if (limit := self._limits.get(job.type)) is not None:
            async with limit:
                await self._performing.perform(execution, seal)
        else:
            await self._performing.perform(execution, seal)

    async def _perform_alone(self, job: Job, execution: Execution) -> None:
        """Perform a command that may have killed its worker, one of them at a time.

        That it begins is durable first: if the worker dies now, it is known of which command, and of no other.
        """
        async with self._alone.of(job):
            await self._tally.begin_alone(execution.message)
            execution.is_alone = True
            job.log("command.alone", lost=execution.lost)
            await self._perform(job, execution)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _look_after_all(self) -> None:
        self._turn = self._loop.call_later(self._turn_seconds, self._look_after_all)
        self._takeover.changed()  # so that the note says when this process lived last
        for job in self._jobs.held:
            job.ticks += 1
            self._time_limit.cancel_if_overdue(job, job.ticks * self._turn_seconds)


def undo_places(concurrency: int) -> int:
    """How many compensations are held at once where nobody said so."""
    return max(1, concurrency // 2)
