"""One message under the inbox's rules: the row is locked and asked, the author's code is called, and the answer is
durable before anybody hears of it. What the kinds of messages differ in is in `procedures.py`; handlers with effects
outside the database run as `outside.py` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from antiphon.contracts.errors import Refused
from antiphon.link import killpoints

from .attempts import count_attempt
from .calling import Call
from .databases import Database, Inbox
from .execution import Execution
from .inbox import Answer, Row, Spent
from .outside import Runs, Terms
from .procedures import RUNS, Procedure
from .under_lock import Seal, give_up, seal_or_give_up, tell, transact, write


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of a failed attempt."""

    answer: Answer | None
    """What the row says by now, or exhausted; None where the message is tried again."""
    tries: int
    """How many attempts have failed."""
    is_exhausted: bool = False


class Performing:
    """Performs the messages of one worker.

    Args:
        database: where the inbox is.
        terms: of runs outside a transaction.
    """

    def __init__(self, database: Database, terms: Terms) -> None:
        self._database, self._terms = database, terms
        self._runs = Runs(database, terms)

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
        if self._runs.unended:
            await self._runs.end_next()
        if procedure.is_outside:
            return await self._runs.perform(procedure, execution, seal)
        try:
            body = partial(self._plain, procedure, execution, seal)
            answer = await transact(self._database, execution, body, execution.manner)
        except Refused as refusal:
            if (no := procedure.refusal(refusal)) is None:
                raise
            body = partial(self._refuse, procedure, execution, seal, no, refusal)
            answer = await transact(self._database, execution, body)
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
        return await transact(self._database, execution, body)

    async def end_run(self, execution: Execution) -> None:
        """Note that a run outside a transaction has ended; see `Runs.end`."""
        await self._runs.end(execution)

    # --- inside one transaction ---------------------------------------------------------------------------------------

    async def _plain(self, procedure: Procedure, execution: Execution, seal: Seal, inbox: Inbox) -> Answer:
        row = await inbox.claim()
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return await tell(procedure, row, decision, seal, inbox)
        if out := await count_attempt(execution, inbox):
            return await give_up(procedure, row, seal, inbox, out)
        handler = partial(procedure.call, decision, inbox.transaction)
        code = killpoints.calling(execution.address.step, execution.address.direction, handler)
        execution.call = Call(execution.watch, execution.on_wait)
        answer = await execution.call.make(code)
        seal_or_give_up(seal, answer)
        killpoints.reached("worker.in_transaction")
        await inbox.settle(raised_claim(procedure.done(row, decision, answer)))
        return answer

    async def _refuse(
        self, procedure: Procedure, execution: Execution, seal: Seal, no: Answer, refusal: Refused, inbox: Inbox
    ) -> Answer:
        """Store a refusal. A compensation may have come in between, or a worker that said exhausted.

        Raises:
            Refused: a run outside may have acted before, so the refusal is a failed attempt like any other.
        """
        row = await inbox.claim()
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return await tell(procedure, row, decision, seal, inbox)
        if procedure.has_attempts and (await inbox.spent(execution.message)).attempts >= execution.retry.attempts:
            return await give_up(procedure, row, seal, inbox, "no attempt is left")
        if row is not None and row.state in ("claimed", "open"):
            raise refusal
        seal(no)
        await inbox.settle(Row("refused", procedure.mark, no, row.claim if row else 0))
        return no

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
            row = self._runs.ended(execution, row)
        decision = procedure.decide(row)
        if not isinstance(decision, RUNS):
            return Failure(await tell(procedure, row, decision, seal, inbox), execution.tries)
        # What failed has come to an end, so the deliveries lost before were not this message's fault.
        more = Spent(failed, execution.lost, -1 if execution.is_alone else 0)
        tries = (await inbox.note(execution.message, more)).attempts
        if procedure.has_attempts and tries >= execution.retry.attempts:
            answer = await give_up(procedure, row, seal, inbox, reason)
            return Failure(answer, tries, is_exhausted=True)
        if row is not None and row.state == "claimed":
            await inbox.settle(msgspec.structs.replace(row, due_at=self._terms.due_at(wait(tries))))
        else:
            await write(inbox, row, row if execution.claim else None)
        return Failure(None, tries)


def raised_claim(row: Row) -> Row:
    """The row that a plain handler leaves where an outside one had claimed it: that claim may not commit any more."""
    return msgspec.structs.replace(row, claim=row.claim + 1) if row.claim else row
