"""What EVENTS holds of one saga, whoever wrote it and however much."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Protocol

import msgspec

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.reader import named_sequences
from antiphon.contracts.stored import StoredMessage, TooManySubjects
from antiphon.contracts.subjects import saga_events_filter, start_subjects
from antiphon.contracts.topology import EVENTS

from .reading import BATCH_MAX
from .tail import Reads

PAGE_MAX: Final = 500
"""So many messages are shown of a saga to which more were written than one read gives; and all that its journal
names."""


class ReadsSagas(Reads, Protocol):
    """A link, as far as sagas are read over it."""

    def stream_at(self, stream: str, subject: str) -> str:
        """The stream that holds a subject; see `Link.stream_at`."""
        ...

    async def get_all_at(self, stream: str, sequences: Collection[int]) -> list[StoredMessage]:
        """The messages at these sequences; see `Link.get_all_at`."""
        ...

    async def page_with_rest(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> tuple[list[StoredMessage], int]:
        """A page, and how many messages are behind it; see `Link.page_with_rest`."""
        ...


class SagaEvents(msgspec.Struct, frozen=True):
    """What was read of one saga, in stream order, and how many messages were left out."""

    messages: list[StoredMessage]
    left_out: int = 0


async def read_events(link: ReadsSagas, key: SagaKey, entries: Iterable[StoredMessage]) -> SagaEvents:
    """The messages of EVENTS for one saga, for people.

    One read gives them all, unless somebody has written to more subjects of the saga than one read takes. Then it is
    what the journal names, the start, and a page from the start on.

    Args:
        link: a connection that may read EVENTS.
        key: the saga.
        entries: its journal, read before.

    Raises:
        Ambiguous: there was no whole answer.
    """
    try:
        return SagaEvents(await link.read_all(EVENTS, [saga_events_filter(key)]))
    except TooManySubjects:
        return await _read_page(link, key, entries)


async def read_named_events(link: ReadsSagas, entries: Iterable[StoredMessage]) -> list[StoredMessage]:
    """The facts that a journal names, in stream order; what was purged is left out.

    Raises:
        Ambiguous: there was no whole answer.
    """
    found = list(entries)
    if not found:
        return []
    return await link.get_all_at(link.stream_at(EVENTS, found[0].subject), named_sequences(found))


async def _read_page(link: ReadsSagas, key: SagaKey, entries: Iterable[StoredMessage]) -> SagaEvents:
    known = [*await read_named_events(link, entries), *await link.read_all(EVENTS, start_subjects(key))]
    first = min((message.sequence for message in known), default=1)
    page, rest = await link.page_with_rest(EVENTS, saga_events_filter(key), first, PAGE_MAX)
    last = page[-1].sequence if page else 0
    found = {message.sequence: message for message in (*known, *page)}
    left_out = rest - sum(sequence > last for sequence in found)
    return SagaEvents([found[sequence] for sequence in sorted(found)], max(0, left_out))
