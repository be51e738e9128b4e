"""The room in a journal: how many entries a saga still needs to come to its end, and how many are spare. Pure.

A journal must always be read whole, so it has a longest length. Further attempts have only the spare entries, so that
they never take the room of the way out.
"""

from __future__ import annotations

from typing import Final

from ..definition.definition import StepDefinition
from .history import ENTRIES_MAX, NOW_NS, History, StepRecord

KEPT_FOR_VERBS: Final = 40
"""Entries that only operators' requests may use, and what follows from them, once all that was spare is used up."""

ATTEMPT_ENTRIES: Final = 2
"""What another attempt takes that fails: its command, and its answer or the time that was up."""

UNKNOWN_LOCKS: Final = 51
"""Entries for the locks of a saga that has not asked for any yet."""

CLOSE_ENTRIES: Final = 2
"""What a close takes: itself, and what becomes of the request."""

KEPT_FOR_CLOSES: Final = 4 * CLOSE_ENTRIES
"""Entries that no other request takes, so that a step can be resolved however often something else was asked for. A
close that succeeds gives back what it took."""

PAUSE_ENTRIES: Final = 2
"""What a pause takes, with the resume that must follow."""


def owed(history: History) -> int:
    """How many entries the saga may need at worst to come to its end, if nothing is tried more than once again."""
    if not history.definition.is_led:
        return 1
    steps = history.steps
    entries = sum(_owed_by(history, history.definition.step(name), step) for name, step in steps.items())
    locks = len(history.asks) - len(history.granted) if history.asks else UNKNOWN_LOCKS * bool(history.definition.locks)
    relatives = 2 if history.parent is not None else 0
    return entries + locks + relatives + bool(history.paused) + 1


def _owed_by(history: History, definition: StepDefinition, step: StepRecord) -> int:
    """What a step, or an element of one, may still take: each command, compensation and answer is an entry."""
    return bool(step.closing) + _owed_by_phase(history, definition, step)


def _owed_by_phase(history: History, definition: StepDefinition, step: StepRecord) -> int:
    undoing = 0 if definition.is_kept else 2
    again = 2 if definition.is_retriable else 0
    match step.phase:
        case "waiting" if history.turned:
            return 0
        case "waiting" if definition.kind == "list" and not step.command:
            return 2 + definition.elements_max * (2 + undoing)
        case "waiting":
            return 2 + undoing
        case "sent" if step.elements:
            return 0  # its elements have records of their own
        case "sent":
            return 1 + undoing + again - bool(step.again_ns)
        case "awaiting":
            return 1 + again
        case "done":
            return 0 if step.elements or step.reply == () else undoing
        case "unknown":
            return 0 if step.elements else 1 + undoing
        case "undoing" | "settling":
            return 3 - bool(step.again_ns)
        case _:
            return 0


def room(history: History) -> int:
    """How many entries are left beside those that the saga may need; operators may use them all."""
    return ENTRIES_MAX - history.entries - owed(history)


def attempts_left(history: History) -> int:
    """How often something may still be tried again by itself."""
    return max(0, room(history) - KEPT_FOR_VERBS) // ATTEMPT_ENTRIES


def cramped_reason(history: History) -> str:
    """Why nothing more is tried by itself, as a sentence; empty while something is."""
    waiting = [name for name, step in history.steps.items() if step.again_ns > NOW_NS]
    if not waiting or attempts_left(history) > 1:  # this very sentence, and the fact it is said on, may take one
        return ""
    return (
        f"its journal has {history.entries} of {ENTRIES_MAX} entries, and the rest is kept for compensations: "
        f"{', '.join(waiting[:3])}{' and others' * (len(waiting) > 3)} wait for retry, edit or resolve, or for the "
        "success of another"
    )
