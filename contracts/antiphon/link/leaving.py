"""When a process goes to another server of its cluster: the one that it has may be cut off from the others, and still
be reached."""

from __future__ import annotations

import time
from typing import Final, Protocol

import structlog

LEAVE_SECONDS: Final = 10.0
"""After how long a process leaves a server through which it sees nothing, or nothing that works, if there are others.
An election takes less."""
LEAVE_SECONDS_MAX: Final = 60.0
"""The longest pause between two such moves. Each is twice as long as the one before: it may be the whole cluster."""
FORGET_SECONDS: Final = 30.0
"""After how long without a word what was of no use before counts no more."""

log = structlog.get_logger()


class Moving(Protocol):
    """A connection that can be moved to another server."""

    @property
    def is_connected(self) -> bool:
        """Whether it is up."""
        ...

    async def leave(self) -> bool:
        """Connect to another server; false where there is none."""
        ...


class Leaving:
    """How long a server has been of no use to one process.

    Args:
        link: the connection to it.
    """

    def __init__(self, link: Moving) -> None:
        self._link = link
        self._since = self._last = -FORGET_SECONDS
        self._pause = LEAVE_SECONDS

    def well(self) -> None:
        """The server was of use."""
        self._since, self._pause = -FORGET_SECONDS, LEAVE_SECONDS

    async def unwell(self) -> None:
        """The server was of no use; go to another one where that has lasted for long enough."""
        now = time.monotonic()
        if self._since < 0 or now - self._last > FORGET_SECONDS or not self._link.is_connected:
            self._since = now
        elif now - self._since >= self._pause and await self._link.leave():
            log.warning("server.left", reason="it may be cut off from its cluster", seconds=self._pause)
            self._since, self._pause = now, min(LEAVE_SECONDS_MAX, 2 * self._pause)
        self._last = now
