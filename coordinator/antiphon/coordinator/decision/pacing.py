"""The pace of further attempts: which steps and elements are sent now, and how far apart. Pure.

What must succeed is tried again for ever, with the entries that the way out leaves spare. Attempts become rarer as
these are used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .history import RELEASED_NS, History, StepRecord
from .room import ATTEMPT_ENTRIES, attempts_left, room

PACE: Final = 4
"""How much longer than the trouble has lasted it would last, if all that is spare were used at the present pace: what
is spare then shrinks with the fourth root of time, so that it lasts for months."""

EARLY_ATTEMPTS: Final = 4
"""So many attempts at each step follow its backoff alone, as long as there is room for as many at all that fails."""

LEAST_NS: Final = 1_000_000_000
"""As long as this all trouble counts as having lasted, so that not all is spent in its first moments."""

RAREST_NS: Final = 30 * 24 * 3600 * LEAST_NS
"""The longest pace."""

UNRESOLVED: Final = frozenset({"undoing", "settling", "sent"})
"""Phases of what has been sent and has not come to an end."""


def pace_ns(history: History) -> int:
    """How far apart further attempts at what fails in a saga shall be, by how long it has failed and by the room; 0
    while nothing fails."""
    failing = _failing_since(history)
    if not failing:
        return 0
    pace_ns = PACE * max(LEAST_NS, history.now_ns - min(failing)) // max(1, attempts_left(history))
    return min(pace_ns, RAREST_NS)


def to_hurry(history: History) -> list[str]:
    """The steps that a `retry` of the whole saga sends again: all that wait where there is plenty of room, else one for
    each participant, whose success lets the others follow."""
    waiting = sorted((step.again_ns, name) for name, step in history.steps.items() if step.again_ns)
    if has_plenty(history):
        return [name for _, name in waiting]
    first: dict[str, str] = {}
    for _, name in waiting:
        first.setdefault(history.definition.step(name).participant, name)
    return list(first.values())


def asking_pace_ns(history: History, count: int) -> int:
    """How far apart an operator's retries of so many steps must be: by the rule of `pace_ns`, with all the room."""
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
    """Whether a command or a compensation has failed and has not come to an end."""
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
        first: steps whose first compensation is to be sent.
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
