"""What became of deliveries, as the database counts it: failed, returned, performed alone."""

from __future__ import annotations

from .databases import Database
from .inbox import Spent
from .job import Job
from .reasons import reason_of


class Tally:
    """The database's counts of deliveries, and what the database could not be told yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.pending: dict[int, Spent] = {}
        """By the jobs' numbers."""

    async def add(self, job: Job, more: Spent) -> Spent | None:
        """Count what became of a delivery; None where the database cannot be told now: the next job will tell it.

        The database is told before the command is handed back. After a crash in between the delivery seems lost, and
        the command is performed alone, once more than was allowed.
        """
        number = job.number
        try:
            return await self._database.note(number, more)
        except Exception as error:
            self._keep(number, more)
            job.log("delivery.unnoted", reason=reason_of(error, with_text=True))
            return None

    async def begin_alone(self, number: int) -> None:
        """Count that a message is performed alone; durable on return.

        Raises:
            Busy: the database cannot be told now.
        """
        await self._database.note(number, Spent(alone=1))

    async def read(self, number: int) -> Spent:
        """What became of a message's deliveries.

        Raises:
            Busy: the database cannot be read now.
        """
        return await self._database.note(number, Spent())

    async def add_pending(self) -> None:
        """Tell the database what it could not be told before.

        Raises:
            Busy: it cannot be told now, either.
        """
        while self.pending:
            number, more = self.pending.popitem()
            try:
                await self._database.note(number, more)
            except BaseException:
                self._keep(number, more)
                raise

    def _keep(self, number: int, more: Spent) -> None:
        self.pending[number] = self.pending.get(number, Spent()).plus(more)
