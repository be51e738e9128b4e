"""Handlers with effects outside the database: each call is a run between two transactions.

In the first transaction the claim of the run is committed. In the second the effect, the row and the end of the run are
committed together, if the claim is still the row's own: the number of the claim is the fence.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from antiphon.contracts.errors import Refused
from antiphon.link import killpoints

from . import inbox as rules
from .attempts import count_attempt
from .calling import Call, Deaf
from .databases import Database, Inbox, Manner
from .execution import Execution
from .inbox import Answer, Row
from .procedures import RUNS, Procedure, Run
from .reasons import Misuse, OwnWords
from .transaction import Outside, Transaction
from .under_lock import Seal, give_up, seal_or_give_up, tell, transact


class LostFence(OwnWords):
    """The row was claimed, closed or ended by somebody else while a run was outside: whoever runs must keep silent."""

    def __init__(self, reason: str, *, acted_after_a_no: bool = False) -> None:
        super().__init__(reason)
        self.acted_after_a_no = acted_after_a_no
        """Whether it has succeeded outside, and the row says that there is nothing, and never will be."""


class OutsideOver(Misuse):
    """A handler with effects outside began its transaction twice, or after its end."""


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


class Runs:
    """The runs of one worker.

    Args:
        database: where the inbox is.
        terms: of the runs.
    """

    def __init__(self, database: Database, terms: Terms) -> None:
        self.database, self._terms = database, terms
        self.unended: list[Execution] = []
        """Runs that have ended, of which the database could not be told yet."""
        self._ending = set[asyncio.Task[None]]()
        """A loop keeps its tasks by weak references."""

    async def perform(self, procedure: Procedure, execution: Execution, seal: Seal) -> Answer:
        """Answer a message whose handler runs outside a transaction. Returns and raises what `Performing` does."""
        begun = await transact(self.database, execution, partial(self._begin, procedure, execution, seal))
        if isinstance(begun, Answer):
            killpoints.reached("worker.committed")
            return begun
        killpoints.reached("worker.claimed")
        decision, is_clean = begun
        second = SecondTransaction(self, execution)
        execution.call = Call()
        try:
            code = partial(procedure.call, decision, second.outside)
            answer = await execution.call.make(
                killpoints.calling(execution.address.step, execution.address.direction, code)
            )
            killpoints.reached("worker.outside_done")
            seal_or_give_up(seal, answer)
            await second.commit(decision, answer)
        except Refused as refusal:
            await second.roll_back(refusal)
            if (no := procedure.refusal(refusal)) is None or not (is_clean or refusal.nothing_outside):
                raise
            body = partial(self._refuse, procedure, execution, seal, no)
            answer = await transact(self.database, execution, body)
        except BaseException as error:
            await second.roll_back(error)
            if isinstance(error, asyncio.CancelledError):
                await self.end(execution)
            if isinstance(error, Deaf):
                self._end_later(execution)
            raise
        killpoints.reached("worker.committed")
        return answer

    def ended(self, execution: Execution, row: Row | None, *, has_acted: bool = False) -> Row:
        """The row without a run, if the run still owns it.

        Raises:
            LostFence: it does not.
        """
        if row is not None and rules.is_owner(row, execution.claim, execution.procedure.state):
            return rules.without_run(row, execution.run)
        is_no = has_acted and row is not None and (row.state in ("void", "refused") or bool(row.closed))
        raise LostFence(f"claim {execution.claim} is not its own any more", acted_after_a_no=is_no)

    async def end(self, execution: Execution) -> None:
        """Note that a run has ended, so that an operator's close need not wait for it; later, with another message,
        where the database cannot be told now."""
        try:
            await transact(self.database, execution, partial(self._end, execution))
        except Exception:
            self.unended.append(execution)

    async def end_next(self) -> None:
        """Tell the database of one run that it could not be told of before."""
        await self.end(self.unended.pop())

    # --- inside a transaction -----------------------------------------------------------------------------------------

    async def _begin(
        self, procedure: Procedure, execution: Execution, seal: Seal, inbox: Inbox
    ) -> Answer | tuple[Run, bool]:
        """Claim the row for a run: its decision, and whether no earlier run may have acted."""
        row = await inbox.claim()
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return await tell(procedure, row, decision, seal, inbox)
        if out := await count_attempt(execution, inbox):
            return await give_up(procedure, row, seal, inbox, out)
        terms = self._terms
        due_at = terms.due_at(terms.run_seconds) if procedure.state == "claimed" else None
        claimed = rules.claimed(row, procedure.state, procedure.mark, terms.instance, due_at, procedure.digest)
        execution.claim, execution.run = claimed.claim, claimed.runs[-1]
        await inbox.settle(claimed)
        return decision, row is None or row.state == "refused"

    async def _refuse(self, procedure: Procedure, execution: Execution, seal: Seal, no: Answer, inbox: Inbox) -> Answer:
        row = self.ended(execution, await inbox.claim())
        if procedure.has_attempts and (await inbox.spent(execution.message)).attempts >= execution.retry.attempts:
            return await give_up(procedure, row, seal, inbox, "no attempt is left")
        seal(no)
        await inbox.settle(msgspec.structs.replace(row, state="refused", answer=no, due_at=None))
        return no

    async def _end(self, execution: Execution, inbox: Inbox) -> None:
        row = await inbox.claim()
        if row is None:
            await inbox.leave()
            return
        if execution.run not in row.runs:
            return  # its claim was never committed, and the number may be another run's by now
        is_owner = rules.is_owner(row, execution.claim, execution.procedure.state)
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
                ending = loop.create_task(self.end(execution))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)

        task.add_done_callback(end)


class SecondTransaction:
    """The transaction in which a run ends well: begun by the handler once its awaits are over, or after it.

    Args:
        runs: of the worker.
        execution: whose run it is.
    """

    def __init__(self, runs: Runs, execution: Execution) -> None:
        self._runs, self._execution, self._procedure = runs, execution, execution.procedure
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
        self._end_watch()
        if self._inbox is None:
            await transact(self._runs.database, self._execution, partial(self._settle, decision, answer))
            return
        assert self._row is not None
        killpoints.reached("worker.in_transaction")
        await self._inbox.settle(self._procedure.done(self._row, decision, answer))
        await self._stack.aclose()

    async def roll_back(self, error: BaseException) -> None:
        """Undo what the handler did in the transaction, if it began one."""
        self._end_watch()
        with suppress(BaseException):
            await self._stack.__aexit__(type(error), error, error.__traceback__)

    async def _begin(self) -> Transaction:
        if self._is_over or self._inbox is not None:
            raise OutsideOver(
                "the transaction of a handler with effects outside is begun once, after all that it waits for outside"
            )
        manner: Manner = "slow" if self._procedure.is_slow else "own"
        begun = self._runs.database.begin(self._execution.address, manner)
        inbox = await self._stack.enter_async_context(begun)
        self._row = self._runs.ended(self._execution, await inbox.claim(), has_acted=True)
        self._inbox = inbox
        if self._execution.watch is not None:
            self._execution.watch.begin(self._execution.on_wait)
        return inbox.transaction

    def _end_watch(self) -> None:
        """The handler has come to its end, and waits for nothing any more."""
        self._is_over = True
        if self._inbox is not None and self._execution.watch is not None:
            self._execution.watch.end()

    async def _settle(self, decision: Run, answer: Answer, inbox: Inbox) -> None:
        row = self._runs.ended(self._execution, await inbox.claim(), has_acted=True)
        killpoints.reached("worker.in_transaction")
        await inbox.settle(self._procedure.done(row, decision, answer))
