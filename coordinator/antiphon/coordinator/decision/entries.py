"""Journal entries to and from messages: the only place that knows how a decision looks in SAGA. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final, assert_never

import msgspec
from msgspec.structs import replace

from antiphon.contracts.clock import nanoseconds, rfc3339
from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack, unpack_raw
from antiphon.contracts.errors import Forged, Undecodable
from antiphon.contracts.identity import COORDINATOR, TOKEN_CHARS_MAX, SagaKey, digest
from antiphon.contracts.messages import Close, Settle, close_type, settle_type
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    CHILD_START_TYPE,
    END_TYPE,
    RECORD_TYPE,
    TIMER_TYPE,
    CancelRequest,
    ChildStart,
    Due,
    End,
    Parent,
    Record,
    Timer,
)
from antiphon.contracts.reader import cause_sequence
from antiphon.contracts.subjects import command_subject, end_subject, parse_entry, record_subject, timer_subject
from antiphon.tracing.projection.ids import traceparent
from antiphon.tracing.projection.sampling import decision_in, is_sampled

from ..definition.definition import CommandTemplate, StepDefinition
from .author import Author, AuthorFault
from .dues import dues
from .facts import Action, Finish, Send, SendClose
from .history import Entry, History
from .search_keys import keys_to_write

CHILD_DIGITS: Final = 12
"""How much of a hash stands in the id of a child, so that no two are the same."""

CHILD_CHARS_MAX: Final = TOKEN_CHARS_MAX - CHILD_DIGITS - 1


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An entry about to be appended: what it is, and its bytes."""

    subject: str
    data: bytes
    cause: str
    what: Action
    at_ns: int
    payload: bytes = b""
    keys: dict[str, str] | None = None
    sampled: bool | None = None

    def stored_at(self, sequence: int) -> Entry:
        """The entry, once the server has told where it is."""
        return Entry(
            sequence, self.cause, self.what, self.at_ns, payload=self.payload, keys=self.keys, sampled=self.sampled
        )


def draft(history: History, what: Action, cause: str, time: datetime, author: Author, ratio: float = 1.0) -> Draft:
    """Encode an entry. A journal's first command decides by `ratio` whether the saga is sampled; all others repeat it.

    Raises:
        AuthorFault: one of the author's functions raised something, or made what cannot be sent.
        TooLarge: the command it made is larger than the protocol allows.
        WrongShape: what it made cannot be written, or what it is to be given cannot be read any more.
    """
    match what:
        case Send():
            return _command(history, what, cause, time, author, ratio)
        case SendClose():
            return _close(history, what, cause, time, ratio)
        case Record():
            # By its place and not by its cause, which may have a second record: a read gives one message a subject.
            subject = record_subject(history.key, "full" if what.full else f"n{history.entries + 1}")
            keys = None if what.fault or what.by else keys_to_write(history, author)
            return _draft(history, subject, RECORD_TYPE, what, what, cause, time, keys, *_wait(history, what))
        case Finish():
            keys = keys_to_write(history, author)
            finish = Finish(replace(what.end, start=history.start_digest))
            return _draft(history, end_subject(history.key), END_TYPE, finish.end, finish, cause, time, keys)
        case _:
            assert_never(what)


def _command(history: History, send: Send, cause: str, time: datetime, author: Author, ratio: float) -> Draft:
    step = history.definition.step(send.step)
    type_, payload, retry = _content(history, step, send, author)
    keys = keys_to_write(history, author)
    sampled = _sampled(history, ratio)
    envelope = Envelope(
        id=command_subject(history.key, step.participant, send.step, send.direction, send.attempt),
        source=COORDINATOR,
        type=type_,
        time=time,
        data=payload,
        cause=cause,
        definition="" if history.entries else history.definition.label,
        schemas="" if history.entries else history.definition.schemas,
        keys=keys,
        retry=retry,
        retriable=step.is_retriable,
        within=_within(step) if send.direction == "do" else "",
        answer=_answer(history, send) if send.direction == "undo" else "",
        traceparent=traceparent(history.key, send.step, send.direction, send.attempt, sampled),
    )
    return Draft(envelope.id, encode(envelope), cause, send, nanoseconds(time), bytes(payload), keys, sampled)


def _answer(history: History, send: Send) -> str:
    """Where its participant has said that the command is done that is taken back."""
    place = history.steps[send.step].answer
    return str(place) if place else ""


def _close(history: History, what: SendClose, cause: str, time: datetime, ratio: float) -> Draft:
    """A close carries what the operator says, and asks for no attempt."""
    step = history.definition.step(what.step)
    assert step.do is not None, "only what was commanded is closed"
    sampled = _sampled(history, ratio)
    envelope = Envelope(
        id=command_subject(history.key, step.participant, what.step, "close", what.number),
        source=COORDINATOR,
        type=close_type(step.do.contract),
        time=time,
        data=pack(what.close),
        cause=cause,
        definition="" if history.entries else history.definition.label,
        traceparent=traceparent(history.key, what.step, "close", what.number, sampled),
    )
    return Draft(envelope.id, encode(envelope), cause, what, nanoseconds(time), sampled=sampled)


def _sampled(history: History, ratio: float) -> bool:
    """Whether the saga's trace is sampled: as its journal says, or by its share, of one that says nothing yet."""
    if history.sampled is not None:
        return history.sampled
    return is_sampled(digest(history.key.type, history.key.id), ratio)


def _content(history: History, step: StepDefinition, send: Send, author: Author) -> tuple[str, msgspec.Raw, str]:
    """The type of a command, its payload, and how the participant tries it."""
    if step.kind == "child":
        if send.direction == "do":
            return CHILD_START_TYPE, pack(_child_start(history, step, send, author)), ""
        return CANCEL_TYPE, pack(CancelRequest(reason=history.turned)), ""
    if history.steps[send.step].phase == "settling":
        assert step.do is not None
        return settle_type(step.do.contract), pack(Settle()), history.definition.settle_retry
    template = step.template(send.direction)
    return template.contract.type, _payload(history, step, template, send, author), template.retry


def _payload(
    history: History, step: StepDefinition, template: CommandTemplate, send: Send, author: Author
) -> msgspec.Raw:
    """What a command carries: what an operator wants sent, or what was sent before; only where neither is there is the
    author's function asked."""
    record = history.steps[send.step]
    if type(record.edited) is template.shape:  # and not what went the other way
        return pack(record.edited)
    if sent := record.command if send.direction == "do" else record.undo:
        return msgspec.Raw(sent)
    if send.direction == "do":
        return pack(
            _element(history, step, send.step, author) if step.kind == "list" else author.command(history, step)
        )
    command, reply = None, None
    if template.takes > 1:
        command = _commanded(history, step, send.step, author)
        reply = record.reply
    return pack(author.compensation(history, step, send.step, command, reply))


def _commanded(history: History, step: StepDefinition, name: str, author: Author) -> Any:
    """The command that a step or an element was sent."""
    sent = history.steps[name].command
    if not sent:
        return _element(history, step, name, author)
    try:
        return unpack_raw(sent, step.template("do").shape)
    except Undecodable as error:
        raise AuthorFault(f"the command that {name} was sent cannot be read: {error.reason}") from error


def _element(history: History, step: StepDefinition, name: str, author: Author) -> Any:
    """The command of an element of which the journal has none, since an earlier release spread the list."""
    commands, number = author.commands(history, step), int(name.rpartition("-")[2])
    if number >= len(commands):
        raise AuthorFault(f"{step.name} made a list of {len(commands)} commands, and had made a longer one before")
    return commands[number]


def _child_start(history: History, step: StepDefinition, send: Send, author: Author) -> ChildStart:
    """How the saga that a step starts begins: another attempt begins another saga, with the same event."""
    key, template, sent = history.key, step.template("do"), history.steps[send.step].command
    event = unpack_raw(sent, ChildStart).event if sent else pack(author.command(history, step))
    parent = Parent(type=key.type, id=key.id, step=send.step, attempt=send.attempt, hold=not step.is_kept)
    child = child_key(key, send.step, step, send.attempt)
    return ChildStart(parent=parent, type=template.contract.type, event=event, child=str(child))


def child_key(parent: SagaKey, step: str, step_definition: StepDefinition, attempt: int) -> SagaKey:
    """The saga that a step of another starts."""
    return SagaKey.of(step_definition.child, child_id(parent, step, attempt))


def child_id(parent: SagaKey, step: str, attempt: int) -> str:
    """What a child is called: after its parent, its step and the attempt, and by a hash of all that names it, since
    sagas of two types may have one id."""
    digits = hashlib.sha256(f"{parent}/{step}/{attempt}".encode()).hexdigest()[:CHILD_DIGITS]
    return f"{f'{parent.id}-{step}-{attempt}'[:CHILD_CHARS_MAX]}-{digits}"


def _draft(
    history: History,
    subject: str,
    type_: str,
    payload: msgspec.Struct,
    what: Action,
    cause: str,
    time: datetime,
    keys: dict[str, str] | None,
    within: str = "",
    awaits: str = "",
) -> Draft:
    envelope = Envelope(
        id=subject,
        source=COORDINATOR,
        type=type_,
        time=time,
        data=pack(payload),
        cause=cause,
        definition="" if history.entries else history.definition.label,
        schemas="" if history.entries else history.definition.schemas,
        keys=keys,
        within=within,
        awaits=awaits,
    )
    return Draft(subject, encode(envelope), cause, what, nanoseconds(time), keys=keys)


def _wait(history: History, record: Record) -> tuple[str, str]:
    """For how long an entry waits, and for which signal, said for readers who lack the definition. Past the pivot what
    is waited for has no end: that it takes long is said when it does."""
    if not record.awaits:
        return "", ""
    step = history.definition.step(record.step)
    if step.signal is None:
        return _within(step), ""
    return "" if step.is_retriable else _within(step), step.signal.__contract__.type


def _within(step: StepDefinition) -> str:
    return str(step.timeout_ns / 1e9) if step.timeout_ns else ""


def timer_body(history: History, time: datetime) -> bytes:
    """The message of the saga's schedule: all that is due."""
    due = tuple(Due(what=what, at=rfc3339(at_ns)) for at_ns, what in dues(history))
    subject = timer_subject(history.key)
    payload = pack(Timer(due=due))
    return encode(Envelope(id=subject, source=COORDINATOR, type=TIMER_TYPE, time=time, data=payload))


def read_entry(subject: str, sequence: int, data: bytes) -> Entry:
    """The entry in a stored message.

    Raises:
        Undecodable, Forged: it is none of ours.
    """
    address = parse_entry(subject)
    envelope = decode(data, subject)
    if envelope.id != subject:
        raise Forged(f"the envelope says {envelope.id!r}", subject=subject)
    what: Action
    payload, sampled = b"", None
    if address.command is not None:
        command = address.command
        sampled = decision_in(envelope.traceparent)
        if command.is_close:
            close = unpack_raw(envelope.data, Close)
            what = SendClose(command.step, command.attempt, cause_sequence(envelope.cause), close)
        else:
            what, payload = Send(command.step, command.way, command.attempt), bytes(envelope.data)
    elif address.kind == "rec":
        what = unpack(envelope, RECORD_TYPE, Record)
    else:
        what = Finish(unpack(envelope, END_TYPE, End))
    time_ns = nanoseconds(envelope.time)
    return Entry(sequence, envelope.cause, what, time_ns, envelope.definition, payload, envelope.keys, sampled)
