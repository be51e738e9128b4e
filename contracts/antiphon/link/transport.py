"""How frames reach nats-py and messages come from it: what the link needs, and the way on nats-py's public API alone.

`fast.py` has the other way, which is three times as fast and stands on private parts of nats-py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from antiphon.contracts.errors import BadIdentity

from .cancels import heed_cancel
from .guard import Guard

Handler = Callable[[str, str, bytes, bytes | None], None]
"""Called with subject, reply subject, data and raw headers of each message."""

LOST: Final = (nats.errors.Error, OSError, RuntimeError)
"""What nats-py raises when the connection goes away in mid-call; the last is uvloop's, for a socket that is closed."""

HEAD_BYTES: Final = len("NATS/1.0\r\n\r\n")
FLUSH_SECONDS: Final = 5
JETSTREAM_SECONDS: Final = 0.5
"""How long a server may take to answer whether it has JetStream. A user without the right to ask gets no answer."""


def require_subject(subject: str) -> None:
    """Refuse a subject that would end the head of a frame early: the server would take the rest for another frame, or
    close the connection with all that is in hand. Reply subjects are our own, or came in a frame themselves.

    Raises:
        BadIdentity: there is none, or one with a space, a line break, or what ASCII has not.
    """
    if not subject or " " in subject or "\n" in subject or "\r" in subject or "\t" in subject or not subject.isascii():
        raise BadIdentity(f"{subject[:200]!r} is no subject, and nothing can be published there")


class Transport(Protocol):
    """The frames and messages of one connection."""

    def send(self, subject: str, data: bytes, headers: str, reply: str) -> bool:
        """Send a message; dropped while there is no connection.

        Returns:
            Whether the server takes one so large. If not it is not sent, since the server would close the connection.

        Raises:
            BadIdentity: a subject is none.
        """
        ...

    def flush(self) -> None:
        """Hand what was sent to the connection, as far as that can be done at once."""

    async def flushed(self, seconds: int = FLUSH_SECONDS) -> bool:
        """Hand what was sent to the connection, and return when the server has taken it or the connection is lost.

        Returns:
            Whether the server has taken it.
        """
        ...

    def forget(self) -> None:
        """Drop what was not yet handed to the connection: it was lost."""

    def abandon(self) -> None:
        """The connection is lost: do not wait until it has taken what was handed to it, which may be never."""

    async def subscribe(self, subject: str, handle: Handler, queue: str) -> Subscription:
        """Call `handle` with every message on a subject."""
        ...

    async def has_jetstream(self) -> bool:
        """Whether the server runs with JetStream; true where that cannot be found out."""
        ...

    @property
    def may_be_clustered(self) -> bool:
        """Whether the server is one of several; true where that cannot be found out."""
        ...


class PublicTransport:
    """Frames and messages by nats-py's public API.

    Args:
        nc: nats-py's client, connected.
        guard: calls the handlers.
    """

    def __init__(self, nc: Client, guard: Guard) -> None:
        self._nc, self._guard = nc, guard
        self._waiting: list[tuple[str, bytes, str, dict[str, str] | None]] = []
        self._sending: asyncio.Task[None] | None = None

    def send(self, subject: str, data: bytes, headers: str, reply: str) -> bool:
        """Send a message after those before it."""
        require_subject(subject)
        if len(data) + (len(headers) + HEAD_BYTES if headers else 0) > self._nc.max_payload:
            return False
        pairs = dict(line.split(": ", 1) for line in headers.split("\r\n") if line)
        self._waiting.append((subject, data, reply, pairs or None))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())
        return True

    def flush(self) -> None:
        """Nothing can be handed over at once here: the task that sends runs with the next turn of the loop."""

    async def flushed(self, seconds: int = FLUSH_SECONDS) -> bool:
        """Wait for the task that sends, then for the server."""
        with contextlib.suppress(*LOST):
            if self._sending is not None:
                await self._sending
            await heed_cancel(self._nc.flush(seconds))
            return True
        return False

    def forget(self) -> None:
        """Drop what waits."""
        self._waiting.clear()

    def abandon(self) -> None:
        """nats-py waits until its buffer is empty, or the operating system gives the connection up."""

    async def subscribe(self, subject: str, handle: Handler, queue: str) -> Subscription:
        """Call `handle` with every message on a subject."""

        async def adapt(message: Msg) -> None:
            self._guard.call(None, _hand_over, handle, message)

        nc: Any = self._nc  # nats-py types only a part of this method
        subscription: Subscription = await nc.subscribe(subject, queue=queue, cb=adapt)
        # nats-py only queues it; whoever is asked on this subject as soon as this returns must be heard.
        with contextlib.suppress(*LOST):
            await heed_cancel(self._nc.flush(FLUSH_SECONDS))
        return subscription

    async def has_jetstream(self) -> bool:
        """Ask JetStream's API: where it is not, the server says at once that nobody answers."""
        try:
            await self._nc.request("$JS.API.INFO", timeout=JETSTREAM_SECONDS)
        except nats.errors.NoRespondersError:
            return False
        except nats.errors.Error:
            return True
        return True

    @property
    def may_be_clustered(self) -> bool:
        """That the server names its cluster is in none of nats-py's public parts."""
        return True

    async def _send(self) -> None:
        while self._waiting:
            message = self._waiting.pop(0)
            # nats-py keeps what is published in a reconnect and sends it later; dropped here it counts as ambiguous.
            if self._nc.is_connected:
                subject, data, reply, headers = message
                with contextlib.suppress(*LOST):
                    await self._nc.publish(subject, data, reply, headers)


def _hand_over(handle: Handler, message: Msg) -> None:
    handle(message.subject, message.reply, message.data, _raw_headers(message.headers))


def _raw_headers(headers: dict[str, str] | None) -> bytes | None:
    """The public API's headers as they are in the frame, for the one parser there is."""
    if headers is None:
        return None
    status = headers.get("Status", "")
    rest = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name not in ("Status", "Description"))
    return f"NATS/1.0{' ' + status if status else ''}\r\n{rest}\r\n".encode()
