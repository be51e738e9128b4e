"""The history of one saga: what its journal says, folded into a value. Pure.

Two functions move it: `absorb` takes a fact in, `apply` takes in what the journal says was done about it. A journal
alternates between the two, so folding a stored journal goes through the same states as living through it did.
"""

from __future__ import annotations

import hashlib
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from antiphon.contracts.messages import Event
from antiphon.contracts.platform import End, Record, SagaState, StepPhase
from antiphon.contracts.retry import Retry
from antiphon.contracts.wire import SagaKey

from .facts import Answer, Cancel, Fact, Finish, Send, Start, Tick
from .graph import Definition

ENTRIES_MAX: Final = 900
"""The longest journal: one direct read returns at most 1000 messages, and must always return all of it."""

DEADLINE_REASON: Final = "its deadline passed"


class StepRecord(msgspec.Struct, frozen=True):
    """Where one step stands."""

    phase: StepPhase = "waiting"
    attempts: int = 0
    undo_attempts: int = 0
    reply: Event | None = None
    reason: str = ""
    undo_due_ns: int = 0
    """When the compensation is to be sent again; 0 while its answer is awaited."""


class History(msgspec.Struct, frozen=True):
    """All that a decision depends on."""

    key: SagaKey
    definition: Definition
    steps: dict[str, StepRecord]
    start: Event | None = None
    started_ns: int = 0
    now_ns: int = 0
    """The latest time a timer has told of. Facts carry times of their own, which decide nothing."""
    turned: str = ""
    """Why the saga is compensating; empty while it runs forward."""
    fault: str = ""
    """Why the saga cannot go on by itself."""
    end: End | None = None
    named: frozenset[int] = frozenset()
    """The sequences of all facts in EVENTS that the journal names."""
    sequence: int = 0
    """Where SAGA holds the last entry: what the next one is guarded with."""
    entries: int = 0

    @property
    def state(self) -> SagaState:
        """The saga's state in one word."""
        if self.end is not None:
            return self.end.outcome
        return "compensating" if self.turned else "running"

    @property
    def parked(self) -> str:
        """Why a person should look at the saga; empty where none needs to."""
        if self.end is not None:
            return ""
        if self.fault:
            return self.fault
        patience = self.definition.backoff.attempts
        tired = [
            f"{n} (tried {s.undo_attempts} times: {s.reason})" for n, s in self.steps.items() if is_tired(s, patience)
        ]
        return f"compensation keeps failing: {', '.join(tired)}" if tired else ""


class Entry(msgspec.Struct, frozen=True):
    """One journal entry: what was done, on which fact, and where SAGA holds it."""

    sequence: int
    cause: str
    what: Send | Record | Finish
    definition: str = ""


class Unfoldable(Exception):
    """A journal names a fact that was not read along with it; the read was old."""


def begin(key: SagaKey, definition: Definition) -> History:
    """The history of a saga of which nothing is known."""
    return History(key, definition, {name: StepRecord() for name in definition.steps})


def fold(history: History, entries: list[Entry], facts: dict[int, Fact]) -> History:
    """The history after all entries, given the facts they name by sequence.

    Raises:
        Unfoldable: a fact is missing.
    """
    for entry in entries:
        history = apply(_absorb_cause(history, entry.cause, facts), entry)
    return history


def _absorb_cause(history: History, cause: str, facts: dict[int, Fact]) -> History:
    if cause.startswith("t"):
        return absorb(history, Tick(int(cause[1:])))
    if not cause or int(cause[1:]) in history.named:
        return history
    fact = facts.get(int(cause[1:]))
    if fact is None:
        raise Unfoldable(f"saga {history.key}: the journal names {cause}, which was not read")
    return absorb(history, fact)


def absorb(history: History, fact: Fact) -> History:
    """The history once a fact is known. Late and repeated facts change nothing but that they are named."""
    if not isinstance(fact, Tick):
        history = replace(history, named=history.named | {fact.sequence})
    if history.end is not None:
        return history
    match fact:
        case Start():
            return _started(history, fact)
        case Answer(direction="do"):
            return _answered(history, fact)
        case Answer():
            return _undo_answered(history, fact)
        case Cancel():
            return _turn(history, f"cancelled: {fact.reason}")
        case Tick():
            return _ticked(history, fact)
        case _:
            assert_never(fact)


def apply(history: History, entry: Entry) -> History:
    """The history once an entry is in the journal."""
    history = replace(history, sequence=entry.sequence, entries=history.entries + 1)
    match entry.what:
        case Send(direction="do") as sent:
            return with_step(history, sent.step, phase="sent", attempts=sent.attempt)
        case Send() as sent:
            return with_step(history, sent.step, phase="undoing", undo_attempts=sent.attempt, undo_due_ns=0)
        case Record(fault=fault):
            return replace(history, fault=fault) if fault else history
        case Finish(end=end):
            return replace(history, end=end)
        case _:
            assert_never(entry.what)


def _started(history: History, fact: Start) -> History:
    if history.start is not None:
        return history
    return replace(history, start=fact.event, started_ns=fact.at_ns)


def _answered(history: History, fact: Answer) -> History:
    """An answer to a command counts while it is awaited, and never afterwards."""
    if history.steps[fact.step].phase != "sent":
        return history
    match fact.kind:
        case "done":
            return with_step(history, fact.step, phase="done", reply=fact.event)
        case "refused":
            history = with_step(history, fact.step, phase="refused", reason=fact.reason)
            return _turn(history, f"{fact.step} was refused: {fact.reason}")
        case "exhausted":
            history = with_step(history, fact.step, phase="unknown", reason=fact.reason)
            return _turn(history, f"{fact.step} has no known outcome: {fact.reason}")
        case "superseded":
            return history
        case _:
            assert_never(fact.kind)


def _undo_answered(history: History, fact: Answer) -> History:
    """A compensation is over once any attempt succeeded; anything else means to try again later, for ever."""
    step = history.steps[fact.step]
    if step.phase != "undoing":
        return history
    if fact.kind == "done":
        return with_step(history, fact.step, phase="undone", undo_due_ns=0)
    if fact.attempt != step.undo_attempts or step.undo_due_ns:
        return history
    due = fact.at_ns + wait_ns(history.definition.backoff, history.key, fact.step, fact.attempt)
    return with_step(history, fact.step, undo_due_ns=due, reason=fact.reason)


def _ticked(history: History, fact: Tick) -> History:
    history = replace(history, now_ns=max(history.now_ns, fact.at_ns))
    if history.start is not None and history.now_ns >= deadline_ns(history):
        return _turn(history, DEADLINE_REASON)
    return history


def _turn(history: History, reason: str) -> History:
    """Go from running to compensating, once. A step in flight becomes unknown at this moment."""
    if history.turned:
        return history
    steps = {name: replace(s, phase="unknown") if s.phase == "sent" else s for name, s in history.steps.items()}
    # A fault stopped the way forward, and that way is given up now.
    return replace(history, turned=reason, fault="", steps=steps)


def with_step(history: History, name: str, **changes: object) -> History:
    """The history with one step changed."""
    return replace(history, steps={**history.steps, name: replace(history.steps[name], **changes)})


def deadline_ns(history: History) -> int:
    """When the saga turns if it has not ended, by the server's clock."""
    return history.started_ns + history.definition.deadline_ns


def dues(history: History) -> list[tuple[int, str]]:
    """All that time will bring, earliest first, as (nanoseconds, what)."""
    if history.end is not None or history.start is None:
        return []
    found = [(s.undo_due_ns, f"{name} undo") for name, s in history.steps.items() if s.undo_due_ns]
    if not history.turned:
        found.append((deadline_ns(history), "deadline"))
    return sorted(found)


def is_tired(step: StepRecord, patience: int) -> bool:
    """Whether a compensation has been tried so often in vain that a person should know."""
    return step.phase == "undoing" and step.undo_due_ns > 0 and step.undo_attempts >= patience


def wait_ns(backoff: Retry, key: SagaKey, step: str, attempt: int) -> int:
    """How long after a failed attempt the next one is due.

    The chance is a hash of what it is for, so that every reader of a journal computes the same time and different
    sagas still spread over the whole interval.
    """
    seed = hashlib.sha256(f"{key}/{step}/{attempt}".encode()).digest()
    return round(backoff.wait_seconds(attempt, int.from_bytes(seed[:8]) / 2**64) * 1e9) + 1
