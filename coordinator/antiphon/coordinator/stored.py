"""From what the streams hold to a history. Pure."""

from __future__ import annotations

import msgspec

from antiphon.contracts.errors import AntiphonError, Unusable
from antiphon.contracts.platform import Status, StatusAnswer, StepStatus
from antiphon.contracts.wire import SagaKey, parse_fact, rfc3339
from antiphon.link.reading import StoredMessage

from .accept import accept
from .facts import Fact, Start
from .graph import Definition
from .history import Entry, History, begin, fold
from .journal import read_entry
from .ports import Pages


class OtherDefinition(AntiphonError):
    """The saga began with a definition that this coordinator does not have."""


class Found(msgspec.Struct, frozen=True):
    """A saga as it was read: its history, and the facts its journal does not name yet, in stream order
    but for the start, which comes first."""

    history: History
    unnamed: list[Fact]
    touched_ns: int
    """When anything about the saga was last stored, by the server's clock."""


def found(key: SagaKey, definition: Definition, pages: Pages) -> Found:
    """Fold a saga.

    Raises:
        OtherDefinition: the journal began with a definition of another shape.
        Unfoldable: the events are older than the journal; read again.
    """
    entries = [read_entry(message.subject, message.sequence, message.data) for message in pages.entries]
    require_definition(key, definition, entries)
    facts = _facts(definition, pages.events)
    history = fold(begin(key, definition), entries, facts)
    unnamed = [fact for sequence, fact in facts.items() if sequence not in history.named]
    # The start first, even if a cancel was stored before it: nothing else opens a journal.
    unnamed.sort(key=lambda fact: not isinstance(fact, Start))
    touched = max((message.stored_ns for message in (*pages.entries, *pages.events)), default=0)
    return Found(history, unnamed, touched)


def require_definition(key: SagaKey, definition: Definition, entries: list[Entry]) -> None:
    """Refuse to go on with a saga under a definition it did not begin with."""
    if entries and entries[0].definition != definition.label:
        raise OtherDefinition(
            f"saga {key} began with definition {entries[0].definition or '(none)'}, and this coordinator has "
            f"{definition.label}. Run a coordinator with the definition it began with."
        )


def _facts(definition: Definition, events: list[StoredMessage]) -> dict[int, Fact]:
    facts: dict[int, Fact] = {}
    for message in events:
        try:
            address = parse_fact(message.subject)
            facts[message.sequence] = accept(
                definition, address, message.data, message.subject, message.sequence, message.stored_ns
            )
        except Unusable:
            continue  # parked when it was delivered
    return facts


def status_answer(result: Found | Exception) -> StatusAnswer:
    """How a saga stands, as its readers are told."""
    if isinstance(result, Exception):
        return StatusAnswer(error=str(result))
    history = result.history
    if not history.entries:
        return StatusAnswer(error="" if not result.unnamed else "it was started a moment ago and has no journal yet")
    return StatusAnswer(
        status=Status(
            type=history.key.type,
            id=history.key.id,
            state=history.state,
            definition=history.definition.label,
            started=rfc3339(history.started_ns),
            reason=history.turned,
            parked=history.parked,
            steps=tuple(
                StepStatus(name=name, phase=step.phase, attempts=step.attempts + step.undo_attempts)
                for name, step in history.steps.items()
            ),
        )
    )
