"""All that waits for a person, read from the index in PARKED and the journals of its sagas."""

from __future__ import annotations

import structlog

from antiphon.contracts import clock, subjects
from antiphon.contracts.errors import AntiphonError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import Parked, read_parked
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.topology import PARKED, SAGA
from antiphon.link import Link
from antiphon.link.faults import class_of
from antiphon.link.sagas import read_events

from ..views.parked import Index, Message, Waiting, is_settled, saga_of, stays, unreadable, waiting_message, waits_of

log = structlog.get_logger()


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
    index = Index()
    async for stored in link.scan(PARKED, subjects.PARKED_FILTER):
        try:
            index.take(stored)
        except Unusable as error:
            log.warning("parked.unreadable", subject=stored.subject, sequence=stored.sequence, reason=error.reason)
    found = [each for key, stored in index.sagas.items() for each in await _of_saga(link, key, stored)]
    found += [waiting_message(*pair) for pair in index.messages if not await _is_settled(link, pair[1])]
    return [*sorted(found, key=lambda each: each.since), *sorted(index.more, key=lambda each: each.since)]


async def parked_message(link: Link, sequence: int) -> Message:
    """The message that PARKED holds at a sequence, with its bytes.

    Raises:
        UnknownMessage: there is none.
        Unusable: what it holds there is none.
    """
    async for stored in link.scan(PARKED, subjects.PARKED_FILTER, sequence):
        if stored.sequence == sequence:
            return Message(since=clock.rfc3339(stored.stored_ns), parked=read_parked(stored.subject, stored.data))
        break
    raise UnknownMessage(sequence)


async def _of_saga(link: Link, key: SagaKey, indexed: StoredMessage) -> list[Waiting]:
    """A saga whose journal cannot be read is listed with the reason, and keeps nobody from the others."""
    entries = await link.read_all(SAGA, [subjects.journal_filter(key)])
    events = await read_events(link, key, entries)
    try:
        return waits_of(key, SagaPages(entries, events))
    except Exception as error:
        return [unreadable(key, indexed, str(error) if isinstance(error, Unusable) else class_of(error))]


async def _is_settled(link: Link, parked: Parked) -> bool:
    key = saga_of(parked)
    if key is None or stays(parked):
        return False
    return is_settled(key, parked, await link.read_all(SAGA, [subjects.journal_filter(key)]))
