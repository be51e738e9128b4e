"""The gate: every message of EVENTS passes `accept`, which makes a fact of it or says why it is none."""

from __future__ import annotations

from antiphon.contracts.envelope import Envelope, decode, unpack
from antiphon.contracts.errors import Forged, UnknownType
from antiphon.contracts.messages import Refusal
from antiphon.contracts.platform import CANCEL_TYPE, CancelRequest
from antiphon.contracts.wire import FactAddress

from .facts import Answer, Cancel, Fact, Start
from .graph import Definition


def accept(
    definition: Definition, address: FactAddress, message: bytes, subject: str, sequence: int, at_ns: int
) -> Fact:
    """The fact in a message of EVENTS.

    Args:
        definition: the saga's.
        address: what `parse_fact` read from the subject, which also checks its tokens and its partition.
        message: the stored bytes.
        subject: where they were stored.
        sequence: at which stream sequence.
        at_ns: when, by the server's clock, in nanoseconds since 1970.

    Raises:
        Forged: the envelope contradicts its subject, or its source does not own what it claims.
        Undecodable: the bytes are not what their type promises.
    """
    envelope = decode(message, subject)
    if envelope.id != subject:
        raise Forged(f"the envelope says {envelope.id[:200]!r}", subject=subject)
    if envelope.source != address.source:
        raise Forged(f"the envelope's source is {envelope.source[:80]!r}", subject=subject)
    if address.step:
        return _answer(definition, address, envelope, sequence, at_ns)
    if address.event == "start":
        return Start(sequence, at_ns, unpack(envelope, definition.start_type, definition.start_shape))
    return Cancel(sequence, at_ns, unpack(envelope, CANCEL_TYPE, CancelRequest).reason)


def _answer(definition: Definition, address: FactAddress, envelope: Envelope, sequence: int, at_ns: int) -> Answer:
    expected = definition.answers.get((address.step, address.event))
    if expected is None:
        raise UnknownType(f"step {address.step!r} awaits no {address.event!r}", subject=envelope.id)
    if expected.source != address.source:
        raise Forged(f"only {expected.source} may answer step {address.step!r}", subject=envelope.id)
    payload = unpack(envelope, expected.type, expected.shape)
    return Answer(
        sequence,
        at_ns,
        expected.step,
        expected.direction,
        address.attempt,
        expected.kind,
        _sequence(envelope),
        payload if expected.kind == "done" and expected.direction == "do" else None,
        payload.reason if isinstance(payload, Refusal) else "",
    )


def _sequence(envelope: Envelope) -> int:
    text = envelope.command
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise Forged("an answer names the sequence of its command", subject=envelope.id)
    return int(text)
