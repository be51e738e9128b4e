"""What waits for a person, as people are shown it. Pure.

PARKED is only an index, and old entries stay in it. A saga is listed if its journal still says that a person is needed,
a fact that was set aside if no journal has named it since, and a reaction that fails until its participant says that it
is done.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from antiphon.contracts import clock, subjects
from antiphon.contracts.envelope import decode
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.payloads import WITHDRAWN, Parked, ParkedKind
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.topology import EVENTS

from .standing import standing


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


class Index:
    """What PARKED holds, read message by message: one entry for each saga, and one for each message set aside."""

    def __init__(self) -> None:
        self.sagas: dict[SagaKey, StoredMessage] = {}
        self._messages: dict[tuple[str, int, str], tuple[StoredMessage, Parked]] = {}

    def take(self, stored: StoredMessage, parked: Parked) -> None:
        """Read the next message of PARKED; one that was parked more than once is one."""
        if parked.saga is not None:
            self.sagas[parked.saga] = stored
            return
        which = parked.stream, parked.sequence, parked.noticed_by
        if parked.reason == WITHDRAWN:
            self._messages.pop(which, None)
        else:
            self._messages.setdefault(which, (stored, parked))

    @property
    def messages(self) -> list[tuple[StoredMessage, Parked]]:
        """The messages that were set aside, with where PARKED holds them."""
        return list(self._messages.values())


def waits_of(key: SagaKey, pages: SagaPages) -> list[Waiting]:
    """What a saga waits for a person with.

    Raises:
        Unusable: its journal cannot be read.
    """
    return [
        Waiting(
            kind="saga",
            saga=str(key),
            step=need.step,
            reason=need.reason,
            since=clock.rfc3339(need.since_ns),
            tried=need.tried,
        )
        for need in standing(pages.entries, pages.events).needs
    ]


def unreadable(key: SagaKey, indexed: StoredMessage, why: str) -> Waiting:
    """A saga whose journal cannot be read; PARKED holds its index entry."""
    reason = f"its journal cannot be read: {why}"
    return Waiting(kind="saga", saga=str(key), reason=reason, since=clock.rfc3339(indexed.stored_ns))


def waiting_message(stored: StoredMessage, parked: Parked) -> Waiting:
    """A message that was set aside."""
    return Waiting(
        kind=parked.kind,
        saga=str(saga_of(parked) or ""),
        reason=parked.reason,
        since=clock.rfc3339(stored.stored_ns),
        sequence=stored.sequence,
        subject=parked.subject,
        noticed_by=parked.noticed_by,
    )


def saga_of(parked: Parked) -> SagaKey | None:
    """The saga of a message whose subject says so, and is not forged."""
    try:
        if parked.stream == EVENTS:
            return subjects.parse_fact(parked.subject).saga
        return subjects.parse_entry(parked.subject).saga
    except Unusable:
        return None


def stays(parked: Parked) -> bool:
    """Whether a message waits for a person whatever becomes of its saga: no journal will ever name it, or it is a
    reaction that fails."""
    is_reaction = parked.kind == "fault" and parked.noticed_by != COORDINATOR
    return parked.stream == EVENTS and (parked.kind in ("forged", "undecodable") or is_reaction)


def is_settled(key: SagaKey, parked: Parked, entries: list[StoredMessage]) -> bool:
    """Whether the saga needs nobody for a message any more: it has ended, or its journal names the fact by now."""
    if entries and entries[-1].subject == subjects.end_subject(key):
        return True
    return parked.stream == EVENTS and _is_named(entries, parked.sequence)


def _is_named(entries: Iterable[StoredMessage], sequence: int) -> bool:
    return any(_names(message, sequence) for message in entries)


def _names(entry: StoredMessage, sequence: int) -> bool:
    """Whether an entry names a fact; one that cannot be read names none."""
    try:
        return decode(entry.data, entry.subject).cause == f"e{sequence}"
    except Unusable:
        return False
