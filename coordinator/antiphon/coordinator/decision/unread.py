"""Messages that do not fit the class a coordinator has for them: which of them count, and that the saga stands still.

What such a message makes of a saga is for a coordinator to say that can read it. Here nothing is guessed: steps stay
where they were, and nothing is sent.
"""

from __future__ import annotations

from msgspec.structs import replace

from antiphon.contracts.errors import Unusable

from .facts import Fact, Unread
from .history import History


def cannot_be_read(what: str, error: Unusable) -> str:
    """The sentence for a person: which message, which field, and what to do."""
    return f"{what} cannot be read: {error.reason}; a coordinator whose contracts fit it goes on with the saga"


def counts(history: History, fact: Fact) -> bool:
    """Whether anything could follow from a fact, of which only one that cannot be read may be without any meaning."""
    if not isinstance(fact, Unread):
        return True
    match fact.of:
        case "start":
            return not history.has_started
        case "answer":
            awaited = ("sent", "settling") if fact.direction == "do" else ("undoing", "settling")
            step = history.steps.get(fact.step)
            return step is not None and step.phase in awaited
        case "signal":
            return fact.step not in history.signals
        case "event" if history.definition.is_led:
            return fact.step != "" and fact.step not in history.signals
        case _:
            return True


def unread(history: History, fact: Unread) -> History:
    """The history once it is known that a message cannot be read."""
    if not counts(history, fact):
        return history
    if fact.of == "start":
        history = replace(history, started_ns=fact.at_ns, parent=fact.parent)
    return replace(history, unread=history.unread or fact.reason)
