"""What a person wants to know of a saga, read from the two streams without any definition."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import msgspec

from antiphon.contracts import wire
from antiphon.contracts.envelope import Envelope, decode, unpack, unpack_raw
from antiphon.contracts.errors import AntiphonError, UnknownSaga, Unusable
from antiphon.contracts.messages import Refusal, Undone
from antiphon.contracts.platform import END_TYPE, RECORD_TYPE, CancelRequest, End, Record, SagaState
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.contracts.wire import SagaKey
from antiphon.link import Link, StoredMessage

Kind = Literal["start", "command", "compensation", "answer", "refusal", "unknown", "cancel", "record", "timer", "end"]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a saga's timeline.

    `at` is when the server stored it (RFC 3339); `since_start_ms` counts from the first line; `late` marks an answer
    that the journal does not name, because the saga had ended.
    """

    at: str
    since_start_ms: float
    kind: Kind
    who: str
    step: str = ""
    attempt: int = 0
    text: str
    stream: str
    sequence: int
    late: bool = False


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A saga, told in the order of its facts."""

    type: str
    id: str
    state: SagaState
    reason: str
    definition: str
    lines: tuple[Line, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A saga in one line."""

    type: str
    id: str
    state: SagaState
    started: str
    ended: str = ""
    reason: str = ""


async def timeline(link: Link, key: SagaKey) -> Timeline:
    """Read a whole saga.

    Raises:
        UnknownSaga: neither stream has anything of it.
    """
    events = await link.read_all(EVENTS, [f"evt.{key.path}.>"])
    entries = await link.read_all(SAGA, [wire.journal_filter(key)])
    if not events and not entries:
        raise UnknownSaga(key.type, key.id)
    named = {_cause(message) for message in entries}
    began = min(message.stored_ns for message in (*events, *entries))
    lines = [_event_line(message, began, f"e{message.sequence}" not in named) for message in events]
    lines += [_entry_line(message, began) for message in entries]
    # At equal times (one clock tick of the server) a fact stands before what was decided on it.
    lines.sort(key=lambda line: (line.at, line.stream != EVENTS, line.sequence))
    state, reason = _state(entries)
    return Timeline(
        type=key.type, id=key.id, state=state, reason=reason, definition=_definition(entries), lines=tuple(lines)
    )


async def summaries(link: Link, saga_type: str = "*", limit: int = 50) -> list[Summary]:
    """The sagas started last, newest first.

    Args:
        link: a connection with an operator's rights.
        saga_type: only sagas of this type.
        limit: how many at most.
    """
    starts: list[tuple[SagaKey, StoredMessage]] = []
    async for message in link.scan(EVENTS, f"evt.*.{saga_type}.*.client.start"):
        with suppress(Unusable):  # a forged start is parked; whoever stored it must not blind the operator
            starts.append((wire.parse_fact(message.subject).saga, message))
        if len(starts) > 2 * limit:
            del starts[:limit]
    found = starts[-limit:][::-1]
    ends: dict[str, StoredMessage] = {}
    for first in range(0, len(found), 500):
        subjects = [wire.end_subject(key) for key, _ in found[first : first + 500]]
        ends |= {message.subject: message for message in await link.read_all(SAGA, subjects)}
    return [await _summary(link, key, start, ends.get(wire.end_subject(key))) for key, start in found]


async def _summary(link: Link, key: SagaKey, start: StoredMessage, end: StoredMessage | None) -> Summary:
    entries = [end] if end else await link.read_all(SAGA, [wire.journal_filter(key)])
    state, reason = _state(entries)
    ended = wire.rfc3339(end.stored_ns) if end else ""
    started = wire.rfc3339(start.stored_ns)
    return Summary(type=key.type, id=key.id, state=state, started=started, ended=ended, reason=reason)


def _state(entries: list[StoredMessage]) -> tuple[SagaState, str]:
    """The state and the reason that a journal's entries show."""
    turned = False
    for message in entries:
        address = wire.parse_entry(message.subject)
        if address.kind == "end":
            end = unpack(decode(message.data, message.subject), END_TYPE, End)
            return end.outcome, end.reason
        turned = turned or (address.command is not None and address.command.direction == "undo")
    return ("compensating" if turned else "running"), _fault(entries)


def _fault(entries: list[StoredMessage]) -> str:
    faults = [
        unpack(decode(message.data, message.subject), RECORD_TYPE, Record).fault
        for message in entries
        if wire.parse_entry(message.subject).kind == "rec"
    ]
    return next((f"parked: {fault}" for fault in reversed(faults) if fault), "")


def _definition(entries: list[StoredMessage]) -> str:
    return decode(entries[0].data, entries[0].subject).definition if entries else ""


def _cause(message: StoredMessage) -> str:
    return decode(message.data, message.subject).cause


def _line(message: StoredMessage, began: int, stream: str, kind: Kind, who: str, text: str, **more: object) -> Line:
    fields: dict[str, object] = {
        "at": wire.rfc3339(message.stored_ns),
        "since_start_ms": round((message.stored_ns - began) / 1e6, 3),
        "kind": kind,
        "who": who,
        "text": text,
        "stream": stream,
        "sequence": message.sequence,
        **more,
    }
    return msgspec.convert(fields, Line)


def _entry_line(message: StoredMessage, began: int) -> Line:
    envelope = decode(message.data, message.subject)
    address = wire.parse_entry(message.subject)
    if address.command is not None:
        command = address.command
        kind: Kind = "command" if command.direction == "do" else "compensation"
        text = f"{envelope.type} to {command.participant}"
        return _line(message, began, SAGA, kind, "coordinator", text, step=command.step, attempt=command.attempt)
    if address.kind == "end":
        end = unpack(envelope, END_TYPE, End)
        return _line(message, began, SAGA, "end", "coordinator", f"{end.outcome}{': ' * bool(end.reason)}{end.reason}")
    fault = unpack(envelope, RECORD_TYPE, Record).fault
    text = f"stands still: {fault}" if fault else f"took note of {envelope.cause}"
    return _line(message, began, SAGA, "record", "coordinator", text)


def _event_line(message: StoredMessage, began: int, late: bool) -> Line:
    try:
        address = wire.parse_fact(message.subject)
        envelope = decode(message.data, message.subject)
        kind, text = _event_text(address, envelope)
    except Unusable as error:
        return _line(message, began, EVENTS, "unknown", "?", f"unusable: {error.reason}", late=late)
    return _line(
        message, began, EVENTS, kind, address.source, text, step=address.step, attempt=address.attempt, late=late
    )


def _event_text(address: wire.FactAddress, envelope: Envelope) -> tuple[Kind, str]:
    if address.event == "start":
        return "start", envelope.type
    if address.event == "cancel":
        return "cancel", f"asks to cancel: {unpack_raw(envelope.data, CancelRequest).reason}"
    name = envelope.type.rpartition(".v")[0]
    if name.endswith(".refused"):
        return "refusal", f"refused: {_reason(envelope)}"
    if name.endswith((".exhausted", ".superseded")):
        return "unknown", f"{name.rpartition('.')[2]}: {_reason(envelope)}"
    if name.endswith(".done"):
        return "answer", f"{name}{'' if _undid(envelope) else ': there was nothing to undo'}"
    return "answer", envelope.type


def _reason(envelope: Envelope) -> str:
    try:
        return unpack_raw(envelope.data, Refusal).reason
    except AntiphonError:
        return "(no reason)"


def _undid(envelope: Envelope) -> bool:
    try:
        return unpack_raw(envelope.data, Undone).found
    except AntiphonError:
        return True
