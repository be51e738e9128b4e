"""Entries and facts of a saga in words, read from their bytes without any definition. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal, assert_never

import msgspec

from antiphon.contracts import identity, subjects
from antiphon.contracts.envelope import Envelope, unpack_raw
from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.messages import Closed, Refusal, Settled, name_of
from antiphon.contracts.payloads import (
    CHILD_START_TYPE,
    CancelRequest,
    ChildStart,
    End,
    Record,
)
from antiphon.contracts.reader import Entry, Fact
from antiphon.contracts.subjects import FactAddress

LineKind = Literal[
    "start",
    "command",
    "compensation",
    "answer",
    "refusal",
    "unknown",
    "cancel",
    "signal",
    "event",
    "operator",
    "notice",
    "record",
    "parked",
    "timer",
    "end",
]
"""What a line tells of. `event` is what a participant emits by itself, `notice` what other sagas and locks say, and
`parked` that a person is needed."""


class Wording(msgspec.Struct, frozen=True, kw_only=True):
    """An entry or a fact in words, and whom and which step it is about."""

    kind: LineKind
    who: str
    text: str
    step: str = ""
    attempt: int = 0


# --- entries ----------------------------------------------------------------------------------------------------------


def of_entry(entry: Entry, facts: dict[str, str]) -> Wording:
    """A journal entry; `facts` has the words for the facts that entries name as their cause, as far as known."""
    if entry.command is not None:
        return _of_command(entry, entry.command)
    if entry.end is not None:
        return Wording(kind="end", who="coordinator", text=_with_reason(entry.end.outcome, entry.end.reason))
    record, envelope = entry.record or Record(), entry.envelope
    if record.by:
        verdict = f"rejected: {record.rejected}" if record.rejected else "accepted"
        may_run = ", without its participant: an attempt may still run" if record.unasked else ""
        request = f"e{record.request}" if record.request else envelope.cause
        text = f"{facts.get(request, 'a request')} by {record.by}: {verdict}{may_run}"
        return Wording(kind="operator", who="coordinator", text=text)
    if record.fault:
        return Wording(kind="parked", who="coordinator", text=f"stands still: {record.fault}")
    if record.parked and not record.step:
        return Wording(kind="parked", who="coordinator", text=f"waits for a person: {record.parked}")
    if record.parked:
        text = f"waits for a person, and goes on by itself where it can: {record.parked}"
        return Wording(kind="parked", who="coordinator", text=text, step=record.step)
    return Wording(kind="record", who="coordinator", text=_of_record(record, envelope.cause, facts), step=record.step)


CLOSED_AS: Final = {"done": "done", "never": "never done", "undone": "undone"}


def _of_command(entry: Entry, command: subjects.CommandAddress) -> Wording:
    if entry.kind == "close":
        close = entry.close
        claim = f", after claim {close.claim}" if close.claim else ""
        text = f"asks {command.participant} to close it as {CLOSED_AS[close.form]}{claim}, for {close.user}"
        text = _with_reason(text, close.reason)
        return Wording(kind="operator", who="coordinator", text=text, step=command.step, attempt=command.attempt)
    text = f"{entry.envelope.type} to {command.participant}"
    kind: LineKind = "compensation" if entry.kind == "undo" else "command"
    if command.participant == identity.COORDINATOR:
        text = "starts a saga of its own" if command.direction == "do" else "cancels the saga it started"
    elif entry.kind == "settle":
        text = f"asks {command.participant} what became of it"
    return Wording(kind=kind, who="coordinator", text=text, step=command.step, attempt=command.attempt)


def _of_record(record: Record, cause: str, facts: dict[str, str]) -> str:
    if record.skipped:
        return "is skipped: its condition does not hold"
    if record.elements >= 0:
        return f"sends {record.elements} command{'s' * (record.elements != 1)}"
    if record.commands:
        return f"has its commands {record.first} to {record.first + len(record.commands) - 1} written down"
    if record.awaits:
        return "is waited for"
    if record.asks:
        return f"needs the lock{'s' * (len(record.asks) > 1)} {', '.join(record.asks)}"
    if record.turned:
        return f"what was done is being undone: {record.turned}"
    if record.more:
        return f"records no more events of {record.more} that nobody waits for"
    if record.held:
        return "has done all its steps, and waits for the saga that started it"
    if cause.startswith("t"):
        return "time was up"
    # The fact has a line of its own, with its reason.
    return f"recorded: {facts.get(cause, cause).partition(': ')[0]}"


# --- facts ------------------------------------------------------------------------------------------------------------


def of_fact(fact: Fact) -> Wording:
    """A message of EVENTS.

    Raises:
        Unusable: its payload is not what it must be.
    """
    address, envelope, who = fact.address, fact.envelope, fact.address.source
    if fact.kind == "event":
        return Wording(kind="event", who=who, text=_of_itself(address, envelope))
    match address.source:
        case identity.CLIENT:
            kind, who, text = _of_client(address, envelope)
        case identity.OPERATOR:
            kind, who, text = "operator", address.key[0], f"asks to {_asked(fact)}"
        case identity.COORDINATOR:
            kind, who, text = _of_coordinator(address, envelope)
        case _:
            kind, text = _of_answer(fact)
    return Wording(kind=kind, who=who, text=text, step=address.step, attempt=address.attempt)


def of_cause(fact: Fact) -> str:
    """A fact as the entries that name it tell of it.

    Raises:
        Unusable: its payload is not what it must be.
    """
    return _asked(fact) if fact.kind == "request" else of_fact(fact).text


def _asked(fact: Fact) -> str:
    """What an operator asks for."""
    operation = fact.operation
    claim = f" after claim {operation.claim}" if operation.claim else ""
    return _with_reason(f"{fact.address.event} {operation.step}".rstrip() + claim, operation.reason)


def parent_of(envelope: Envelope) -> str:
    """The saga that started this one, as `type/id`; empty if a client did."""
    if envelope.type != CHILD_START_TYPE:
        return ""
    parent = unpack_raw(envelope.data, ChildStart).parent
    return f"{parent.type}/{parent.id}"


def _of_client(address: FactAddress, envelope: Envelope) -> tuple[LineKind, str, str]:
    match address.event:
        case "start":
            return "start", identity.CLIENT, envelope.type
        case "cancel":
            return "cancel", identity.CLIENT, f"asks to cancel: {unpack_raw(envelope.data, CancelRequest).reason}"
        case _:
            return "signal", identity.CLIENT, f"signals {envelope.type}"


def _of_coordinator(address: FactAddress, envelope: Envelope) -> tuple[LineKind, str, str]:
    match address.event:
        case "start":
            start = unpack_raw(envelope.data, ChildStart)
            return "start", f"{start.parent.type}/{start.parent.id}", f"{start.type}, for its step {start.parent.step}"
        case "cancel":
            return "cancel", "parent", f"asks to cancel: {unpack_raw(envelope.data, CancelRequest).reason}"
        case "let-go":
            return "notice", "parent", "has ended, and lets it go"
        case "granted":
            return "notice", "lock", f"{address.key[1]} is granted"
        case _:
            end = unpack_raw(envelope.data, End)
            return "notice", "child", _with_reason(f"has {end.outcome}" if not end.reason else end.outcome, end.reason)


def _of_itself(address: FactAddress, envelope: Envelope) -> str:
    heard = _HASH.sub("", address.step.removeprefix(subjects.BY_ITSELF))
    reason = _reason(envelope) if b'"reason"' in bytes(envelope.data) else ""
    return _with_reason(f"{envelope.type}, on {heard}", reason)


_HASH: Final = re.compile("-[0-9a-f]{8}$")
"""What tells reactions to events of one name apart."""


def _of_answer(fact: Fact) -> tuple[LineKind, str]:
    match fact.kind:
        case "refused":
            return "refusal", f"refused: {fact.reason or NO_REASON}"
        case "exhausted" | "superseded" as kind:
            return "unknown", f"{kind}: {fact.reason or NO_REASON}"
        case "settled":
            settled = unpack_raw(fact.envelope.data, Settled)
            return "answer", f"had happened: {settled.type}" if settled.happened else "never happened, and never will"
        case "closed":
            return _of_closed(fact.closed)
        case "undone":
            found = "" if fact.has_found else ": there was nothing to undo"
            return "answer", f"{name_of(fact.envelope.type)}{found}"
        case _:
            return "answer", fact.envelope.type


def _of_closed(closed: Closed) -> tuple[LineKind, str]:
    """What the answer to a close says."""
    which = f"attempt {closed.attempt}" if closed.attempt else "an attempt"
    match closed.verdict:
        case "closed":
            return "answer", "is closed as the operator says"
        case "done":
            return "answer", f"is not closed: {which} has done it"
        case "refused":
            return "refusal", f"is not closed: {which} was refused: {closed.reason or NO_REASON}"
        case "undone":
            return "answer", f"is not closed: {which} has undone it"
        case "void":
            return "answer", "is not closed: nothing is there, and nothing will be"
        case "doubt":
            key = f", under the key {closed.key}" if closed.key else ""
            return "unknown", f"is not closed: claim {closed.claim} may have done it outside{key}"
        case _:
            assert_never(closed.verdict)


NO_REASON: Final = "(no reason)"


def _with_reason(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text


def _reason(envelope: Envelope) -> str:
    try:
        return unpack_raw(envelope.data, Refusal).reason
    except AntiphonError:
        return NO_REASON
