"""Values of both sides of a store: a stored message, the outcome of a write, a delivered message and its stamp."""

from __future__ import annotations

from typing import Protocol

import msgspec

from .errors import Ambiguous, AntiphonError, Conflict


class StoredMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as a stream holds it."""

    subject: str
    sequence: int
    stored_ns: int
    data: bytes


class SagaPages(msgspec.Struct, frozen=True):
    """One saga as both streams hold it, each in stream order."""

    entries: list[StoredMessage]
    events: list[StoredMessage]


class AlreadyStored(AntiphonError):
    """The subject holds a message already, and its stream takes one a subject. For our events that is success."""


class Rejected(AntiphonError):
    """The server refused the write for a reason no journal explains (a full disk or stream, a forbidden header)."""


class NoRoom(Rejected):
    """The server has no room for the message, or its stream has none: it may be stored once somebody has made room."""


class NoPlace(NoRoom):
    """The stream holds as many messages as it may. Only the streams of clients with a bound count messages."""


class TooManySubjects(AntiphonError):
    """A read matches more subjects than one read may: asking again changes nothing, asking for less does."""


class NobodyReads(Ambiguous):
    """No stream of that name answers a direct read; on a cluster perhaps none that has a leader."""


class NobodyStores(Ambiguous):
    """No stream has the subject; on a cluster perhaps none that has a leader."""


NotRead = Ambiguous | TooManySubjects
"""Why a read gave nothing: nobody knows, or it asked for too much."""

Outcome = int | Conflict | AlreadyStored | Rejected | Ambiguous
"""The stream sequence at which a message was stored, or why it was not, or that nobody knows."""


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """What the reply subject of a delivered message tells: where it is stored, since when, how often delivered."""

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    stored_ns: int


def parse_stamp(reply: str) -> Stamp:
    """Read `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>`.

    With domains two tokens (domain, account) stand before the stream (ADR-15).
    """
    tokens = reply.split(".")
    first = 2 if len(tokens) == 9 else 4
    return Stamp(
        tokens[first], tokens[first + 1], int(tokens[first + 2]), int(tokens[first + 3]), int(tokens[first + 5])
    )


def pending_in(reply: str) -> int:
    """How many messages wait at the consumer behind the one that was delivered, as its reply subject says."""
    tokens = reply.split(".")
    return int(tokens[8 if len(tokens) == 9 else 10])


class Delivered(Protocol):
    """A message of a stream, delivered by a durable consumer."""

    @property
    def stream(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def sequence(self) -> int: ...
    @property
    def stored_ns(self) -> int: ...
    @property
    def deliveries(self) -> int: ...

    def ack(self) -> None:
        """Say that all the message asks for is durable."""

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Have it delivered again after the delay, to any coordinator."""

    def in_progress(self) -> None:
        """Keep it for another ack wait."""
