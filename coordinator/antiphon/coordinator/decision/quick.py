"""The plan for nearly every fact: a start, or an answer that is done, from which one entry follows. Pure.

It is the plan that `full_plan` makes, which asks many more questions. Whatever is the least bit out of the ordinary is
left to that one, so nothing is decided here that is not decided there.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.payloads import End

from .absorb import absorb
from .author import Author
from .decide import OVER
from .facts import Answer, Fact, Finish, Send, Start, cause_of
from .history import ENTRIES_MAX, History, has_missed_its_start
from .planned import Plan, planned, timer_to_set

COMPLETED = Finish(End(outcome="completed"))


def quick_plan(history: History, fact: Fact, time: datetime, author: Author, ratio: float) -> Plan | None:
    """What follows from a fact that nobody has handled before, while nothing is held; None where it is not one entry,
    or where anything else is to be done."""
    told = _told(history, fact, time) if _is_ordinary(history) else None
    what = _next(told) if told is not None else None
    if told is None or what is None:
        return None
    entry = planned(told, what, cause_of(fact), time, author, ratio)
    # Where only the deadline is a matter of time, what is due is known from the start.
    brings_time = not history.entries or history.definition.is_timed
    timer = timer_to_set(history, entry.after, fact, time) if brings_time else None
    fault = entry.after.fault  # where the author's function has raised; then a person is needed
    return Plan((entry,), timer, (), fault, author.error, fault)


def _is_ordinary(history: History) -> bool:
    """Whether a saga runs forward, has neither locks nor relatives, and nothing in it was ever tried twice."""
    definition = history.definition
    return not (
        history.end is not None
        or history.turned
        or history.fault
        or history.paused
        or history.unread
        or history.gate_ns
        or history.entries >= ENTRIES_MAX
        or history.parent is not None
        or definition.children
        or definition.locks is not None
        or not definition.is_led
    )


def _told(history: History, fact: Fact, time: datetime) -> History | None:
    """The history once the fact is known."""
    match fact:
        case Answer(kind="done", direction="do"):
            return _done(history, fact)
        case Start(parent=None) if not history.entries and not history.has_started:
            told = absorb(history, fact)
            return None if has_missed_its_start(told, nanoseconds(time)) else told
        case _:
            return None


def _done(history: History, fact: Answer) -> History | None:
    """The history once a command is done, unless it was answered before, failed before, or was resolved by hand."""
    name, step = fact.step, history.steps.get(fact.step)
    if step is None or step.phase != "sent" or step.since_ns or step.unasked is not None:
        return None
    if name not in history.definition.steps or fact.sequence in history.named:
        return None  # an element of a list, after which there are others to look at; or said again
    done = replace(step, phase="done", reply=fact.event, answer=fact.sequence, timeout_ns=0, again_ns=0)
    return replace(
        history,
        steps={**history.steps, name: done},
        named=history.named | {fact.sequence},
        now_ns=max(history.now_ns, fact.at_ns),
    )


def _next(history: History) -> Send | Finish | None:
    """The command of the one step that begins now, or the end; None where others are under way, or begin too."""
    over = {name for name, step in history.steps.items() if step.phase in OVER}
    if len(over) == len(history.steps):
        return COMPLETED
    following = None
    for name, definition in history.definition.steps.items():
        if name in over:
            continue
        if history.steps[name].phase != "waiting":
            return None
        if over.issuperset(definition.after):
            if following is not None or definition.kind != "command" or definition.when is not None:
                return None
            following = name
    return Send(following, "do", 1) if following is not None else None
