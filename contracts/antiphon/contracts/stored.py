"""Values of both sides of a store: a stored message, the outcome of a write, the stamp of a delivered message."""

from __future__ import annotations

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


class NobodyReads(Ambiguous):
    """No stream of that name answers a direct read; on a cluster perhaps none that has a leader."""


class NobodyStores(Ambiguous):
    """No stream has the subject; on a cluster perhaps none that has a leader."""


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
