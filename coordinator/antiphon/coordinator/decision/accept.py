"""The gate: every message of EVENTS passes `accept`, which makes a fact of it or says why it is none."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, cast

from msgspec.structs import replace

from antiphon.contracts.bounds import REASON_CHARS_MAX, digits_of
from antiphon.contracts.envelope import Envelope, decode, unpack, unpack_raw
from antiphon.contracts.errors import Forged, Undecodable, UnknownType
from antiphon.contracts.identity import CLIENT, COORDINATOR, LOCK, OPERATOR, RESERVED
from antiphon.contracts.messages import Closed, Event, Refusal, Settled, Undone
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    CHILD_ENDED_TYPE,
    CHILD_START_TYPE,
    LET_GO_TYPE,
    LOCK_ASK_TYPE,
    LOCK_FREE_TYPE,
    LOCK_GRANTED_TYPE,
    CancelRequest,
    ChildStart,
    Empty,
    End,
    Operation,
    Parent,
    start_digest,
    verb_type,
)
from antiphon.contracts.subjects import FactAddress, MessageVerb, Verb, is_by_itself

from ..definition.definition import Definition, Expected
from .facts import (
    Answer,
    Cancel,
    ChildEnded,
    Fact,
    Granted,
    Happened,
    LetGo,
    Operated,
    OperatedOnMessage,
    Signalled,
    Start,
    Unread,
)
from .unread import cannot_be_read


def accept(
    definition: Definition, address: FactAddress, message: bytes, subject: str, sequence: int, at_ns: int
) -> Fact:
    """The fact in a message of EVENTS; `Unread` where its saga may wait for it, and it does not fit the class at hand.

    Args:
        definition: the saga's.
        address: what `parse_fact` read from the subject, which also checks its tokens and its partition.
        message: the stored bytes.
        subject: where they were stored.
        sequence: at which stream sequence.
        at_ns: when, by the server's clock, in nanoseconds since 1970.

    Raises:
        Forged: the envelope contradicts its subject, or its source does not own what it claims.
        Undecodable: the bytes are not what their type promises, and no saga of this definition waits for them.
    """
    envelope = None
    try:
        envelope = _envelope(address, message, subject)
        return _fact(definition, address, envelope, sequence, at_ns)
    except Undecodable as error:
        unread = _unread(definition, address, envelope, error, sequence, at_ns)
        if unread is None:
            raise
        return unread


def _fact(definition: Definition, address: FactAddress, envelope: Envelope, sequence: int, at_ns: int) -> Fact:
    match address.source:
        case "client":
            return _of_client(definition, address, envelope, sequence, at_ns)
        case "coordinator":
            return _of_coordinator(definition, address, envelope, sequence, at_ns)
        case "operator":
            return _of_operator(address, envelope, sequence, at_ns)
        case _:
            return _of_participant(definition, address, envelope, sequence, at_ns)


assert (CLIENT, COORDINATOR, OPERATOR) == ("client", "coordinator", "operator"), "what `_fact` matches"


def _unread(
    definition: Definition,
    address: FactAddress,
    envelope: Envelope | None,
    error: Undecodable,
    sequence: int,
    at_ns: int,
) -> Unread | None:
    """What cannot be read, as its subject tells it; None where no saga of this definition waits for it."""
    if address.is_start:
        parent = _parent(envelope) if address.source == COORDINATOR else None
        return Unread(sequence, at_ns, "start", cannot_be_read("its start", error), parent=parent)
    if address.is_signal and (step := definition.steps.get(address.step)) and step.kind == "signal":
        return Unread(sequence, at_ns, "signal", cannot_be_read(f"the signal {step.name}", error), step.name)
    if address.source in RESERVED:
        return None
    reason = cannot_be_read(f"{address.event} of {address.source}", error)
    expected = _expected(definition, address)
    if expected is not None and expected.source == address.source and expected.direction != "close":
        command = (digits_of(envelope.command) or 0) if envelope else 0
        return Unread(sequence, at_ns, "answer", reason, address.step, expected.direction, command)
    for heard in definition.events.values() if is_by_itself(address.step) and address.attempt == 1 else ():
        contract = heard.shape.__contract__
        if (contract.owner, contract.token) == (address.source, address.event):
            return Unread(sequence, at_ns, "event", reason, heard.step)
    return None


def _parent(envelope: Envelope | None) -> Parent | None:
    """Who started a child of which the rest cannot be read."""
    with suppress(Undecodable):
        return unpack_raw(envelope.data, ChildStart).parent if envelope and envelope.type == CHILD_START_TYPE else None
    return None


def accept_request(address: FactAddress, message: bytes, subject: str, sequence: int, at_ns: int) -> Operated:
    """An operator's request about a saga type or a participant, of which nothing else is a fact.

    Raises:
        Forged: the envelope contradicts its subject.
        Undecodable: the bytes are not what their type promises.
    """
    return _of_operator(address, _envelope(address, message, subject), sequence, at_ns)


def accept_message_request(address: FactAddress, message: bytes, subject: str) -> OperatedOnMessage:
    """An operator's request about a message in PARKED.

    Raises:
        Forged: the envelope contradicts its subject.
        Undecodable: the bytes are not what their type promises.
    """
    verb = cast(MessageVerb, address.event)  # the subject was parsed, so it is one
    return OperatedOnMessage(
        address.key[0], verb, unpack(_envelope(address, message, subject), verb_type(verb), Operation)
    )


def check_lock_fact(address: FactAddress, message: bytes, subject: str) -> None:
    """Check a coordinator's message about a lock, whose subject says all there is to say.

    Raises:
        Forged: the envelope contradicts its subject.
        Undecodable: the bytes are not what their type promises.
    """
    unpack(_envelope(address, message, subject), LOCK_TYPES[address.event], Empty)


LOCK_TYPES: Final = {"ask": LOCK_ASK_TYPE, "free": LOCK_FREE_TYPE}


def _envelope(address: FactAddress, message: bytes, subject: str) -> Envelope:
    envelope = decode(message, subject)
    if envelope.id != subject:
        raise Forged(f"the envelope says {envelope.id[:200]!r}", subject=subject)
    if envelope.source != address.source:
        raise Forged(f"the envelope's source is {envelope.source[:80]!r}", subject=subject)
    return envelope


def _of_client(definition: Definition, address: FactAddress, envelope: Envelope, sequence: int, at_ns: int) -> Fact:
    match address.event:
        case "start":
            event = unpack(envelope, definition.start_type, definition.start_shape)
            return Start(sequence, at_ns, event, digest=start_digest(envelope.type, envelope.data))
        case "cancel":
            return Cancel(sequence, at_ns, _short(unpack(envelope, CANCEL_TYPE, CancelRequest).reason))
        case _:
            step = definition.steps.get(address.step)
            if step is None or step.kind != "signal" or step.signal is None:
                raise UnknownType(f"saga {definition.name} awaits no signal {address.step!r}", subject=envelope.id)
            return Signalled(sequence, at_ns, step.name, unpack(envelope, step.signal.__contract__.type, step.signal))


def _of_coordinator(
    definition: Definition, address: FactAddress, envelope: Envelope, sequence: int, at_ns: int
) -> Fact:
    match address.event:
        case "start":
            start = unpack(envelope, CHILD_START_TYPE, ChildStart)
            if start.type != definition.start_type:
                raise UnknownType(f"saga {definition.name} starts with {definition.start_type}", subject=envelope.id)
            event: Event = unpack_raw(start.event, definition.start_shape, envelope.id)
            return Start(sequence, at_ns, event, start.parent)
        case "cancel":
            reason = _short(unpack(envelope, CANCEL_TYPE, CancelRequest).reason)
            return Cancel(sequence, at_ns, reason, by_parent=True)
        case "let-go":
            unpack(envelope, LET_GO_TYPE, Empty)
            return LetGo(sequence, at_ns)
        case "child-completed" | "child-compensated":
            step = definition.steps.get(address.step)
            if step is None or step.kind != "child":
                raise UnknownType(f"step {address.step!r} starts no saga", subject=envelope.id)
            end = unpack(envelope, CHILD_ENDED_TYPE, End)
            return ChildEnded(sequence, at_ns, step.name, address.attempt, end)
        case "granted" if address.key[0] == LOCK:
            unpack(envelope, LOCK_GRANTED_TYPE, Empty)
            return Granted(sequence, at_ns, address.key[1])
        case _:
            raise UnknownType(f"no saga is told {address.event!r}", subject=envelope.id)


def _of_operator(address: FactAddress, envelope: Envelope, sequence: int, at_ns: int) -> Operated:
    verb = cast(Verb, address.event)  # the subject was parsed, so it is one
    operation = unpack(envelope, verb_type(verb), Operation)
    if len(operation.reason) > REASON_CHARS_MAX:
        operation = replace(operation, reason=_short(operation.reason))
    return Operated(sequence, at_ns, address.key[0], verb, operation)


def _of_participant(
    definition: Definition, address: FactAddress, envelope: Envelope, sequence: int, at_ns: int
) -> Answer | Happened:
    expected = _expected(definition, address)
    if expected is not None:
        return _answer(definition, expected, address, envelope, sequence, at_ns)
    if not is_by_itself(address.step):
        raise UnknownType(f"step {address.step!r} awaits no {address.event!r}", subject=envelope.id)
    return _happened(definition, address, envelope, sequence, at_ns)


def _happened(definition: Definition, address: FactAddress, envelope: Envelope, sequence: int, at_ns: int) -> Happened:
    """What a participant has emitted by itself."""
    heard = definition.events.get(envelope.type)
    if heard is None:
        raise UnknownType(
            f"saga {definition.name} does not know {envelope.type!r}, which {address.source} emitted by itself; "
            "declare it in the saga's definition",
            subject=envelope.id,
        )
    contract = heard.shape.__contract__
    if contract.owner != address.source:
        raise Forged(f"only {contract.owner} may emit {contract.type}", subject=envelope.id)
    if contract.token != address.event or address.attempt != 1:
        raise Forged(f"{contract.type} belongs to another subject", subject=envelope.id)
    return Happened(sequence, at_ns, unpack(envelope, contract.type, heard.shape))


def _answer(
    definition: Definition,
    expected: Expected,
    address: FactAddress,
    envelope: Envelope,
    sequence: int,
    at_ns: int,
) -> Answer:
    if expected.source != address.source:
        raise Forged(f"only {expected.source} may answer step {address.step!r}", subject=envelope.id)
    payload = unpack(envelope, expected.type, expected.shape)
    return Answer(
        sequence,
        at_ns,
        address.step,
        expected.direction,
        address.attempt,
        expected.kind,
        _sequence(envelope),
        _event(definition, expected, payload, envelope.id),
        _short(payload.reason) if isinstance(payload, Refusal) else "",
        payload.code if isinstance(payload, Refusal) else "",
        payload.found if isinstance(payload, Undone) else True,
        payload if isinstance(payload, Closed) else None,
    )


def _expected(definition: Definition, address: FactAddress) -> Expected | None:
    """The answer that a step awaits, or an element of one, which is called `<step>-<number>`."""
    expected = definition.answers.get((address.step, address.event))
    if expected is not None and not definition.steps[expected.step].elements_max:
        return expected
    step, _, number = address.step.rpartition("-")
    expected = definition.answers.get((step, address.event))
    place = digits_of(number)
    if expected is None or place is None or number != str(place):
        return None
    return expected if place < definition.steps[step].elements_max else None


def _event(definition: Definition, expected: Expected, payload: object, subject: str) -> Event | None:
    """The reply in an answer: the answer itself, or what a settlement or a close found to have been answered."""
    match payload:
        case Event():
            return payload
        case Settled(happened=True) | Closed(verdict="done"):
            pass
        case _:
            return None
    reply = definition.steps[expected.step].reply
    assert reply is not None, "only commands are settled or closed"
    if payload.type != reply.__contract__.type:
        raise UnknownType(f"it was answered with {payload.type!r}, not {reply.__contract__.type!r}", subject=subject)
    return unpack_raw(payload.reply, reply, subject)


def _short(reason: str) -> str:
    """As much of a reason as goes into other messages."""
    return reason[:REASON_CHARS_MAX]


def _sequence(envelope: Envelope) -> int:
    sequence = digits_of(envelope.command)
    if sequence is None:
        raise Forged("an answer names the sequence of its command", subject=envelope.id)
    return sequence
