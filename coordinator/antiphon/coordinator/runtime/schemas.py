"""The schemas of messages, kept in SAGA by their digest, and whether sagas in flight began with others that do not fit.

Two declarations of a message under one name and version have one definition's hash. Which of them a saga began with is
told by the digest in its journal's first entry, and what that stands for by the schemas kept under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from antiphon.contracts import subjects
from antiphon.contracts.compat.compatibility import Change, compare_contracts
from antiphon.contracts.compat.schema import Contracts
from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import (
    Ambiguous,
    Conflict,
    ContractsChanged,
    PlatformError,
    TooLarge,
    Undecodable,
    Unusable,
)
from antiphon.contracts.headers import FIRST
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.payloads import SCHEMAS_TYPE
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import SAGA, SWEEPER
from antiphon.link import Link
from antiphon.link.setup import api

from ..definition.definition import Definition
from ..definition.messages import schemas_of_messages

log = structlog.get_logger()

STARTS_PER_READ: Final = 200
"""How many starts are looked at together: their outcomes are one read, which the server bounds at 1,024 subjects."""

JOURNALS_PER_READ: Final = 16
"""How many journals are read at once."""

CHANGES_TOLD_MAX: Final = 5
"""How many changes an error tells."""

PATIENCE_SECONDS: Final = 30.0
"""A cluster that chooses its leader gives no answer for some seconds."""

PAUSE_SECONDS: Final = 0.25


async def agree(link: Link, definitions: Iterable[Definition], *, incompatible: bool = False) -> None:
    """Keep the schemas of definitions, after a look at those that they had before.

    Args:
        link: a coordinator's.
        definitions: those that it is to decide by, and those of their children.
        incompatible: whether to go on although sagas in flight began with messages that do not fit.

    Raises:
        ContractsChanged: there is such a saga; nothing was kept.
        PlatformError: the server gave no answer.
    """
    ours = {each.label: each for each in definitions}
    for definition in ours.values():
        await _insist(link, definition, incompatible)


async def _insist(link: Link, definition: Definition, incompatible: bool) -> None:
    clock = asyncio.get_running_loop().time
    patience_ends = clock() + PATIENCE_SECONDS
    while True:
        try:
            await _agree_on(link, definition, incompatible)
            return
        except Ambiguous as error:
            if link.failure.done():
                raise link.failure.result() from None
            if clock() > patience_ends:
                raise PlatformError(
                    f"the schemas of {definition.label} can be neither read nor stored ({error}). Start again once the "
                    "server answers."
                ) from None
        await asyncio.sleep(PAUSE_SECONDS)


async def _agree_on(link: Link, definition: Definition, incompatible: bool) -> None:
    kept = {subjects.parse_schemas(each.subject): each for each in await _kept(link, definition)}
    changes = _changes(definition, kept)
    if changes:
        await _require_none_open(link, definition, changes, incompatible)
    if definition.schemas not in kept:
        await _keep(link, definition)


async def _kept(link: Link, definition: Definition) -> list[StoredMessage]:
    return await link.read_all(SAGA, [subjects.schemas_filter(definition.label)])


def _changes(definition: Definition, kept: Mapping[str, StoredMessage]) -> dict[str, list[Change]]:
    """What does not fit between our messages and others that were kept, by their digests."""
    own = kept.get(definition.schemas)
    found: dict[str, list[Change]] = {}
    for digest, message in kept.items():
        if digest != definition.schemas and (theirs := _read(message)) is not None:
            # In the order in which they came about: to take back what was added is no change of our own.
            pair = theirs, schemas_of_messages(definition)
            is_older = own is not None and own.sequence < message.sequence
            if changes := compare_contracts(*(reversed(pair) if is_older else pair)):
                found[digest] = changes
    return found


def _read(message: StoredMessage) -> Contracts | None:
    try:
        return unpack(decode(message.data, message.subject), SCHEMAS_TYPE, Contracts)
    except Undecodable as error:
        log.warning("schemas.unreadable", subject=message.subject, reason=error.reason)
        return None


async def _keep(link: Link, definition: Definition) -> None:
    """Store our schemas, unless another coordinator does so at this moment."""
    subject = subjects.schemas_subject(definition.label, definition.schemas)
    payload, time = pack(schemas_of_messages(definition)), datetime.now(UTC)
    envelope = Envelope(id=subject, source=COORDINATOR, type=SCHEMAS_TYPE, time=time, data=payload)
    try:
        await link.store(subject, encode(envelope), FIRST)
    except Conflict:
        return
    except TooLarge as error:  # what they change to cannot be compared then; sagas go on all the same
        log.warning("schemas.too_large", definition=definition.label, reason=error.reason)


# --- sagas in flight --------------------------------------------------------------------------------------------------


async def _require_none_open(
    link: Link, definition: Definition, changes: Mapping[str, list[Change]], incompatible: bool
) -> None:
    """Refuse to go on while a saga is open that began with messages that ours do not fit."""
    log.info("schemas.differ", definition=definition.label, changes=[*_sentences(changes.values())])
    async for key, digest in open_sagas(link, definition):
        if digest in changes:
            if incompatible:
                log.warning("schemas.incompatible", definition=definition.label, saga=str(key))
                return
            raise ContractsChanged(
                f"messages of {definition.label} have changed, and sagas in flight, {key} for one, began with the ones "
                f"before.\n{_listed(_sentences([changes[digest]]))}\nWhere that does no harm, start with "
                "--incompatible-contracts: a saga whose messages cannot be read is parked then."
            )


def _listed(sentences: list[str]) -> str:
    """A line each, of the first ones."""
    lines = [f"  - {sentence}" for sentence in sentences[:CHANGES_TOLD_MAX]]
    more = len(sentences) - len(lines)
    return "\n".join([*lines, f"  - and {more} more; `antiphon contracts check` lists all"] if more else lines)


def _sentences(changes: Iterable[list[Change]]) -> list[str]:
    return list(dict.fromkeys(change.sentence for each in changes for change in each))


async def open_sagas(link: Link, definition: Definition) -> AsyncIterator[tuple[SagaKey, str]]:
    """The sagas in flight of a definition, each with the digest of the schemas that it began with, if it says so.

    Raises:
        Ambiguous: the server gave no answer.
    """
    for stream in link.pairs.events:
        async for each in _open_sagas_of(link, stream, definition):
            yield each


async def _open_sagas_of(link: Link, stream: str, definition: Definition) -> AsyncIterator[tuple[SagaKey, str]]:
    """The same, of those in one pair."""
    sequence = await oldest_open(link, stream)
    while page := await link.next_page(stream, subjects.starts_filter(definition.name), sequence, most=STARTS_PER_READ):
        sequence = page[-1].sequence + 1
        keys = [key for message in page if (key := subjects.saga_in(message.subject)) is not None]
        ends = {each.subject for each in await link.read_all(SAGA, [subjects.end_subject(key) for key in keys])}
        still = [key for key in keys if subjects.end_subject(key) not in ends]
        for first in range(0, len(still), JOURNALS_PER_READ):
            some = still[first : first + JOURNALS_PER_READ]
            for key, digest in zip(some, await _digests(link, definition, some), strict=True):
                if digest:
                    yield key, digest


async def begun_before(link: Link) -> list[int]:
    """For each pair the sequence in EVENTS behind which the oldest start of an open saga is."""
    return [await oldest_open(link, stream) - 1 for stream in link.pairs.events]


async def oldest_open(link: Link, stream: str) -> int:
    """Where a stream of events may hold the oldest start of an open saga: the sweeper acks the start of each that has
    ended."""
    answer = await api(link, f"CONSUMER.INFO.{stream}.{SWEEPER}")
    return int(answer.get("ack_floor", {}).get("stream_seq", 0)) + 1


async def _digests(link: Link, definition: Definition, keys: list[SagaKey]) -> list[str]:
    return await asyncio.gather(*(_digest(link, definition, key) for key in keys))


async def _digest(link: Link, definition: Definition, key: SagaKey) -> str:
    """The digest in a journal's first entry; empty where it says none, or is of another definition."""
    entries = await link.read_all(SAGA, [subjects.journal_filter(key)])
    if not entries:
        return ""
    try:
        envelope = decode(entries[0].data, entries[0].subject)
    except Unusable:
        return ""
    return envelope.schemas if envelope.definition == definition.label else ""
