"""One message under the inbox's rules: the row is locked and asked, the author's code is called, and the answer is
durable before anybody hears of it. What the kinds of messages differ in is in `procedures.py`.

A plain handler runs inside one transaction: claim, effect, row, COMMIT. One with effects outside the database runs
between two: in the first the claim is committed, in the second the effect, the row and the end of the run, if the claim
is still its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec

from antiphon.contracts.errors import Refused, TooLarge
from antiphon.link import killpoints

from . import inbox as rules
from .attempts import count_attempt
from .calling import Call, Deaf
from .databases import Database, Inbox, Manner, ShareFailed
from .execution import Execution
from .inbox import Answer, Row, Spent
from .procedures import RUNS, Procedure, Run
from .reasons import OwnWords
from .transaction import Outside, Transaction

T = TypeVar("T")

Seal = Callable[[Answer], None]
"""Makes the event of an answer, ready to be sent: before the commit, so that nothing is done that cannot be said.

Raises:
    TooLarge: the event would be larger than the protocol allows.
"""


class Unsendable(OwnWords):
    """The answer cannot be sent, so that no attempt would help."""


class LostFence(OwnWords):
    """The row was claimed, closed or ended by somebody else while a run was outside: whoever runs must keep silent."""

    def __init__(self, reason: str, *, acted_after_a_no: bool = False) -> None:
        super().__init__(reason)
        self.acted_after_a_no = acted_after_a_no
        """Whether it has succeeded outside, and the row says that there is nothing, and never will be."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of a failed attempt."""

    answer: Answer | None
    """What the row says by now, or exhausted; None where the message is tried again."""
    tries: int
    """How many attempts have failed."""
    is_exhausted: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker says of its runs outside a transaction.

    Args:
        instance: names the process.
        run_seconds: how long a run may take.
        spare_seconds: how much later than expected a message may come again: some ack waits.
    """

    instance: str
    run_seconds: float
    spare_seconds: float

    def due_at(self, seconds: float) -> datetime:
        """Until when a message is expected that may come back so much later."""
        return datetime.now(UTC) + timedelta(seconds=seconds + self.spare_seconds)


class Performing:
    """Performs the messages of one worker.

    Args:
        database: where the inbox is.
        terms: of runs outside a transaction.
    """

    def __init__(self, database: Database, terms: Terms) -> None:
        self._database, self._terms = database, terms
        self._unended: list[Execution] = []
        """Runs that have ended, of which the database could not be told yet."""

    async def perform(self, execution: Execution, seal: Seal) -> Answer:
        """Answer a message.

        Returns:
            The answer, which is sealed and durable; `SILENCE` where a reaction publishes nothing.

        Raises:
            Busy: the database could not be had; this was no attempt.
            NotYet: something else has to end first; this was no attempt.
            Suspect: the author's code may be called only when the message is performed alone.
            Resting: the reaction has killed its worker too often to be called just now.
            LostFence: somebody else has the matter by now.
            Exception: whatever the author's code raised; nothing of it is in the database.
        """
        procedure = execution.procedure
        if self._unended:
            await self.end_run(self._unended.pop())
        if procedure.is_outside:
            return await self._perform_outside(procedure, execution, seal)
        try:
            answer = await self._transact(execution, partial(self._plain, procedure, execution, seal), execution.manner)
        except Refused as refusal:
            if (no := procedure.refusal(refusal)) is None:
                raise
            answer = await self._transact(execution, partial(self._refuse, procedure, execution, seal, no))
        killpoints.reached("worker.committed")
        return answer

    async def fail(
        self, execution: Execution, seal: Seal, reason: str, failed: int, wait: Callable[[int], float]
    ) -> Failure:
        """Count a failed attempt, after all that it did was rolled back.

        The row was free for a moment, so it is asked again: another worker may have brought the matter to its end. Only
        under its lock may be said that no attempt is left.

        Args:
            execution: what failed.
            seal: for the answer, where there is one.
            reason: why it failed, for an exhausted answer.
            failed: as how many attempts it counts.
            wait: how long the message rests after so many attempts, in seconds.

        Raises:
            Busy: the database cannot be told now.
            NotYet, LostFence: as for `perform`.
        """
        body = partial(self._failed, execution.procedure, execution, seal, reason, failed, wait)
        return await self._transact(execution, body)

    async def _transact(
        self, execution: Execution, body: Callable[[Inbox], Awaitable[T]], manner: Manner = "shared"
    ) -> T:
        """Do something in one transaction, and once more in one of its own where the COMMIT with others failed."""
        try:
            async with self._database.begin(execution.address, manner) as inbox:
                return await body(inbox)
        except ShareFailed:
            async with self._database.begin(execution.address, "own") as inbox:
                return await body(inbox)

    # --- inside one transaction ---------------------------------------------------------------------------------------

    async def _plain(self, procedure: Procedure, execution: Execution, seal: Seal, inbox: Inbox) -> Answer:
        row = await inbox.claim()
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return await self._tell(procedure, row, decision, seal, inbox)
        if out := await count_attempt(execution, inbox):
            return await self._give_up(procedure, row, seal, inbox, out)
        execution.call = Call(execution.watch, execution.on_wait)
        answer = await execution.call.make(partial(procedure.call, decision, inbox.transaction))
        _seal_or_give_up(seal, answer)
        killpoints.reached("worker.in_transaction")
        await inbox.settle(raised_claim(procedure.done(row, decision, answer)))
        return answer

    async def _refuse(self, procedure: Procedure, execution: Execution, seal: Seal, no: Answer, inbox: Inbox) -> Answer:
        """Store a refusal. A compensation may have come in between, or a worker that said exhausted."""
        row = await inbox.claim()
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return await self._tell(procedure, row, decision, seal, inbox)
        if procedure.has_attempts and (await inbox.spent(execution.message)).attempts >= execution.retry.attempts:
            return await self._give_up(procedure, row, seal, inbox, "no attempt is left")
        if row is not None and row.state in ("claimed", "open"):
            return await self._give_up(procedure, row, seal, inbox, "an earlier attempt may have happened outside")
        seal(no)
        await inbox.settle(Row("refused", procedure.mark, no, row.claim if row else 0))
        return no

    async def _tell(self, procedure: Procedure, row: Row | None, decision: Any, seal: Seal, inbox: Inbox) -> Answer:
        answer, written = procedure.known(row, decision)
        seal(answer)
        killpoints.reached("worker.in_transaction")
        await self._leave(inbox, row, written)
        return answer

    async def _give_up(self, procedure: Procedure, row: Row | None, seal: Seal, inbox: Inbox, reason: str) -> Answer:
        answer = procedure.negative("exhausted", reason)
        seal(answer)
        # Of a run that ended here the row must say so, or an operator's close would wait for it for ever.
        await self._leave(inbox, row, rules.given_up(row) or (row if row is not None and row.claim else None))
        return answer

    async def _leave(self, inbox: Inbox, row: Row | None, written: Row | None) -> None:
        if written is not None:
            await inbox.settle(written)
        elif row is None:
            await inbox.leave()

    async def _failed(
        self,
        procedure: Procedure,
        execution: Execution,
        seal: Seal,
        reason: str,
        failed: int,
        wait: Callable[[int], float],
        inbox: Inbox,
    ) -> Failure:
        row = await inbox.claim()
        if execution.claim:
            row = await self._end_run(procedure, execution, inbox, row)
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return Failure(await self._tell(procedure, row, decision, seal, inbox), execution.tries)
        # What failed has come to an end, so the deliveries lost before were not this message's fault.
        more = Spent(failed, execution.lost, -1 if execution.is_alone else 0)
        tries = (await inbox.note(execution.message, more)).attempts
        if procedure.has_attempts and tries >= execution.retry.attempts:
            answer = await self._give_up(procedure, row, seal, inbox, reason)
            return Failure(answer, tries, is_exhausted=True)
        if row is not None and row.state == "claimed":
            await inbox.settle(msgspec.structs.replace(row, due_at=self._terms.due_at(wait(tries))))
        else:
            await self._leave(inbox, row, row if execution.claim else None)
        return Failure(None, tries)

    # --- between two transactions -------------------------------------------------------------------------------------

    async def _perform_outside(self, procedure: Procedure, execution: Execution, seal: Seal) -> Answer:
        begun = await self._transact(execution, partial(self._begin_run, procedure, execution, seal))
        if isinstance(begun, Answer):
            killpoints.reached("worker.committed")
            return begun
        killpoints.reached("worker.claimed")
        decision, is_clean = begun
        ending = _Ending(self, procedure, execution)
        execution.call = Call()
        try:
            answer = await execution.call.make(partial(procedure.call, decision, ending.outside))
            killpoints.reached("worker.outside_done")
            _seal_or_give_up(seal, answer)
            await ending.commit(decision, answer)
        except Refused as refusal:
            await ending.roll_back(refusal)
            if (no := procedure.refusal(refusal)) is None or not is_clean:
                raise
            body = partial(self._refuse_outside, procedure, execution, seal, no)
            answer = await self._transact(execution, body)
        except BaseException as error:
            await ending.roll_back(error)
            if isinstance(error, asyncio.CancelledError):
                await self.end_run(execution)
            if isinstance(error, Deaf):
                self._end_later(execution)
            raise
        killpoints.reached("worker.committed")
        return answer

    async def _begin_run(
        self, procedure: Procedure, execution: Execution, seal: Seal, inbox: Inbox
    ) -> Answer | tuple[Run, bool]:
        """Claim the row for a run: its decision, and whether no earlier run may have acted."""
        row = await inbox.claim()
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return await self._tell(procedure, row, decision, seal, inbox)
        if out := await count_attempt(execution, inbox):
            return await self._give_up(procedure, row, seal, inbox, out)
        terms = self._terms
        due_at = terms.due_at(terms.run_seconds) if procedure.state == "claimed" else None
        claimed = rules.claimed(row, procedure.state, procedure.mark, terms.instance, due_at, procedure.digest)
        execution.claim, execution.run = claimed.claim, claimed.runs[-1]
        await inbox.settle(claimed)
        return decision, row is None or row.state == "refused"

    async def _refuse_outside(
        self, procedure: Procedure, execution: Execution, seal: Seal, no: Answer, inbox: Inbox
    ) -> Answer:
        row = await self._end_run(procedure, execution, inbox, await inbox.claim())
        if procedure.has_attempts and (await inbox.spent(execution.message)).attempts >= execution.retry.attempts:
            return await self._give_up(procedure, row, seal, inbox, "no attempt is left")
        seal(no)
        await inbox.settle(msgspec.structs.replace(row, state="refused", answer=no, due_at=None))
        return no

    async def _end_run(
        self, procedure: Procedure, execution: Execution, inbox: Inbox, row: Row | None, *, has_acted: bool = False
    ) -> Row:
        """The row without this run, if the run still owns it.

        Raises:
            LostFence: it does not; that it ended is noted in a transaction of its own.
        """
        if row is not None and rules.is_owner(row, execution.claim, procedure.state):
            return rules.without_run(row, execution.run)
        is_no = has_acted and row is not None and (row.state in ("void", "refused") or bool(row.closed))
        raise LostFence(f"claim {execution.claim} is not its own any more", acted_after_a_no=is_no)

    async def end_run(self, execution: Execution) -> None:
        """Note that a run has ended, so that an operator's close need not wait for it; later, with another message,
        where the database cannot be told now."""
        try:
            await self._transact(execution, partial(self._note_end, execution.procedure, execution))
        except Exception:
            self._unended.append(execution)

    async def _note_end(self, procedure: Procedure, execution: Execution, inbox: Inbox) -> None:
        row = await inbox.claim()
        if row is None:
            await inbox.leave()
            return
        is_owner = rules.is_owner(row, execution.claim, procedure.state)
        row = rules.without_run(row, execution.run)
        if is_owner and row.state == "claimed":
            row = msgspec.structs.replace(row, due_at=self._terms.due_at(0.0))
        await inbox.settle(row)

    def _end_later(self, execution: Execution) -> None:
        """A handler goes on although it was cancelled: its run ends when the handler does."""
        loop, task = asyncio.get_running_loop(), execution.call.task
        assert task is not None

        def end(_: object) -> None:
            if not loop.is_closed():
                ending = loop.create_task(self.end_run(execution))
                _ENDING.add(ending)
                ending.add_done_callback(_ENDING.discard)

        task.add_done_callback(end)


_ENDING: set[asyncio.Task[None]] = set()
"""A loop keeps its tasks by weak references."""


class _Ending:
    """The second transaction of a run outside: begun by the handler once its awaits are over, or after it."""

    def __init__(self, performing: Performing, procedure: Procedure, execution: Execution) -> None:
        self._performing, self._procedure, self._execution = performing, procedure, execution
        self._stack = AsyncExitStack()
        self._inbox: Inbox | None = None
        self._row: Row | None = None
        self._is_over = False
        self.outside = Outside(execution.address, self._begin)

    async def commit(self, decision: Run, answer: Answer) -> None:
        """Commit the effect, the row and the end of the run.

        Raises:
            LostFence: the claim is not its own any more.
        """
        self._is_over = True
        if self._inbox is None:
            await self._performing._transact(self._execution, partial(self._settle, decision, answer))
            return
        assert self._row is not None
        killpoints.reached("worker.in_transaction")
        await self._inbox.settle(self._procedure.done(self._row, decision, answer))
        await self._stack.aclose()

    async def roll_back(self, error: BaseException) -> None:
        """Undo what the handler did in the transaction, if it began one."""
        self._is_over = True
        with suppress(BaseException):
            await self._stack.__aexit__(type(error), error, error.__traceback__)

    async def _begin(self) -> Transaction:
        if self._is_over or self._inbox is not None:
            raise OutsideOver(
                "the transaction of a handler with effects outside is begun once, after all that it waits for outside"
            )
        database = self._performing._database
        manner: Manner = "slow" if self._procedure.is_slow else "own"
        inbox = await self._stack.enter_async_context(database.begin(self._execution.address, manner))
        row = await inbox.claim()
        self._row = await self._performing._end_run(self._procedure, self._execution, inbox, row, has_acted=True)
        self._inbox = inbox
        return inbox.transaction

    async def _settle(self, decision: Run, answer: Answer, inbox: Inbox) -> None:
        row = await self._performing._end_run(
            self._procedure, self._execution, inbox, await inbox.claim(), has_acted=True
        )
        killpoints.reached("worker.in_transaction")
        await inbox.settle(self._procedure.done(row, decision, answer))


class OutsideOver(OwnWords, RuntimeError):
    """A handler with effects outside began its transaction twice, or after its end."""


def raised_claim(row: Row) -> Row:
    """The row that a plain handler leaves where an outside one had claimed it: that claim may not commit any more."""
    return msgspec.structs.replace(row, claim=row.claim + 1) if row.claim else row


def _seal_or_give_up(seal: Seal, answer: Answer) -> None:
    try:
        seal(answer)
    except TooLarge as error:
        raise Unsendable(f"its answer cannot be sent: {error.reason}; nothing was done") from None
