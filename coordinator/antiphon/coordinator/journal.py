"""Journal entries to and from messages: the only place that knows how a decision looks in SAGA. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final, assert_never

import msgspec

from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import Forged
from antiphon.contracts.messages import Settle, settle_type
from antiphon.contracts.platform import (
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
from antiphon.contracts.wire import (
    COORDINATOR,
    TOKEN_CHARS_MAX,
    SagaKey,
    command_subject,
    end_subject,
    nanoseconds,
    parse_entry,
    record_subject,
    rfc3339,
    timer_subject,
)
from antiphon.tracing.ids import traceparent

from .facts import Action, Finish, Send
from .graph import StepDefinition
from .history import Entry, History, dues
from .keys import keys_to_write
from .saga import State

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

    def stored_at(self, sequence: int) -> Entry:
        """The entry, once the server has told where it is."""
        return Entry(sequence, self.cause, self.what, self.at_ns)


def draft(history: History, what: Action, cause: str, time: datetime) -> Draft:
    """Encode an entry.

    Raises:
        Exception: whatever the author's step function raises.
        TooLarge: the command it made is larger than the protocol allows.
    """
    match what:
        case Send():
            return _command(history, what, cause, time)
        case Record():
            # By its place and not by its cause, which may have a second record: a read gives one message a subject.
            subject = record_subject(history.key, f"n{history.entries + 1}")
            return _draft(history, subject, RECORD_TYPE, what, what, cause, time, *_wait(history, what))
        case Finish():
            return _draft(history, end_subject(history.key), END_TYPE, what.end, what, cause, time)
        case _:
            assert_never(what)


def _command(history: History, send: Send, cause: str, time: datetime) -> Draft:
    step = history.definition.step(send.step)
    type_, payload, retry = _content(history, step, send)
    envelope = Envelope(
        id=command_subject(history.key, step.participant, send.step, send.direction, send.attempt),
        source=COORDINATOR,
        type=type_,
        time=time,
        data=pack(payload),
        cause=cause,
        definition=_label(history),
        keys=keys_to_write(history),
        retry=retry,
        retriable=step.is_retriable,
        within=_within(step) if send.direction == "do" else "",
        traceparent=traceparent(history.key, send.step, send.direction, send.attempt),
    )
    return Draft(envelope.id, encode(envelope), cause, send, nanoseconds(time))


def _content(history: History, step: StepDefinition, send: Send) -> tuple[str, msgspec.Struct, str]:
    """The type of a command, its payload, and how the participant tries it."""
    if step.kind == "child":
        if send.direction == "do":
            return CHILD_START_TYPE, child_start(history, send.step, send.attempt), ""
        return CANCEL_TYPE, CancelRequest(reason=history.turned), ""
    if history.steps[send.step].phase == "settling":
        assert step.do is not None
        return settle_type(step.do.contract), Settle(), history.definition.settle_retry
    order = step.order(send.direction)
    command = history.steps[send.step].edited
    if type(command) is not order.shape:  # nobody has edited it, or only what went the other way
        command = _made(history, step, send)
    if type(command) is not order.shape:
        raise TypeError(f"{send.step} made a {type(command).__name__}, not the command it is annotated with")
    return order.contract.type, command, order.retry


def _made(history: History, step: StepDefinition, send: Send) -> Any:
    """What the author's function makes, as the step's command or as the one that undoes it."""
    state: State[Any] = State(history, step.visible)
    if step.kind != "list":
        return step.order(send.direction).make(state)
    command = step.order("do").make(state)[int(send.step.rpartition("-")[2])]
    return command if send.direction == "do" else step.order("undo").make(state, command)


def child_start(history: History, name: str, attempt: int) -> ChildStart:
    """How the saga that a step starts begins.

    Raises:
        Exception: whatever the author's step function raises.
    """
    step = history.definition.step(name)
    key, order = history.key, step.order("do")
    parent = Parent(type=key.type, id=key.id, step=name, attempt=attempt, hold=not step.is_kept)
    event = order.make(State(history, step.visible))
    if type(event) is not order.shape:
        raise TypeError(f"{name} made a {type(event).__name__}, not the event it is annotated with")
    child = child_key(key, name, step, attempt)
    return ChildStart(parent=parent, type=order.contract.type, event=pack(event), child=str(child))


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
        definition=_label(history),
        keys=None if isinstance(what, Record) and (what.fault or what.by) else keys_to_write(history),
        within=within,
        awaits=awaits,
    )
    return Draft(subject, encode(envelope), cause, what, nanoseconds(time))


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


def _label(history: History) -> str:
    return "" if history.entries else history.definition.label


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
    if address.command is not None:
        command = address.command
        what = Send(command.step, command.direction, command.attempt)
    elif address.kind == "rec":
        what = unpack(envelope, RECORD_TYPE, Record)
    else:
        what = Finish(unpack(envelope, END_TYPE, End))
    return Entry(sequence, envelope.cause, what, nanoseconds(envelope.time), envelope.definition)
