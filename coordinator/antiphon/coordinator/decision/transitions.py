"""What becomes of a step, and of its saga: the moves that facts and operators share. Pure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from antiphon.contracts.messages import Event

from .facts import Answer
from .history import RELEASED_NS, History, StepRecord, elements_of, wait_ns, with_step


def done(history: History, name: str, reply: Any) -> History:
    """The step has succeeded; a step over a list has when all its elements have."""
    history = release(with_step(history, name, phase="done", reply=reply, timeout_ns=0, again_ns=0), name)
    definition = history.definition.step(name)
    if definition.kind == "list":
        elements = elements_of(history, definition)
        if all(each.phase == "done" for each in elements):
            return with_step(history, definition.name, phase="done", reply=tuple(each.reply for each in elements))
    return history


def refuse(history: History, name: str, turned: str, reason: str) -> History:
    """Nothing happened and nothing will: the saga turns."""
    return start_compensating(
        with_step(history, name, phase="refused", reason=reason, timeout_ns=0, again_ns=0), turned
    )


def reason_of(event: Event) -> str:
    """What an event says about why it is so: its reason if it has one, else what it is called."""
    return str(getattr(event, "reason", "")) or event.__contract__.name


def never_happened(history: History, name: str) -> History:
    """A pivot that was settled did not happen and never will, so the saga may turn after all."""
    return refuse(history, name, f"{name} did not happen: {history.steps[name].reason}", history.steps[name].reason)


def fail(history: History, name: str, attempts: int, answer: Answer) -> History:
    """An attempt at what must succeed has failed: it is tried again later. Only the latest attempt counts."""
    if answer.attempt != attempts or history.steps[name].again_ns:
        return history
    if answer.code == "open":
        history = with_step(history, name, is_open=True)
    return try_again(history, name, attempts, answer.at_ns, answer.reason)


def try_again(history: History, name: str, attempts: int, at_ns: int, reason: str) -> History:
    """Have another attempt due some time after the last one has failed."""
    due = at_ns + wait_ns(history.definition.backoff, history.key, name, attempts)
    since_ns = history.steps[name].since_ns or at_ns
    return with_step(history, name, again_ns=due, timeout_ns=0, reason=reason, since_ns=since_ns)


def release(history: History, name: str) -> History:
    """Something has succeeded: if it had failed before, the next of those that wait for its participant is due at once,
    and else the next of those whose time has come, and which wait for their turn.

    One at a time, since each success gives back the room that a failure takes.
    """
    had_failed = bool(history.steps[name].since_ns)
    if had_failed:
        history = replace(with_step(history, name, since_ns=0), late="")
    elif not history.gate_ns:
        return history
    participant = history.definition.step(name).participant
    waiting = [
        (step.again_ns, other)
        for other, step in history.steps.items()
        if step.again_ns > RELEASED_NS
        and (had_failed or step.again_ns <= history.now_ns)
        and history.definition.step(other).participant == participant
    ]
    return with_step(history, min(waiting)[1], again_ns=RELEASED_NS) if waiting else history


def mark_unknown(history: History, name: str, turned: str, reason: str) -> History:
    """Nobody knows whether the step happened: a pivot is settled, anything else compensated."""
    if history.definition.step(name).is_pivot:
        return with_step(history, name, phase="settling", reason=reason, timeout_ns=0)
    return start_compensating(with_step(history, name, phase="unknown", reason=reason, timeout_ns=0), turned)


def request_cancel(history: History, reason: str) -> History:
    """Turn the saga if that is still possible; otherwise record the reason, for the case that it becomes possible."""
    if history.is_past_pivot or history.held:
        return history if history.noted else replace(history, noted=reason)
    return start_compensating(history, reason)


def start_compensating(history: History, reason: str) -> History:
    """Go from running to compensating, once. A step in flight becomes unknown at this moment."""
    if history.turned:
        return history
    steps = {name: _turned_step(step) for name, step in history.steps.items()}
    # A fault stopped the way forward, and that way is given up now.
    return replace(history, turned=reason, fault="", steps=steps)


def _turned_step(step: StepRecord) -> StepRecord:
    if step.phase == "sent":
        return replace(step, phase="unknown", timeout_ns=0, again_ns=0)
    return replace(step, timeout_ns=0) if step.timeout_ns else step
