"""A journal folded into a history. Pure.

A journal alternates between facts and what was done about them, so folding a stored one goes through the same states as
living through it did.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from antiphon.contracts.payloads import Record
from antiphon.contracts.reader import cause_ns, cause_sequence

from ..definition.definition import element
from .absorb import absorb
from .awaited import fulfil
from .facts import Action, Fact, Finish, Send, SendClose, Tick
from .history import Entry, History, StepRecord, with_step
from .pacing import pace_ns


class Unfoldable(Exception):
    """A journal names a fact that was not read along with it; the read was old."""


def fold(history: History, entries: list[Entry], facts: dict[int, Fact]) -> History:
    """The history after all entries, given the facts they name by sequence.

    Raises:
        Unfoldable: a fact is missing.
    """
    for entry in entries:
        history = apply(absorb_cause(history, entry, facts), entry)
    return history


def absorb_cause(history: History, entry: Entry, facts: dict[int, Fact]) -> History:
    """The history once what an entry names is known, and the entry is not there yet: what was decided on.

    Raises:
        Unfoldable: the fact is missing.
    """
    if (at_ns := cause_ns(entry.cause)) is not None:
        return absorb(history, Tick(at_ns))
    sequence = cause_sequence(entry.cause)
    if sequence in history.named:
        return history
    fact = facts.get(sequence)
    if fact is None:
        raise Unfoldable(
            f"saga {history.key}: the journal names {entry.cause}, and EVENTS has it not: a replica lags, or it was "
            "purged, or EVENTS was restored from an older backup than SAGA"
        )
    return absorb(history, fact, _counts(entry.what))


def _counts(what: Action) -> bool | None:
    """Whether a request was fulfilled: for the journal to say, and not for the rules of whoever reads it later."""
    match what:
        case Record(by=by, rejected=rejected) if by:
            return not rejected
        case SendClose():
            return False  # its participant is asked first
        case _:
            return None


def apply(history: History, entry: Entry) -> History:
    """The history once an entry is in the journal."""
    is_instead = history.is_full and isinstance(entry.what, Record) and entry.what.full
    entries = history.entries if is_instead else history.entries + 1
    sampled = entry.sampled if history.sampled is None else history.sampled
    keys = entry.keys or history.keys
    history = replace(history, sequence=entry.sequence, cause=entry.cause, entries=entries, keys=keys, sampled=sampled)
    match entry.what:
        case Send() as sent:
            return _sent(history, sent, entry.at_ns, entry.payload)
        case SendClose(step=name, number=number) as sent:
            return with_step(history, name, closes=number, closing=sent, closing_ns=history.now_ns)
        case Record(full=True):
            return replace(history, is_full=True, refused=max(history.refused, cause_sequence(entry.cause)))
        case Record() as record:
            return _recorded(history, record, entry.at_ns)
        case Finish(end=end):
            return replace(history, end=end)
        case _:
            assert_never(entry.what)


def _sent(history: History, sent: Send, at_ns: int, payload: bytes) -> History:
    step = history.steps[sent.step]
    if pace := pace_ns(history):
        history = replace(history, gate_ns=history.now_ns + pace)
    if sent.direction == "do":
        return with_step(
            history,
            sent.step,
            phase="sent",
            attempts=sent.attempt,
            sent_ns=at_ns,
            timeout_ns=_time_up_ns(history, sent.step, at_ns),
            again_ns=0,
            unasked=None,
            command=payload,
        )
    undone: dict[str, object] = {"undo_attempts": sent.attempt, "sent_ns": at_ns, "again_ns": 0, "unasked": None}
    if step.phase == "settling":  # a question, which carries nothing
        return with_step(history, sent.step, **undone)
    return with_step(history, sent.step, phase="undoing", undo=payload, **undone)


def _recorded(history: History, record: Record, at_ns: int) -> History:
    if record.more:
        return replace(history, more=history.more | {record.more})
    if record.fault:
        is_read_over = record.unread and not history.unread
        return history if is_read_over else replace(history, fault=record.fault)
    if record.asks:
        return replace(history, asks=record.asks)
    if record.held:
        return replace(history, held=True)
    if record.skipped:
        return with_step(history, record.step, phase="skipped")
    if record.parked:
        if not record.step:
            return replace(history, late=record.parked)
        return replace(history, marked=history.marked | {record.step})
    if record.awaits:
        return _awaiting(history, record.step, at_ns)
    if record.elements >= 0 or record.commands:
        return _spread(history, record)
    return history


def _awaiting(history: History, name: str, at_ns: int) -> History:
    if name in history.signals:
        return fulfil(history, name)
    return with_step(history, name, phase="awaiting", timeout_ns=_time_up_ns(history, name, at_ns))


def _spread(history: History, record: Record) -> History:
    """Take down the commands of a list; once all are there, it has begun, and each element has a record of its own."""
    name = record.step
    commands = (*history.steps[name].spread[: record.first], *map(bytes, record.commands))
    if record.elements < 0:
        return with_step(history, name, spread=commands)
    commands = commands or (b"",) * record.elements  # an earlier release wrote down how many there are, and no more
    elements = {element(name, number): StepRecord(command=command) for number, command in enumerate(commands)}
    history = with_step(
        replace(history, steps={**history.steps, **elements}), name, phase="sent", elements=record.elements, spread=()
    )
    return history if record.elements else with_step(history, name, phase="done", reply=())


def _time_up_ns(history: History, name: str, at_ns: int) -> int:
    """When a step has been waited for long enough: counted from its entry, by its writer's clock, and never from
    before the latest time the server told, so that a clock that is behind does not cut the time short."""
    timeout = history.definition.step(name).timeout_ns
    return max(at_ns, history.now_ns) + timeout if timeout else 0
