"""The sagas of a platform as a storage of traces has them: found by trace id and by query, and read when asked for.

Nothing is written, and nothing but names is remembered: a trace is projected from the journal each time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from antiphon.contracts import subjects
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.topology import EVENTS
from antiphon.link import Link

from ..export.reading import NotThere, Unprojectable, read_projection
from ..projection.project import Projection
from ..projection.spans import Span
from .index import Index
from .query import Query, matches

log = structlog.get_logger()

READS_MAX: Final = 2_000
"""How many sagas one question reads at most: what it asks for may be rare, and everything before would be read."""
SEARCH_SECONDS_MAX: Final = 10.0
"""How long one question looks for sagas. Then the answer is what was found."""
SURVEY_READS: Final = 200
SURVEY_SECONDS: Final = 5.0
"""How old an answer about services and operations may be."""
SERVICES_MAX: Final = 1_000
OPERATIONS_MAX: Final = 1_000
"""Of one service."""

Operation = tuple[str, str]
"""A span's name and kind."""


class Found(msgspec.Struct, frozen=True):
    """One saga's trace as it is now; it has at least one span."""

    key: SagaKey
    spans: list[Span]

    @property
    def began_ns(self) -> int:
        """When its first span begins."""
        return min(span.start_ns for span in self.spans)

    @property
    def ended_ns(self) -> int:
        """When its last span ends."""
        return max(span.end_ns for span in self.spans)


class Sagas:
    """All sagas, read over one connection.

    Args:
        link: a connection that may read both streams.
        now_ns: the time, in nanoseconds since 1970.
    """

    def __init__(self, link: Link, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._link, self._now_ns = link, now_ns
        self.index = Index()
        self._last: dict[str, tuple[str, int]] = {}
        """The subject and the sequence of the last start that was read, of each stream."""
        self._is_doubtful = False
        self._reading, self._surveying = asyncio.Lock(), asyncio.Lock()
        self._services: dict[str, set[Operation]] = {}
        self._surveyed_at = float("-inf")
        link.on_reconnect.append(self._doubt)

    async def refresh(self) -> None:
        """Read the starts that are new.

        Raises:
            Ambiguous: the server gave no answer.
        """
        async with self._reading:
            if self._is_doubtful:
                await self._check()
            for stream in self._link.pairs.events:
                await self._read_starts(stream)

    async def _read_starts(self, stream: str) -> None:
        _, last = self._last.get(stream, ("", 0))
        async for message in self._link.scan(stream, subjects.STARTS_FILTER, last + 1):
            with suppress(Unusable):  # a forged start begins no saga
                self.index.add(subjects.parse_fact(message.subject).saga, message.stored_ns)
            self._last[stream] = message.subject, message.sequence

    def _doubt(self) -> None:
        """A server that was away may have come back with another past."""
        self._is_doubtful = True

    async def _check(self) -> None:
        """Begin anew unless the last start of each stream is where it was."""
        for subject, sequence in [*self._last.values()]:
            there = await self._link.read_all(EVENTS, [subject])
            if [message.sequence for message in there] != [sequence]:
                self.index, self._last = Index(), {}
        self._is_doubtful = False

    # --- traces -------------------------------------------------------------------------------------------------------

    async def trace(self, trace_id: bytes) -> Found | None:
        """The saga with this trace id (16 bytes); none if there is none, or nothing was decided in it yet.

        Raises:
            Ambiguous: it could not be read now.
            Unusable: its journal cannot be read.
        """
        key = self.index.find(trace_id)
        if key is None:
            await self.refresh()
            key = self.index.find(trace_id)
        return await self._read(key) if key else None

    async def search(self, query: Query) -> AsyncIterator[Found]:
        """The sagas that match, the newest first, within the bounds of one question.

        Raises:
            Ambiguous: there was no answer from the server.
        """
        count = 0
        async for found in self._within_bounds(self._candidates(query), READS_MAX):
            if matches(query, found.spans):
                yield found
                count += 1
                if count == query.depth:
                    return

    async def _candidates(self, query: Query) -> AsyncIterator[SagaKey]:
        """Sagas that may match."""
        if saga_id := query.attributes.get("saga.id"):
            for key in await self._with_id(query.saga_type or "*", saga_id):
                yield key
            return
        await self.refresh()
        for portion in self.index.newest(query.since_ns, query.until_ns, query.saga_type):
            for key in portion:
                yield key
            await asyncio.sleep(0)  # others have their turn

    async def _with_id(self, saga_type: str, saga_id: str) -> list[SagaKey]:
        """Looked for in the stream, where all sagas are, however old."""
        try:
            SagaKey.of("any" if saga_type == "*" else saga_type, saga_id)
        except Unusable:
            return []
        found: dict[SagaKey, None] = {}
        async for message in self._link.scan(EVENTS, subjects.starts_filter(saga_type, saga_id)):
            with suppress(Unusable):
                found[subjects.parse_fact(message.subject).saga] = None
            if len(found) == READS_MAX:
                break
        return list(reversed(found))

    async def _within_bounds(self, keys: AsyncIterator[SagaKey], most: int) -> AsyncIterator[Found]:
        """Sagas that can be read, each once, until there were enough, or it took too long."""
        seen = set[SagaKey]()
        until = time.monotonic() + SEARCH_SECONDS_MAX
        async for key in keys:
            if key in seen:
                continue
            if len(seen) == most or time.monotonic() > until:
                log.warning("jaeger_storage.cut", sagas_read=len(seen), oldest=str(key))
                return
            seen.add(key)
            try:
                found = await self._read(key)
            except (Unusable, NotThere, Unprojectable) as error:  # a purged saga's journal outlives its facts
                log.warning("jaeger_storage.unreadable", saga=str(key), reason=str(error))
                continue
            if found is not None:
                yield found

    async def _read(self, key: SagaKey) -> Found | None:
        spans = spans_at(await read_projection(self._link, key), self._now_ns())
        self._learn(spans)
        return Found(key, spans) if spans else None

    # --- services -----------------------------------------------------------------------------------------------------

    async def services(self) -> dict[str, set[Operation]]:
        """The services of the newest sagas of each type, and of all that was ever asked for, with their operations.

        Raises:
            Ambiguous: there was no answer from the server.
        """
        async with self._surveying:
            if time.monotonic() >= self._surveyed_at + SURVEY_SECONDS:
                await self.refresh()
                keys = self.index.samples(SURVEY_READS)
                async for _ in self._within_bounds(_each(keys), SURVEY_READS):
                    pass  # reading them is what teaches us
                self._surveyed_at = time.monotonic()
        return self._services

    def _learn(self, spans: Iterable[Span]) -> None:
        for span in spans:
            if span.service in self._services or len(self._services) < SERVICES_MAX:
                operations = self._services.setdefault(span.service, set())
                if len(operations) < OPERATIONS_MAX:
                    operations.add((span.name, span.kind))

    async def calls(self, since_ns: int, until_ns: int) -> Counter[tuple[str, str]]:
        """How often which service called which, in the sagas that began within a time; of so many, in the newest.

        Raises:
            Ambiguous: there was no answer from the server.
        """
        found = Counter[tuple[str, str]]()
        async for saga in self._within_bounds(self._candidates(Query(since_ns=since_ns, until_ns=until_ns)), READS_MAX):
            found.update(calls_in(saga.spans))
        return found


async def _each(keys: Iterable[SagaKey]) -> AsyncIterator[SagaKey]:
    for key in keys:
        yield key


def spans_at(found: Projection, now_ns: int) -> list[Span]:
    """All spans of a trace; those that are not final last until now, and say so.

    Leaving them out would leave their children without parents, and the trace without a root.
    """
    still_open = [
        replace(span, end_ns=max(span.end_ns, now_ns), attributes={**span.attributes, "saga.open": True})
        for span in found.open
    ]
    return [*found.spans, *still_open]


def calls_in(spans: Iterable[Span]) -> Iterator[tuple[str, str]]:
    """Each time that one service worked on what another sent: by the link to that, else by its parent."""
    by_id = {span.span_id: span for span in spans}
    for span in by_id.values():
        if span.kind != "consumer":
            continue
        cause = next((link.span_id for link in span.links if link.span_id in by_id), span.parent_id)
        caller = by_id[cause].service if cause in by_id else span.service
        if caller != span.service:
            yield caller, span.service
