"""Ended sagas purged, once they have been kept for as long as their author or an operator says.

Nothing is remembered: what is old is found again by reading the starts that EVENTS holds, in their order. A saga's
start goes last, so whatever died in the middle of a purge has left the mark by which the rest is found.

Where there is an archive, it is written there first. Then go

1. The journal in front of its end, its first entry before the others. From here on the saga is one that was purged,
   because the first entry alone says with which definition it began, and it answers as such.
2. What stands beside it: the entry of PARKED that says it waited for a person, and a timer that a start has set which
   came after the end.
3. Its events, with the start.

Any number of coordinators may do so at once; what is purged twice is gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from antiphon.contracts import clock, subjects
from antiphon.contracts.bounds import SEQUENCE_MAX
from antiphon.contracts.envelope import decode, unpack, unpack_raw
from antiphon.contracts.errors import Ambiguous, PlatformError, RightsMissing, Unusable
from antiphon.contracts.identity import CLIENT, COORDINATOR, SagaKey
from antiphon.contracts.payloads import END_TYPE, ChildStart, End, Ending
from antiphon.contracts.reader import named_sequences
from antiphon.contracts.readmodel_places import ReadUpTo
from antiphon.contracts.registration import read_registration
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import (
    BUCKETS,
    EVENTS,
    EXPORTER,
    PARKED,
    READMODEL,
    REGISTRATIONS,
    SAGA,
)
from antiphon.link import Link
from antiphon.link.faults import say
from antiphon.link.journals import read_journals
from antiphon.link.killpoints import reached
from antiphon.link.purging import delete_all
from antiphon.link.sagas import read_events
from antiphon.tracing.telemetry.metrics import WAITING, Gauges

from ..definition.retention import Overrides, Retention
from ..views.timeline import child_ids
from .at_once import for_each
from .coordinator import Coordinator
from .stream_readers import Limits, StreamReaders

log = structlog.get_logger()

PURGES_PER_SECOND: Final = 100.0
"""Sagas that one coordinator purges in a second. Each costs the server a good millisecond of CPU, and the
coordinator two."""
AT_ONCE: Final = 16
"""Sagas that one coordinator purges at the same time. Each takes some five requests one after the other, and a busy
server answers each within tens of milliseconds."""
PAGE: Final = 200
"""Starts that are looked at together: one read of their ends, and few enough for one read of their journals."""
LOOK_SECONDS: Final = 10.0
"""How often it is looked for sagas that are old enough."""
REST: Final = 10.0
"""After a look there is a rest of so many times its length, because sagas that are kept are passed over in every look.
What was spent on sagas that are purged does not count: they are come by once, and purging has a rate of its own."""
SAY_SECONDS: Final = 60.0
"""How far apart lines of the log about one thing are."""


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says of the end of old sagas.

    Args:
        overrides: for how many seconds ended sagas are kept, by type and outcome, in the place of what definitions say.
        ends_seconds: how long what is left of a purged saga, its end, is kept; None for ever. Then its id is free.
        per_second: how many sagas one coordinator purges in a second at most.
        look_seconds: how often it looks for sagas that are old enough.
        archive: the folder to which each is written before it is purged; nothing is purged that is not there.
    """

    overrides: Overrides = msgspec.field(default_factory=dict[str, dict[Ending, float | None]])
    ends_seconds: float | None = None
    per_second: float = PURGES_PER_SECOND
    look_seconds: float = LOOK_SECONDS
    archive: Path | None = None


class Old(msgspec.Struct, frozen=True):
    """A saga that was kept for long enough: its start, its end and its journal as they were read."""

    key: SagaKey
    start: StoredMessage
    end: StoredMessage
    entries: list[StoredMessage]


class Ends:
    """The end of old sagas, as one coordinator brings it about.

    Args:
        link: a connection that may read and purge the streams.
        retentions: for how long sagas are kept once they have ended, by type.
        coordinator: tells the time, and counts them.
        keeping: what else an operator says.
        gauges: where it puts how many old sagas stay, and whom they wait for.
    """

    def __init__(
        self,
        link: Link,
        retentions: Mapping[str, Retention],
        coordinator: Coordinator,
        keeping: Keeping,
        gauges: Gauges | None = None,
    ) -> None:
        self._link, self._retentions, self._keeping = link, retentions, keeping
        self._gauges: Gauges = {} if gauges is None else gauges
        self._waiting: dict[str, Counter[str]] = {}
        """How many sagas of a type stay although they are old, by whom they wait for."""
        self._counts, self._now_ns = coordinator.counts, coordinator.journals.now_ns
        self._next_at = self._purging_seconds = 0.0
        self._said: dict[str, float] = {}
        self._readers = StreamReaders(link, self._say)
        for bucket in BUCKETS:
            link.on_refused[f"$JS.API.DIRECT.GET.{bucket.name}"] = self._say_that_it_is_refused

    @asynccontextmanager
    async def brought_about(self) -> AsyncGenerator[None]:
        """Look for old sagas for the length of the block."""
        looking = asyncio.ensure_future(self.keep_looking()) if self._retentions else None
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()

    async def keep_looking(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began, self._purging_seconds = loop.time(), 0.0
            for saga_type in self._retentions:
                await self._look_or_say(saga_type)
            passing_over = loop.time() - began - self._purging_seconds
            await asyncio.sleep(max(self._keeping.look_seconds, REST * passing_over))

    async def _look_or_say(self, saga_type: str) -> None:
        """Look once. What goes wrong ends this look, and the next one begins anew."""
        try:
            await self.look(saga_type)
        except (Ambiguous, PlatformError) as error:
            self._say("retention.interrupted", saga_type, reason=str(error))
        except Exception as error:
            say("retention.faulty", error, saga_type)

    async def look(self, saga_type: str) -> None:
        """Purge all sagas of a type that are old enough now, and the ends that are."""
        retention = self._retentions[saga_type]
        shortest = retention.shortest
        assert shortest is not None, f"{saga_type} is kept for ever"
        if self._keeping.archive is None and await self._others_archive():
            return
        self._waiting[saga_type] = Counter()
        for pair, stream in enumerate(self._link.pairs.events):
            after, since = 0, self._looking_seconds()
            while page := await self._link.next_page(stream, subjects.starts_filter(saga_type), after + 1, PAGE):
                after = page[-1].sequence
                purged = await self._purge_old(retention, page, pair)
                since = self._leave_out(since, purged / len(page))
                if self._age_seconds(page[-1]) < shortest:
                    break  # nothing that began later can have ended for longer
        self._show_who_is_waited_for()
        if self._keeping.ends_seconds is not None:
            await self._look_at_ends(saga_type, self._keeping.ends_seconds)

    async def _others_archive(self) -> bool:
        """Whether another coordinator writes old sagas to an archive, which this one would purge without that."""
        for stored in await self._link.read_all(REGISTRATIONS.name, [subjects.registration_subject(COORDINATOR, "*")]):
            with suppress(Unusable):
                if read_registration(stored.subject, stored.data).archives:
                    self._say("retention.waits", ARCHIVE, coordinator=stored.subject, remedy=WAITS[REGISTRATIONS.name])
                    return True
        return False

    # --- which are old ------------------------------------------------------------------------------------------------

    async def _purge_old(self, retention: Retention, page: list[StoredMessage], pair: int) -> int:
        """Purge those sagas of a page that are old; how many are gone, whoever has purged them."""
        ended = await self._ended(retention, page)
        if not ended:
            return 0
        limits = await self._readers.limits(pair)
        waiting = self._waiting.setdefault(next(iter(ended)).type, Counter())
        found = await self._exported(page, ended, limits, waiting)
        waits_for = {each.key: self._waits_for(each, limits) for each in found}
        waiting.update(filter(None, waits_for.values()))
        found = [each for each in found if not waits_for[each.key] and each.key != limits.last]
        free = await self._without_open_relatives(found)
        waiting[RELATIVES] += len(found) - len(free)
        beside = await self._beside([each.key for each in free])
        kept = 0

        async def purge(old: Old) -> None:
            nonlocal kept
            await self._in_turn()
            if not await self._is_archived(old):
                waiting[ARCHIVE] += 1
                kept += 1
            elif not await self.purge(old, beside[old.key], limits.read.events):
                self._give_turn_back()

        with self._purging():
            await for_each(free, purge, AT_ONCE)
        return len(free) - kept

    async def _ended(self, retention: Retention, page: list[StoredMessage]) -> dict[SagaKey, StoredMessage]:
        """The ends of those sagas of these starts that were kept for long enough since."""
        begun = (key for message in page if (key := _begun(message.subject)) is not None)
        ends = {_saga_of(each): each for each in await _read(self._link, SAGA, map(subjects.end_subject, begun))}
        return {key: end for key, end in ends.items() if self._is_old(retention, end)}

    async def _exported(
        self, page: list[StoredMessage], ended: dict[SagaKey, StoredMessage], limits: Limits, waiting: Counter[str]
    ) -> list[Old]:
        """Those of them whose traces the exporter has handed over. No others are read: each look comes by them, and of
        an exporter that is away there are ever more."""
        starts = {key: message for message in page if (key := _begun(message.subject)) is not None}
        exported = {key: end for key, end in ended.items() if end.sequence <= limits.exported}
        if len(exported) < len(ended):
            self._say("retention.waits", EXPORTER, consumer=EXPORTER, stream=SAGA, remedy=WAITS[EXPORTER])
            waiting[EXPORTER] += len(ended) - len(exported)
        journals = await read_journals(self._link, [*exported])
        return [Old(key, starts[key], end, journals[key]) for key, end in exported.items()]

    def _is_old(self, retention: Retention, end: StoredMessage) -> bool:
        try:
            outcome = unpack(decode(end.data, end.subject), END_TYPE, End).outcome
        except Unusable as error:
            self._say("retention.unreadable", end.subject, subject=end.subject, reason=str(error))
            return False
        kept = retention.seconds(outcome)
        return kept is not None and self._age_seconds(end) >= kept

    def _age_seconds(self, message: StoredMessage) -> float:
        return (self._now_ns() - message.stored_ns) / 1e9

    # --- what has to stay all the same --------------------------------------------------------------------------------

    def _waits_for(self, old: Old, limits: Limits) -> str:
        """Who else has not dealt with a saga yet; empty where all have."""
        last_named = max(named_sequences(old.entries), default=old.start.sequence)
        if last_named > limits.heard:
            self._say("retention.waits", EVENTS, stream=EVENTS, remedy=WAITS[EVENTS])
            return REACTIONS
        last_entry = max(entry.sequence for entry in (*old.entries, old.end))
        if self._is_unread(limits.read, last_entry, max(last_named, old.start.sequence)):
            return READMODEL
        return KEPT if limits.read.keeps(old.key) else ""

    def _is_unread(self, read: ReadUpTo, saga: int, events: int) -> bool:
        """Whether a read model has not read up to these sequences."""
        if (saga <= read.saga and events <= read.events) or read.last is None:
            return False
        name, heard = read.last.name, clock.rfc3339(read.last.heard_ns)
        remedy = f"{WAITS[READMODEL]} {name}"
        self._say("retention.waits", READMODEL + name, readmodel=name, heard=heard, remedy=remedy)
        return True

    def _say_that_it_is_refused(self, error: RightsMissing) -> None:
        remedy = "have the accounts made anew: antiphon rights"
        self._say("retention.waits", error.refused, reason=str(error), remedy=remedy)

    def _show_who_is_waited_for(self) -> None:
        total = Counter[str]()
        for each in self._waiting.values():
            total.update(each)
        for what in COUNTED:
            self._gauges[WAITING, (("saga.waits_for", what),)] = total[what]

    async def _beside(self, keys: list[SagaKey]) -> dict[SagaKey, list[tuple[str, str]]]:
        """What stands beside the journals, by stream and subject: most sagas have nothing there."""
        found: dict[SagaKey, list[tuple[str, str]]] = {key: [] for key in keys}
        by_subject = {subject: key for key in keys for subject in _subjects_beside(key)}
        for stream in (PARKED, SAGA):
            wanted = [subject for subject in by_subject if subjects.matches(_ALL[stream], subject)]
            for message in await _read(self._link, stream, wanted):
                found[by_subject[message.subject]].append((stream, message.subject))
        return found

    async def _without_open_relatives(self, found: list[Old]) -> list[Old]:
        """Those of sagas whose parent and children have ended."""
        held = set[SagaKey]()

        async def look(old: Old) -> None:
            if await self._has_open_relatives(old):
                held.add(old.key)

        await for_each(found, look, AT_ONCE)
        return [each for each in found if each.key not in held]

    async def _has_open_relatives(self, old: Old) -> bool:
        """Whether its parent runs, who may be looked at, or a child, who may wait to be let go."""
        parent = _parent_in(old.start)
        children = child_ids(old.key, old.entries)
        wanted = [subjects.starts_filter(saga_id=each, source=COORDINATOR) for each in children]
        if parent is not None:
            wanted += subjects.start_subjects(parent)
        starts = await _read(self._link, EVENTS, wanted)
        begun = {key for message in starts if (key := _begun(message.subject)) is not None}
        ended = await _read(self._link, SAGA, map(subjects.end_subject, begun))
        return len(ended) < len(begun)

    # --- purging ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _purging(self) -> Generator[None]:
        """Note how long the block takes, which calls for no rest."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self._purging_seconds += loop.time() - began

    def _looking_seconds(self) -> float:
        """The time of a clock that stands still while sagas are purged."""
        return asyncio.get_running_loop().time() - self._purging_seconds

    def _leave_out(self, since: float, share: float) -> float:
        """Note that of the time since then a share went into finding sagas that are purged now, which calls for no rest
        either: they are not there in the next look.

        Returns:
            The time of the same clock now.
        """
        self._purging_seconds += share * (self._looking_seconds() - since)
        return self._looking_seconds()

    async def _in_turn(self) -> None:
        """Wait until another saga may be purged."""
        now = asyncio.get_running_loop().time()
        self._next_at = max(now, self._next_at + 1.0 / self._keeping.per_second)
        if self._next_at > now:
            await asyncio.sleep(self._next_at - now)

    def _give_turn_back(self) -> None:
        """Let another saga be purged in the place of one that somebody else purges."""
        self._next_at -= 1.0 / self._keeping.per_second

    async def _is_archived(self, old: Old) -> bool:
        """Whether a saga may go: it was written to the archive, was purged before, or there is no archive."""
        folder = self._keeping.archive
        if folder is None or decode(old.entries[0].data, old.entries[0].subject).definition == "":
            return True
        from antiphon.tracing.export.archive import AlreadyPurged, NotArchived, archive

        events = await read_events(self._link, old.key, old.entries)
        try:
            await asyncio.to_thread(archive, folder, old.key, old.entries, events.messages)
        except AlreadyPurged:  # by another coordinator, which is to say that it has archived it
            return False
        except NotArchived as error:
            self._say("retention.not_archived", str(folder), reason=str(error), remedy=WAITS[ARCHIVE])
            return False
        reached("retention.archived")
        return True

    async def purge(self, old: Old, beside: Iterable[tuple[str, str]], read: int = SEQUENCE_MAX) -> bool:
        """Purge one saga but for its end, unless its first entry has gone since it was read.

        Then another coordinator is at it. Should that one die there, a later look finds the start.

        Args:
            old: the saga.
            beside: what stands beside its journal, by stream and subject.
            read: up to which sequence of EVENTS read models have read. What came for the saga later stays, and its
                start with it, by which the rest is found again.

        Returns:
            Whether it was purged here.
        """
        entries = [entry.sequence for entry in old.entries if entry.sequence != old.end.sequence]
        journals = self._link.pairs.stream_of(SAGA, old.key)
        removed = await delete_all(self._link, journals, entries[:1])
        if entries and not removed:
            return False
        reached("retention.first_entry_deleted")
        removed += await delete_all(self._link, journals, entries[1:])
        reached("retention.journal_purged")
        for stream, subject in beside:
            its_stream = self._link.pairs.stream_of(SAGA, old.key) if stream == SAGA else stream
            while found := await self._link.read_all(stream, [subject]):  # a timer may have fired more than once
                await delete_all(self._link, its_stream, (each.sequence for each in found))
        reached("retention.beside_purged")
        await self._purge_events(old.key, old.entries, read)
        reached("retention.events_purged")
        if removed:  # another coordinator, or an earlier life of this one, has counted it otherwise
            self._counts.add("sagas_purged", old.key.type)
        log.debug("saga.purged", saga=str(old.key), entries=removed)
        return True

    async def _purge_events(self, key: SagaKey, entries: list[StoredMessage], read: int) -> bool:
        """Purge what EVENTS holds of a saga up to a sequence, its start last and only if nothing else is left.

        Returns:
            Whether nothing is left.
        """
        stream = self._link.pairs.stream_of(EVENTS, key)
        while True:
            found = await read_events(self._link, key, entries)
            starts = {each.sequence for each in found.messages if _begun(each.subject) is not None}
            others = {each.sequence for each in found.messages} - starts
            read_by_all = {sequence for sequence in others if sequence <= read}
            await delete_all(self._link, stream, read_by_all)
            if not found.left_out or not read_by_all:
                break
            entries = []
        if found.left_out or others - read_by_all or any(sequence > read for sequence in starts):
            return False
        await delete_all(self._link, stream, starts)
        return True

    async def _look_at_ends(self, saga_type: str, kept_seconds: float) -> None:
        """Purge the ends that were kept for long enough, of sagas of which nothing else is left."""
        for pair in range(self._link.pairs.count):
            await self._look_at_ends_of(pair, saga_type, kept_seconds)

    async def _look_at_ends_of(self, pair: int, saga_type: str, kept_seconds: float) -> None:
        after, stream, since = 0, self._link.pairs.saga[pair], self._looking_seconds()
        while page := await self._link.next_page(stream, subjects.ends_filter(saga_type), after + 1, PAGE):
            after = page[-1].sequence
            ends = {_saga_of(each): each for each in page if self._age_seconds(each) >= kept_seconds}
            starts = [start for key in ends for start in subjects.start_subjects(key)]
            begun = {_begun(message.subject) for message in await _read(self._link, EVENTS, starts)}
            alone = ends.keys() - begun
            purged = 0
            if alone:
                purged = await self._purge_ends(pair, {key: end for key, end in ends.items() if key in alone})
            since = self._leave_out(since, purged / len(page))
            if len(ends) < len(page):
                break

    async def _purge_ends(self, pair: int, ends: dict[SagaKey, StoredMessage]) -> int:
        """Purge ends of one pair, but for those that have to stay; how many were."""
        limits = await self._readers.limits(pair)
        purged = 0

        async def purge(key: SagaKey) -> None:
            nonlocal purged
            await self._in_turn()
            if await self._purge_end(key, limits.read.events):
                purged += 1

        with self._purging():
            await for_each([key for key, end in ends.items() if not self._is_needed(end, limits)], purge, AT_ONCE)
        return purged

    def _is_needed(self, end: StoredMessage, limits: Limits) -> bool:
        """Whether an end has to stay, because a reader has not read it or knows a stream again by its saga."""
        key = _saga_of(end)
        return self._is_unread(limits.read, end.sequence, 0) or limits.read.keeps(key) or key == limits.last

    async def _purge_end(self, key: SagaKey, read: int) -> bool:
        """Purge the end of a saga, and before that what was stored for it since, which without the end would be taken
        for a new one's; whether it is gone."""
        if not await self._purge_events(key, [], read):
            return False
        reached("retention.end_events_purged")
        left = await self._link.read_all(SAGA, [subjects.whole_saga_filter(key)])
        await delete_all(self._link, self._link.pairs.stream_of(SAGA, key), (each.sequence for each in left))
        return True

    def _say(self, event: str, about: str, **values: object) -> None:
        """Log a thing, and again after a while as long as it is so."""
        now = asyncio.get_running_loop().time()
        if now - self._said.get(event + about, -SAY_SECONDS) >= SAY_SECONDS:
            self._said[event + about] = now
            log.warning(event, **values)


ARCHIVE: Final = "archive"
REACTIONS: Final = "reactions"
RELATIVES: Final = "relatives"
KEPT: Final = "place"
"""A read model knows a stream again by the saga: no cause for concern, and so not counted."""
COUNTED: Final = (EXPORTER, REACTIONS, READMODEL, RELATIVES, ARCHIVE)
WAITS: Final = {
    READMODEL: "old sagas stay until the read model has read them; run it, or where it is gone for good, as "
    "administrator: antiphon setup --forget-readmodel",
    ARCHIVE: "old sagas stay until the folder that --archive names can be written",
    REGISTRATIONS.name: "another coordinator archives old sagas before it purges them, and this one would not: give "
    "both the same --archive",
    EXPORTER: "old sagas stay until the exporter has handed over their traces; run it, or where there is to be none, "
    "delete its consumer: nats consumer rm SAGA exporter (of several pairs, that of each)",
    EVENTS: "old sagas stay until everybody has heard the events that he reacts to; run these participants, or, of one "
    "that is gone for good: antiphon setup --forget-reactions NAME",
}


async def _read(link: Link, stream: str, wanted: Iterable[str]) -> list[StoredMessage]:
    """What a stream holds at subjects; the server refuses a read of nothing."""
    found = list(wanted)
    return await link.read_all(stream, found) if found else []


def _begun(subject: str) -> SagaKey | None:
    """The saga of a start; None where no saga begins with it, because it is forged."""
    with suppress(Unusable):
        address = subjects.parse_fact(subject)
        if address.source in (CLIENT, COORDINATOR):
            return address.saga
    return None


_ALL: Final = {PARKED: subjects.PARKED_FILTER, SAGA: subjects.SAGA_FILTER}


def _subjects_beside(key: SagaKey) -> tuple[str, str, str]:
    return subjects.parked_saga_subject(key), subjects.timer_subject(key), subjects.fired_subject(key)


def _saga_of(end: StoredMessage) -> SagaKey:
    return subjects.parse_entry(end.subject).saga


def _parent_in(start: StoredMessage) -> SagaKey | None:
    """Who started a child."""
    if subjects.saga_source(start.subject) != COORDINATOR:
        return None
    with suppress(Unusable):
        parent = unpack_raw(decode(start.data, start.subject).data, ChildStart).parent
        return SagaKey.of(parent.type, parent.id)
    return None
