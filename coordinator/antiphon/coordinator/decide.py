"""The decision: from a history to what the journal still lacks. Pure, and the heart of the coordinator.

The decision looks at where the saga is, not at how it got there: whatever is due and was not done is returned again,
so it does not matter which coordinator decides, how often, or what an earlier one left half done.
"""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.contracts.platform import End

from .facts import Action, Finish, Send
from .graph import StepDefinition
from .history import History


def decide(history: History) -> tuple[Action, ...]:
    """What is to be appended now, in this order; empty if the saga waits, is over, or needs a person."""
    if history.start is None or history.end is not None or history.fault:
        return ()
    return _backward(history) if history.turned else _forward(history)


def _forward(history: History) -> tuple[Action, ...]:
    """Send every step whose predecessors are done; complete when all are."""
    done = {name for name, step in history.steps.items() if step.phase == "done"}
    if len(done) == len(history.steps):
        return (Finish(End(outcome="completed")),)
    return tuple(
        Send(name, "do", 1)
        for name, step in history.definition.steps.items()
        if history.steps[name].phase == "waiting" and done.issuperset(step.after)
    )


def _backward(history: History) -> tuple[Action, ...]:
    """Compensate every step whose dependents are settled; end when all are."""
    definitions = history.definition.steps.values()
    settled: set[str] = set()
    actions: list[Action] = []
    for step in reversed(definitions):  # dependents stand behind what they depend on
        if not all(later in settled for later in step.dependents):
            continue
        if _is_settled(history, step):
            settled.add(step.name)
        else:
            actions.extend(_undo(history, step.name))
    if len(settled) == len(definitions):
        return (Finish(End(outcome="compensated", reason=history.turned)),)
    return tuple(actions)


def _is_settled(history: History, step: StepDefinition) -> bool:
    """Whether nothing of this step is left to undo."""
    match history.steps[step.name].phase:
        case "waiting" | "refused" | "undone":
            return True
        case "done" | "unknown":
            return step.undo is None
        case _:
            return False


def _undo(history: History, name: str) -> Iterator[Send]:
    step = history.steps[name]
    if step.phase != "undoing":
        yield Send(name, "undo", 1)
    elif 0 < step.undo_due_ns <= history.now_ns:
        yield Send(name, "undo", step.undo_attempts + 1)
