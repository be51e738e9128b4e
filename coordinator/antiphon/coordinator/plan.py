"""What a fact makes of a history, as one value: the entries to append, in this order, and the timer to set. Pure.

Everything that is to become durable stands in the plan before anything is sent; the loop only performs it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from antiphon.contracts.platform import Record

from .decide import decide
from .facts import Action, Fact, Finish, Send, Start, Tick, cause_of
from .history import ENTRIES_MAX, History, absorb, apply, dues
from .journal import Draft, draft, timer_body


class Timer(msgspec.Struct, frozen=True):
    """The saga's one schedule as it is to be: when, with which body, and whether only if there is none yet."""

    due_ns: int
    body: bytes
    first: bool


class Planned(msgspec.Struct, frozen=True):
    """An entry to append, and the history that holds once it is stored (but for its place in the stream)."""

    draft: Draft
    after: History


class Plan(msgspec.Struct, frozen=True):
    """All that one fact asks for. The fact may be acked once every part of it is durable."""

    entries: tuple[Planned, ...] = ()
    timer: Timer | None = None
    fault: str = ""
    """What went wrong in the author's code while the plan was made; it is in the journal too."""


def plan(history: History, fact: Fact, time: datetime) -> Plan:
    """Take a fact in and decide.

    Args:
        history: the saga as its journal says.
        fact: what has become known; it may be in the journal already.
        time: now, for the entries' envelopes.
    """
    if history.end is not None:
        return Plan()
    is_tick = isinstance(fact, Tick)
    is_new = isinstance(fact, Tick) or fact.sequence not in history.named
    told = absorb(history, fact) if is_new else history
    actions: tuple[Action | Record, ...] = decide(told)
    if not actions and is_new and not is_tick:
        actions = (Record(),)
    entries, fault = _entries(told, actions, cause_of(fact), time)
    after = entries[-1].after if entries else told
    return Plan(entries, _timer(history, after, fact, is_tick or not is_new, time), fault)


def _entries(
    history: History, actions: tuple[Action | Record, ...], cause: str, time: datetime
) -> tuple[tuple[Planned, ...], str]:
    """Encode the actions one after the other, up to the first that cannot be."""
    entries: list[Planned] = []
    for what in actions:
        if history.entries >= ENTRIES_MAX and not isinstance(what, Finish):
            break  # full; that it is parked for this reason is its last entry, and only its end may still follow
        fault = ""
        if history.entries >= ENTRIES_MAX - 1 and isinstance(what, Send | Record):
            fault = f"its journal has {history.entries} entries, and {ENTRIES_MAX} are the most there may be"
            entry = draft(history, Record(fault=fault), cause, time)
        else:
            try:
                entry = draft(history, what, cause, time)
            except Exception as error:  # whatever the author's step function raises
                fault = f"{what.step if isinstance(what, Send) else 'the coordinator'} raised {error!r}"
                entry = draft(history, Record(fault=fault), cause, time)
        history = apply(history, entry.stored_at(history.sequence))
        entries.append(Planned(entry, history))
        if fault:
            return tuple(entries), fault
    return tuple(entries), ""


def _timer(before: History, after: History, fact: Fact, may_be_gone: bool, time: datetime) -> Timer | None:
    """The timer, where it must be set: something is due earlier than before, or the old one may be gone."""
    if before.start is not None and not after.turned and not may_be_gone:
        return None  # on its way forward a saga waits for its deadline, and that does not move
    due, previous = dues(after), dues(before)
    if due and (may_be_gone or not previous or due[0] < previous[0]):
        return Timer(due[0][0], timer_body(after, time), isinstance(fact, Start))
    return None
