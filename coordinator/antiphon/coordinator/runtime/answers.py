"""The pulls of participants' answers: one for each participant that is set up, also for those that come while it runs.

What is set up is asked of the server every few seconds, and announced by nobody: an announcement can be lost, and says
nothing to whoever starts later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from antiphon.contracts.errors import AntiphonError, RightsMissing
from antiphon.contracts.topology import COORDINATOR_ACK_WAIT_SECONDS, answers_consumer_name
from antiphon.link import Delivery, Link, Pull
from antiphon.link.faults import say
from antiphon.link.setup import heard

LOOK_SECONDS: Final = 2.0
"""How soon a participant is heard that is set up while the coordinator runs."""

ANSWERS_HELD_MAX: Final = 400
"""Answers and events that a coordinator holds at once, of all participants together: what it can do in a quarter of a
second, even if every one of them must be read for and parked."""

HELD_EACH_MAX: Final = 100
"""The same of one participant, where there are few: enough to keep a coordinator busy. A participant that floods holds
no more, so that others wait for some 60 ms of work and not for its backlog."""

FACT_SECONDS_MAX: Final = 15.0
"""How long a coordinator keeps a fact that does not get on; then another one shall have it. Above the time after which
a write or a read without an answer is given up."""

KEPT: Final = {"ack_wait_seconds": COORDINATOR_ACK_WAIT_SECONDS, "keep_seconds_max": FACT_SECONDS_MAX}

REFUSED_SECONDS: Final = 15.0
"""After how long a consumer is tried again from which this user may not pull."""

REMEDY: Final = "make the accounts anew with this participant (antiphon rights), and have each server read them"

log = structlog.get_logger()


def places(participants: int) -> int:
    """How many places each of so many participants has, or each of their consumers where several pairs of streams have
    one: equal shares, so that each has an equal part of the
    coordinator's time when all have much to say."""
    return max(1, min(HELD_EACH_MAX, ANSWERS_HELD_MAX // max(1, participants)))


class AnswerPulls:
    """The pulls of one coordinator.

    Args:
        link: a connection with a coordinator's rights.
        handle: is given each delivery.
    """

    def __init__(self, link: Link, handle: Callable[[Delivery], None]) -> None:
        self._link, self._handle = link, handle
        self.by_consumer: dict[tuple[str, str], Pull] = {}
        """The pulls, by participant and stream."""
        self._refused: dict[tuple[str, str], float] = {}
        """When the server last refused to let this user pull a participant's answers from a stream."""
        self._over: list[Pull] = []
        """What is pulled from no more, and to be left."""
        self._looking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Pull from the consumers that are there, and keep looking for others until the link is closed.

        Raises:
            PlatformError: the server cannot tell which are there.
        """
        await self.look()
        self._looking = asyncio.ensure_future(self._keep_looking())
        self._link.on_close.append(self.stop_looking)

    def stop_looking(self) -> None:
        """Leave it at the participants that are known."""
        if self._looking is not None:
            self._looking.cancel()

    async def look(self) -> None:
        """Pull from the consumers that have come, and from those no more that have gone.

        Raises:
            PlatformError: the server cannot tell which are there.
        """
        there = await heard(self._link)
        for which, pull in list(self.by_consumer.items()):
            # Both the list and the pull: a server that has just become the leader may not know all of them.
            if which[0] not in there and pull.refused:
                self._over.append(self.by_consumer.pop(which))
                log.info("participant.gone", participant=which[0])
        while self._over:
            await self._over.pop().leave()
        now = asyncio.get_running_loop().time()
        every = {(name, stream) for name in there for stream in self._link.pairs.events}
        new = {which for which in every if now - self._refused.get(which, -REFUSED_SECONDS) >= REFUSED_SECONDS}
        new -= self.by_consumer.keys()
        capacity = places(len(self.by_consumer) + len(new))
        for pull in self.by_consumer.values():
            pull.capacity = capacity
        for name, stream in sorted(new):
            await self._pull(name, stream, capacity)

    async def _keep_looking(self) -> None:
        while not self._link.failure.done():
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except AntiphonError as error:
                log.info("participants.not_seen", reason=str(error))
            except Exception as error:  # the next look may see more
                say("participants.faulty", error)

    async def _pull(self, name: str, stream: str, capacity: int) -> None:
        pull = Pull(self._link, stream, answers_consumer_name(name), capacity, self._handle, **KEPT)
        self._link.on_refused[pull.request_subject] = partial(self._refuse, (name, stream), pull)
        self.by_consumer[name, stream] = pull
        await pull.start()
        if self._looking is not None and (name, stream) not in self._refused:
            log.info("participant.heard", participant=name, places=capacity)

    def _refuse(self, which: tuple[str, str], pull: Pull, error: RightsMissing) -> None:
        """Ask no more for a while: whoever is set up before the accounts know of it is heard once they do."""
        if self.by_consumer.get(which) is pull:
            self._over.append(self.by_consumer.pop(which))
        if which not in self._refused:
            log.warning("participant.refused", participant=which[0], reason=str(error), remedy=REMEDY)
        self._refused[which] = asyncio.get_running_loop().time()
