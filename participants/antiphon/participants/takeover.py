"""A worker notes what it holds, and hands back at once what dead processes of its participant have held."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Collection
from typing import Final

import structlog

from antiphon.contracts.stored import parse_stamp
from antiphon.link import Link

from .databases import Database
from .jobs import Jobs
from .notes import Left, Notes
from .reasons import reason_of

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.5
"""How often a worker looks whether another one has died."""
STARTING_LOOKS: Final = 20
STARTING_LOOK_SECONDS: Final = 0.1
"""How many looks a worker takes that is just starting, and how often: the lock of the one before it, which was killed,
may be there for a moment."""


class Takeover:
    """Keeps this process's note true, and takes over from the dead.

    Args:
        notes: of this participant's processes; None where there are none.
        link: hands back.
        database: is told that the runs of a dead process have ended.
        jobs: what is held.
        consumers: streams and consumers from which this worker pulls; of others it may hand nothing back.
        ack_wait_seconds: what was noted longer ago has been delivered to somebody else by now.
    """

    def __init__(
        self,
        notes: Notes | None,
        link: Link,
        database: Database,
        jobs: Jobs,
        consumers: Collection[tuple[str, str]],
        ack_wait_seconds: float,
    ) -> None:
        self._notes, self._link, self._database, self._jobs = notes, link, database, jobs
        self._consumers, self._ack_wait_seconds = consumers, ack_wait_seconds
        self._loop = asyncio.get_running_loop()
        self._is_due = self._is_failing = False
        self._handed_back: set[str] = set()
        """The dead whose deliveries were handed back, and whose notes are still there: said twice, it would be said of
        deliveries that somebody else has by now."""
        self._looking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Begin a note, take over what dead processes have left, and go on to look for such.

        Where no note can be kept the worker goes on without: what it holds is delivered to others after the ack wait.
        """
        if self._notes is None:
            return
        try:
            await self._notes.open()
        except Exception as error:
            log.warning("held.unnoted", reason=reason_of(error, with_text=True))
            with contextlib.suppress(Exception):
                await self._notes.close()
            self._notes = None
            return
        await self._take_over(self._notes, is_starting=True)
        self._looking = self._loop.create_task(self._keep_looking(self._notes))
        self._jobs.on_change = self.changed

    async def end(self) -> None:
        """Remove the note, unless something is left in hand: that is for whoever sees this process die."""
        if self._notes is None or self._looking is None:
            return
        self._looking.cancel()
        await asyncio.wait((self._looking,))
        if not self._jobs.held:
            self._jobs.on_change = None
            with contextlib.suppress(Exception):
                await self._notes.close()

    def changed(self) -> None:
        """Have it noted, once in this turn of the loop and before any handler runs, what is held now."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._is_due = False
        if self._notes is not None:
            self._notes.write([job.delivery.reply for job in self._jobs.held if not job.delivery.is_lost])

    async def _keep_looking(self, notes: Notes) -> None:
        for look in itertools.count():
            is_starting = look < STARTING_LOOKS
            await asyncio.sleep(STARTING_LOOK_SECONDS if is_starting else LOOK_SECONDS)
            await self._take_over(notes, is_starting)

    async def _take_over(self, notes: Notes, is_starting: bool) -> None:
        if not self._link.is_connected:
            return
        try:
            for left in await notes.dead(is_starting):
                if left.instance not in self._handed_back:
                    await self._hand_back(left)
                    self._handed_back.add(left.instance)
                await self._database.end_runs(left.instance)
                await notes.forget(left)
                self._handed_back.discard(left.instance)
            self._is_failing = False
        except Exception as error:
            if not self._is_failing:
                log.warning("takeover.failed", reason=reason_of(error, with_text=True))
            self._is_failing = True

    async def _hand_back(self, left: Left) -> None:
        """Have all that a dead process held delivered at once. What was noted too long ago is somebody else's."""
        if left.age_seconds > self._ack_wait_seconds:
            return
        held = [reply for reply in left.replies if self._is_ours(reply)]
        if held:
            log.warning(
                "worker.taken_over", instance=left.instance, count=len(held), after_seconds=round(left.age_seconds, 3)
            )
        for reply in held:
            self._link.send(reply, b"-NAK")
        await self._link.flushed()

    def _is_ours(self, reply: str) -> bool:
        """Whether a reply subject acks a delivery of a consumer that this worker shares."""
        if not reply.startswith("$JS.ACK."):
            return False
        try:
            stamp = parse_stamp(reply)
        except (IndexError, ValueError):
            return False
        return (stamp.stream, stamp.consumer) in self._consumers
