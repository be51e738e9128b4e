"""The decision: from a history to what the journal still lacks. Pure, and the heart of the coordinator.

The decision looks at where the saga is, not at how it got there: whatever is due and was not done is returned again,
so it does not matter which coordinator decides, how often, or what an earlier one left half done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from antiphon.contracts.errors import BadIdentity
from antiphon.contracts.platform import End, Record
from antiphon.contracts.wire import check_token

from .facts import Action, Finish, Send
from .graph import StepDefinition, element
from .history import History, StepRecord, is_tired, tired_reason
from .saga import State

OVER = frozenset({"done", "skipped"})
NOTHING_TO_UNDO = frozenset({"waiting", "skipped", "awaiting", "refused", "undone"})


def decide(history: History) -> tuple[Action, ...]:
    """What is to be appended now, in this order; empty if the saga waits, is over, or needs a person."""
    if history.start is None or history.end is not None or history.fault or history.paused:
        return ()
    if not history.definition.is_led:
        return tuple(_observe(history))
    return tuple(_backward(history) if history.turned else _forward(history))


def _observe(history: History) -> Iterator[Action]:
    """End where it was said that all is over; past the deadline say who is waited for, after all that is said."""
    if history.over is not None:
        yield Finish(End(outcome=history.over, reason=history.turned))
    elif history.noted and not history.late:
        yield Record(parked=_late(history))


def _late(history: History) -> str:
    """Why a choreography is late, in a sentence for an operator."""
    definition, last = history.definition, history.last
    type_ = definition.start_type if last is None else last.__contract__.type
    next_ = definition.begins if last is None else definition.events[type_].next
    return f"{history.noted}, and {' or '.join(next_)} has not reacted to {type_}"


# --- forward ----------------------------------------------------------------------------------------------------------


def _forward(history: History) -> Iterator[Action]:
    """Enter every step whose predecessors are over; end when all are."""
    if history.definition.locks is not None and not _is_unlocked(history):
        yield from _ask(history)
        return
    steps, is_over = history.steps, True
    for name, definition in history.definition.steps.items():
        step = steps[name]
        if step.phase in OVER:
            continue
        is_over = False
        if step.phase == "waiting":
            if all(steps[earlier].phase in OVER for earlier in definition.after):
                yield _enter(history, definition)
        else:
            yield from _in_flight(history, definition, step)
    if is_over:
        yield from _complete(history)


def _enter(history: History, definition: StepDefinition) -> Action:
    """Begin a step."""
    name = definition.name
    if definition.kind in ("signal", "event", "wait"):
        return Record(step=name, awaits=True)
    state: State[Any] = State(history, definition.visible)
    try:
        if definition.when is not None and not definition.when(state):
            return Record(step=name, skipped=True)
        if definition.kind != "list":
            return Send(name, "do", 1)
        return _spread(definition, len(definition.order("do").make(state)))
    except Exception as error:  # whatever the author's functions raise
        return Record(fault=f"{name} raised {error!r}")


def _spread(definition: StepDefinition, count: int) -> Record:
    name, most = definition.name, definition.elements_max
    if count > most:
        return Record(fault=f"{name} made a list of {count} commands, and at_most={most} are allowed")
    return Record(step=name, elements=count)


def _in_flight(history: History, definition: StepDefinition, step: StepRecord) -> Iterator[Action]:
    """What a step that was sent still lacks."""
    if definition.kind == "list":
        for number in range(step.elements):
            name = element(definition.name, number)
            each = history.steps[name]
            if each.phase == "waiting":
                yield Send(name, "do", 1)
            else:
                yield from _again(history, name, each)
    else:
        yield from _again(history, definition.name, step)


def _again(history: History, name: str, step: StepRecord) -> Iterator[Action]:
    """Try once more what must succeed, when its time has come; have a person look at it where that was often."""
    if step.phase == "settling" and step.undo_attempts == 0:
        yield Send(name, "undo", 1)
        return
    if is_tired(history, step) and name not in history.marked:
        yield Record(step=name, parked=tired_reason(history, name, step))
    if 0 < step.again_ns <= history.now_ns:
        yield (
            Send(name, "do", step.attempts + 1) if step.phase == "sent" else Send(name, "undo", step.undo_attempts + 1)
        )


def _complete(history: History) -> Iterator[Action]:
    """End, or, as a child that may still be undone, wait for the parent."""
    if history.parent is None or not history.parent.hold or history.let_go:
        yield Finish(End(outcome="completed"))
    elif not history.held:
        yield Record(held=True)


# --- locks ------------------------------------------------------------------------------------------------------------


def _is_unlocked(history: History) -> bool:
    return bool(history.asks) and history.granted.issuperset(history.asks)


def _ask(history: History) -> Iterator[Action]:
    """Find out which locks the saga needs. They are asked for in one order by all sagas, lest two wait for each
    other."""
    locks = history.definition.locks
    if history.asks or locks is None:
        return
    try:
        keys = tuple(sorted({check_token(key, "lock") for key in locks(history.start)}))
    except BadIdentity as error:
        yield Record(fault=str(error))
    except Exception as error:  # whatever the author's function raises
        yield Record(fault=f"{locks.__name__} raised {error!r}")
    else:
        if not keys:
            yield Record(fault=f"{locks.__name__} named no lock; name at least one, or drop locks=")
        else:
            yield Record(asks=keys)


# --- backward ---------------------------------------------------------------------------------------------------------


def _backward(history: History) -> Iterator[Action]:
    """Compensate every step whose dependents are settled; end when all are."""
    definitions = history.definition.steps
    settled: set[str] = set()
    for definition in reversed(definitions.values()):  # dependents stand behind what they depend on
        if not all(later in settled for later in definition.dependents):
            continue
        actions = list(_undo(history, definition))
        yield from actions
        if not actions and _is_settled(history, definition):
            settled.add(definition.name)
    if len(settled) == len(definitions):
        yield Finish(End(outcome="compensated", reason=history.turned))


def _is_settled(history: History, definition: StepDefinition) -> bool:
    """Whether nothing of this step is left to undo."""
    return all(_needs_nothing(definition, step) for _, step in _parts(history, definition))


def _needs_nothing(definition: StepDefinition, step: StepRecord) -> bool:
    return step.phase in NOTHING_TO_UNDO or (definition.is_kept and step.phase in ("done", "unknown"))


def _undo(history: History, definition: StepDefinition) -> Iterator[Action]:
    for name, step in _parts(history, definition):
        if step.phase == "undoing":
            yield from _again(history, name, step)
        elif not _needs_nothing(definition, step):
            yield Send(name, "undo", step.undo_attempts + 1)  # a pivot may have been settled before


def _parts(history: History, definition: StepDefinition) -> list[tuple[str, StepRecord]]:
    """What a step consists of: its elements, or itself."""
    if definition.kind != "list":
        return [(definition.name, history.steps[definition.name])]
    names = [element(definition.name, number) for number in range(history.steps[definition.name].elements)]
    return [(name, history.steps[name]) for name in names]
