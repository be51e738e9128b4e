"""Messages for a person: stored in PARKED, and withdrawn when they have become needless."""

from __future__ import annotations

from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.payloads import WITHDRAWN, Parked, ParkedKind
from antiphon.link import AlreadyStored, Link, Rejected

from .job import Job
from .jobs import Jobs


class Parking:
    """Parks a participant's messages.

    Args:
        name: the participant's.
        link: stores into PARKED.
        jobs: all jobs of the worker.
    """

    def __init__(self, name: str, link: Link, jobs: Jobs) -> None:
        self._name, self._link, self._jobs = name, link, jobs

    async def park(self, job: Job, kind: ParkedKind, reason: str) -> bool:
        """Store the message in PARKED. Where that fails the job is handed back, and this is false."""
        delivery = job.delivery
        parked = Parked(
            kind=kind,
            reason=reason,
            noticed_by=self._name,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            data=delivery.data,
        )
        try:
            await self._link.store(parked.destination, parked.encode())
        except (Conflict, AlreadyStored, Rejected, Ambiguous) as error:
            job.log("parking.failed", reason=str(error))
            self._jobs.hand_back(job)
            return False
        return True

    async def withdraw(self, job: Job) -> bool:
        """The reaction succeeded: withdraw its PARKED entry. Where that fails the job is handed back; false then."""
        return await self.park(job, "fault", WITHDRAWN)
