"""Whether the server is as a process needs it: looked at before it begins and now and then, and told when it changes.

Each process looks with the rights that it has. Coordinators may ask about streams and consumers, and compare them with
`topology`; who has an account of its own sees that pulls are refused and that reads find nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog

from antiphon.contracts.bounds import SEQUENCE_MAX
from antiphon.contracts.differences import (
    Config,
    Difference,
    asked_replicas,
    consumer_differences,
    stream_differences,
)
from antiphon.contracts.errors import Ambiguous, PlatformError, StreamMissing
from antiphon.contracts.stored import NobodyReads
from antiphon.contracts.topology import BUCKETS, Consumer

from .connection import Link, missing
from .delivery import Pull
from .faults import say
from .setup import CONSUMER_SECONDS, ELECTION_SECONDS, info_of

log = structlog.get_logger()

LOOK_SECONDS: Final = 10.0
"""How often a process looks. A coordinator asks some twenty questions, each of which takes the server about 0.1 ms."""
LOOK_AGAIN_SECONDS: Final = 2.0
"""How often it looks while something keeps it from its work, so that it goes on soon after that was mended."""

Look = Callable[[], Awaitable[list[Difference]]]
"""Finds what is not as it must be.

Raises:
    Ambiguous: it cannot be seen now.
    PlatformError: the process cannot go on.
"""


class Fitness:
    """What one process has found.

    Args:
        link: its connection.
        looks: each finds some of what is not as it must be.
        changed: called with how many things are not, each time that changes, and at first.
    """

    def __init__(self, link: Link, looks: Sequence[Look], changed: Callable[[int], None] = lambda count: None) -> None:
        self._link, self._looks, self._changed = link, looks, changed
        self._since: dict[Difference, float] = {}
        self.differences: tuple[Difference, ...] = ()
        """What is not as it must be, as far as it was seen for long enough."""
        self.turned = asyncio.Event()
        """Set when the process becomes ready, and when it is ready no more."""
        self._is_blind = False
        """Whether nothing could be seen the last time."""
        self._soon = asyncio.Event()
        link.on_reconnect.append(self._soon.set)
        changed(0)

    @property
    def is_ready(self) -> bool:
        """Whether nothing keeps the process from its work."""
        return not any(each.is_grave for each in self.differences)

    @property
    def is_unwell(self) -> bool:
        """Whether the last look saw nothing, or anything that keeps the process from its work."""
        return self._is_blind or any(each.is_grave for each in self._since)

    async def until_ready(self, told: asyncio.Event | None = None) -> None:
        """Look until nothing keeps the process from its work, or it is told to end.

        Raises:
            PlatformError: it cannot go on.
        """
        told = told or asyncio.Event()
        while any(each.is_grave for each in await self.look()) and not told.is_set():
            await self._link.until(told, LOOK_AGAIN_SECONDS)

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None]:
        """Look now and then, for the length of the block."""
        looking = asyncio.ensure_future(self._keep_looking())
        try:
            yield
        finally:
            looking.cancel()

    async def look(self) -> list[Difference]:
        """Look once. What cannot be seen now stays as it was.

        Returns:
            What was seen, also what has not been so for long enough to count.

        Raises:
            PlatformError: the process cannot go on.
        """
        found, self._is_blind = list[Difference](), True
        for look in self._looks:
            try:
                found += await look()
            except PlatformError:
                raise
            except Ambiguous:
                return [*self._since]
            except Exception as error:  # the next look may see more
                say("platform.faulty", error)
                return [*self._since]
        self._is_blind = False
        self._see(found)
        return found

    async def _keep_looking(self) -> None:
        while True:
            pause = LOOK_AGAIN_SECONDS if self.is_unwell else LOOK_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._soon.wait()
            self._soon.clear()
            with contextlib.suppress(PlatformError):  # the link ends the process
                await self.look()
            if self.is_unwell:
                await self._link.leaving.unwell()
            else:
                self._link.leaving.well()

    def _see(self, found: list[Difference]) -> None:
        now, was_ready = time.monotonic(), self.is_ready
        self._since = {each: self._since.get(each, now) for each in found}
        counting = tuple(each for each in found if now - self._since[each] >= each.patience_seconds)
        if counting == self.differences:
            return
        self.differences = counting
        self._changed(len(counting))
        self._tell()
        if self.is_ready != was_ready:
            self.turned.set()

    def _tell(self) -> None:
        if not self.differences:
            log.info("platform.restored")
            return
        remedies = list(dict.fromkeys(each.remedy for each in self.differences))
        log.warning(
            "platform.differs",
            differences=[each.sentence for each in self.differences],
            remedy="; ".join(remedies),
            ready=self.is_ready,
        )


# --- what is looked at ------------------------------------------------------------------------------------------------


def cluster(link: Link) -> Look:
    """Look whether the servers that lead the streams answer through this one: for a connection beside the one by which
    a process sees everything else. It may be at a server that was cut off, and leaves it then."""

    async def look() -> list[Difference]:
        for stream in link.pairs.saga:
            await info_of(link, f"STREAM.INFO.{stream}")
        return []

    return look


def payload(link: Link) -> Look:
    """Look at how large a message the server takes, as it said when the connection was made."""

    async def look() -> list[Difference]:
        fault = link.payload_fault
        return [Difference(fault, remedy="the server's configuration: max_payload")] if fault else []

    return look


def settings(link: Link, consumers: Iterable[Consumer], others: Iterable[Consumer] = ()) -> Look:
    """Look at the settings of all streams and of the given consumers: for whoever may ask about them.

    Args:
        link: a connection with a coordinator's rights.
        consumers: those without which the process does nothing.
        others: those without which it does less, such as those of one participant.
    """
    consumers, others = link.pairs.spread(consumers), link.pairs.spread(others)

    async def look() -> list[Difference]:
        found = await _streams(link)
        for consumer in consumers:
            found += await _consumer(link, consumer, is_grave=True)
        for consumer in others:
            found += await _consumer(link, consumer, is_grave=False)
        return found

    return look


async def _streams(link: Link) -> list[Difference]:
    wanted = (*link.pairs.streams(), *BUCKETS)
    configs = {stream.name: await _config(link, f"STREAM.INFO.{stream.name}") for stream in wanted}
    replicas = asked_replicas({name: config for name, config in configs.items() if config is not None})
    found = list[Difference]()
    for stream in wanted:
        config = configs[stream.name]
        if config is None:
            is_grave = stream not in BUCKETS
            found.append(_missing(missing(stream.name), is_grave=is_grave, patience_seconds=_doubt(link)))
        else:
            found += stream_differences(stream, config, replicas)
    return found


async def _consumer(link: Link, consumer: Consumer, *, is_grave: bool) -> list[Difference]:
    config = await _config(link, f"CONSUMER.INFO.{consumer.stream}.{consumer.name}")
    if config is None:
        error = missing(consumer.stream, consumer.name)
        return [_missing(error, is_grave=is_grave, patience_seconds=_doubt(link))]
    return [_as_grave(each, is_grave) for each in consumer_differences(consumer, config)]


def _as_grave(found: Difference, is_grave: bool) -> Difference:
    """The difference, as grave at most as its consumer is."""
    return Difference(found.sentence, found.is_grave and is_grave, found.remedy, found.patience_seconds)


def _missing(error: StreamMissing, *, is_grave: bool, patience_seconds: float) -> Difference:
    """The difference of what is not there, whose sentence has the remedy."""
    sentence, _, remedy = str(error).partition(" Create ")
    command = remedy.partition("antiphon setup")[2]
    return Difference(sentence, is_grave, f"as administrator: antiphon setup{command}", patience_seconds)


async def _config(link: Link, subject: str) -> Config | None:
    """The configuration of a stream or consumer; None where it is not there.

    Raises:
        Ambiguous: the server cannot tell.
    """
    info = await info_of(link, subject)
    return info and info["config"]


def pulls(link: Link, of: Callable[[], Iterable[Pull]]) -> Look:
    """Look whether the server delivers from the consumers that are pulled from: for whoever may not ask about them.

    Args:
        link: the connection.
        of: the pulls of the process.
    """

    async def look() -> list[Difference]:
        now = time.monotonic()
        return [
            _missing(missing(pull.stream, pull.consumer), is_grave=True, patience_seconds=_patience(link))
            for pull in of()
            if link.is_connected and pull.refused_seconds(now) > LOOK_AGAIN_SECONDS
        ]

    return look


def reads(link: Link, streams: Iterable[str]) -> Look:
    """Look whether the streams answer direct reads: for whoever may not ask about them.

    Args:
        link: a connection that may read them.
        streams: their names.
    """
    streams = [name for stream in streams for name in link.pairs.names(stream)]

    async def look() -> list[Difference]:
        silent = [stream for stream in streams if not await _answers(link, stream)]
        return [
            Difference(
                f"stream {stream} is not there, or does not allow direct reads", patience_seconds=_patience(link)
            )
            for stream in silent
        ]

    return look


async def _answers(link: Link, stream: str) -> bool:
    try:
        await link.get_all_at(stream, [SEQUENCE_MAX])  # no message is there, which is the smallest answer
    except NobodyReads:
        return False
    return True


def _doubt(link: Link) -> float:
    """For how long the word of the server that something is not there is doubted: one of several may not know yet."""
    return ELECTION_SECONDS if link.may_be_clustered else 0.0


def _patience(link: Link) -> float:
    """For how long a refusal is taken to pass: a leader is being chosen, or a consumer is made anew."""
    return ELECTION_SECONDS if link.may_be_clustered else CONSUMER_SECONDS
