"""Handlers that do not end in time: cancelled, and left behind where a cancel does not end them."""

from __future__ import annotations

import asyncio
from typing import Any

from .calling import Call
from .job import Job
from .reasons import OwnWords


class Overdue(OwnWords):
    """A handler ran for longer than handlers may, and was cancelled."""


class TimeLimit:
    """How long the handlers of one worker may run, and the handlers that go on although they were cancelled.

    Args:
        seconds: the longest that a job may take, from its delivery on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.deaf: set[asyncio.Task[Any]] = set()
        """Tasks of handlers that a cancel did not end."""

    def cancel_if_overdue(self, job: Job, ran_seconds: float) -> None:
        """End a job that takes too long, and keep where its handler stands, while it still stands there."""
        if ran_seconds <= self._seconds or job.is_overdue or job.task is None:
            return
        job.is_overdue = True
        if job.execution is not None and job.execution.call.goes_on:
            call, ran = job.execution.call, f"its handler had not returned after {self._seconds:g} s"
            job.overdue = f"{ran}: it stood at {call.whereabouts()}"
            job.log("handler.overdue", after_seconds=self._seconds, stack=call.stack())
        job.task.cancel()

    def leave_behind(self, job: Job, call: Call) -> None:
        """Go on without a handler that does not end. It can reach nothing of ours: its transaction is rolled back."""
        assert call.task is not None
        self.deaf.add(call.task)
        call.task.add_done_callback(self._on_deaf_end)
        job.log("handler.deaf", stack=call.stack())

    def _on_deaf_end(self, task: asyncio.Task[Any]) -> None:
        self.deaf.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, lest asyncio complain that nobody did
