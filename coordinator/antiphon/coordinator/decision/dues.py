"""What time will bring to a saga: timeouts, further attempts, its deadline. Pure."""

from __future__ import annotations

from typing import Final

from .history import RELEASED_NS, History, StepRecord, deadline_ns, is_deadline_due
from .pacing import has_plenty, is_early, is_failing
from .room import attempts_left
from .way_back import way_back

FAR_NS: Final = 3600 * 1_000_000_000
"""What is due later than this has no timer before the sweeper's first tick, which comes to every open saga within a
minute, and then every ten minutes at least. A timer costs a saga two of its ten writes, and most have ended by then."""

SWEPT_NS: Final = 20 * 1_000_000_000
"""From this age on the sweeper may have brought a tick to a saga: well below 30 s, since clocks differ."""


def dues(history: History) -> list[tuple[int, str]]:
    """All that time will bring, earliest first, as (nanoseconds, what)."""
    if history.end is not None or not history.has_started:
        return []
    found = [(step.timeout_ns, f"{name} timeout") for name, step in history.steps.items() if step.timeout_ns]
    if _tries_again(history):
        waiting = [(name, step) for name, step in history.steps.items() if step.again_ns]
        plenty = has_plenty(history)
        found += [(again_ns(history, step, plenty), f"{name} again") for name, step in waiting]
        if _has_more_to_begin(history):
            found.append((history.gate_ns, "further compensations"))
    if is_deadline_due(history):
        found.append((deadline_ns(history), "deadline"))
    return sorted(found)


def earliest_ns(history: History) -> int:
    """When the first of `dues` comes; 0 if nothing does."""
    if history.end is not None or not history.has_started:
        return 0
    first = deadline_ns(history) if is_deadline_due(history) else 0
    if not (history.definition.is_timed or history.turned):
        return first
    for step in history.steps.values():
        if step.timeout_ns and (step.timeout_ns < first or not first):
            first = step.timeout_ns
    return _earliest_again_ns(history, first)


def _earliest_again_ns(history: History, first: int) -> int:
    """The first of a time and of what is tried again."""
    waiting = [step for step in history.steps.values() if step.again_ns]
    if not (waiting or history.gate_ns > history.now_ns) or not _tries_again(history):
        return first
    plenty = has_plenty(history)
    times = [again_ns(history, step, plenty) for step in waiting]
    if _has_more_to_begin(history):
        times.append(history.gate_ns)
    return min([first, *times] if first else times, default=0)


def _has_more_to_begin(history: History) -> bool:
    """Whether compensations wait for the first time at which one more may be tried."""
    if not history.turned or history.gate_ns <= history.now_ns:
        return False
    return is_failing(history) and bool(way_back(history).first)


def _tries_again(history: History) -> bool:
    """Whether anything is tried again by itself: a paused saga, or one with a fault, sends nothing at any time."""
    return not (history.paused or history.fault) and attempts_left(history) > 0


def again_ns(history: History, step: StepRecord, has_plenty: bool) -> int:
    """When what failed is sent again, where there is plenty of room, or where there is little."""
    if step.again_ns <= RELEASED_NS or (has_plenty and is_early(step)):
        return step.again_ns
    return max(step.again_ns, history.gate_ns)


def is_far(history: History, due_ns: int) -> bool:
    """Whether a time is so far away that the sweeper sets the timer for it."""
    return due_ns - history.now_ns > FAR_NS


def may_have_timer(history: History) -> bool:
    """Whether the saga's timer may be set when it ends: by the sweeper, or because something was due soon.

    A timer that is left behind does no harm: it fires to a saga that has ended.
    """
    definition = history.definition
    if history.turned or history.now_ns - history.started_ns >= SWEPT_NS or definition.deadline_ns <= FAR_NS:
        return True
    is_soon = definition.is_timed and any(0 < step.timeout_ns <= FAR_NS for step in definition.steps.values())
    return is_soon or any(step.attempts > 1 for step in history.steps.values())
