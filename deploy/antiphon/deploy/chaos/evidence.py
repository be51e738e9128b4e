"""What is left after a run, as values: journals and facts, inboxes, ledgers, consumers, what clients were told. Pure.

Each saga is read once, however many invariants look at it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import msgspec

from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import NOT_SAGAS, SagaKey
from antiphon.contracts.payloads import End
from antiphon.contracts.reader import Entry, Fact, Journal
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.subjects import saga_in
from antiphon.coordinator.definition.definition import Definition
from antiphon.coordinator.definition.versions import Versions
from antiphon.coordinator.views.standing import Standing, standing
from antiphon.coordinator.views.summary import Overview
from antiphon.tracing.projection.spans import Span

BOUND_SECONDS: Final = 60.0
"""Within what time after the last fault all sagas end, unless a test says otherwise."""


StoredTrace = dict[str, frozenset[bytes]]
"""The spans of a trace as a backend has them, by id, each in all the forms in which it came: more than one is a
contradiction."""


class Effect(msgspec.Struct, frozen=True, gc=False):
    """A line of a team's own books: something that was done for a step of a saga, or was taken back.

    Args:
        saga: as `type/id`.
        step: as the definition calls it.
        direction: `do`, or `undo` where an effect is taken back.
        effect: what it was, such as a charge's number.
        account: whose money or stock it is, where that is counted.
        amount: how much was added to the account; negative where it is taken back.
    """

    saga: str
    step: str
    direction: str
    effect: str
    account: str = ""
    amount: int = 0


class InboxRow(msgspec.Struct, frozen=True, gc=False):
    """What a participant's inbox says of a step."""

    saga: SagaKey
    step: str
    state: str
    answer_type: str = ""


class ConsumerState(msgspec.Struct, frozen=True):
    """What a consumer has not delivered, and what it has delivered without an ack."""

    stream: str
    name: str
    pending: int
    unacked: int


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What a process took at a moment of its life. A process that is started again is another one."""

    process: str
    pid: int
    at_ns: int
    memory_bytes: int
    descriptors: int


class Trouble(msgspec.Struct, frozen=True):
    """A time in which a participant stood still, or a source sent whatever it could. With no names it was everybody's
    trouble, such as a server's. Of a planned restart it is said which process was restarted."""

    names: frozenset[str]
    from_ns: int
    to_ns: int
    restarted: str = ""


class SagaEvidence:
    """One saga as both streams hold it.

    Args:
        key: the saga.
    """

    __slots__ = ("__dict__", "entries", "events", "key")

    def __init__(self, key: SagaKey) -> None:
        self.key, self.entries, self.events = key, list[StoredMessage](), list[StoredMessage]()

    @cached_property
    def read(self) -> Reading:
        """Entries and facts, as far as they can be read."""
        journal, faults = Journal(), list[str]()
        entries, facts = list[Entry](), list[Fact]()
        for message in self.entries:
            try:
                entries.append(journal.entry(message))
            except Unusable as error:
                faults.append(f"entry {message.sequence} of its journal cannot be read: {error.reason}")
        for message in self.events:
            try:
                facts.append(journal.fact(message))
            except Unusable as error:
                faults.append(f"message {message.sequence} of EVENTS cannot be read: {error.reason}")
        return Reading(entries, facts, faults)

    @property
    def end(self) -> End | None:
        """How it ended, if its last entry says so."""
        return next((entry.end for entry in self.read.entries if entry.end is not None), None)

    @cached_property
    def stands(self) -> Standing:
        """How it stands, by its journal."""
        return standing(self.entries, self.events)

    @property
    def pages(self) -> SagaPages:
        """The same as others take it."""
        return SagaPages(self.entries, self.events)


class Reading(msgspec.Struct, frozen=True):
    """A saga's messages as they were read, and what cannot be."""

    entries: list[Entry]
    facts: list[Fact]
    faults: list[str]


@dataclass
class Evidence:
    """All that the invariants are about.

    Args:
        sagas: every saga that was started, or has a journal.
        definitions: by saga type, as far as they are known.
        parked: the sagas that PARKED says wait for a person.
        set_aside: messages that PARKED holds because nobody could use them, in sentences.
        unnoticed: what hostile users have stored, by subject, or begun, as `type/id`, and PARKED does not list.
        consumers: of the platform.
        inboxes: by participant; none for one whose database cannot be read from outside.
        ledgers: by name.
        books: what other books of the team's say is wrong, in sentences.
        told_started: the sagas that clients were told are started.
        told_outcomes: how sagas ended, as clients were told.
        last_fault_ns: when the last fault began or ended, by the server's clock; 0 if there was none.
        bound_seconds: within what time after it all end, and in which nobody is held up by others.
        open: sagas that may be under way still, as `type/id`.
        traces: what a tracing backend has, by trace id; None where none was there.
        encode: what a backend has of spans that it was sent; None where none was there.
        listed: the rows of the read model as `type/id`; None where none was kept.
        samples: of processes, in order.
        troubles: what participants or sources did that must hold nobody else up.
        hung: times in which calls of handlers may have hung, and in which this machine stood still.
        failed: how many attempts at a command have failed, by its subject, as far as inboxes can be read.
        erased: how many messages of EVENTS are gone that nobody purged.
    """

    sagas: dict[SagaKey, SagaEvidence] = field(default_factory=dict[SagaKey, SagaEvidence])
    definitions: Mapping[str, Versions] = field(default_factory=dict[str, Versions])
    parked: frozenset[SagaKey] = frozenset()
    set_aside: Sequence[str] = ()
    unnoticed: Sequence[str] = ()
    consumers: Sequence[ConsumerState] = ()
    inboxes: Mapping[str, Sequence[InboxRow]] = field(default_factory=dict[str, Sequence[InboxRow]])
    ledgers: Mapping[str, Sequence[Effect]] = field(default_factory=dict[str, Sequence[Effect]])
    books: Sequence[str] = ()
    told_started: frozenset[SagaKey] = frozenset()
    told_outcomes: Mapping[SagaKey, set[str]] = field(default_factory=dict[SagaKey, set[str]])
    last_fault_ns: int = 0
    bound_seconds: float = BOUND_SECONDS
    open: frozenset[str] = frozenset()
    traces: Mapping[str, StoredTrace] | None = None
    encode: Callable[[Iterable[Span]], StoredTrace] | None = None
    listed: Mapping[str, Overview] | None = None
    samples: Sequence[Sample] = ()
    troubles: Sequence[Trouble] = ()
    hung: Sequence[Trouble] = ()
    failed: Mapping[str, int] = field(default_factory=dict[str, int])
    erased: int = 0

    def take_entry(self, message: StoredMessage) -> None:
        """Add a message of a journal, in the order of SAGA."""
        if (saga := self._saga_of(message)) is not None:
            saga.entries.append(message)

    def take_event(self, message: StoredMessage) -> None:
        """Add a message of EVENTS, in their order."""
        if (saga := self._saga_of(message)) is not None:
            saga.events.append(message)

    def definition_of(self, saga: SagaEvidence) -> Definition | None:
        """What a saga began with, if it is known here."""
        versions = self.definitions.get(saga.key.type)
        if versions is None or not saga.read.entries:
            return None
        return versions.labelled(saga.read.entries[0].envelope.definition)

    @cached_property
    def by_name(self) -> dict[str, SagaEvidence]:
        """The sagas as books name them, `type/id`."""
        return {str(key): saga for key, saga in self.sagas.items()}

    @cached_property
    def rows_by_saga(self) -> dict[SagaKey, list[tuple[str, InboxRow]]]:
        """What the inboxes say of each saga, with whose inbox it is."""
        found = defaultdict[SagaKey, list[tuple[str, InboxRow]]](list)
        for participant, rows in self.inboxes.items():
            for row in rows:
                found[row.saga].append((participant, row))
        return found

    def _saga_of(self, message: StoredMessage) -> SagaEvidence | None:
        key = saga_in(message.subject)
        if key is None or key.type in NOT_SAGAS:
            return None
        saga = self.sagas.get(key)
        if saga is None:
            saga = self.sagas[key] = SagaEvidence(key)
        return saga
