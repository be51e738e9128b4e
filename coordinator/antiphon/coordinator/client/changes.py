"""What changes in sagas, as it happens or from any position on: read from the journals, without a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime

import msgspec

from antiphon.contracts.clock import moment
from antiphon.contracts.errors import Ambiguous, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import SagaState
from antiphon.contracts.subjects import JOURNALS_FILTER, is_of_a_saga
from antiphon.contracts.topology import SAGA
from antiphon.link import Link, Mark, StoredMessage, Tail
from antiphon.link.faults import say
from antiphon.link.tail import LOOK_SECONDS, mark_of

from ..views.summary import Overview, Told, read_told, tell, unread


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A saga began, turned, ended, or waits for a person, or does no longer."""

    type: str
    id: str
    state: SagaState
    parked: str
    """Why a person should look at it; empty where none needs to."""
    reason: str
    """Why it is, or was, compensated."""
    keys: dict[str, str]
    at: datetime
    """When that was stored, by the server's clock."""
    position: Mark
    """Where to go on: what comes after this change is read with `after=change.position`."""

    @property
    def key(self) -> SagaKey:
        """The saga's identity."""
        return SagaKey.of(self.type, self.id)


async def changes(link: Link, saga_type: str, state: SagaState | None, after: Mark | None) -> AsyncGenerator[Change]:
    """All changes after a position, or from now on, for ever; see `Antiphon.changes`."""
    start = await _now(link) if after is None else 0
    tail = Tail(link, SAGA, after or Mark(), _is_of_a_saga, start)
    sagas: dict[SagaKey, Overview] = {}
    while True:
        page = await _read(link, tail)
        for message in page:
            found = _change(sagas, message)
            if found is not None and saga_type in ("", found.type) and state in (None, found.state):
                yield found
        if not page:
            await link.until(asyncio.Event(), LOOK_SECONDS)


def _is_of_a_saga(message: StoredMessage) -> bool:
    return is_of_a_saga(message.subject)


async def _now(link: Link) -> int:
    """Where SAGA is now."""
    while True:
        try:
            last = await link.get_latest(SAGA, JOURNALS_FILTER)
            return last.sequence if last is not None else 0
        except Ambiguous:
            await link.until(asyncio.Event(), LOOK_SECONDS)


async def _read(link: Link, tail: Tail) -> list[StoredMessage]:
    """The next page; none where the server does not answer, which is asked again.

    Raises:
        PlatformError: the link has failed.
    """
    with suppress(Ambiguous):
        return await tail.read()
    return []


def _change(sagas: dict[SagaKey, Overview], message: StoredMessage) -> Change | None:
    """What an entry changes, if anything; what is open is remembered, what has ended is not."""
    try:
        told = read_told(message)
        if told is None:
            return None
        key = told.address.saga
        before = sagas.get(key) or unread(key)
        after = tell(before, told, None)
    except Unusable:  # the coordinators' matter, not ours
        return None
    except Exception as error:  # whoever follows the others must not lose them with this one
        say("changes.faulty", error, message.subject)
        return None
    if after.ended_ns:
        sagas.pop(key, None)
    else:
        sagas[key] = after
    return _told(after, message) if _is_news(before, after, told) else None


def _is_news(before: Overview, after: Overview, told: Told) -> bool:
    is_first = bool(told.envelope.definition)
    return is_first or (before.state, before.parked) != (after.state, after.parked)


def _told(row: Overview, message: StoredMessage) -> Change:
    return Change(
        type=row.type,
        id=row.id,
        state=row.state,
        parked=row.parked,
        reason=row.reason,
        keys=row.keys,
        at=moment(message.stored_ns),
        position=mark_of(message),
    )
