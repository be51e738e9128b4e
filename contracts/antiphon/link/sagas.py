"""What EVENTS holds of one saga, whoever wrote it and however much."""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.reader import known_sources, named_sequences
from antiphon.contracts.stored import StoredMessage, TooManySubjects
from antiphon.contracts.subjects import events_filter, saga_events_filter, saga_source
from antiphon.contracts.topology import EVENTS

from .tail import Reads


async def read_events(link: Reads, key: SagaKey, entries: Iterable[StoredMessage]) -> list[StoredMessage]:
    """The messages of EVENTS for one saga, in stream order.

    One read gives them all, unless somebody has written to more subjects of the saga than one read takes. Then the
    sources that its journal knows are read, as coordinators do, and of all others the first messages.

    Args:
        link: a connection that may read EVENTS.
        key: the saga.
        entries: its journal, read before.

    Raises:
        Ambiguous: there was no whole answer; or a source that the saga needs wrote too much.
    """
    try:
        return await link.read_all(EVENTS, [saga_events_filter(key)])
    except TooManySubjects:
        return await _read_known(link, key, list(entries))


async def read_known_events(link: Reads, key: SagaKey, entries: Iterable[StoredMessage]) -> list[StoredMessage]:
    """What the sources have written that a journal knows by its commands.

    Raises:
        Ambiguous: there was no whole answer.
    """
    return await _read_sources(link, key, known_sources(entries))


async def _read_known(link: Reads, key: SagaKey, entries: list[StoredMessage]) -> list[StoredMessage]:
    sources = known_sources(entries)
    known = {message.sequence: message for message in await _read_sources(link, key, sources)}
    strangers = set[str]()
    for sequence in named_sequences(entries):
        if sequence not in known and (message := await _read_at(link, key, sequence)) is not None:
            known[sequence] = message
            strangers.add(saga_source(message.subject))
    if strangers:
        known |= {message.sequence: message for message in await _read_sources(link, key, strangers)}
    known |= {message.sequence: message for message in await link.next_page(EVENTS, saga_events_filter(key), 1)}
    return [known[sequence] for sequence in sorted(known)]


async def _read_sources(link: Reads, key: SagaKey, sources: Iterable[str]) -> list[StoredMessage]:
    return await link.read_all(EVENTS, [events_filter(key, source) for source in sorted(sources)])


async def _read_at(link: Reads, key: SagaKey, sequence: int) -> StoredMessage | None:
    """A message of the saga by its sequence; none where it was purged."""
    page = await link.next_page(EVENTS, saga_events_filter(key), sequence, most=1)
    return page[0] if page and page[0].sequence == sequence else None
