"""All jobs of a worker, and the ways in which a job leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .job import Job

BUSY_SECONDS: Final = 1.0
"""How long a command rests on average after the database could not be had, or its answer was rejected."""


class Jobs:
    """The jobs of one worker.

    Args:
        chance: draws from [0, 1), for the jitter of delays.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self.held: set[Job] = set()
        self.is_draining = False
        """Whether the worker takes no more jobs."""
        self.on_change: Callable[[], None] | None = None
        """Called when a job has come or gone."""
        self._chance = chance
        self._idle = asyncio.Event()

    def take(self, job: Job) -> None:
        """Hold one more."""
        self.held.add(job)
        if self.on_change is not None:
            self.on_change()

    def settle(self, job: Job) -> None:
        """Ack the delivery, or end it where it must not come again."""
        if job.end_reason:
            job.delivery.end(job.end_reason)
        else:
            job.delivery.ack()
        self._forget(job)

    def hand_back(self, job: Job, delay_seconds: float | None = None) -> None:
        """Have the message delivered again.

        Args:
            job: leaves the worker.
            delay_seconds: when; about a second from now when left out.
        """
        job.delivery.hand_back(self.jittered(BUSY_SECONDS) if delay_seconds is None else delay_seconds)
        self._forget(job)

    def drop(self, job: Job) -> None:
        """Leave the delivery unacked: the message comes again after the ack wait."""
        job.delivery.drop()
        self._forget(job)

    async def is_idle(self, seconds: float) -> bool:
        """Wait until no job is left, for so long at most; whether none is."""
        try:
            async with asyncio.timeout(seconds):
                while self.held:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def jittered(self, seconds: float) -> float:
        """Between half and one and a half times as long."""
        return seconds * (0.5 + self._chance())

    def _forget(self, job: Job) -> None:
        self.held.discard(job)
        if self.on_change is not None:
            self.on_change()
        if self.is_draining and not self.held:
            self._idle.set()
