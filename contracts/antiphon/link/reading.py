"""Direct reads: the last message of every subject that matches, in one request (ADR-31)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from antiphon.contracts.bounds import Number, Sequence
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.stored import NobodyReads, NotRead, StoredMessage, TooManySubjects

from .guard import InHand
from .outcomes import status_code, status_line

BATCH_MAX: Final = 1000
"""The most messages of one read. The server refuses filters that match more than 1024 subjects."""

PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""After so many bytes a page ends, and the next one goes on. The server drops a connection to which more than 64 MB are
on their way."""

REFUSALS: Final[dict[int, type[NotRead]]] = {413: TooManySubjects, 503: NobodyReads}
"""The statuses of a refused read that say more than that nobody knows: too large, which stays so; no responders, the
server's own status where nobody has subscribed to the subject of a request."""

Pages = list[StoredMessage] | NotRead
"""What a read gives: the messages in stream order, or why there was no whole answer."""


class Read:
    """One read under way; gathers answers until the server says that there are no more.

    Args:
        deadline: until when, by the loop's clock, there must be a whole answer.
        whose: what it is read for.
        then: to be called once with the result.
        whole: whether an answer that was cut short is none.
    """

    __slots__ = ("_found", "_whole", "deadline", "left", "result", "then", "whose")

    def __init__(
        self, deadline: float, whose: InHand | None, then: Callable[[Pages], None], whole: bool = True
    ) -> None:
        self.deadline, self.whose, self.then, self._whole = deadline, whose, then, whole
        self._found: list[StoredMessage] = []
        self.result: Pages = self._found
        self.left = 0
        """Of an answer that was cut short: how many messages more match."""

    def take(self, data: bytes, headers: bytes | None) -> bool:
        """Take one answer; true when it was the last, and `result` stands."""
        # By its place in the stream, which the server names: whoever stores a message may write a status into it.
        if headers is not None and _field(headers, b"Nats-Sequence"):
            self._found.append(_stored(data, headers))
            return False
        self.result = self._result(status_code(headers), headers)
        return True

    def _result(self, code: int, headers: bytes | None) -> Pages:
        if code == 404:
            return []
        if code != 204:
            refusal = REFUSALS.get(code, Ambiguous)
            return refusal(f"a direct read was refused ({status_line(headers)})")
        # The server cuts a read at its batch size and says so only here.
        self.left = int(_field(headers or b"", b"Nats-Num-Pending") or b"0")
        if self._whole and self.left:
            return TooManySubjects(f"a direct read was cut short: messages left to read: {self.left}")
        self._found.sort(key=lambda message: message.sequence)
        return self._found


class SingleRead(Read):
    """A read of one message: its first answer is its last."""

    __slots__ = ()

    def take(self, data: bytes, headers: bytes | None) -> bool:
        """Take the answer."""
        super().take(data, headers)
        return True


class LeaderRead(Read):
    """A read of one message through the API, which the stream's leader answers and no other replica."""

    __slots__ = ()

    def take(self, data: bytes, headers: bytes | None) -> bool:
        """Take the answer."""
        self.result = _from_leader(data, headers)
        return True


class Joined:
    """Several reads as one; the first that fails is the answer.

    Args:
        count: how many there are.
        then: to be called once, with all that they found in stream order.
    """

    def __init__(self, count: int, then: Callable[[Pages], None]) -> None:
        self._left, self._then = count, then
        self._found: list[StoredMessage] = []
        self._failure: NotRead | None = None

    def take(self, found: Pages) -> None:
        """Take one of the answers."""
        if isinstance(found, list):
            self._found += found
        else:
            self._failure = self._failure or found
        self._left -= 1
        if self._left == 0:
            self._found.sort(key=lambda message: message.sequence)
            self._then(self._failure or self._found)


def request_body(filters: list[str], most: int = BATCH_MAX) -> bytes:
    """The body of a read of all subjects that match the filters."""
    return msgspec.json.encode({"multi_last": filters, "batch": most})


def sequence_body(sequence: int) -> bytes:
    """The body of a read of the message at a sequence."""
    return b'{"seq":%d}' % sequence


def scan_body(subject_filter: str, from_sequence: int, most: int = BATCH_MAX) -> bytes:
    """The body of a read of the next messages of a stream that match, in stream order."""
    wanted = {"next_by_subj": subject_filter, "seq": from_sequence, "batch": most, "max_bytes": PAGE_BYTES_MAX}
    return msgspec.json.encode(wanted)


def latest_body(subject_filter: str) -> bytes:
    """The body of a read of the one message that matches and was stored last."""
    return msgspec.json.encode({"last_by_subj": subject_filter})


class _ApiError(msgspec.Struct):
    code: Number = 0
    description: str = ""


class _ApiMessage(msgspec.Struct):
    subject: str
    seq: Sequence
    time: str
    data: bytes = b""


class _ApiAnswer(msgspec.Struct):
    message: _ApiMessage | None = None
    error: _ApiError | None = None


_decode_answer = msgspec.json.Decoder(_ApiAnswer).decode


def _from_leader(data: bytes, headers: bytes | None) -> Pages:
    """The message in an answer of the API."""
    if not data:
        return NobodyReads(f"nobody answers for the stream ({status_line(headers)})")
    try:
        answer = _decode_answer(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Ambiguous(f"the server's answer is unreadable: {error}")
    found, refusal = answer.message, answer.error or _ApiError()
    if found is not None:
        return [StoredMessage(found.subject, found.seq, nanoseconds(found.time), found.data)]
    if refusal.code == 404:
        return []
    return Ambiguous(f"the stream's leader did not tell ({refusal.description or 'no message'})")


def _stored(data: bytes, headers: bytes) -> StoredMessage:
    return StoredMessage(
        _field(headers, b"Nats-Subject").decode(errors="replace"),
        int(_field(headers, b"Nats-Sequence")),
        nanoseconds(_field(headers, b"Nats-Time-Stamp").decode()),
        data,
    )


def _field(headers: bytes, name: bytes) -> bytes:
    """The value of the last header of this name: the server adds its own behind those of the message."""
    start = headers.rfind(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return headers[start : headers.index(b"\r\n", start)].strip()


def nanoseconds(timestamp: str) -> int:
    """A server's RFC 3339 time with up to nine fractional digits as nanoseconds since 1970."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or "0")
