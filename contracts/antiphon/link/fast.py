"""The fast transport, and all of nats-py's private parts that Antiphon touches.

The frames of one loop turn are joined into one write, and messages are handed out before nats-py would build objects
and queues for them. `fast_transport` looks whether nats-py's private parts are the known ones; where they are not, the
link runs on `PublicTransport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from .cancels import heed_cancel
from .guard import Guard
from .transport import FLUSH_SECONDS, HEAD_BYTES, LOST, Handler, require_subject

PUBLIC_VARIABLE: Final = "ANTIPHON_PUBLIC_CLIENT"
"""The environment variable that, set to anything, has every link use nats-py's public API alone."""

LINE_BYTES_MAX: Final = 1024 * 1024
"""Longer than any line of a server: INFO names all nodes of a cluster."""

CALLED_BY_THE_PARSER: Final = {
    "_process_msg": ["self", "sid", "subject", "reply", "data", "headers"],
    "_process_err": ["self", "err_msg"],
    "_process_ping": ["self"],
    "_process_pong": ["self"],
    "_process_info": ["self", "info", "initial_connection"],
}
"""The methods of nats-py's client that nats-py's parser calls, each with its parameters."""


def fast_transport(nc: Client, guard: Guard) -> FastTransport | None:
    """The fast transport of a connected client; None where its private parts are unknown, or it is switched off."""
    if os.environ.get(PUBLIC_VARIABLE) or not _is_known_release() or not _is_known_client(nc):
        return None
    return FastTransport(nc, guard)


@functools.cache
def _is_known_release() -> bool:
    """Whether the classes of the installed nats-py have the private parts that this file was written for."""
    try:
        found = {name: [*inspect.signature(getattr(Client, name)).parameters] for name in CALLED_BY_THE_PARSER}
        parser: Any = Parser
        return (
            found == CALLED_BY_THE_PARSER
            and all(inspect.iscoroutinefunction(getattr(Client, name)) for name in CALLED_BY_THE_PARSER)
            and inspect.iscoroutinefunction(Parser.parse)
            and [*inspect.signature(Parser.parse).parameters] == ["self", "data"]
            and [*inspect.signature(parser.reset).parameters] == ["self"]
        )
    except (AttributeError, TypeError, ValueError):
        return False


def _is_known_client(nc: Any) -> bool:
    return (
        type(getattr(nc, "_ps", None)) is Parser
        and callable(getattr(getattr(nc, "_transport", None), "write", None))
        and isinstance(getattr(nc, "_server_info", None), dict)
        and isinstance(getattr(nc, "_max_payload", None), int)
        and isinstance(getattr(Subscription(nc, 1), "_id", None), int)
    )


class FastTransport:
    """Frames written straight to nats-py's socket, messages cut straight out of what it read.

    Args:
        nc: nats-py's client, connected; its parser is replaced.
        guard: keeps what handlers raise from nats-py.
    """

    def __init__(self, nc: Client, guard: Guard) -> None:
        self._nc: Any = nc
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[bytes, Handler] = {}
        self._frames: list[bytes] = []
        self._nc._ps = Frames(nc, self._handlers, guard)

    def send(self, subject: str, data: bytes, headers: str, reply: str) -> bool:
        """Send a frame with the others of this loop turn."""
        require_subject(subject)
        head_size = len(headers) + HEAD_BYTES if headers else 0  # subjects, times and numbers: all of it is ASCII
        size = head_size + len(data)
        if size > self._nc._max_payload:
            return False
        if headers:
            head = f"HPUB {subject} {reply} {head_size} {size}\r\nNATS/1.0\r\n{headers}\r\n"
        else:
            head = f"PUB {subject} {reply} {size}\r\n"
        frame = (head.encode("ascii"), data, b"\r\n")
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames += frame
        return True

    def send_frame(self, frame: bytes) -> None:
        """Send bytes that are a whole frame, or none at all: for tests of what a server and other clients do."""
        self._frames.append(frame)

    def flush(self) -> None:
        """Write the frames of this turn."""
        if not self._frames:
            return
        frames, self._frames = self._frames, []
        # A connection in the middle of a reconnect would lose frames silently; dropped here they count as ambiguous.
        if self._nc.is_connected:
            with contextlib.suppress(RuntimeError):  # the same, for a connection that nats-py does not yet know is lost
                self._nc._transport.write(b"".join(frames))

    async def flushed(self, seconds: int = FLUSH_SECONDS) -> bool:
        """Write the frames of this turn, and wait for the server."""
        self.flush()
        with contextlib.suppress(*LOST):
            await heed_cancel(self._nc.flush(seconds))
            return True
        return False

    def forget(self) -> None:
        """Drop the frames of this turn."""
        self._frames.clear()

    def abandon(self) -> None:
        """Abort a connection that nats-py has closed, and that cannot send what is in its buffer.

        nats-py connects anew only once the old connection is closed in every form, and where nothing arrives any more
        that takes the operating system a quarter of an hour.
        """
        writer = getattr(self._nc._transport, "_io_writer", None)
        if writer is not None and writer.transport.is_closing():
            writer.transport.abort()

    async def subscribe(self, subject: str, handle: Handler, queue: str) -> Subscription:
        """Call `handle` with every message on a subject."""
        subscription: Subscription = await self._nc.subscribe(subject, queue=queue)
        private: Any = subscription
        self._handlers[b"%d" % private._id] = handle
        # nats-py buffers what it sends and frames overtake that: without this the answer to the first frame that
        # names this subject, for instance that there is no consumer to pull from, would find nobody listening.
        # Should the connection be lost meanwhile, nats-py subscribes again by itself.
        with contextlib.suppress(*LOST):
            await heed_cancel(self._nc.flush(FLUSH_SECONDS))
        return subscription

    async def has_jetstream(self) -> bool:
        """What the server said of itself when the connection was made."""
        return bool(self._nc._server_info.get("jetstream"))

    @property
    def may_be_clustered(self) -> bool:
        """What the server said of itself when the connection was made: it names its cluster, if it is in one."""
        return bool(self._nc._server_info.get("cluster"))


class Frames(Parser):
    """The parser of one connection: nats-py's, with a straight way for the frames that carry messages.

    nats-py matches a pattern for each line and awaits a coroutine for each message. Messages for a handler of the link
    are cut out of what was read and handed over at once; nats-py understands every other line (PING, INFO, -ERR, ...).

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
                has_headers = kind == b"HMSG"
                parts = len(fields) - has_headers
                if parts not in (4, 5):
                    raise ProtocolError(f"nats: a message with {len(fields)} parts")
                subject, sid, reply = fields[1], fields[2], fields[3] if parts == 5 else b""
                end = begin + _number(fields[-1])
                if end + 2 > len(data):
                    break
                headers = None
                if has_headers:
                    body = begin + _number(fields[-2])
                    headers, begin = data[begin:body], body
                handle = self._handlers.get(sid)
                if handle is not None:
                    # A subject need not be UTF-8; one that is not falls through every check of subjects.
                    name = subject.decode("utf-8", "replace")
                    try:
                        handle(name, reply.decode("utf-8", "replace"), data[begin:end], headers)
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

    async def _leave(self, sid: bytes, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Hand a message to nats-py. It raises at headers that are no UTF-8, and its read loop would end with that."""
        number = _number(sid)
        try:
            await self._nats._process_msg(number, subject, reply, data, headers)
        except Exception as error:
            self._guard.ended(None, error, subject.decode(errors="replace"))


@functools.lru_cache(maxsize=4096)
def _number(text: bytes) -> int:
    """A number of a frame, remembered: there are few sizes of messages, and fewer subscriptions."""
    if not text.isdigit():
        raise ProtocolError(f"nats: {text[:20]!r} where a number belongs")
    return int(text)
