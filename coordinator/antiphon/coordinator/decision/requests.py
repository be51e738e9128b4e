"""What an operator's request makes of a history, or why it comes too late. Pure."""

from __future__ import annotations

from typing import Any, assert_never

from msgspec.structs import replace

from antiphon.contracts.clock import rfc3339
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.payloads import Operation

from ..definition.definition import element
from .decide import OVER
from .facts import Operated
from .history import ENTRIES_MAX, NOW_NS, History, with_step
from .pacing import asking_pace_ns, to_hurry
from .resolving import against_resolve, is_asked, resolve
from .room import ATTEMPT_ENTRIES, KEPT_FOR_CLOSES, PAUSE_ENTRIES, room
from .transitions import request_cancel
from .way_back import NOTHING_TO_UNDO


def apply_request(history: History, fact: Operated, counts: bool | None = None) -> History:
    """The history once the request is fulfilled; unchanged if it is rejected, or if a participant is asked first.

    Args:
        history: what was known before.
        fact: the request.
        counts: whether it is fulfilled, as the journal says; None if that says nothing.
    """
    if not (counts if counts is not None else not rejection(history, fact) and not is_to_close(history, fact)):
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
            return resolve(history, fact)
        case _:
            assert_never(fact.verb)


def is_to_close(history: History, fact: Operated) -> bool:
    """Whether a request that is not rejected is one that a participant must be asked about first."""
    return fact.verb == "resolve" and is_asked(history, fact.operation)


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
    left = room(history) - KEPT_FOR_CLOSES
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
        f"its journal has {history.entries} of {ENTRIES_MAX} entries, and the rest is kept for compensations and "
        "operators; resolve, cancel and resume are still taken"
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
            return against_resolve(history, fact)
        case _:
            assert_never(fact.verb)


def _against_cancel(history: History) -> str:
    if history.turned:
        return f"it is being compensated already: {history.turned}"
    if history.is_past_pivot and history.steps[history.definition.pivot].phase == "done":
        return f"its point of no return, {history.definition.pivot}, has been passed; {_way_out(history)}"
    if history.noted:
        return f"that is recorded already: {history.noted}"
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
