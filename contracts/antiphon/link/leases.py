"""The lease on what a pull holds: extended while the process lives, given up without a word where it may be lost.

The server gives a message to somebody else when its ack wait has passed without a word. From then on every word about
the message speaks of the new holder's delivery: an ack ends it, a negative ack has it delivered once more, and an
extension keeps it from whoever comes after a dead one. So a process that cannot know whether a message is still its own
says nothing about it any more.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

import structlog

log = structlog.get_logger()

LEASE_SECONDS: Final = 0.75
"""How often leases are extended: four times in an ack wait of three seconds, so that a process which stood still for
two seconds has lost nothing."""

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)

now: Callable[[], float] = time.monotonic if _CLOCK is None else partial(time.clock_gettime, _CLOCK)
"""Seconds, by a clock that goes on while the machine sleeps, where there is one."""


def lease_seconds(ack_wait_seconds: float) -> float:
    """How often leases are extended under an ack wait."""
    return min(LEASE_SECONDS, ack_wait_seconds / 4)


class Leased(Protocol):
    """A delivery, as its lease sees it."""

    is_lost: bool

    def extend(self) -> None:
        """Keep the message for another ack wait."""


class Connected(Protocol):
    """What a lease needs of the link."""

    @property
    def is_connected(self) -> bool:
        """Whether frames reach a server, as far as is known."""
        ...

    async def answers(self) -> bool:
        """Ask the server for a sign of life; false where it gives none on this connection."""
        ...


class Lease:
    """The lease on all that one pull holds.

    Args:
        link: the connection.
        consumer: for the log.
        ack_wait_seconds: what the consumer is configured with, as far as this process was told.
        keep_seconds_max: for how long a message is kept at most while nobody says that it is in progress; then it is
            given up.
    """

    def __init__(
        self,
        link: Connected,
        consumer: str,
        ack_wait_seconds: float,
        keep_seconds_max: float = math.inf,
    ) -> None:
        self._link, self._consumer = link, consumer
        self._ack_wait_seconds, self._keep_seconds_max = ack_wait_seconds, keep_seconds_max
        self.held: dict[Leased, float] = {}
        """What is held, and since when it is kept."""
        self.looked = self._extended = self._proved = now()
        self._is_sure = True
        self._connections = 0
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Extend what is held from now on, again and again."""
        self._timer = asyncio.get_running_loop().call_later(lease_seconds(self._ack_wait_seconds), self._turn)

    def stop(self) -> None:
        """Extend nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._ask_no_more()

    def look(self) -> None:
        """Find out whether the process stood still; before anything is said."""
        self.looked = now()
        if self.looked - self._extended > self._ack_wait_seconds:
            self._resume()

    def is_ours(self) -> bool:
        """Whether a message that arrives now may be taken.

        After a standstill it was sent at an unknown time before, until the server has given a sign of life.
        """
        self.look()
        return self._is_sure

    def keep(self, delivery: Leased) -> None:
        """Count the time for which a message is kept anew."""
        if delivery in self.held:
            self.held[delivery] = now()

    def disconnected(self) -> None:
        """Nothing that was asked on this connection will be answered."""
        self._connections += 1

    def reconnected(self) -> None:
        """The connection is back. What the server may have heard no extension for may be lost."""
        self.looked = now()
        if self.looked - self._proved > self._ack_wait_seconds:
            self._give_up("the connection was away", self.looked - self._proved)
        self._ask_no_more()
        self._is_sure, self._proved = True, self.looked
        self._extend()

    def _turn(self) -> None:
        self.start()
        self.look()
        if not self._link.is_connected:
            return
        self._extend()
        if not self.held:
            self._proved = self.looked
        elif self._asking is None or self._asking.done():
            self._ask(self._prove(self.looked))

    def _extend(self) -> None:
        for delivery, taken in list(self.held.items()):
            if self.looked - taken > self._keep_seconds_max:
                self._let_go(delivery)
            else:
                delivery.extend()
        self._extended = self.looked

    def _resume(self) -> None:
        """Go on after a standstill."""
        stood, self._extended = self.looked - self._extended, self.looked
        if self._link.is_connected:
            self._give_up("the process stood still", stood)
            self._is_sure = False
            self._ask_no_more()
            self._ask(self._become_sure())
        else:
            self._give_up("the connection is away", stood)

    async def _prove(self, moment: float) -> None:
        """Find out whether the server has heard what was said by that moment."""
        connection = self._connections
        if await self._link.answers() and connection == self._connections:
            self._proved = moment

    async def _become_sure(self) -> None:
        """What the server sends behind its answer was sent after the standstill."""
        await self._link.answers()
        self._is_sure, self._proved = True, now()

    def _ask(self, question: Coroutine[Any, Any, None]) -> None:
        self._asking = asyncio.get_running_loop().create_task(question)

    def _ask_no_more(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _give_up(self, why: str, seconds: float) -> None:
        if self.held:
            count, rounded = len(self.held), round(seconds, 3)
            log.warning("leases.lost", consumer=self._consumer, count=count, why=why, seconds=rounded)
        for delivery in list(self.held):
            self._let_go(delivery)

    def _let_go(self, delivery: Leased) -> None:
        """Nothing is said about the message any more. Its place is free when whoever works on it comes to an end."""
        del self.held[delivery]
        delivery.is_lost = True
