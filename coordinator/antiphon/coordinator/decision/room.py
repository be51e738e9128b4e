"""The room in a journal: what a saga still needs of it to come to its end, and what is left for trying again. Pure.

A journal must always be read whole, so it has a longest length. What fails is tried again for ever; so that this never
takes the room of the way out, trying again has only what is spare, and becomes rarer as that is used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..definition.definition import StepDefinition
from .history import ENTRIES_MAX, NOW_NS, RELEASED_NS, History, StepRecord

KEPT_FOR_VERBS: Final = 40
"""Entries that only operators' requests may use, and what follows from them, once all that was spare is used up."""

ATTEMPT_ENTRIES: Final = 2
"""What another attempt takes that fails: its command, and its answer or the time that was up."""

UNKNOWN_LOCKS: Final = 51
"""Entries for the locks of a saga that has not asked for any yet."""

PACE: Final = 4
"""How much longer than the trouble has lasted it would last, if all that is spare were used at the present pace: what
is spare then shrinks with the fourth root of time, so that it lasts for months."""

PAUSE_ENTRIES: Final = 2
"""What a pause takes, with the resume that must follow."""

EARLY_ATTEMPTS: Final = 4
"""So many attempts at each step follow its backoff alone, as long as there is room for as many at all that fails."""

LEAST_NS: Final = 1_000_000_000
"""As long as this all trouble counts as having lasted, so that not all is spent in its first moments."""

RAREST_NS: Final = 30 * 24 * 3600 * LEAST_NS
"""The longest pace."""

UNRESOLVED: Final = frozenset({"undoing", "settling", "sent"})
"""Phases of what has been sent and has not come to an end."""


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


def pace_ns(history: History) -> int:
    """How far apart further attempts at what fails in a saga shall be, by how long it has failed and by the room; 0
    while nothing fails."""
    failing = _failing_since(history)
    if not failing:
        return 0
    pace_ns = PACE * max(LEAST_NS, history.now_ns - min(failing)) // max(1, attempts_left(history))
    return min(pace_ns, RAREST_NS)


def to_hurry(history: History) -> list[str]:
    """What is sent again where a person wants all that waits tried again: all where there is plenty of room, and else
    one for each participant, whose success lets the others follow."""
    waiting = sorted((step.again_ns, name) for name, step in history.steps.items() if step.again_ns)
    if has_plenty(history):
        return [name for _, name in waiting]
    first: dict[str, str] = {}
    for _, name in waiting:
        first.setdefault(history.definition.step(name).participant, name)
    return list(first.values())


def asking_pace_ns(history: History, count: int) -> int:
    """How far apart people may have so many steps tried again: by the rule of `pace_ns`, with all the room there is."""
    failing = _failing_since(history)
    if not failing:
        return 0
    times = max(1, room(history) // (1 + ATTEMPT_ENTRIES * count))
    return min(PACE * (history.now_ns - min(failing)) // times, RAREST_NS)


def has_plenty(history: History) -> bool:
    """Whether there is room for a few attempts more at everything that fails."""
    return attempts_left(history) >= EARLY_ATTEMPTS * len(_failing_since(history))


def is_early(step: StepRecord) -> bool:
    """Whether few attempts were made at a step, or an element."""
    return (step.attempts if step.phase == "sent" else step.undo_attempts) < EARLY_ATTEMPTS


def is_failing(history: History) -> bool:
    """Whether something was sent that has failed and has not come to an end."""
    return bool(_failing_since(history))


def _failing_since(history: History) -> list[int]:
    return [step.since_ns for step in history.steps.values() if step.since_ns and step.phase in UNRESOLVED]


def to_send(history: History, first: Sequence[str] = ()) -> frozenset[str]:
    """The steps and elements that are to be sent now, as long as there is room.

    All that an operator wants tried again; what the success of another has released, which takes the room that it has
    given back; the first few attempts that are due, while there is plenty of room; and of what else is due one whenever
    the pace allows, the oldest first. Of those that get their first
    compensation all, where the room bears that all fail. A larger number begins with a part, of which each success lets
    two follow; while they fail, one of the others is tried whenever the pace allows, so that those that would succeed
    are not kept.

    Args:
        history: the saga's.
        first: what is to be compensated, and was not yet.
    """
    if not first and not any(0 < step.again_ns <= history.now_ns for step in history.steps.values()):
        return frozenset()
    due = sorted((step.again_ns, name) for name, step in history.steps.items() if 0 < step.again_ns <= history.now_ns)
    begun = _window(history) if first else 0
    left = room(history) // ATTEMPT_ENTRIES - begun
    at_once = [name for at_ns, name in due if at_ns <= RELEASED_NS][: max(0, left)]
    others = [name for at_ns, name in due if at_ns > RELEASED_NS]
    early = [name for name in others if is_early(history.steps[name])] if has_plenty(history) else []
    fresh, tried = first[begun:], [name for name in others if name not in early]
    # In turn: those that would succeed at once are not kept, and neither are those that need a second attempt.
    is_turn_of_tried = history.entries // ATTEMPT_ENTRIES % 2 or attempts_left(history) == 1
    next_ones = [*tried, *fresh] if is_turn_of_tried else [*fresh, *tried]
    return frozenset((*first[:begun], *at_once, *early, *next_ones[: _is_open(history)]))


def _window(history: History) -> int:
    """How many compensations may be begun at once, whatever the pace."""
    phases = [step.phase for step in history.steps.values()]
    unresolved = sum(phase in UNRESOLVED for phase in phases)
    window = attempts_left(history) // 2 + phases.count("undone") - unresolved
    return max(min(window, attempts_left(history)), 0 if unresolved else 1)


def _is_open(history: History) -> bool:
    """Whether it is time for one more attempt."""
    return history.gate_ns <= history.now_ns and attempts_left(history) > 0 and is_failing(history)


def cramped_reason(history: History) -> str:
    """Why nothing more is tried by itself, as a sentence; empty while something is."""
    waiting = [name for name, step in history.steps.items() if step.again_ns > NOW_NS]
    if not waiting or attempts_left(history) > 1:  # this very sentence, and the fact it is said on, may take one
        return ""
    return (
        f"its journal has {history.entries} of {ENTRIES_MAX} entries, and the rest is kept for its way out: "
        f"{', '.join(waiting[:3])}{' and others' * (len(waiting) > 3)} wait for retry, edit or resolve, or for the "
        "success of another"
    )
