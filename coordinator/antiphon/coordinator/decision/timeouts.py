"""Time that is up: the timeouts of steps, waits, and the deadline of a saga. Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from .facts import Tick
from .history import DEADLINE_REASON, QUIET_NS, History, deadline_ns, is_deadline_due, with_step
from .transitions import done, mark_unknown, refuse, request_cancel, try_again


class Late(msgspec.Struct, frozen=True, gc=False):
    """A step whose time is up, and the participant that it waits for."""

    step: str
    participant: str
    due_ns: int
    timeout_ns: int
    """How much time the step had."""


def late(history: History, at_ns: int) -> list[Late]:
    """The steps whose time is up at `at_ns` and that wait for a participant; none once the saga's deadline has come,
    which nothing puts off."""
    if not history.has_started or history.end is not None or not history.definition.is_timed:
        return []
    if is_deadline_due(history) and at_ns >= deadline_ns(history):
        return []
    found = [(name, step.timeout_ns) for name, step in history.steps.items() if 0 < step.timeout_ns <= at_ns]
    steps = [(name, due_ns, history.definition.step(name)) for name, due_ns in found]
    return [Late(name, step.participant, due_ns, step.timeout_ns) for name, due_ns, step in steps if step.participant]


def ticked(history: History, fact: Tick) -> History:
    """The history at a later time: every timeout and deadline that lies before it has passed."""
    history = replace(history, now_ns=max(history.now_ns, fact.at_ns))
    if not history.has_started:
        return history
    for name, step in history.steps.items():
        if 0 < step.timeout_ns <= history.now_ns:
            history = _timed_out(history, name)
    if history.now_ns >= deadline_ns(history) and is_deadline_due(history):
        history = replace(history, overdue=True)
        return (
            request_cancel(history, DEADLINE_REASON)
            if history.definition.is_led
            else replace(history, noted=DEADLINE_REASON, is_quiet=True)
        )
    is_observed = history.overdue and not history.definition.is_led
    if is_observed and not history.is_quiet and history.now_ns >= history.said_ns + QUIET_NS:
        return replace(history, is_quiet=True)
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
