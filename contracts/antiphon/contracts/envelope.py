"""The envelope of every message: CloudEvents 1.0 in structured JSON, decoded strictly and bounded.

The `id` of an envelope is the subject it is stored at. Subjects are unique, so it identifies the message as CloudEvents
asks, and one comparison shows whether an envelope contradicts its subject.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar, cast

import msgspec

from .bounds import CauseText, RetryText, SecondsText, SequenceText, Tries
from .errors import TooLarge, Undecodable, UnknownCodec, UnknownType, WrongShape
from .values import decoder, said_of, travelled, without_halves

MESSAGE_BYTES_MAX: Final = 256 * 1024
"""The largest message of the protocol, envelope included. A quarter of the server's default max_payload, so that
headers and what PARKED adds around a message still fit."""

CONTENT_TYPE: Final = "application/cloudevents+json"


class Envelope(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="specversion", tag="1.0"
):
    """One message on the wire.

    Sequences are strings, because a CloudEvents integer has 32 bits and a stream sequence 64.
    """

    id: str
    """The subject the message is stored at."""
    source: str
    """Who wrote it: a participant's name, `client` or `coordinator`."""
    type: str
    """The versioned tag of what `data` holds."""
    time: datetime
    """When the writer made it, by the writer's clock."""
    data: msgspec.Raw
    cause: CauseText = ""
    """On a journal entry: the fact it was written on. `e<sequence>` is one in EVENTS, `t<nanoseconds>` the time that
    had come. All entries of a decision name the same fact; where a crash cut a decision short, the rest names the fact
    that was handled next."""
    definition: str = ""
    """On a journal's first entry: `<name>.v<version>.<shape hash>` of the definition the saga began with."""
    schemas: str = ""
    """On a journal's first entry: the digest of the schemas of the definition's messages, which SAGA keeps by it."""
    keys: dict[str, str] | None = None
    """On the entries before any step has begun: what the saga is to be found by, where its definition says so."""
    retry: RetryText = ""
    """On a command: how often the participant may try, as `Retry.encode` writes it."""
    retriable: bool = False
    """On a command: whether its step comes after the point of no return, where a refusal counts as unavailable."""
    within: SecondsText = ""
    """On a command, and on an entry that waits: for how many seconds; absent where only the saga's deadline ends it."""
    awaits: str = ""
    """On an entry that waits for a signal: the signal's type."""
    command: SequenceText = ""
    """On an answer: the stream sequence in SAGA of the command it answers."""
    answer: SequenceText = ""
    """On a compensation: the stream sequence in EVENTS of the answer that its command is done, if there is one."""
    reacts: SequenceText = ""
    """On an event that follows from another one without a command: the other's stream sequence in EVENTS."""
    started: datetime | None = None
    """On an answer: when the handler was called, by the participant's clock."""
    tries: Tries = 0
    """On an answer: how often the handler was called for its command, where that was more than once."""
    early: bool = False
    """On a signal: its saga may be started later, so that it waits for that."""
    codec: str = ""
    """What must be undone before `data` can be read, compression or encryption; none is known yet. Never written."""
    traceparent: str = ""
    """W3C Trace Context: on a command, the span of the attempt at it; its answer carries the same."""


class _Other(msgspec.Struct, tag_field="specversion", tag="other"):
    """Never sent. msgspec insists on a tag only where there is a choice, and `specversion` must be there."""


# Sets and dicts in one order where they have one, so that the same payload looks the same whoever writes it.
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode
_encode_as_it_is = msgspec.json.Encoder().encode
_decode_envelope: Callable[[bytes], Envelope | _Other] = msgspec.json.Decoder(Envelope | _Other).decode


def encode(envelope: Envelope) -> bytes:
    """The bytes of an envelope.

    Raises:
        TooLarge: they are more than the protocol allows.
    """
    data = _encode_in_order(envelope)
    if len(data) > MESSAGE_BYTES_MAX:
        raise TooLarge(f"{len(data)} bytes, and the limit is {MESSAGE_BYTES_MAX}", subject=envelope.id)
    return data


def decode(data: bytes, subject: str) -> Envelope:
    """The envelope in `data`, which was stored at `subject`.

    Raises:
        TooLarge: more bytes than the protocol allows.
        Undecodable: no JSON, or no envelope.
        WrongShape: an attribute is missing or of the wrong type.
        UnknownCodec: its data is no plain JSON.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise TooLarge(f"{len(data)} bytes, and the limit is {MESSAGE_BYTES_MAX}", subject=subject)
    envelope = _envelope_in(data, subject)
    if isinstance(envelope, _Other):
        raise WrongShape("the envelope is wrong: its specversion is not 1.0", subject=subject)
    if envelope.codec:
        raise UnknownCodec(
            f"its data is written with the codec {envelope.codec[:80]!r}, which nothing here can read: this process "
            "needs a newer release",
            subject=subject,
        )
    return envelope


def _envelope_in(data: bytes, subject: str) -> Envelope | _Other:
    try:
        return _decode_envelope(data)
    except msgspec.ValidationError as error:
        raise WrongShape(f"the envelope is wrong: {error}", subject=subject) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if (whole := without_halves(data)) is not None:
            return _envelope_in(whole, subject)
        raise Undecodable(f"no JSON: {error}", subject=subject) from None


def pack(payload: msgspec.Struct) -> msgspec.Raw:
    """A payload as the envelope carries it.

    It is read back at once, which costs 0.4 µs: nothing is changed on the way without a word, and whoever sends it
    hears of what nobody could read.

    Raises:
        WrongShape: it would not arrive as it is, or not at all.
    """
    try:
        return msgspec.Raw(travelled(payload, _encode))
    except ValueError as error:
        raise WrongShape(f"{type(payload).__name__}: {error}") from None


def _encode(payload: object) -> bytes:
    """JSON. Keys that are no texts, and elements that cannot be compared, stay in the order they have."""
    try:
        return _encode_in_order(payload)
    except TypeError:
        return _encode_as_it_is(payload)


T = TypeVar("T")


def unpack(envelope: Envelope, expected_type: str, shape: type[T]) -> T:
    """The payload of an envelope that must have the given type.

    Raises:
        UnknownType: the envelope's type is another.
        WrongShape: the payload does not fit the contract.
    """
    if envelope.type != expected_type:
        raise UnknownType(f"type {envelope.type!r}, where {expected_type!r} belongs", subject=envelope.id)
    return unpack_raw(envelope.data, shape, envelope.id)


def unpack_raw(data: msgspec.Raw | bytes, shape: type[T], subject: str = "") -> T:
    """A payload whose type is known by other means.

    Raises:
        Undecodable: it is no JSON.
        WrongShape: it does not fit the contract, or the contract's own code raised something.
    """
    try:
        payload: T = decoder(shape).decode(data)  # type: ignore[arg-type] # mypy does not see that classes hash
        return payload
    except msgspec.ValidationError as error:
        raise WrongShape(f"{shape.__name__}: {said_of(error)}", subject=subject) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if (whole := without_halves(bytes(data))) is not None:
            return unpack_raw(whole, shape, subject)
        raise Undecodable(f"{shape.__name__}: {error}", subject=subject) from None
    # A contract's own code, such as __post_init__, may raise whatever it likes; its text is not ours to publish.
    except BaseException as error:
        raise WrongShape(f"{shape.__name__}: reading it raised {type(error).__name__}", subject=subject) from error


def through_the_wire(payload: T) -> T:
    """A payload as its receiver gets it, for tests that hand it over in memory.

    Raises:
        WrongShape: it would not arrive as it is, or not at all.
    """
    shape = type(payload)
    return unpack_raw(pack(cast("msgspec.Struct", payload)), shape)
