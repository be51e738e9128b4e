"""Many journals in few reads: for whoever looks after thousands of sagas at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import StoredMessage, TooManySubjects
from antiphon.contracts.subjects import journal_filter, saga_in
from antiphon.contracts.topology import SAGA

from .tail import Reads

JOURNALS_PER_READ: Final = 50
"""Most have fewer than twenty entries, and one read gives a thousand."""
READS_MAX: Final = 4
"""Reads at once: the server drops a connection to which too much is under way."""

Journals = dict[SagaKey, list[StoredMessage]]


async def read_journals(link: Reads, keys: Sequence[SagaKey]) -> Journals:
    """The journals of sagas, each in stream order; empty where there is none.

    Args:
        link: a connection that may read SAGA.
        keys: the sagas.

    Raises:
        Ambiguous: there was no whole answer.
    """
    found: Journals = {key: [] for key in keys}
    at_once = asyncio.Semaphore(READS_MAX)
    portions = [keys[first : first + JOURNALS_PER_READ] for first in range(0, len(keys), JOURNALS_PER_READ)]
    await asyncio.gather(*(_read(link, portion, found, at_once) for portion in portions))
    return found


async def _read(link: Reads, keys: Sequence[SagaKey], found: Journals, at_once: asyncio.Semaphore) -> None:
    """Read some journals with one read, or, where they have too many entries for that, half of them with each."""
    try:
        async with at_once:
            messages = await link.read_all(SAGA, [journal_filter(key) for key in keys])
    except TooManySubjects:
        if len(keys) == 1:
            raise
        middle = len(keys) // 2
        await _read(link, keys[:middle], found, at_once)
        await _read(link, keys[middle:], found, at_once)
        return
    for message in messages:
        if (key := saga_in(message.subject)) is not None:
            found[key].append(message)
