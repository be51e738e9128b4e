"""Who reads the streams on and on, and how far each has got: what one of them has not dealt with is not purged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.bounds import SEQUENCE_MAX
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.readmodel_places import ReadUpTo, read_up_to
from antiphon.contracts.stored import NobodyReads
from antiphon.contracts.topology import EXPORTER, READMODELS, reactions_consumer_name
from antiphon.link import Link
from antiphon.link.readmodel_places import readers
from antiphon.link.setup import ELECTION_SECONDS, consumer_names, info_of
from antiphon.link.tail import ALL


class Say(Protocol):
    """Logs a thing now and then, as long as it is so."""

    def __call__(self, event: str, about: str, **values: object) -> None:
        """Log it."""
        ...


class Limits(msgspec.Struct, frozen=True):
    """What others have not dealt with yet in one pair of streams, and so has to stay."""

    exported: int
    """Up to this sequence of the pair's SAGA the exporter has handed over all traces."""
    heard: int
    """Up to this sequence of the pair's EVENTS everybody who reacts to events has heard all of them."""
    read: ReadUpTo
    """What read models have read, and by which sagas they know the streams again."""
    last: SagaKey | None
    """The saga of the last message of EVENTS. Whoever reads the stream on and on knows his place by that message."""


class StreamReaders:
    """The exporter, the participants that react to events, and the read models.

    Args:
        link: a connection that may ask about consumers, and read what read models say.
        say: logs what is not as it must be.
    """

    def __init__(self, link: Link, say: Say) -> None:
        self._link, self._say = link, say
        self._reacting = set[str]()
        """The consumers of reactions that were ever seen: a server that has just become the leader may not list all."""
        self._missed: dict[tuple[str, str], float] = {}
        """Since when the server has said that a consumer of a stream is not there."""

    async def limits(self, pair: int = 0) -> Limits:
        """How far everybody has got by now in one pair of streams.

        Raises:
            Ambiguous: the server cannot tell.
            PlatformError: nor can it say who reacts to events.
        """
        saga, events = self._link.pairs.saga[pair], self._link.pairs.events[pair]
        newest = await self._link.get_latest(events, ALL)
        last = subjects.saga_in(newest.subject) if newest is not None else None
        exported, heard = await self._finished(saga, EXPORTER), await self._heard(events)
        return Limits(exported, heard, await self._read(pair), last)

    async def _read(self, pair: int) -> ReadUpTo:
        """What read models have read."""
        try:
            found = await readers(self._link)
        except NobodyReads:
            remedy = "as administrator: antiphon setup"
            self._say("retention.waits", READMODELS.name, stream=READMODELS.name, remedy=remedy)
            raise
        for each in found:
            if each.fault:
                self._say("retention.unreadable", each.name, readmodel=each.name, reason=each.fault)
        return read_up_to(found, pair)

    async def _heard(self, events: str) -> int:
        """Up to where everybody has heard the events that he reacts to."""
        suffix = reactions_consumer_name("")
        self._reacting |= {name for name in await consumer_names(self._link, events) if name.endswith(suffix)}
        return min([await self._finished(events, name) for name in sorted(self._reacting)], default=SEQUENCE_MAX)

    async def _finished(self, stream: str, consumer: str) -> int:
        """Up to which sequence a consumer has finished everything. One that is not there, or from which nobody ever
        pulled, holds nothing up.

        Raises:
            Ambiguous: the server cannot tell.
        """
        info = await info_of(self._link, f"CONSUMER.INFO.{stream}.{consumer}")
        if info is None:
            self._require_gone(stream, consumer)
            return SEQUENCE_MAX
        self._missed.pop((stream, consumer), None)
        if _is_unused(info):
            return SEQUENCE_MAX
        if not (info["num_pending"] or info["num_ack_pending"]):
            return SEQUENCE_MAX
        floor: int = info["ack_floor" if info["num_ack_pending"] else "delivered"]["stream_seq"]
        return floor

    def _require_gone(self, stream: str, consumer: str) -> None:
        """Doubt for a while that a consumer is not there: one of several servers may not know yet.

        Raises:
            Ambiguous: it may be there.
        """
        now = asyncio.get_running_loop().time()
        since = self._missed.setdefault((stream, consumer), now)
        if self._link.may_be_clustered and now - since < ELECTION_SECONDS:
            raise Ambiguous(f"the server may not know yet that there is a consumer {consumer}")


def _is_unused(info: Mapping[str, Any]) -> bool:
    """Whether nobody has ever pulled from a consumer."""
    used: int = info["delivered"]["consumer_seq"] + info["num_waiting"]
    return used == 0
