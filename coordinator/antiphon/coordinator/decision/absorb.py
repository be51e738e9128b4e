"""What a fact makes of a history. Pure."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from antiphon.contracts.messages import Event

from .facts import Answer, Cancel, ChildEnded, Fact, Granted, Happened, LetGo, Operated, Signalled, Start, Tick
from .history import DEADLINE_REASON, History, cancelled, deadline_ns, is_deadline_due, with_step
from .requests import apply_request
from .transitions import (
    done,
    fail,
    fulfil,
    mark_unknown,
    never_happened,
    reason_of,
    refuse,
    release,
    request_cancel,
    start_compensating,
    try_again,
)


def absorb(history: History, fact: Fact, is_rejected: bool | None = None) -> History:
    """The history once a fact is known. Late and repeated facts are only marked as recorded.

    Args:
        history: what was known before.
        fact: what has become known.
        is_rejected: of an operator's request, whether the journal says that it was rejected; None if it says nothing.
    """
    if not isinstance(fact, Tick):
        history = replace(history, named=history.named | {fact.sequence}, now_ns=max(history.now_ns, fact.at_ns))
    if history.end is not None:
        return history
    match fact:
        case Answer(direction="do"):
            return _answered(history, fact)
        case Answer():
            return _undo_answered(history, fact)
        case Start():
            return _started(history, fact)
        case Tick():
            return _ticked(history, fact)
        case Signalled():
            return _came(history, fact.step, fact.event)
        case Happened():
            return _happened(history, fact.event)
        case ChildEnded():
            return _child_ended(history, fact)
        case Cancel():
            return _cancelled(history, fact)
        case LetGo():
            return replace(history, let_go=True)
        case Granted():
            return replace(history, granted=history.granted | {fact.lock})
        case Operated():
            return apply_request(history, fact, is_rejected)
        case _:
            assert_never(fact)


def _started(history: History, fact: Start) -> History:
    if history.start is not None:
        return history
    return replace(history, start=fact.event, started_ns=fact.at_ns, parent=fact.parent)


def _answered(history: History, fact: Answer) -> History:
    """An answer to a command counts while it is awaited, and never afterwards."""
    step = history.steps.get(fact.step)
    if step is None or step.phase not in ("sent", "settling"):
        return history
    definition = history.definition.step(fact.step)
    match fact.kind:
        case "done":
            return done(history, fact.step, fact.event)
        case "refused" if not definition.is_retriable:
            return refuse(history, fact.step, f"{fact.step} was refused: {fact.reason}", fact.reason)
        case "refused" | "exhausted" if definition.is_retriable:
            return fail(history, fact.step, step.attempts, fact)
        case "exhausted" if step.phase == "sent":
            return mark_unknown(history, fact.step, f"{fact.step} has no known outcome: {fact.reason}", fact.reason)
        case _:
            return history


def _undo_answered(history: History, fact: Answer) -> History:
    """What must succeed is over once any attempt did; anything else means to try again later, for ever."""
    step = history.steps.get(fact.step)
    if step is None or step.phase not in ("undoing", "settling"):
        return history
    if fact.kind == "settled" and step.phase == "settling":
        return done(history, fact.step, fact.event) if fact.event else never_happened(history, fact.step)
    if fact.kind == "done" and step.phase == "undoing":
        return release(with_step(history, fact.step, phase="undone", again_ns=0), fact.step)
    return fail(history, fact.step, step.undo_attempts, fact)


def _came(history: History, step: str, event: Event) -> History:
    """The first thing said to a step counts."""
    if step in history.signals:
        return history
    history = replace(history, signals={**history.signals, step: event})
    is_awaited = history.steps[step].phase == "awaiting" and not history.turned
    return fulfil(history, step) if is_awaited else history


def _happened(history: History, event: Event) -> History:
    heard = history.definition.events[event.__contract__.type]
    if heard.step:
        return _came(history, heard.step, event)
    if history.definition.is_led:
        return history
    history = replace(history, last=event, late="")
    match heard.means:
        case "completed" | "compensated" if history.over is None:
            history = replace(history, over=heard.means)
            return start_compensating(history, reason_of(event)) if heard.means == "compensated" else history
        case "turn":
            return start_compensating(history, reason_of(event))
        case _:
            return history


def _child_ended(history: History, fact: ChildEnded) -> History:
    step = history.steps[fact.step]
    if fact.attempt != step.attempts:
        return history
    if fact.end.outcome == "completed":
        return done(history, fact.step, fact.end) if step.phase == "sent" else history
    if step.phase in ("undoing", "unknown"):  # unknown: the parent is paused, or it would have cancelled the child
        return with_step(history, fact.step, phase="undone", again_ns=0)
    if step.phase != "sent":
        return history
    if history.definition.step(fact.step).is_retriable:
        again = Answer(fact.sequence, fact.at_ns, fact.step, "do", fact.attempt, "refused", 0, reason=fact.end.reason)
        return fail(history, fact.step, step.attempts, again)
    reason = f"the saga it started was compensated: {fact.end.reason}"
    return refuse(history, fact.step, f"{fact.step} was refused: {reason}", reason)


def _cancelled(history: History, fact: Cancel) -> History:
    if not history.definition.is_led:
        return history  # nobody could be told
    reason = cancelled(fact.reason)
    return (
        start_compensating(history, reason)
        if fact.by_parent and not history.is_past_pivot
        else request_cancel(history, reason)
    )


def _ticked(history: History, fact: Tick) -> History:
    history = replace(history, now_ns=max(history.now_ns, fact.at_ns))
    if history.start is None:
        return history
    for name, step in history.steps.items():
        if 0 < step.timeout_ns <= history.now_ns:
            history = _timed_out(history, name)
    if history.now_ns >= deadline_ns(history) and is_deadline_due(history):
        history = replace(history, overdue=True)
        return (
            request_cancel(history, DEADLINE_REASON)
            if history.definition.is_led
            else replace(history, noted=DEADLINE_REASON)
        )
    return history


def _timed_out(history: History, name: str) -> History:
    step = history.steps[name]  # as it is now: an earlier timeout may have turned the saga
    if not 0 < step.timeout_ns <= history.now_ns:
        return history
    definition = history.definition.step(name)
    match definition.kind:
        case "wait":
            return done(history, name, None)
        case "signal" | "event" if definition.is_retriable:  # it may still come, and a person should know
            return with_step(history, name, timeout_ns=0, reason="did not come in time")
        case "signal" | "event":
            return refuse(history, name, f"{name} did not come in time", "it did not come in time")
        case _ if definition.is_retriable:
            return try_again(history, name, step.attempts, history.now_ns, "no answer in time")
        case _:
            return mark_unknown(history, name, f"{name} did not answer in time", "no answer in time")
