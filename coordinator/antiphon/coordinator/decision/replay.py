"""From what the streams hold to a history. Pure."""

from __future__ import annotations

import msgspec

from antiphon.contracts.clock import rfc3339
from antiphon.contracts.errors import AntiphonError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import End, Status, StatusAnswer, StepStatus
from antiphon.contracts.reader import cause_sequence
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.subjects import is_fact_of, parse_fact

from ..definition.definition import Definition
from ..definition.versions import Versions
from .absorb import is_beyond
from .accept import accept
from .entries import read_entry
from .facts import Fact, Finish, Unread, is_start
from .fold import fold
from .history import Entry, History, begin
from .unread import cannot_be_read, counts


class OtherDefinition(AntiphonError):
    """The saga began with a definition that this coordinator does not have."""

    def __init__(self, key: SagaKey, label: str, here: list[str]) -> None:
        name, _, shape = label.rpartition(".")
        saga, _, version = name.rpartition(".")
        super().__init__(
            f"nobody here has {saga} {version} (shape {shape}), with which saga {key} began; here are "
            f"{', '.join(here)}. Run a coordinator with it as well: antiphon coordinator --app OLD --app NEW."
            if saga
            else f"saga {key} does not say with which definition it began."
        )
        self.label = label


class Purged(AntiphonError):
    """The saga has ended, and its journal, or what that names, was purged.

    Args:
        key: the saga.
        end: how it ended.
        is_certain: whether a replica of EVENTS that lags behind SAGA cannot look so.
    """

    def __init__(self, key: SagaKey, end: End, is_certain: bool = True) -> None:
        super().__init__(f"saga {key} has ended, {end.outcome}, and the rest of its journal was purged.")
        self.key, self.end, self.is_certain = key, end, is_certain

    def status(self) -> Status:
        """How it stands: what the end says, and no more."""
        key, end = self.key, self.end
        return Status(
            type=key.type, id=key.id, state=end.outcome, definition="", started="", reason=end.reason, purged=True
        )


class Replayed(msgspec.Struct, frozen=True):
    """A saga as it was read: its history, and the facts its journal does not name yet, in stream order
    but for the start, which comes first."""

    history: History
    unnamed: list[Fact]
    touched_ns: int
    """When anything about the saga was last stored, by the server's clock."""


def replay(key: SagaKey, versions: Versions, pages: SagaPages) -> Replayed:
    """Fold a saga by the definition it began with.

    Raises:
        OtherDefinition: that definition is not here.
        Purged: it has ended, and its journal is not whole any more.
        Unfoldable: the events are older than the journal; read again.
    """
    entries = [read_entry(message.subject, message.sequence, message.data) for message in pages.entries]
    # Where EVENTS was restored from an older backup than SAGA, a place that the journal names may be another saga's.
    events = [message for message in pages.events if is_fact_of(key, message.subject)]
    _require_whole(key, entries, events)
    definition = definition_of(key, versions, entries)
    facts, unusable = read_facts(definition, events)
    history = fold(begin(key, definition), entries, unusable | facts)
    unnamed = [fact for sequence, fact in facts.items() if sequence not in history.named and is_news(history, fact)]
    # The start first, even if a cancel was stored before it: nothing else opens a journal.
    unnamed.sort(key=lambda fact: not is_start(fact))
    touched = max((message.stored_ns for message in (*pages.entries, *events)), default=0)
    return Replayed(history, unnamed, touched)


def is_news(history: History, fact: Fact) -> bool:
    """Whether a fact that the journal does not name may lead to an entry."""
    return counts(history, fact) and not is_beyond(history, fact)


def definition_of(key: SagaKey, versions: Versions, entries: list[Entry]) -> Definition:
    """The definition that a journal began with, or would begin with."""
    if not entries:
        return versions.newest
    label = entries[0].definition
    definition = versions.labelled(label)
    if definition is None:
        raise OtherDefinition(key, label, [each.label for each in versions.definitions])
    return definition


def _require_whole(key: SagaKey, entries: list[Entry], events: list[StoredMessage]) -> None:
    """Check that a saga that has ended was not purged: the first entry of a journal alone says with which definition it
    began, and EVENTS has the facts that it names."""
    if not entries or not isinstance(last := entries[-1].what, Finish):
        return
    has_first = bool(entries[0].definition)
    there = {each.sequence for each in events}
    named = {sequence for each in entries if (sequence := cause_sequence(each.cause))}
    if not has_first or named - there:
        raise Purged(key, last.end, is_certain=not has_first)


def read_facts(definition: Definition, events: list[StoredMessage]) -> tuple[dict[int, Fact], dict[int, Fact]]:
    """The facts in messages of EVENTS by their sequences, and what is none.

    That was parked when it was delivered; but if the journal names it, it was a fact to whoever wrote the entry.
    """
    facts: dict[int, Fact] = {}
    unusable: dict[int, Fact] = {}
    for message in events:
        sequence, at_ns = message.sequence, message.stored_ns
        try:
            address = parse_fact(message.subject)
            facts[sequence] = accept(definition, address, message.data, message.subject, sequence, at_ns)
        except Unusable as error:
            unusable[sequence] = Unread(
                sequence, at_ns, "named", cannot_be_read(f"{message.subject}, which the journal names,", error)
            )
    return facts, unusable


def status_answer(result: Replayed | Exception, hold: str = "") -> StatusAnswer:
    """The state of a saga, as its readers are told; `hold` is why all sagas of its type are paused."""
    if isinstance(result, Purged):
        return StatusAnswer(status=result.status())
    if isinstance(result, Exception):
        return StatusAnswer(error=str(result))
    history = result.history
    if not history.entries:
        is_started = any(is_start(fact) for fact in result.unnamed)
        return StatusAnswer(error="it was started a moment ago and has no journal yet" if is_started else "")
    return StatusAnswer(
        status=Status(
            type=history.key.type,
            id=history.key.id,
            state=history.state,
            definition=history.definition.label,
            started=rfc3339(history.started_ns),
            reason=history.turned,
            parked=history.parked,
            paused=history.paused or (hold and f"all sagas of its type are {hold}"),
            noted=history.noted,
            unread=history.unread if history.start is None else "",
            steps=tuple(
                StepStatus(name=name, phase=step.phase, attempts=step.attempts + step.undo_attempts)
                for name, step in history.steps.items()
            ),
            entries=history.entries,
        )
    )
