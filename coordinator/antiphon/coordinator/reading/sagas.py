"""One saga, and the sagas started last, read from the two streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

from antiphon.contracts import identity, subjects
from antiphon.contracts.errors import UnknownSaga, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link import Link
from antiphon.link.sagas import read_events, read_named_events

from ..views.pauses import Pauses
from ..views.timeline import Summary, Timeline, child_ids, summary_of, timeline_of, unreadable
from .pauses import read_pauses

PORTION: Final = 32
"""How many sagas are read at once for a list."""


async def timeline(link: Link, key: SagaKey) -> Timeline:
    """Read a whole saga.

    Args:
        link: a connection with an operator's rights.
        key: the saga.

    Raises:
        UnknownSaga: neither stream has anything of it.
        Ambiguous: the server gave no answer.
    """
    entries = await link.read_all(SAGA, [subjects.journal_filter(key)])
    events = await read_events(link, key, entries)
    if not events.messages and not entries:
        raise UnknownSaga(key.type, key.id)
    pauses, children = await read_pauses(link), await _children(link, key, entries)
    return timeline_of(key, SagaPages(entries, events.messages), pauses, children, events.left_out)


async def summaries(link: Link, saga_type: str = "*", limit: int = 50) -> list[Summary]:
    """The sagas started last, newest first.

    Args:
        link: a connection with an operator's rights.
        saga_type: only sagas of this type.
        limit: how many at most.
    """
    return (await started_last(link, saga_type, limit))[0]


async def started_last(link: Link, saga_type: str = "*", limit: int = 50) -> tuple[list[Summary], int]:
    """The same, and how many there are."""
    starts: list[tuple[SagaKey, StoredMessage]] = []
    total = 0
    async for message in link.scan(EVENTS, subjects.starts_filter(saga_type)):
        with suppress(Unusable):  # a forged start is parked; whoever stored it must not blind the operator
            starts.append((subjects.parse_fact(message.subject).saga, message))
            total += 1
        if len(starts) > 2 * limit:
            starts = _last(link, starts, limit)
    found = _last(link, starts, limit)[::-1]
    ends: dict[str, StoredMessage] = {}
    for first in range(0, len(found), 500):
        wanted = [subjects.end_subject(key) for key, _ in found[first : first + 500]]
        ends |= {message.subject: message for message in await link.read_all(SAGA, wanted)}
    pauses = await read_pauses(link)

    def summed_up(portion: list[tuple[SagaKey, StoredMessage]]) -> Awaitable[list[Summary]]:
        ended = ((key, start, ends.get(subjects.end_subject(key))) for key, start in portion)
        return asyncio.gather(*(_summary_if_readable(link, *each, pauses) for each in ended))

    portions = range(0, len(found), PORTION)
    return [each for first in portions for each in await summed_up(found[first : first + PORTION])], total


def _last(link: Link, starts: list[tuple[SagaKey, StoredMessage]], limit: int) -> list[tuple[SagaKey, StoredMessage]]:
    """Those stored last: in the order of their stream, and of several pairs by the servers' clocks."""
    if link.pairs.count > 1:
        starts = sorted(starts, key=lambda start: start[1].stored_ns)
    return starts[-limit:]


async def _summary(
    link: Link, key: SagaKey, start: StoredMessage, end: StoredMessage | None, pauses: Pauses
) -> Summary:
    entries = [end] if end else await link.read_all(SAGA, [subjects.journal_filter(key)])
    # Only what operators and participants said tells whether a journal that speaks of them is out of date, why a saga
    # goes back, and whether a step waits for a participant that is paused.
    read = [subjects.parse_entry(message.subject) for message in entries]
    is_told = any(each.kind == "rec" or (each.command and each.command.direction == "undo") for each in read)
    is_asked = is_told or (bool(pauses.participants) and not end)
    events = await read_named_events(link, entries) if is_asked else []
    return summary_of(key, start, SagaPages(entries, events), pauses)


async def _summary_if_readable(
    link: Link, key: SagaKey, start: StoredMessage, end: StoredMessage | None, pauses: Pauses
) -> Summary:
    """One journal that cannot be read hides no other saga."""
    try:
        return await _summary(link, key, start, end, pauses)
    except Unusable as error:
        return unreadable(key, start, error)


async def _children(link: Link, key: SagaKey, entries: list[StoredMessage]) -> tuple[str, ...]:
    """The sagas that steps of this one started: their ids follow from the journal, their types from their starts."""
    ids = child_ids(key, entries)
    wanted = [subjects.starts_filter(saga_id=each, source=identity.COORDINATOR) for each in ids]
    starts = await link.read_all(EVENTS, wanted) if wanted else []
    return tuple(str(child) for message in starts if (child := subjects.saga_in(message.subject)) is not None)
