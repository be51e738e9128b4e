"""Attempts at a command or an event: how many failed, how many killed their worker, and whether one more may begin.

The database counts them (`Spent`), so that the next worker knows what the killed one could not say.
"""

from __future__ import annotations

from datetime import UTC, datetime

from antiphon.contracts.counting import counted

from .databases import Database, Inbox
from .execution import Execution
from .inbox import Spent
from .job import Job
from .reasons import OwnWords, reason_of


class Resting(OwnWords):
    """The reaction killed its worker as often as it may in a row, and rests before it is called again."""


class Suspect(Exception):
    """An earlier delivery has no known end: perhaps it killed its worker. The handler may be called only alone."""


async def count_attempt(execution: Execution, inbox: Inbox) -> str:
    """Find out before the handler is called which attempt this is, and whether it may be one.

    Returns:
        Why no attempt is left; empty if the handler may be called.

    Raises:
        Suspect: it may be called only when the message is performed alone.
        Resting: the reaction has killed its worker too often to be called just now.
    """
    execution.tries = 1
    if execution.deliveries > 1:
        spent = await inbox.spent(execution.message)
        if execution.is_alone:
            spent = spent.plus(Spent(alone=-1))  # this time
        if not execution.procedure.has_attempts:
            if spent.alone >= execution.retry.attempts and not execution.has_rested:
                raise Resting(f"{counted(spent.alone, 'attempt')} took the worker with them")
        elif spent.attempts >= execution.retry.attempts:
            return f"no attempt is left: {spent.failed} failed, and {spent.alone} took the worker with them"
        execution.tries, execution.lost = spent.attempts + 1, spent.lost(execution.deliveries)
        if execution.lost and not execution.is_alone:
            raise Suspect
    execution.started = datetime.now(UTC)
    return ""


class Tally:
    """The database's counts of deliveries, and what the database could not be told yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.pending: dict[str, Spent] = {}
        """By the messages."""

    async def add(self, job: Job, more: Spent) -> Spent | None:
        """Count what became of a delivery; None where the database cannot be told now: the next job will tell it.

        The database is told before the command is handed back. After a crash in between the delivery seems lost, and
        the command is performed alone, once more than was allowed.
        """
        message = job.message
        try:
            return await self._database.note(message, more)
        except Exception as error:
            self.keep(message, more)
            job.log("delivery.unnoted", reason=reason_of(error, with_text=True))
            return None

    async def begin_alone(self, message: str) -> None:
        """Count that a message is performed alone; durable on return.

        Raises:
            Busy: the database cannot be told now.
        """
        await self._database.note(message, Spent(alone=1))

    async def read(self, message: str) -> Spent:
        """What became of a message's deliveries.

        Raises:
            Busy: the database cannot be read now.
        """
        return await self._database.note(message, Spent())

    async def add_pending(self) -> None:
        """Tell the database what it could not be told before.

        Raises:
            Busy: it cannot be told now, either.
        """
        while self.pending:
            message, more = self.pending.popitem()
            try:
                await self._database.note(message, more)
            except BaseException:
                self.keep(message, more)
                raise

    def keep(self, message: str, more: Spent) -> None:
        """Tell the database later, with the next job."""
        self.pending[message] = self.pending.get(message, Spent()).plus(more)
