"""One saga read from both streams and projected."""

from __future__ import annotations

import asyncio
from typing import Final

from antiphon.contracts.clock import rfc3339
from antiphon.contracts.envelope import decode, unpack
from antiphon.contracts.errors import Ambiguous, AntiphonError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import END_TYPE, End
from antiphon.contracts.subjects import is_end, journal_filter
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


class Purged(NotThere):
    """The saga has ended, and its journal was purged, so that there is no trace to be made of it any more."""

    def __init__(self, key: SagaKey, end: StoredMessage, is_certain: bool) -> None:
        self.is_certain = is_certain
        """Whether its journal lacks entries, and not just EVENTS facts, which a replica that lags may lack as well."""
        found = unpack(decode(end.data, end.subject), END_TYPE, End)
        gone = f"and was forgotten {found.forgotten}" if found.forgotten else "and its journal was purged since"
        super().__init__(
            f"saga {key} has ended, {found.outcome}, on {rfc3339(end.stored_ns)[:10]}, {gone}. Its trace is where it "
            "was exported to; where the saga was archived: --archive FOLDER"
        )


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
        Purged: it has ended, and its journal is not whole any more.
        NotThere: what is known to have been stored was not there.
        Ambiguous: the server gave no answer.
        Unusable: the journal cannot be read.
        Unprojectable: nobody has expected such a journal.
    """
    entries: list[StoredMessage] = []
    for _ in range(TRIES_MAX):
        entries = await link.read_all(SAGA, [journal_filter(key)])
        # What the journal names and nothing else, so that nobody makes a saga unreadable by writing many subjects.
        found = _projected(key, entries, await read_named_events(link, entries))
        if not found.lacks and found.read_to >= read_to:
            return found
        await asyncio.sleep(PAUSE_SECONDS)
    if entries and is_end(entries[-1].subject):
        raise Purged(key, entries[-1], not decode(entries[0].data, entries[0].subject).definition)
    raise NotThere(f"saga {key}: its journal, or a fact that it names, is not there")


def _projected(key: SagaKey, entries: list[StoredMessage], events: list[StoredMessage]) -> Projection:
    try:
        return project(key, entries, events)
    except Unusable:
        raise
    except BaseException as error:
        raise Unprojectable(key, error) from error
