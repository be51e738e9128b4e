"""All that waits for a person, read from the index in PARKED and the journals of its sagas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from antiphon.contracts import clock, subjects
from antiphon.contracts.errors import AntiphonError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import Parked, read_parked
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.topology import EVENTS, PARKED
from antiphon.link import Link
from antiphon.link.faults import class_of
from antiphon.link.journals import Journals, read_journals
from antiphon.link.sagas import read_events
from antiphon.link.tail import ALL

from ..views.parked import (
    Dismissal,
    Index,
    Message,
    Noticed,
    Waiting,
    is_about,
    is_settled,
    read_dismissal,
    saga_of,
    stays,
    unread_parked,
    unreadable,
    waiting_message,
    waiting_pauses,
    waits_of,
)
from .pauses import read_pauses

PORTION: Final = 200
"""How many entries are looked after together."""


class UnknownMessage(AntiphonError):
    """PARKED holds no message at that sequence, or not any more."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"PARKED holds no message {sequence}; `antiphon parked` lists those that wait.")


async def waiting(link: Link) -> list[Waiting]:
    """All that waits for a person, oldest first, and behind it how many messages there are beside those that are kept.

    Args:
        link: a connection with an operator's or a coordinator's rights.

    Raises:
        Ambiguous: the server gave no answer.
    """
    index = await _read_index(link)
    found = [each async for each in _listed(link, index)] + waiting_pauses(await read_pauses(link))
    return [*sorted(found, key=lambda each: each.since), *_more(index)]


async def waiting_page(link: Link, page: int, limit: int) -> tuple[list[Waiting], bool]:
    """A page of all that waits for a person, what is paused and sagas first, and whether there is another page.

    No more is looked after than that takes: of each message it is asked whether its saga has gone on since.

    Args:
        link: as for `waiting`.
        page: which one, from 1.
        limit: how many entries a page has. Behind those of the last one it says how many messages there are beside
            those that are kept.

    Raises:
        Ambiguous: the server gave no answer.
    """
    index, found, end = await _read_index(link), waiting_pauses(await read_pauses(link)), page * limit
    async with aclosing(_listed(link, index)) as listed:
        async for each in listed:
            found.append(each)
            if len(found) > end:
                return found[end - limit : end], True
    return [*found[end - limit :], *_more(index)], False


async def parked_message(link: Link, sequence: int) -> Message:
    """The message that PARKED holds at a sequence, with its bytes; of one that cannot be read, those of PARKED.

    Raises:
        UnknownMessage: there is none.
    """
    page = await link.next_page(PARKED, subjects.PARKED_FILTER, sequence, most=1)
    if not page or page[0].sequence != sequence:
        raise UnknownMessage(sequence)
    stored = page[0]
    try:
        parked = read_parked(stored.subject, stored.data)
    except Unusable as error:
        parked = unread_parked(stored, error)
    said = (await dismissals(link, str(sequence))).get(sequence, ())
    record = tuple(each for each in said if is_about(each, stored))
    return Message(since=clock.rfc3339(stored.stored_ns), parked=parked, record=record)


async def dismissals(link: Link, number: str = "*") -> dict[int, tuple[Dismissal, ...]]:
    """What operators said of messages in PARKED, by where PARKED holds these, oldest first: the last word counts.

    Args:
        link: as for `waiting`.
        number: of one message; all by default.
    """
    found: dict[int, tuple[Dismissal, ...]] = {}
    async for stored in link.scan(EVENTS, subjects.message_verbs_filter(number)):
        if read := read_dismissal(stored):
            found[read[0]] = (*found.get(read[0], ()), read[1])
    return {at: tuple(sorted(said, key=lambda each: each.at)) for at, said in found.items()}


async def _read_index(link: Link) -> Index:
    index = Index({at: said[-1] for at, said in (await dismissals(link)).items()})
    async for stored in link.scan(PARKED, ALL):
        index.take(stored)
    return index


def _more(index: Index) -> list[Waiting]:
    return sorted(index.more, key=lambda each: each.since)


async def _listed(link: Link, index: Index) -> AsyncGenerator[Waiting]:
    """What still waits, looked after a portion at a time: sagas first, however many messages somebody has had parked;
    both in the order of PARKED."""
    entries = sorted(index.entries, key=lambda entry: not isinstance(entry[1], SagaKey))
    for first in range(0, len(entries), PORTION):
        portion = entries[first : first + PORTION]
        journals = await read_journals(link, sorted({key for _, what in portion if (key := _looked_after(what))}))
        for found in await asyncio.gather(*(_waits(link, stored, what, journals) for stored, what in portion)):
            for each in found:
                yield each


def _looked_after(what: Noticed) -> SagaKey | None:
    """The saga by whose journal it is known whether something still waits."""
    match what:
        case SagaKey():
            return what
        case Parked():
            return None if stays(what) else saga_of(what)
        case Waiting():
            return None


async def _waits(link: Link, stored: StoredMessage, what: Noticed, journals: Journals) -> list[Waiting]:
    match what:
        case SagaKey():
            return await _of_saga(link, what, stored, journals[what])
        case Parked():
            key = _looked_after(what)
            is_over = key is not None and is_settled(key, what, journals[key])
            return [] if is_over else [waiting_message(stored, what)]
        case Waiting():
            return [what]


async def _of_saga(link: Link, key: SagaKey, indexed: StoredMessage, entries: list[StoredMessage]) -> list[Waiting]:
    """A saga whose journal cannot be read is listed with the reason, and keeps nobody from the others."""
    has_ended = bool(entries) and entries[-1].subject == subjects.end_subject(key)
    events = [] if has_ended else (await read_events(link, key, entries)).messages
    try:
        return waits_of(key, SagaPages(entries, events))
    except Exception as error:
        return [unreadable(key, indexed, str(error) if isinstance(error, Unusable) else class_of(error))]
