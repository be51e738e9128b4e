"""What a fact makes of a history, as one value: the entries to append, what to tell others, the timer to set. Pure.

Everything that is to become durable stands in the plan before anything is sent; the loop only performs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.payloads import Record

from .absorb import absorb, source_of
from .author import Author
from .decide import decide
from .facts import (
    Action,
    Answer,
    Cancel,
    Fact,
    Finish,
    Happened,
    Operated,
    SendClose,
    Signalled,
    Tick,
    cause_of,
)
from .history import ENTRIES_MAX, HEARD_MAX, History, has_missed_its_start
from .lists import is_unfinished
from .notices import Notice, notices
from .planned import Plan, Planned, planned, timer_to_set
from .quick import quick_plan
from .requests import is_to_close, rejection
from .resolving import acted_after_all, is_unasked, to_close, verdict
from .room import KEPT_FOR_VERBS, owed, room
from .transitions import start_compensating

KNOWN: Final = Record()
"""That a fact is known, and nothing follows from it."""


STALE_NS: Final = 60 * 1_000_000_000
"""A request so much older than one that was rejected in a shared entry is no longer on its way to another coordinator:
it was rejected in that entry before."""


def plan(
    history: History,
    fact: Fact,
    time: datetime,
    is_repeated: bool = False,
    hold: str = "",
    author: Author | None = None,
    ratio: float = 1.0,
    refusal: str = "",
) -> Plan:
    """Take a fact in and decide.

    Args:
        history: the saga as its journal says.
        fact: what has become known; it may be in the journal already.
        time: now, for the entries' envelopes.
        is_repeated: whether the fact may have been handled before, by any coordinator: then everything is told again
            that a crash may have left untold.
        hold: why nothing may be sent for now, although the saga could go on.
        author: whom to ask for what the journal does not hold; made for this plan alone.
        ratio: the share of sagas whose traces are sampled, for a saga of which the journal does not say it yet.
        refusal: why a saga may not begin, of the start of one that has not: it ends at once, in one entry, with nothing
            done.
    """
    author = author or Author()
    if not (is_repeated or hold or refusal) and (quick := quick_plan(history, fact, time, author, ratio)):
        return quick
    return full_plan(history, fact, time, is_repeated, hold, author, ratio, refusal)


def full_plan(
    history: History,
    fact: Fact,
    time: datetime,
    is_repeated: bool,
    hold: str,
    author: Author,
    ratio: float,
    refusal: str,
) -> Plan:
    """Take any fact in and decide; as `plan` does."""
    if history.end is not None:
        return Plan(notices=tuple(notices(history).values()), accused=acted_after_all(history, fact))
    is_tick = isinstance(fact, Tick)
    is_new = is_tick or not _is_known(history, fact)
    told = absorb(history, fact) if is_new else history
    if refusal:
        told, hold = start_compensating(told, refusal), ""
    # Then nothing is sent, and a timer that is due at once tells the time by the server's clock.
    is_late = not is_tick and has_missed_its_start(told, nanoseconds(time))
    holds = bool(hold) or is_late
    first = _first(history, told, fact, is_new)
    # What still follows where the fact is known is the rest of the last decision, which a crash cut short.
    cause = cause_of(fact) if is_new else history.cause
    entries = tuple(_entries(told, first, cause, time, holds, author, ratio))
    if _comes_again(history, fact, entries):
        told, author = history, Author()
        again = Record(
            by=fact.user if isinstance(fact, Operated) else "", rejected=f"{history.fault}, again", full=True
        )
        entries = tuple(_entries(history, again, cause_of(fact), time, True, author, ratio))
    after = entries[-1].after if entries else told
    may_be_gone = is_tick or is_repeated or is_late or not is_new
    return Plan(
        entries,
        timer_to_set(history, after, fact, time, may_be_gone=may_be_gone, is_held=bool(hold)),
        _notices(history, after, may_be_gone),
        after.fault if after.fault != told.fault else "",
        author.error,
        _parked(told, after, is_repeated or not is_new),
        acted_after_all(history, fact),
    )


def _is_known(history: History, fact: Fact) -> bool:
    """Whether the journal names a fact, or says of requests as old as this that there was no room for them."""
    if isinstance(fact, Tick):
        return False
    if fact.sequence in history.named or not isinstance(fact, Operated):
        return fact.sequence in history.named
    return fact.sequence <= history.refused and fact.at_ns < history.now_ns - STALE_NS


def _first(before: History, told: History, fact: Fact, is_new: bool) -> Record | SendClose | None:
    """What is recorded of the fact itself: always for an operator's request and for a participant's word on one, else
    only where nothing follows from it.

    Of a tick only if it has changed something, because most do not.
    """
    if not is_new:
        return None
    if isinstance(fact, Operated):
        return _of_request(before, fact)
    if isinstance(fact, Answer) and fact.closed is not None and (decided := verdict(before, fact)):
        return decided
    if isinstance(fact, Tick) and _is_same(before, told):
        return None
    if told.turned and not (before.turned or before.definition.is_led):
        return Record(turned=told.turned)
    if isinstance(fact, Answer | Happened) and told.heard is not before.heard:
        return _of_idle(before, fact)
    if _is_same(before, told) and _has_no_room(before, fact):
        return None
    return KNOWN


def _of_idle(history: History, fact: Answer | Happened) -> Record | None:
    """What is recorded of a participant's word from which nothing follows: it, or that there are more, or nothing."""
    source = source_of(history, fact)
    if source in history.more or _has_no_room(history, fact):
        return None
    return KNOWN if history.heard.get(source, 0) < HEARD_MAX else Record(more=source)


def _of_request(history: History, fact: Operated) -> Record | SendClose:
    """What is recorded of a request: that it counts, that it is rejected, or the close by which its participant is
    asked."""
    rejected = rejection(history, fact)
    if rejected:
        return Record(by=fact.user, rejected=rejected, full=_shares_an_entry(history))
    if is_to_close(history, fact):
        return to_close(history, fact)
    return Record(by=fact.user, unasked=fact.verb == "resolve" and is_unasked(history, fact.operation))


def _comes_again(before: History, fact: Fact, entries: tuple[Planned, ...]) -> bool:
    """Whether a request has led to nothing but the same fault, and there is little room to say so as often as it is
    asked for."""
    if not isinstance(fact, Operated) or not before.fault or len(entries) != 2 or not _shares_an_entry(before):
        return False
    return entries[-1].after.fault == before.fault


def _shares_an_entry(history: History) -> bool:
    """Whether rejected requests have used what they may of a journal: half, and nothing of what is kept."""
    return room(history) < max(KEPT_FOR_VERBS, ENTRIES_MAX // 2 - owed(history))


def _has_no_room(history: History, fact: Fact) -> bool:
    """Whether a fact from which nothing follows must not be recorded: for that there is only what is spare."""
    match fact:
        case Answer():  # unless this history may be older than the command
            return fact.command <= history.sequence and room(history) < KEPT_FOR_VERBS
        case Happened() | Signalled() | Cancel():
            return room(history) < KEPT_FOR_VERBS
        case _:
            return False


def _is_same(before: History, told: History) -> bool:
    """Whether nothing follows from what was taken in."""
    return told == replace(before, now_ns=told.now_ns, named=told.named, last=told.last, heard=told.heard)


def _entries(
    history: History,
    first: Record | SendClose | None,
    cause: str,
    time: datetime,
    holds: bool,
    author: Author,
    ratio: float,
) -> Iterator[Planned]:
    """Encode what is to be appended, one after the other, up to the first that cannot be."""
    queue: list[Action] = list(decide(history, author)) if not holds else []
    if first is not None and (_is_owed(first) or not queue):
        queue.insert(0, first)
    if history.entries >= ENTRIES_MAX - 1:  # the last place, or the one after it, is for the end where there is one
        queue = [what for what in queue if isinstance(what, Finish)] or queue
    while queue:
        what = queue.pop(0)
        if history.entries >= ENTRIES_MAX and not isinstance(what, Finish):
            return  # full; that it is parked for this reason is its last entry, and only its end may still follow
        entry = planned(history, what, cause, time, author, ratio)
        history = entry.after
        yield entry
        if history.fault:
            return
        # What was found out about a step may let others begin. Their turn is now and not when the queue is empty, so
        # that a coordinator that finds a part of this plan in the journal goes on in the same order.
        if isinstance(what, Record) and what is not first and not is_unfinished(what):
            queue = list(decide(history, author))


def _is_owed(first: Record | SendClose) -> bool:
    """Whether a fact has an entry of its own, whatever follows from it."""
    return isinstance(first, SendClose) or bool(first.by or first.turned or first.more)


def _parked(before: History, after: History, may_be_unsaid: bool) -> str:
    """Why a person is needed, where that is new or may not have been said."""
    is_news = after.marked is not before.marked or after.fault != before.fault or after.late != before.late
    return after.parked if is_news or may_be_unsaid else ""


def _notices(before: History, after: History, may_be_unsaid: bool) -> tuple[Notice, ...]:
    """What the new entries oblige to, or all that is owed, where a crash may have come in between."""
    owed = notices(after)
    if not owed:
        return ()
    said = {} if may_be_unsaid else notices(before)
    return tuple(tell for subject, tell in owed.items() if subject not in said)
