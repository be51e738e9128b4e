"""What waits for a person: the index that PARKED keeps, and what the journals say of it by now.

PARKED is only an index, and old entries stay in it. A saga is listed if its journal still says that a person is needed,
a fact that was set aside if no journal has named it since, and a reaction that fails until its participant says that it
is done.
"""

from __future__ import annotations

import msgspec
import structlog

from antiphon.contracts import clock, subjects
from antiphon.contracts.envelope import decode, unpack_raw
from antiphon.contracts.errors import AntiphonError, Unusable
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.payloads import WITHDRAWN, Parked, ParkedKind
from antiphon.contracts.topology import EVENTS, PARKED, SAGA
from antiphon.link import Link, StoredMessage
from antiphon.link.faults import class_of

from .standing import standing

log = structlog.get_logger()


class UnknownMessage(AntiphonError):
    """PARKED holds no message at that sequence, or not any more."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"PARKED holds no message {sequence}; `antiphon parked` lists those that wait.")


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A saga, or a message, that waits for a person.

    Of a message, `sequence` is where PARKED holds it, and `subject` where it was stored; `saga` is whose it is, if it
    is a saga's. `since` is RFC 3339, `tried` how often a step was, 0 where nothing was.
    """

    kind: ParkedKind
    saga: str
    reason: str
    since: str
    step: str = ""
    tried: int = 0
    sequence: int = 0
    subject: str = ""
    noticed_by: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was set aside, with when that was (RFC 3339)."""

    since: str
    parked: Parked


async def waiting(link: Link) -> list[Waiting]:
    """All that waits for a person, oldest first."""
    sagas: dict[SagaKey, StoredMessage] = {}
    messages: dict[tuple[str, int, str], tuple[StoredMessage, Parked]] = {}
    async for stored in link.scan(PARKED, "parked.>"):
        try:
            parked = unpack_raw(stored.data, Parked, stored.subject)
        except Unusable as error:
            log.warning("parked.unreadable", subject=stored.subject, sequence=stored.sequence, reason=error.reason)
            continue
        if parked.saga is not None:
            sagas[parked.saga] = stored
            continue
        which = parked.stream, parked.sequence, parked.noticed_by
        if parked.reason == WITHDRAWN:
            messages.pop(which, None)
        else:  # one that was parked more than once is one
            messages.setdefault(which, (stored, parked))
    found = [each for key, stored in sagas.items() for each in await _of_saga(link, key, stored)]
    found += [each for pair in messages.values() if (each := await _of_message(link, *pair)) is not None]
    return sorted(found, key=lambda each: each.since)


async def parked_message(link: Link, sequence: int) -> Message:
    """The message that PARKED holds at a sequence, with its bytes.

    Raises:
        UnknownMessage: there is none.
    """
    async for stored in link.scan(PARKED, "parked.>", sequence):
        if stored.sequence == sequence:
            return Message(since=clock.rfc3339(stored.stored_ns), parked=msgspec.json.decode(stored.data, type=Parked))
        break
    raise UnknownMessage(sequence)


async def _of_saga(link: Link, key: SagaKey, indexed: StoredMessage) -> list[Waiting]:
    """What a saga waits for; one whose journal cannot be read is listed with that, and keeps nobody from the others."""
    entries = await link.read_all(SAGA, [subjects.journal_filter(key)])
    events = await link.read_all(EVENTS, [f"evt.{key.path}.>"])
    try:
        needs = standing(entries, events).needs
    except Exception as error:
        reason = f"its journal cannot be read: {error if isinstance(error, Unusable) else class_of(error)}"
        return [Waiting(kind="saga", saga=str(key), reason=reason, since=clock.rfc3339(indexed.stored_ns))]
    return [
        Waiting(
            kind="saga",
            saga=str(key),
            step=need.step,
            reason=need.reason,
            since=clock.rfc3339(need.since_ns),
            tried=need.tried,
        )
        for need in needs
    ]


async def _of_message(link: Link, stored: StoredMessage, parked: Parked) -> Waiting | None:
    key = _saga_of(parked)
    if key is not None and await _is_settled(link, key, parked):
        return None
    return Waiting(
        kind=parked.kind,
        saga=str(key or ""),
        reason=parked.reason,
        since=clock.rfc3339(stored.stored_ns),
        sequence=stored.sequence,
        subject=parked.subject,
        noticed_by=parked.noticed_by,
    )


def _saga_of(parked: Parked) -> SagaKey | None:
    """The saga of a message whose subject says so, and is not forged."""
    try:
        if parked.stream == EVENTS:
            return subjects.parse_fact(parked.subject).saga
        return subjects.parse_entry(parked.subject).saga
    except Unusable:
        return None


async def _is_settled(link: Link, key: SagaKey, parked: Parked) -> bool:
    """Whether the saga needs nobody for it any more: it has ended, or its journal names the fact by now.

    A fact that no journal will ever name is not, nor is a reaction that fails, whatever becomes of its saga.
    """
    is_reaction = parked.kind == "fault" and parked.noticed_by != COORDINATOR
    if parked.stream == EVENTS and (parked.kind in ("forged", "undecodable") or is_reaction):
        return False
    entries = await link.read_all(SAGA, [subjects.journal_filter(key)])
    if entries and entries[-1].subject == subjects.end_subject(key):
        return True
    return parked.stream == EVENTS and any(_names(message, parked.sequence) for message in entries)


def _names(entry: StoredMessage, sequence: int) -> bool:
    """Whether an entry names a fact; one that cannot be read names none."""
    try:
        return decode(entry.data, entry.subject).cause == f"e{sequence}"
    except Unusable:
        return False
