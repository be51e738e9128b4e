"""What an operator's request makes of a history, or why it comes too late. Pure."""

from __future__ import annotations

from typing import Any, assert_never

from msgspec.structs import replace

from antiphon.contracts.clock import rfc3339
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.payloads import Operation

from ..definition.definition import StepDefinition, element
from .decide import OVER
from .facts import Operated
from .history import ENTRIES_MAX, NOW_NS, History, with_step
from .pacing import asking_pace_ns, to_hurry
from .room import ATTEMPT_ENTRIES, PAUSE_ENTRIES, room
from .transitions import done, never_happened, request_cancel
from .way_back import NOTHING_TO_UNDO, way_back


def apply_request(history: History, fact: Operated, is_rejected: bool | None = None) -> History:
    """The history once the request is fulfilled; unchanged if it is rejected."""
    if bool(rejection(history, fact)) if is_rejected is None else is_rejected:
        return history
    operation = fact.operation
    match fact.verb:
        case "cancel":
            return request_cancel(history, f"cancelled by {fact.user}: {operation.reason}")
        case "pause":
            return replace(history, paused=f"paused by {fact.user}: {operation.reason}")
        case "resume":
            return replace(history, paused="")
        case "retry":
            return _retry_now(history, operation.step, fact.at_ns)
        case "edit":
            history = with_step(history, operation.step, edited=_edited(history, operation))
            return _retry_now(history, operation.step, fact.at_ns)
        case "resolve":
            return _resolve(history, fact)
        case _:
            assert_never(fact.verb)


def rejection(history: History, fact: Operated) -> str:
    """Why a request comes too late, makes no sense or finds no room, as a sentence; empty if it can be fulfilled."""
    return _senseless(history, fact) or _against_room(history, fact)


def _against_room(history: History, fact: Operated) -> str:
    """Cancel, resume and resolve are part of the way out, which has its room; the others must not take it.

    What a person wants tried again has a pace as well, by all the room there is, so that however often somebody asks,
    there is room to ask once more. A fault costs nothing, if it comes again.
    """
    if fact.verb not in ("pause", "retry", "edit") or history.fault:
        return ""
    left = room(history)
    if fact.verb == "pause":
        return "" if left >= PAUSE_ENTRIES else _full(history)
    if left < 1 + ATTEMPT_ENTRIES:
        return _full(history)
    count = 1 if fact.operation.step else len(to_hurry(history))
    soonest_ns = history.asked_ns + asking_pace_ns(history, count)
    if not history.asked_ns or fact.at_ns >= soonest_ns:
        return ""
    return (
        f"it was asked for at {rfc3339(history.asked_ns)}, and its journal, with {history.entries} of {ENTRIES_MAX} "
        f"entries, has room for it again at {rfc3339(soonest_ns)}; resolve, cancel and resume are taken"
    )


def _full(history: History) -> str:
    return (
        f"its journal has {history.entries} of {ENTRIES_MAX} entries, and the rest is kept for its way out; "
        "resolve, cancel and resume are still taken"
    )


def _senseless(history: History, fact: Operated) -> str:
    if not history.has_started:
        return "the saga was never started"
    if history.end is not None:
        return f"the saga has ended: it is {history.end.outcome}"
    if history.unread and fact.verb in ("retry", "edit", "resolve"):
        return history.unread
    if not history.definition.is_led and fact.verb != "retry":
        return f"nobody leads it: its participants react to each other, so there is nobody to {fact.verb} it"
    operation = fact.operation
    match fact.verb:
        case "cancel":
            return _against_cancel(history)
        case "pause":
            return f"it is paused already: {history.paused}" if history.paused else ""
        case "resume":
            return "" if history.paused else "it is not paused"
        case "retry" if not operation.step:
            return "" if history.fault or _waiting(history) else "nothing in it waits to be tried again"
        case "retry" | "edit" | "resolve" if operation.step not in history.steps:
            return f"it has no step {operation.step!r}; it has {', '.join(history.steps)}"
        case "retry":
            return _against_retry(history, operation.step)
        case "edit":
            return _against_edit(history, operation)
        case "resolve":
            return _against_resolve(history, operation)
        case _:
            assert_never(fact.verb)


def _against_cancel(history: History) -> str:
    if history.turned:
        return f"it is being compensated already: {history.turned}"
    if history.is_past_pivot and history.steps[history.definition.pivot].phase == "done":
        return f"its point of no return, {history.definition.pivot}, has been passed; {_way_out(history)}"
    if history.noted:
        return f"that has been noted already: {history.noted}"
    return ""


def _way_out(history: History) -> str:
    """What may still become of a saga whose pivot is done."""
    waiting = next((step for step in history.definition.steps.values() if step.is_retriable and step.unless), None)
    if waiting is None or history.steps[waiting.name].phase not in ("waiting", "awaiting") or waiting.signal is None:
        return "it only goes forward"
    contract = waiting.signal.__contract__
    unless = " or ".join(event.__contract__.type for event in waiting.unless)
    return (
        f"whether it goes forward or back is for {contract.owner} to say, by {contract.type} or {unless}. Where "
        f"{contract.owner} will certainly say neither, resolve {waiting.name}: with its reply, or as never happened"
    )


def _against_retry(history: History, name: str) -> str:
    step = history.steps[name]
    if step.again_ns or history.fault:
        return ""
    if step.phase in ("sent", "undoing", "settling"):
        number = step.attempts if step.phase == "sent" else step.undo_attempts
        return f"attempt {number} of {name} is in flight; wait for its answer, or resolve the step by hand"
    return f"{name} does not wait to be tried again: it is {step.phase}"


def _against_edit(history: History, operation: Operation) -> str:
    name = operation.step
    kind = history.definition.step(name).kind
    if kind not in ("command", "list"):
        return f"{name} sends no command"
    if kind == "list" and name in history.definition.steps:
        count = history.steps[name].elements
        which = f"edit the one that fails, {element(name, 0)} and on" if count else "it has none yet"
        return f"{name} consists of elements, and each has a command of its own; {which}"
    if history.steps[name].phase == "settling":
        return f"{name} is being settled, and that takes no payload"
    if reason := _against_retry(history, name):
        return reason
    if history.steps[name].phase in (NOTHING_TO_UNDO if history.turned else OVER):
        return f"{name} is {history.steps[name].phase}, so there is no command of it left to send"
    try:
        _edited(history, operation)
    except Unusable as error:
        return f"the payload does not fit its contract: {error.reason}"
    return ""


def _against_resolve(history: History, operation: Operation) -> str:
    name = operation.step
    step, definition = history.steps[name], history.definition.step(name)
    if not operation.reason:
        return "say why: a reason is missing"
    if step.elements:
        return f"it consists of {step.elements} elements, {element(name, 0)} and on; resolve the one that is stuck"
    if step.phase == "undoing" or name in way_back(history).first:
        return "a compensation has no reply" if operation.has_payload else ""
    if step.phase == "settling" and operation.happened is False:
        return ""
    is_event_awaited = step.phase == "awaiting" and definition.kind == "event"
    if is_event_awaited and operation.happened is False and (definition.unless or not definition.is_retriable):
        return ""
    if definition.is_retriable and operation.happened is False:
        return f"{name} is past the point of no return and must happen; do it by hand, and say so with its reply"
    is_answer_awaited = step.phase == "sent" and definition.is_retriable and definition.reply
    if step.phase == "settling" or is_event_awaited or is_answer_awaited:
        try:
            _reply(definition, operation)
        except Unusable as error:
            return f"it needs the reply of {name}, since later steps may look at it: {error.reason}"
        return ""
    if step.phase == "sent":
        return f"{name} is in flight, and its own answer decides; cancel the saga to have it compensated"
    return f"{name} does not wait for anybody: it is {step.phase}"


def _resolve(history: History, fact: Operated) -> History:
    operation = fact.operation
    name, reason = operation.step, f"resolved by {fact.user}: {operation.reason}"
    history = with_step(replace(history, fault=""), name, reason=reason, again_ns=0)
    if history.steps[name].phase in ("undoing", "done", "unknown"):
        return with_step(history, name, phase="undone")
    if operation.happened is False:
        return never_happened(history, name)
    return done(history, name, _reply(history.definition.step(name), operation))


def _reply(definition: StepDefinition, operation: Operation) -> Any:
    """The reply an operator stands in for.

    Raises:
        Unusable: there is none, or it does not fit its contract.
    """
    assert definition.reply is not None
    if not operation.has_payload:
        raise Unusable(f"give a {definition.reply.__name__}")
    return unpack_raw(operation.payload, definition.reply)


def _edited(history: History, operation: Operation) -> Any:
    """The command an operator wants sent.

    Raises:
        Unusable: there is none, or it does not fit its contract.
    """
    definition = history.definition.step(operation.step)
    direction = "undo" if history.turned else "do"
    order = definition.undo if history.turned else definition.do
    if order is None or not operation.has_payload:
        raise Unusable(f"give the command to {direction} {operation.step}")
    return unpack_raw(operation.payload, order.shape)


def _waiting(history: History) -> list[str]:
    return [name for name, step in history.steps.items() if step.again_ns]


def _retry_now(history: History, name: str, at_ns: int) -> History:
    """Have a step tried again now, or all that wait if none is named, as far as there is room; where there is little,
    each success lets the next follow. A fault is forgotten, and may come again."""
    late = "" if history.definition.is_led else history.late
    history = replace(history, fault="", late=late, asked_ns=at_ns)
    for each in [name] if name else to_hurry(history):
        if history.steps[each].again_ns:
            history = with_step(history, each, again_ns=NOW_NS)
    return history
