"""What a plan consists of, as values, and how its entries and its timer are made. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from antiphon.contracts.payloads import Record

from .author import Author
from .dues import earliest_ns, is_far
from .entries import Draft, draft, timer_body
from .facts import Action, Fact, Finish, Send, Start, Tick
from .fold import apply
from .history import ENTRIES_MAX, History
from .notices import Notice


class Timer(msgspec.Struct, frozen=True, gc=False):
    """The saga's one schedule as it is to be: when, with which body, and whether only if there is none yet."""

    due_ns: int
    body: bytes
    first: bool


class Planned(msgspec.Struct, frozen=True, gc=False):
    """An entry to append, and the history that holds once it is stored (but for its place in the stream)."""

    draft: Draft
    after: History


class Plan(msgspec.Struct, frozen=True, gc=False):
    """All that one fact asks for. The fact may be acked once every part of it is durable.

    The first timer goes before the entries: one that fires for nothing does no harm. A later one goes after them,
    guarded by the last: it is right only while nothing has been added to what it was computed from. What is told goes
    last: others may act on it only once the journal says so.
    """

    entries: tuple[Planned, ...] = ()
    timer: Timer | None = None
    notices: tuple[Notice, ...] = ()
    fault: str = ""
    """What went wrong in the author's code while the plan was made; it is in the journal too."""
    error: BaseException | None = None
    """What it raised, for the log."""
    parked: str = ""
    """Why the saga is to be indexed as one that waits for a person."""
    accused: str = ""
    """Why the fact itself is to be set aside for a person: what was resolved by hand was done all the same."""


def planned(history: History, what: Action, cause: str, time: datetime, author: Author, ratio: float) -> Planned:
    """An entry, encoded; where that fails, the entry that says so."""
    if history.entries >= ENTRIES_MAX - 1 and not isinstance(what, Finish):
        what = Record(fault=f"its journal has {history.entries} entries, and {ENTRIES_MAX} are the most there may be")
    try:
        entry = draft(history, what, cause, time, author, ratio)
    except Exception as error:  # what the author made cannot be sent
        fault = author.faulted(what.step if isinstance(what, Send) else "the coordinator", error)
        entry = draft(history, Record(fault=fault), cause, time, author)
    return Planned(entry, apply(history, entry.stored_at(history.sequence)))


def timer_to_set(
    before: History, after: History, fact: Fact, time: datetime, *, may_be_gone: bool = False, is_held: bool = False
) -> Timer | None:
    """The timer, where it must be set: something is due earlier than before, or the old one may be gone. What is far
    away a tick alone sets."""
    due, previous = earliest_ns(after), earliest_ns(before)
    if not due or not (may_be_gone or not previous or due < previous):
        return None
    if is_held and due <= after.now_ns:
        return None  # it would fire at once, again and again; the resume looks after what is due
    if is_far(after, due) and not isinstance(fact, Tick):
        return None  # most sagas have ended by then; of the others the sweeper brings a tick
    return Timer(due, timer_body(after, time), isinstance(fact, Start) and not before.entries)
