"""Journal entries to and from messages: the only place that knows how a decision looks in SAGA. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

import msgspec

from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import Forged
from antiphon.contracts.platform import (
    COORDINATOR_SOURCE,
    END_TYPE,
    RECORD_TYPE,
    TIMER_TYPE,
    Due,
    End,
    Record,
    Timer,
)
from antiphon.contracts.wire import (
    command_subject,
    end_subject,
    parse_entry,
    record_subject,
    rfc3339,
    timer_subject,
)

from .facts import Finish, Send
from .history import Entry, History, dues
from .saga import State


class Draft(msgspec.Struct, frozen=True):
    """An entry about to be appended: what it is, and its bytes."""

    subject: str
    data: bytes
    cause: str
    what: Send | Record | Finish

    def stored_at(self, sequence: int) -> Entry:
        """The entry, once the server has told where it is."""
        return Entry(sequence, self.cause, self.what)


def draft(history: History, what: Send | Record | Finish, cause: str, time: datetime) -> Draft:
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
            return _draft(history, subject, RECORD_TYPE, what, what, cause, time)
        case Finish():
            return _draft(history, end_subject(history.key), END_TYPE, what.end, what, cause, time)
        case _:
            assert_never(what)


def _command(history: History, send: Send, cause: str, time: datetime) -> Draft:
    step = history.definition.steps[send.step]
    order = step.order(send.direction)
    command = order.make(State(history))
    if command.__contract__ is not order.contract:
        raise TypeError(f"{send.step} made a {type(command).__name__}, not the command it is annotated with")
    envelope = Envelope(
        id=command_subject(history.key, step.participant, send.step, send.direction, send.attempt),
        source=COORDINATOR_SOURCE,
        type=order.contract.type,
        time=time,
        data=pack(command),
        cause=cause,
        definition=_label(history),
        retry=order.retry,
    )
    return Draft(envelope.id, encode(envelope), cause, send)


def _draft(
    history: History,
    subject: str,
    type_: str,
    payload: msgspec.Struct,
    what: Record | Finish,
    cause: str,
    time: datetime,
) -> Draft:
    envelope = Envelope(
        id=subject,
        source=COORDINATOR_SOURCE,
        type=type_,
        time=time,
        data=pack(payload),
        cause=cause,
        definition=_label(history),
    )
    return Draft(subject, encode(envelope), cause, what)


def _label(history: History) -> str:
    return "" if history.entries else history.definition.label


def timer_body(history: History, time: datetime) -> bytes:
    """The message of the saga's schedule: all that is due."""
    due = tuple(Due(what=what, at=rfc3339(at_ns)) for at_ns, what in dues(history))
    subject = timer_subject(history.key)
    payload = pack(Timer(due=due))
    return encode(Envelope(id=subject, source=COORDINATOR_SOURCE, type=TIMER_TYPE, time=time, data=payload))


def read_entry(subject: str, sequence: int, data: bytes) -> Entry:
    """The entry in a stored message.

    Raises:
        Undecodable, Forged: it is none of ours.
    """
    address = parse_entry(subject)
    envelope = decode(data, subject)
    if envelope.id != subject:
        raise Forged(f"the envelope says {envelope.id!r}", subject=subject)
    what: Send | Record | Finish
    if address.command is not None:
        command = address.command
        what = Send(command.step, command.direction, command.attempt)
    elif address.kind == "rec":
        what = unpack(envelope, RECORD_TYPE, Record)
    else:
        what = Finish(unpack(envelope, END_TYPE, End))
    return Entry(sequence, envelope.cause, what, envelope.definition)
