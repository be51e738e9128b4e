"""The turn of the commands that are performed alone: one at a time, the others wait for it in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from .job import Job


class NotItsTurn(Exception):
    """The command is to be performed alone, and cannot wait here until that is possible."""


class Turn:
    """Says which job is performed alone.

    A job that waits keeps its lease and gives up its place: the worker takes fresh commands meanwhile, however long the
    one that is performed alone may take. With its turn it gets a place again, beyond those there are.

    Args:
        waiting_max: how many may wait.
    """

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._is_taken = self._is_closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def of(self, job: Job) -> AsyncGenerator[None]:
        """Wait until a job may be performed alone; others wait until the block is left.

        Raises:
            NotItsTurn: too many wait, the worker drains, or the job was lost while it waited.
        """
        if self._is_taken:
            await self._wait(job)
        self._is_taken = True
        try:
            if job.delivery.is_lost:
                raise NotItsTurn
            yield
        finally:
            self._pass_on()

    def close(self) -> None:
        """Let nobody wait any more."""
        self._is_closed = True
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(NotItsTurn())

    async def _wait(self, job: Job) -> None:
        if self._is_closed or len(self._waiting) >= self._waiting_max:
            raise NotItsTurn
        comes: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(comes)
        job.delivery.leave_place()
        try:
            await comes
        except asyncio.CancelledError:
            if comes.done() and not comes.cancelled() and comes.exception() is None:
                self._pass_on()  # its turn came together with the cancel
            raise
        finally:
            job.delivery.take_place()

    def _pass_on(self) -> None:
        self._is_taken = False
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._is_taken = True
                waiting.set_result(None)
                return
