"""The decision: from a history to what the journal still lacks. Pure, and the heart of the coordinator.

The decision looks at where the saga is, not at how it got there: whatever is due and was not done is returned again,
so it does not matter which coordinator decides, how often, or what an earlier one left half done.
"""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.contracts.envelope import pack
from antiphon.contracts.errors import WrongShape
from antiphon.contracts.payloads import End, Record

from ..definition.definition import StepDefinition, element
from .author import Author, AuthorFault
from .choreography import observe
from .facts import Action, Finish, Send
from .history import History, StepRecord, is_tired, tired_reason
from .lists import spread
from .pacing import to_send
from .room import attempts_left, cramped_reason
from .way_back import way_back

OVER = frozenset({"done", "skipped"})


def decide(history: History, author: Author | None = None) -> tuple[Action, ...]:
    """What is to be appended now, in this order; empty if the saga waits, is over, or needs a person.

    Args:
        history: the saga as its journal says.
        author: whom to ask for what the journal does not hold.
    """
    if history.end is not None or history.fault or history.paused:
        return ()
    if history.unread:
        return (_stand_still(history),)
    if history.start is None:
        return ()
    if not history.definition.is_led:
        return tuple(observe(history))
    actions = tuple(_backward(history) if history.turned else _forward(history, author or Author()))
    return actions or tuple(_call_a_person(history))


def _call_a_person(history: History) -> Iterator[Action]:
    """Say once that nothing more is tried by itself, if nobody knows yet that something fails."""
    if not history.parked and (reason := cramped_reason(history)):
        yield Record(parked=reason)


# --- forward ----------------------------------------------------------------------------------------------------------


def _forward(history: History, author: Author) -> Iterator[Action]:
    """Enter every step whose predecessors are over; end when all are."""
    if history.definition.locks is not None and not _is_unlocked(history):
        yield from _ask(history, author)
        return
    steps, is_over, again = history.steps, True, to_send(history)
    for name, definition in history.definition.steps.items():
        step = steps[name]
        if step.phase in OVER:
            continue
        is_over = False
        if step.phase == "waiting":
            if all(steps[earlier].phase in OVER for earlier in definition.after):
                yield from _enter(history, definition, author)
        else:
            yield from _in_flight(history, definition, step, again)
    if is_over:
        yield from _complete(history)


def _enter(history: History, definition: StepDefinition, author: Author) -> Iterator[Action]:
    """Begin a step."""
    name = definition.name
    if definition.kind in ("signal", "event", "wait"):
        yield Record(step=name, awaits=True)
        return
    try:
        if not author.is_wanted(history, definition):
            yield Record(step=name, skipped=True)
        elif definition.kind != "list":
            yield Send(name, "do", 1)
        else:
            yield from spread(name, [pack(command) for command in author.commands(history, definition)])
    except (AuthorFault, WrongShape) as error:
        yield Record(fault=author.faulted(name, error))


def _in_flight(
    history: History, definition: StepDefinition, step: StepRecord, again: frozenset[str]
) -> Iterator[Action]:
    """What a step that was sent still lacks."""
    if definition.kind == "list":
        for number in range(step.elements):
            name = element(definition.name, number)
            each = history.steps[name]
            if each.phase == "waiting":
                yield Send(name, "do", 1)
            else:
                yield from _again(history, name, each, again)
    else:
        yield from _again(history, definition.name, step, again)


def _again(history: History, name: str, step: StepRecord, again: frozenset[str]) -> Iterator[Action]:
    """Try once more what must succeed, when its time has come; have a person look at it where that was often."""
    if step.phase == "settling" and step.undo_attempts == 0:
        yield Send(name, "undo", 1)
        return
    if is_tired(history, step) and name not in history.marked and (attempts_left(history) or not history.marked):
        yield Record(step=name, parked=tired_reason(history, name, step))
    if name in again:
        yield (
            Send(name, "do", step.attempts + 1) if step.phase == "sent" else Send(name, "undo", step.undo_attempts + 1)
        )


def _complete(history: History) -> Iterator[Action]:
    """End, or, as a child that may still be undone, wait for the parent."""
    if history.parent is None or not history.parent.hold or history.let_go:
        yield Finish(End(outcome="completed"))
    elif not history.held:
        yield Record(held=True)


def _stand_still(history: History) -> Action:
    """Have a person look at a saga of which a message cannot be read; end one that turned before anything was done."""
    if history.turned and all(step.phase == "waiting" for step in history.steps.values()):
        return Finish(End(outcome="compensated", reason=history.turned))
    return Record(fault=history.unread, unread=True)


# --- locks ------------------------------------------------------------------------------------------------------------


def _is_unlocked(history: History) -> bool:
    return bool(history.asks) and history.granted.issuperset(history.asks)


def _ask(history: History, author: Author) -> Iterator[Action]:
    """Find out which locks the saga needs."""
    if history.asks:
        return
    try:
        yield Record(asks=author.locks(history))
    except AuthorFault as fault:
        yield Record(fault=str(fault))


# --- backward ---------------------------------------------------------------------------------------------------------


def _backward(history: History) -> Iterator[Action]:
    """Compensate every step whose dependents are settled; end when all are."""
    way, steps = way_back(history), history.steps
    sent = to_send(history, way.first)
    for name in way.undoing:
        yield from _again(history, name, steps[name], sent)
    for name in way.first:
        if name in sent:
            yield Send(name, "undo", steps[name].undo_attempts + 1)  # a pivot may have been settled before
    if way.is_over:
        yield Finish(End(outcome="compensated", reason=history.turned))
