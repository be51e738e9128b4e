"""One saga read from both streams and projected."""

from __future__ import annotations

import asyncio
from typing import Final

from antiphon.contracts.errors import Ambiguous, AntiphonError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import journal_filter
from antiphon.contracts.topology import SAGA
from antiphon.link import Link, StoredMessage
from antiphon.link.faults import class_of
from antiphon.link.sagas import read_named_events

from ..projection.project import Projection, project

TRIES_MAX: Final = 5
PAUSE_SECONDS: Final = 0.2
"""How soon to look again when a replica that lags has given a journal and not the facts that it names."""


class NotThere(Ambiguous):
    """What was read is less than what is known to have been stored: a replica lags, or the saga was purged."""


class Unprojectable(AntiphonError):
    """A saga's journal was read, and making a trace of it raised; what was raised is the cause of this."""

    def __init__(self, key: SagaKey, error: BaseException) -> None:
        super().__init__(f"making a trace of saga {key} raised {class_of(error)}")


async def read_projection(link: Link, key: SagaKey, read_to: int = 0) -> Projection:
    """The trace of a saga as it is now.

    Args:
        link: a connection that may read both streams.
        key: the saga.
        read_to: an entry, by its sequence, that is known to be there.

    Raises:
        NotThere: what is known to have been stored was not there.
        Ambiguous: the server gave no answer.
        Unusable: the journal cannot be read.
        Unprojectable: nobody has expected such a journal.
    """
    for _ in range(TRIES_MAX):
        entries = await link.read_all(SAGA, [journal_filter(key)])
        # What the journal names and nothing else, so that nobody makes a saga unreadable by writing many subjects.
        found = _projected(key, entries, await read_named_events(link, entries))
        if not found.lacks and found.read_to >= read_to:
            return found
        await asyncio.sleep(PAUSE_SECONDS)
    raise NotThere(f"saga {key}: its journal, or a fact that it names, is not there")


def _projected(key: SagaKey, entries: list[StoredMessage], events: list[StoredMessage]) -> Projection:
    try:
        return project(key, entries, events)
    except Unusable:
        raise
    except BaseException as error:
        raise Unprojectable(key, error) from error
