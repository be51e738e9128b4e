"""What the server's answer to a publish means: the one table of JetStream's error codes.

The same code can mean different things on different streams, and several arrive with a status that says "unavailable",
so nothing here looks at the status where there is an error code.
"""

from __future__ import annotations

from typing import Final

import msgspec

from antiphon.contracts.bounds import Number, Sequence
from antiphon.contracts.errors import Ambiguous, Conflict, InFlight
from antiphon.contracts.stored import AlreadyStored, NobodyStores, NoPlace, NoRoom, Outcome, Rejected

NOT_FOUND: Final = 404
CONSUMER_NOT_FOUND: Final = 10014
CONFLICT: Final = 10071
"""Another message is the last."""
IN_FLIGHT: Final = 10164
"""Another write is in flight, which three replicas say. So does a leader that is cut off: that one is never stored."""
STORE_FAILED: Final = 10077
"""A family: one message a subject, stream full, disk full. Only its text tells them apart."""
REFUSALS: Final = frozenset({10111, 10166, 10168, 10174, 10188})
"""A header that the stream does not take: roll-up, TTL, counter, batch, schedule."""
NO_ROOM: Final = frozenset({10023, 10047, STORE_FAILED})
"""The server's disk is full, or what it may use of it; the stream is, where a message a subject is not meant."""
UNDECIDED: Final = 10201
"""Although it is no 5xx: the write may be stored or not (measured on three replicas)."""


class _ApiError(msgspec.Struct):
    code: Number = 0
    err_code: Number = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    stream: str = ""
    seq: Sequence = 0
    error: _ApiError | None = None


_decode = msgspec.json.Decoder(_PubAck).decode


def outcome_of(data: bytes, headers: bytes | None) -> Outcome:
    """Read the server's answer to a publish."""
    if not data:
        return NobodyStores(f"no stream answers ({status_line(headers)})")
    try:
        ack = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Ambiguous(f"the server's answer is unreadable: {error}")
    if ack.error is None:
        return ack.seq
    return _failure(ack.error)


def _failure(error: _ApiError) -> Outcome:
    text = f"{error.description} ({error.code}/{error.err_code})"
    code = error.err_code
    if code == CONFLICT:
        return Conflict(text)
    if code == IN_FLIGHT:
        return InFlight(text)
    if code == STORE_FAILED and "per subject" in error.description:
        return AlreadyStored(text)
    if code == STORE_FAILED and "maximum messages exceeded" in error.description:
        return NoPlace(text)
    if code in NO_ROOM:
        return NoRoom(text)
    if code not in REFUSALS and (error.code >= 500 or code == UNDECIDED):
        return Ambiguous(text)
    return Rejected(text)


def status_line(headers: bytes | None) -> str:
    """The text after `NATS/1.0` in a status message."""
    if not headers:
        return "no status"
    return headers.split(b"\r\n", 1)[0][9:].decode("utf-8", "replace") or "no status"


def status_code(headers: bytes | None) -> int:
    """The status of a message from the server; 0 for an ordinary message."""
    if headers is None or len(headers) < 12:
        return 0
    digits = headers[9:12]
    return int(digits) if digits.isdigit() else 0
