"""What the server sends, cut into messages: nats-py's parser with a straight way for the frames that carry them.

nats-py matches a pattern for each line and awaits a coroutine for each message. Messages for a handler of ours are cut
out of what was read and handed over at once; every other line (PING, INFO, -ERR, ...) is nats-py's own to understand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from .guard import Guard

Handler = Callable[[str, str, bytes, bytes | None], None]
"""Called with subject, reply subject, data and raw headers of each message."""

LINE_BYTES_MAX: Final = 1024 * 1024
"""Longer than any line of a server: INFO names all nodes of a cluster."""


class Frames(Parser):
    """The parser of one connection.

    Args:
        nc: nats-py's client, which gets every message that no handler takes.
        handlers: who takes messages, by the id of the subscription as it stands in the frame.
        guard: keeps what handlers raise from nats-py, whose read loop would end with it.
    """

    def __init__(self, nc: Any, handlers: dict[bytes, Handler], guard: Guard) -> None:
        self._handlers, self._guard = handlers, guard
        self._nats = nc
        self._resets = 0
        super().__init__(nc)  # pyright: ignore[reportUnknownMemberType] # nats-py says nothing of it

    def reset(self) -> None:
        """Forget half a frame: the connection is a new one."""
        super().reset()
        self._rest = b""
        self._resets += 1

    async def parse(self, data: bytes = b"") -> None:
        """Hand out all whole messages in what was read, in order, and keep the rest for the next read.

        Raises:
            ProtocolError: that is not NATS; nats-py then reconnects.
        """
        if self._rest:
            data = self._rest + data
        self._rest, resets, at = b"", self._resets, 0
        while (line_end := data.find(b"\r\n", at)) >= 0:
            kind, begin = data[at : at + 4], line_end + 2
            if kind != b"MSG " and kind != b"HMSG":
                await super().parse(data[at:begin])
            else:
                fields = data[at:line_end].split()
                if len(fields) - (kind == b"HMSG") not in (4, 5):
                    raise ProtocolError(f"nats: a message with {len(fields)} parts")
                _, subject, sid, *reply, size = fields
                end = begin + _number(size)
                if end + 2 > len(data):
                    break
                headers = None
                if kind == b"HMSG":
                    body = begin + _number(reply.pop())
                    headers, begin = data[begin:body], body
                handle = self._handlers.get(sid)
                if handle is not None:
                    # A subject need not be UTF-8; one that is not falls through every check of subjects.
                    name, answer_to = (
                        subject.decode(errors="replace"),
                        reply[0].decode(errors="replace") if reply else "",
                    )
                    try:
                        handle(name, answer_to, data[begin:end], headers)
                    except BaseException as error:
                        self._guard.ended(None, error, name)
                else:
                    await self._leave(sid, subject, reply, data[begin:end], headers)
                begin = end + 2
            if self._resets != resets:
                return  # nats-py has given the connection up; what is left of it means nothing any more
            at = begin
        self._rest = data[at:]
        if line_end < 0 and len(self._rest) > LINE_BYTES_MAX:
            raise ProtocolError("nats: a line without an end")

    async def _leave(self, sid: bytes, subject: bytes, reply: list[bytes], data: bytes, headers: bytes | None) -> None:
        await self._nats._process_msg(_number(sid), subject, reply[0] if reply else b"", data, headers)


def _number(text: bytes) -> int:
    if not text.isdigit():
        raise ProtocolError(f"nats: {text[:20]!r} where a number belongs")
    return int(text)
