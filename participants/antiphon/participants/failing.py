"""Jobs without an answer: which of them were attempts, when the next one is, and what waits for a person."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final

from antiphon.contracts.errors import Refused, Unavailable, Undecodable, Unrecoverable, Unusable, WrongShape
from antiphon.contracts.payloads import parked_kind
from antiphon.contracts.subjects import ParkedKind

from .answering import Answering
from .attempts import Resting, Tally
from .calling import Raised
from .databases import Busy, ShareFailed
from .execution import Execution
from .inbox import Spent
from .job import Job
from .jobs import Jobs
from .outside import LostFence
from .overdue import Overdue
from .parking import Parking
from .perform import Failure, Performing
from .procedures import AlreadyDone, NobodyKnows, NoHandler, NotYet
from .reasons import reason_of
from .telling import Telling
from .transaction import idempotency_key
from .turn import NotItsTurn
from .under_lock import Unsendable

WAIT_SECONDS_MAX: Final = 366 * 86400.0
"""The longest time that a handler may ask for before its next attempt."""
TURN_SECONDS: Final = 1.0
"""How long a command rests on average that has to be performed alone and cannot wait for that here."""


class Failing:
    """Ends jobs that have no answer.

    Args:
        jobs: all jobs of the worker.
        tally: the counts of deliveries.
        performing: performs messages.
        parking: where messages wait for a person.
        answering: answers `exhausted`.
        rested: gets the messages of reactions that killed their worker and were laid to rest by this one.
        handler_seconds: how long a handler may run.
        error_texts: whether the texts of handlers' errors travel.
        telling: what the log says of a failed attempt.
        chance: draws from [0, 1), for the jitter of delays.
    """

    def __init__(
        self,
        jobs: Jobs,
        tally: Tally,
        performing: Performing,
        parking: Parking,
        answering: Answering,
        *,
        rested: set[str],
        handler_seconds: float,
        error_texts: bool,
        telling: Telling,
        chance: Callable[[], float],
    ) -> None:
        self._jobs, self._tally, self._performing = jobs, tally, performing
        self._parking, self._answering = parking, answering
        self._rested, self._handler_seconds = rested, handler_seconds
        self._error_texts, self._telling, self._chance = error_texts, telling, chance

    async def end(self, job: Job, execution: Execution, raised: BaseException) -> None:
        """Whatever came in the way of an answer: say whether that was an attempt, and when the next one is.

        The worker's own cancels are known by the job's flags. That a task was cancelled says nothing: a handler's
        time-out may have cancelled its own.

        Raises:
            CancelledError: the worker or its loop ends.
        """
        if job.is_leaving:
            raise asyncio.CancelledError from raised  # the process ends; that is no fault of this command
        if isinstance(raised, asyncio.CancelledError) and not job.is_overdue:
            raise raised  # by the end of the loop: a handler's own cancels come as `Raised`
        match self._meaning(job, raised):
            case Busy() | ShareFailed() as error:
                job.log("database.busy", reason=str(error))
                await self.hand_back(job)
            case NotItsTurn():
                await self.hand_back(job, self._jobs.jittered(TURN_SECONDS))
            case NotYet():
                await self.hand_back(job)
            case LostFence() as error:
                await self._let_go(job, execution, error)
            case Resting() | NobodyKnows() as error:
                await self._lay_to_rest(job, execution, str(error))
            case AlreadyDone() as error:
                await self._park_and_end(job, str(error))
            case error:
                await self._fail(job, execution, error)

    async def set_aside(self, job: Job, error: BaseException) -> None:
        """Park what no worker can read. A command is answered as exhausted, so that its saga does not wait for it.

        What is forged gets no answer: it is nobody's command.
        """
        unusable = self._unusable(job, error)
        reason = reason_of(unusable)
        job.log("command.unusable", reason=unusable.reason)
        if not await self._parking.park(job, parked_kind(unusable), reason):
            return
        job.end_reason = reason
        if isinstance(unusable, Undecodable) and not job.is_event:
            self._answering.exhaust(job, reason)
        else:
            self._jobs.settle(job)

    async def hand_back(self, job: Job, delay_seconds: float | None = None) -> None:
        """Have the message delivered again, without counting this delivery as an attempt.

        Args:
            job: leaves the worker.
            delay_seconds: when; about a second from now when left out.
        """
        is_alone = job.execution is not None and job.execution.is_alone
        await self._tally.add(job, Spent(returned=1, alone=-1 if is_alone else 0))
        if job.execution is not None and job.execution.claim and not job.goes_on:
            await self._performing.end_run(job.execution)
        if job.goes_on:
            self._jobs.drop(job)  # unacked, so that nobody begins while what is left of it may still be at work
        else:
            self._jobs.hand_back(job, delay_seconds)

    async def withdraw(self, job: Job, execution: Execution) -> bool:
        """The reaction succeeded: withdraw its PARKED entry, if there is one; false where that could not be stored.

        Raises:
            Busy: the database cannot say now whether there is one.
        """
        spent = await self._tally.read(job.message)
        return spent.attempts < execution.retry.attempts or await self._parking.withdraw(job)

    def _meaning(self, job: Job, raised: BaseException) -> BaseException:
        """The error that counts for what was raised."""
        is_verdict = isinstance(raised, Refused | Unavailable | Unrecoverable)
        if job.overdue and not is_verdict:
            return Overdue(job.overdue + (", and it goes on although it was cancelled" if job.goes_on else ""))
        if job.is_overdue and not is_verdict:
            return Busy(f"after {self._handler_seconds:g} s its turn had not come, or its commit had not ended")
        return raised.error if isinstance(raised, Raised) else raised

    def _unusable(self, job: Job, error: BaseException) -> Unusable:
        """What keeps a message from being read. An author's class may raise anything where it is made."""
        if isinstance(error, Unusable):
            return error
        job.log("message.faulted", exc_info=error)
        return WrongShape(f"{job.type}: {reason_of(error, self._error_texts)}", subject=job.delivery.subject)

    async def _fail(self, job: Job, execution: Execution, error: BaseException) -> None:
        """Try again later, or say that the attempts have run out. A reaction is tried for ever."""
        is_final = isinstance(error, (Unsendable, Unrecoverable))
        reason = reason_of(error, self._error_texts)
        # What no attempt will mend may be mended by another version of a participant that reacts, but not soon.
        failed = execution.retry.attempts if is_final else 1
        chance, least = self._chance(), _seconds_of(error.retry_after) if isinstance(error, Unavailable) else 0.0

        def wait(tries: int) -> float:
            return max(least, execution.retry.wait_seconds(tries, chance))

        failure = await self._count(job, execution, reason, failed, wait)
        if failure is None:
            return
        trace = self._telling.of(job.message, reason, error)
        if failure.is_exhausted:
            job.log("attempts.exhausted", reason=reason, tries=failure.tries, **(trace or {}))
            if isinstance(error, NoHandler):
                if not await self._parking.park(job, "unhandled", reason):
                    return
                job.end_reason = reason
        if failure.answer is not None:
            self._answering.send(job)
            return
        is_for_a_person = job.is_event and (is_final or failure.tries % execution.retry.attempts == 0)
        if is_for_a_person and not await self._parking.park(job, _kind_of(error), reason):
            return
        self._answering.count_failed(job)
        delay = wait(failure.tries)
        if trace is not None:
            job.log("attempt.failed", reason=reason, tries=failure.tries, again_in_seconds=round(delay, 3), **trace)
        self._jobs.hand_back(job, delay)

    async def _count(
        self, job: Job, execution: Execution, reason: str, failed: int, wait: Callable[[int], float]
    ) -> Failure | None:
        """Count a failed attempt, and hear what its row says by now; None where the job was ended here."""
        try:
            return await self._performing.fail(execution, partial(self._answering.seal, job), reason, failed, wait)
        except NotYet:
            await self.hand_back(job)
            return None
        except LostFence as error:
            await self._let_go(job, execution, error)
            return None
        except AlreadyDone as error:
            await self._park_and_end(job, str(error))
            return None
        except Exception as error:
            # Nothing is said of the attempts that are left: only the row knows that, and it cannot be asked now.
            job.log("delivery.unnoted", reason=reason_of(error, with_text=True))
            more = Spent(failed, execution.lost, -1 if execution.is_alone else 0)
            self._tally.keep(job.message, more)
            if execution.claim:
                await self._performing.end_run(execution)
            return Failure(None, execution.tries or execution.deliveries)

    async def _let_go(self, job: Job, execution: Execution, error: LostFence) -> None:
        """A run has lost its claim. Whatever is said to the message now would touch whoever holds it; that the run
        ended is noted, so that an operator's close need not wait for it."""
        job.log("claim.lost", reason=str(error), acted=error.acted_after_a_no)
        await self._performing.end_run(execution)
        if error.acted_after_a_no:
            reason = f"it acted outside although the row says no, under the key {_key_of(execution)}"
            if not await self._parking.park(job, "fault", reason):
                return
        self._jobs.drop(job)

    async def _park_and_end(self, job: Job, reason: str) -> None:
        """Set aside an event to which this participant must not react."""
        job.log("event.unhandled", reason=reason)
        if await self._parking.park(job, "unhandled", reason):
            job.end_reason = reason
            self._jobs.settle(job)

    async def _lay_to_rest(self, job: Job, execution: Execution, reason: str) -> None:
        """Park a reaction that killed its worker time and again, and hand it back for the longest distance.

        Only the worker that did this calls the reaction afterwards: a worker that dies of it forgets, and the next one
        begins with the rest.
        """
        job.log("reaction.rests", reason=reason)
        if await self._parking.park(job, "fault", reason):
            self._rested.add(job.message)
            await self.hand_back(job, execution.retry.cap_seconds)


def _kind_of(error: BaseException) -> ParkedKind:
    return "unhandled" if isinstance(error, NoHandler) else "fault"


def _key_of(execution: Execution) -> str:
    return idempotency_key(execution.address, execution.address.way)


def _seconds_of(asked: object) -> float:
    """How long a handler asked to wait, in seconds; 0 where that is no length of time."""
    try:
        seconds = asked.total_seconds() if isinstance(asked, timedelta) else float(asked)  # type: ignore[arg-type]
    except BaseException:  # whatever an author's number does
        return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), WAIT_SECONDS_MAX)
