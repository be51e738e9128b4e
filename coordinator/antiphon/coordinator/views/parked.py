"""What waits for a person, as people are shown it. Pure.

PARKED is only an index, and old entries stay in it. A saga is listed if its journal still says that a person is needed,
a fact that was set aside if no journal has named it since, and a reaction that fails until its participant says that it
is done. What a message of PARKED is, who noticed it, who wrote it and which saga it indexes is read from its subject,
which rights cover; so nobody can take back or replace what somebody else has noticed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

import msgspec

from antiphon.contracts import clock, subjects
from antiphon.contracts.envelope import decode, unpack, unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import COORDINATOR, PARKED_MESSAGE, SagaKey
from antiphon.contracts.pairs import base_of
from antiphon.contracts.payloads import WITHDRAWN, More, Operation, Parked, read_parked, verb_type
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.subjects import UNKNOWN, MessageVerb, ParkedAddress, ParkedKind, parse_parked
from antiphon.contracts.topology import EVENTS, PARKED, PARKED_PER_SOURCE_MAX

from .pauses import Pauses
from .standing import standing

NOTICED_MAX: Final = 10 * PARKED_PER_SOURCE_MAX
"""So many messages that one participant has noticed are listed. What it notices is bounded by the sources it names, and
those it may make up."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A saga, or a message, that waits for a person.

    Of a message, `sequence` is where PARKED holds it, and `subject` where it was stored; `saga` is whose it is, if it
    is a saga's; `source` is who wrote it. `since` is RFC 3339, `tried` how often a step was, 0 where nothing was. With
    `more` it is no message, but how many others there are of this kind and source that nobody kept. With
    `is_unreadable` it is what PARKED itself holds at `subject`, and nobody can say what it is about. A `paused` one
    is a saga type or a participant, which `subject` names.
    """

    kind: ParkedKind | Literal["paused"]
    saga: str
    reason: str
    since: str
    step: str = ""
    tried: int = 0
    sequence: int = 0
    subject: str = ""
    noticed_by: str = ""
    source: str = ""
    more: int = 0
    is_unreadable: bool = False
    size_bytes: int = 0
    """Of what cannot be read."""


Noticed = SagaKey | Parked | Waiting
"""An entry of PARKED: the saga that it indexes, a message that was set aside, or what cannot be read."""


class Dismissal(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator said of a message in PARKED that is listed no more: it is dismissed, or was sent again."""

    verb: MessageVerb
    user: str
    reason: str
    at: str
    """RFC 3339."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was set aside, with when that was (RFC 3339)."""

    since: str
    parked: Parked
    record: tuple[Dismissal, ...] = ()
    """What operators said of it, oldest first."""

    @property
    def dismissal(self) -> Dismissal | None:
        """The last of that, which counts."""
        return self.record[-1] if self.record else None


def read_dismissal(stored: StoredMessage) -> tuple[int, Dismissal] | None:
    """An operator's request about a message in PARKED, with where that is; nothing where it cannot be read."""
    try:
        address, envelope = subjects.parse_fact(stored.subject), decode(stored.data, stored.subject)
        operation = unpack(envelope, verb_type(address.event), Operation)
    except Unusable:
        return None
    key, verb = address.saga, next((each for each in get_args(MessageVerb) if each == address.event), None)
    if key.type != PARKED_MESSAGE or verb is None or not key.id.isdigit():
        return None
    at = clock.rfc3339(stored.stored_ns)
    return int(key.id), Dismissal(verb=verb, user=address.key[0], reason=operation.reason, at=at)


def is_about(dismissal: Dismissal | None, stored: StoredMessage) -> bool:
    """Whether somebody dismissed a message of PARKED, or sent it again, when it was there."""
    return dismissal is not None and dismissal.at >= clock.rfc3339(stored.stored_ns)


class Index:
    """What PARKED holds, read message by message: one entry for each saga, and one for each message set aside. The
    bytes of messages are not kept.

    Args:
        dismissed: what operators said of messages, by where PARKED holds these. What was said before there was a
            message is about none.
    """

    def __init__(self, dismissed: Mapping[int, Dismissal] = {}) -> None:
        self._dismissed = dismissed
        self.sagas: dict[SagaKey, StoredMessage] = {}
        self._messages: dict[str, dict[tuple[str, int], tuple[StoredMessage, Parked]]] = defaultdict(dict)
        """By who noticed, and where the message is stored."""
        self._unreadable: dict[str, dict[int, tuple[StoredMessage, Waiting]]] = defaultdict(dict)
        """By who noticed, as far as the subject says, and where PARKED holds it."""
        self._more: dict[ParkedAddress, Waiting] = {}

    def take(self, stored: StoredMessage) -> None:
        """Read the next message of PARKED; one that the same process's name parked more than once is one, and one that
        cannot be read is listed as such."""
        if is_about(self._dismissed.get(stored.sequence), stored):
            return
        try:
            self._take(stored, parse_parked(stored.subject))
        except Unusable as error:
            self._set_aside(stored, error)

    def _take(self, stored: StoredMessage, address: ParkedAddress) -> None:
        if address.saga is not None:  # its subject says all there is to say, and its journal the rest
            self.sagas[address.saga] = msgspec.structs.replace(stored, data=b"")
        elif address.form == "more":
            self._count(stored, address, unpack_raw(stored.data, More, stored.subject).count)
        else:
            self._take_message(stored, address, read_parked(stored.subject, stored.data))

    def _take_message(self, stored: StoredMessage, address: ParkedAddress, parked: Parked) -> None:
        if address.form == "withdrawn" or parked.reason == WITHDRAWN:
            self._messages[address.noticed_by].pop((parked.stream, parked.sequence), None)
            return
        theirs = self._messages[address.noticed_by]
        if address.noticed_by == COORDINATOR or len(theirs) < NOTICED_MAX:
            kept = msgspec.structs.replace(stored, data=b""), msgspec.structs.replace(parked, data=b"")
            theirs.setdefault((parked.stream, parked.sequence), kept)
        else:
            self._count(stored, ParkedAddress(address.kind, address.noticed_by, form="more"), 1)

    def _set_aside(self, stored: StoredMessage, error: Unusable) -> None:
        """List what cannot be read: of what one process's name may write, the first ones."""
        said = unreadable_message(stored, error)
        theirs = self._unreadable[said.noticed_by]
        if len(theirs) < NOTICED_MAX:
            theirs[stored.sequence] = msgspec.structs.replace(stored, data=b""), said
        else:
            self._count(stored, ParkedAddress(_address_of(stored).kind, said.noticed_by, form="more"), 1)

    def _count(self, stored: StoredMessage, address: ParkedAddress, count: int) -> None:
        before = self._more.get(address)
        more = count + (before.more if before else 0)
        self._more[address] = Waiting(
            kind=address.kind,
            saga="",
            reason=f"and at least {more:,} more from {address.source or 'many sources'}; the first ones are kept",
            since=before.since if before else clock.rfc3339(stored.stored_ns),
            subject=stored.subject,
            noticed_by=address.noticed_by,
            source=address.source,
            more=more,
        )

    @property
    def messages(self) -> list[tuple[StoredMessage, Parked]]:
        """The messages that were set aside, with where PARKED holds them."""
        return [pair for theirs in self._messages.values() for pair in theirs.values()]

    @property
    def unreadable(self) -> list[tuple[StoredMessage, Waiting]]:
        """What PARKED holds and nobody can read, with where."""
        return [pair for theirs in self._unreadable.values() for pair in theirs.values()]

    @property
    def entries(self) -> list[tuple[StoredMessage, Noticed]]:
        """All of that but the counts, in the order of PARKED."""
        sagas = [(stored, key) for key, stored in self.sagas.items()]
        return sorted([*sagas, *self.messages, *self.unreadable], key=lambda entry: entry[0].sequence)

    @property
    def more(self) -> list[Waiting]:
        """How many messages there are beside those that are kept."""
        return list(self._more.values())


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


def waiting_pauses(pauses: Pauses) -> list[Waiting]:
    """Saga types and participants that stand still until somebody resumes them."""
    both = (("type", "saga type", pauses.types), ("participant", "participant", pauses.participants))
    return [
        Waiting(
            kind="paused",
            saga="",
            subject=f"{what} {pause.name}",
            reason=f"{pause.paused}; it goes on after `antiphon resume --{option} {pause.name}`",
            since=pause.since,
        )
        for option, what, paused in both
        for pause in paused.values()
    ]


def unreadable(key: SagaKey, indexed: StoredMessage, why: str) -> Waiting:
    """A saga whose journal cannot be read; PARKED holds its index entry."""
    reason = f"its journal cannot be read: {why}"
    return Waiting(kind="saga", saga=str(key), reason=reason, since=clock.rfc3339(indexed.stored_ns))


def unreadable_message(stored: StoredMessage, error: Unusable) -> Waiting:
    """What PARKED holds and nobody can read: all that its subject says of it."""
    address = _address_of(stored)
    return Waiting(
        kind=address.kind,
        saga="",
        reason=f"what PARKED holds there cannot be read: {error.reason}",
        since=clock.rfc3339(stored.stored_ns),
        sequence=stored.sequence,
        subject=stored.subject,
        noticed_by=address.noticed_by,
        source=address.source,
        is_unreadable=True,
        size_bytes=len(stored.data),
    )


def _address_of(stored: StoredMessage) -> ParkedAddress:
    """What the subject of a message of PARKED says, where it says anything."""
    try:
        return parse_parked(stored.subject)
    except Unusable:
        return ParkedAddress("forged", UNKNOWN, UNKNOWN)


def unread_parked(stored: StoredMessage, error: Unusable) -> Parked:
    """What PARKED holds and nobody can read, as if it were a message that was set aside, with its bytes."""
    said = unreadable_message(stored, error)
    return Parked(
        kind=_address_of(stored).kind,
        reason=said.reason,
        noticed_by=said.noticed_by,
        source=said.source,
        stream=PARKED,
        sequence=stored.sequence,
        subject=stored.subject,
        data=stored.data,
    )


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
        source=parked.source,
    )


def saga_of(parked: Parked) -> SagaKey | None:
    """The saga of a message whose subject says so, and is not forged."""
    try:
        if base_of(parked.stream) == EVENTS:
            return subjects.parse_fact(parked.subject).saga
        return subjects.parse_entry(parked.subject).saga
    except Unusable:
        return None


def stays(parked: Parked) -> bool:
    """Whether a message waits for a person whatever becomes of its saga: no journal will ever name it, it is a reaction
    that fails, an action on what was resolved by hand, or a start with the id of a saga that ended long ago."""
    if parked.stays and parked.noticed_by == COORDINATOR:
        return True
    is_reaction = parked.kind == "fault" and parked.noticed_by != COORDINATOR
    is_second_start = parked.kind == "orphan" and subjects.is_start(parked.subject)
    return base_of(parked.stream) == EVENTS and (
        parked.kind in ("forged", "undecodable") or is_reaction or is_second_start
    )


def is_settled(key: SagaKey, parked: Parked, entries: list[StoredMessage]) -> bool:
    """Whether the saga needs nobody for a message any more: it has ended, or its journal names the fact by now."""
    if entries and entries[-1].subject == subjects.end_subject(key):
        return True
    return base_of(parked.stream) == EVENTS and _is_named(entries, parked.sequence)


def _is_named(entries: Iterable[StoredMessage], sequence: int) -> bool:
    return any(_names(message, sequence) for message in entries)


def _names(entry: StoredMessage, sequence: int) -> bool:
    """Whether an entry names a fact; one that cannot be read names none."""
    try:
        return decode(entry.data, entry.subject).cause == f"e{sequence}"
    except Unusable:
        return False
