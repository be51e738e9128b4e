"""Messages for a person: stored in PARKED, and withdrawn when they have become needless."""

from __future__ import annotations

from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.payloads import WITHDRAWN, Parked
from antiphon.contracts.stored import NoRoom
from antiphon.contracts.subjects import ParkedKind, source_in
from antiphon.link import AlreadyStored, Link, Rejected
from antiphon.link.overflow import Overflow

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
        self._name, self._link, self._jobs, self._overflow = name, link, jobs, Overflow()

    async def park(self, job: Job, kind: ParkedKind, reason: str) -> bool:
        """Store the message in PARKED, or count it where PARKED holds as many like it as it takes. Where PARKED as a
        whole has no room it is logged instead: its stream holds it, and no saga shall wait for that. Where storing
        fails otherwise, or a withdrawal finds no room, the job is handed back, and this is false."""
        delivery = job.delivery
        parked = Parked(
            kind=kind,
            reason=reason,
            noticed_by=self._name,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            data=delivery.data,
            source=source_in(delivery.subject),
        )
        try:
            await self._link.store(parked.destination, parked.encode())
        except AlreadyStored:
            await self._count(job, parked)
        except NoRoom as error:
            job.log("parked.full", reason=f"{reason} ({error})", remedy="deploy/README.md, Room")
            if reason == WITHDRAWN:
                self._jobs.hand_back(job)
                return False
        except (Conflict, Rejected, Ambiguous) as error:
            job.log("parking.failed", reason=str(error))
            self._jobs.hand_back(job)
            return False
        return True

    async def withdraw(self, job: Job) -> bool:
        """The reaction succeeded: withdraw its PARKED entry. Where that fails the job is handed back; false then."""
        return await self.park(job, "fault", WITHDRAWN)

    async def _count(self, job: Job, parked: Parked) -> None:
        """Say now and then how many messages PARKED had no room for. A count that is lost is told with the next one."""
        if parked.reason == WITHDRAWN or not (told := self._overflow.add(parked.destination)):
            return
        try:
            await self._link.store(*told)
        except (Conflict, AlreadyStored, Rejected, Ambiguous) as error:
            job.log("parking.not_counted", reason=str(error))
