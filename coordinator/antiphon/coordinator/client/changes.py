"""What changes in sagas, as it happens or from any position on: read from the journals, without a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime

import msgspec

from antiphon.contracts.clock import moment
from antiphon.contracts.errors import Ambiguous, PlatformError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import SagaState
from antiphon.contracts.subjects import JOURNALS_FILTER, is_of_a_saga
from antiphon.link import Link, Mark, StoredMessage, Tail
from antiphon.link.faults import say
from antiphon.link.pairs import find_pairs
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


class Position(Mark, frozen=True):
    """Where the streams of several pairs were read to: the message of a change in its own, and the others beside it."""

    beside: tuple[Mark, ...] = ()
    """The last message that was read of each pair, in their order; a mark without a subject stands for a sequence."""


async def changes(link: Link, saga_type: str, state: SagaState | None, after: Mark | None) -> AsyncGenerator[Change]:
    """All changes after a position, or from now on, for ever; see `Antiphon.changes`."""
    await find_pairs(link)
    tails = await _tails(link, after)
    sagas: dict[SagaKey, Overview] = {}
    while True:
        has_read = False
        for pair, tail in enumerate(tails):
            beside = [_place(each) for each in tails] if len(tails) > 1 else []
            page = await _read(link, tail)
            for message in page:
                found = _change(sagas, message)
                if found is not None and saga_type in ("", found.type) and state in (None, found.state):
                    yield _at(found, message, pair, beside)
            has_read = has_read or bool(page)
        if not has_read:
            await link.until(asyncio.Event(), LOOK_SECONDS)


async def _tails(link: Link, after: Mark | None) -> list[Tail]:
    """Where to read on in each pair.

    Raises:
        PlatformError: the position is one of a platform with another number of pairs.
    """
    streams = link.pairs.saga
    if after is None:
        return [Tail(link, stream, Mark(), _is_of_a_saga, await _now(link, stream)) for stream in streams]
    beside = after.beside if isinstance(after, Position) and after.beside else (after,)
    if after.sequence and len(beside) != len(streams):
        raise PlatformError(
            f"the position is one of {len(beside)} pairs of streams, and there are {len(streams)}. Keep the whole of "
            "change.position (a Position, where there are several), or begin anew."
        )
    if not after.sequence:
        beside = (Mark(),) * len(streams)
    return [
        Tail(link, stream, mark if mark.subject else Mark(), _is_of_a_saga, mark.sequence)
        for stream, mark in zip(streams, beside, strict=True)
    ]


def _place(tail: Tail) -> Mark:
    """Up to where a stream was read."""
    return tail.mark if tail.mark.sequence else Mark(tail.position)


def _at(change: Change, message: StoredMessage, pair: int, beside: list[Mark]) -> Change:
    """The change, with the position in all pairs."""
    if not beside:
        return change
    places = (*beside[:pair], mark_of(message), *beside[pair + 1 :])
    position = Position(message.sequence, message.subject, message.stored_ns, places)
    return msgspec.structs.replace(change, position=position)


def _is_of_a_saga(message: StoredMessage) -> bool:
    return is_of_a_saga(message.subject)


async def _now(link: Link, stream: str) -> int:
    """Where a stream of journals is now."""
    while True:
        try:
            last = await link.get_latest(stream, JOURNALS_FILTER)
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
