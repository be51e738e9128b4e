"""Messages a consumer delivers, and the standing pull that asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.stored import parse_stamp

from .faults import say
from .guard import Guard
from .leases import Lease
from .outcomes import status_code, status_line
from .transport import LOST, Handler

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

PULL_EXPIRES_SECONDS: Final = 5
"""How long the server goes on to deliver to a process that vanished with its machine, and whose connection stands."""
HEARTBEAT_SECONDS: Final = 2
"""The server says at this interval that a waiting pull is alive; at most half of the above."""
QUIET_SECONDS: Final = 0.1
"""A pull that got nothing for this long is taken to have nothing under way."""
DRAIN_SECONDS_MAX: Final = 2.0
CLUSTER_DRAIN_SECONDS_MAX: Final = PULL_EXPIRES_SECONDS + 1.0
"""How long a drain waits for the end of its requests where the server may be one of several: until they expire."""
SILENCE_SECONDS_MAX: Final = 5.0
"""After two missed heartbeats the pull is asked anew: its consumer's leader may have died with it."""
FAULT_SECONDS: Final = 1.0
FAULT_SECONDS_MAX: Final = 60.0
"""How soon, and how late at most, a message comes again whose handler raised; twice as long with each delivery."""


class Connection(Protocol):
    """What a pull needs of the link."""

    guard: Guard
    failure: asyncio.Future[PlatformError]

    def send(self, subject: str, data: bytes = b"", headers: str = "", reply: str = "") -> None:
        """Send a frame."""

    @property
    def is_connected(self) -> bool:
        """Whether frames reach a server, as far as is known."""
        ...

    @property
    def may_be_clustered(self) -> bool:
        """Whether the server may be one of several."""
        ...

    async def flushed(self) -> None:
        """Hand all frames to the server."""

    async def answers(self) -> bool:
        """Ask the server for a sign of life; false where it gives none on this connection."""
        ...

    async def subscribe(self, subject: str, handle: Handler, queue: str = "") -> Subscription:
        """Call `handle` with every message on a subject."""
        ...

    def new_inbox(self) -> str:
        """A fresh reply subject."""
        ...

    def add_pull(self, pull: Pull) -> None:
        """Have the pull renewed after reconnects and long silence."""
        ...

    def drop_pull(self, pull: Pull) -> None:
        """Have it renewed no more."""


class Delivery:
    """One delivered message, which holds a place in its pull until it is acked, handed back or ended.

    The first verdict counts: one that fails after it was acked stays acked, and its place is freed once. Of a delivery
    that is lost, because the server may have given the message to somebody else, nothing is said.
    """

    __slots__ = (
        "_has_place",
        "_is_settled",
        "_pull",
        "consumer",
        "data",
        "deliveries",
        "is_lost",
        "reply",
        "sequence",
        "stored_ns",
        "stream",
        "subject",
    )

    def __init__(self, pull: Pull, subject: str, reply: str, data: bytes) -> None:
        stamp = parse_stamp(reply)
        self._is_settled = self.is_lost = False
        self._has_place = True
        self._pull, self.subject, self.reply, self.data = pull, subject, reply, data
        self.stream, self.consumer = stamp.stream, stamp.consumer
        self.sequence, self.deliveries, self.stored_ns = stamp.sequence, stamp.deliveries, stamp.stored_ns

    def ack(self) -> None:
        """Say that all the message asks for is durable."""
        self._settle(b"+ACK")

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Have the message delivered again after the delay. (Without one the server delivers it at once.)"""
        self._settle(b'-NAK {"delay":%d}' % max(1, int(delay_seconds * 1e9)))

    def end(self, reason: str) -> None:
        """Never deliver the message again; the reason goes to the ADVISORIES stream."""
        self._settle(b"+TERM " + reason.replace("\r", " ").replace("\n", " ").encode()[:500])

    def in_progress(self) -> None:
        """Keep the message for another ack wait; whoever works on it is getting on."""
        self._pull.keep(self)
        self.extend()

    def extend(self) -> None:
        """Keep the message for another ack wait."""
        if not self.is_lost:
            self._pull.link.send(self.reply, b"+WPI")

    def drop(self) -> None:
        """Free the place without a word: the message comes again after the ack wait."""
        self._settle(b"")

    def leave_place(self) -> None:
        """Leave the place to another message, and stay here."""
        if self._has_place:
            self._has_place = False
            self._pull.vacate()

    def take_place(self) -> None:
        """Take a place again, even if there is none."""
        if not self._has_place and not self._is_settled:
            self._has_place = True
            self._pull.occupy()

    def failed(self, error: BaseException) -> None:
        """Have the message delivered again, ever later: its handler raised. Whoever can park it does so before."""
        delay = min(FAULT_SECONDS_MAX, FAULT_SECONDS * 2.0 ** min(self.deliveries - 1, 20))
        self.hand_back(delay)
        say("delivery.faulty", error, self.subject, deliveries=self.deliveries, again_in_seconds=delay)

    def _settle(self, verdict: bytes) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._pull.settle(self, verdict)
            self.leave_place()


class Pull:
    """A pull request that always stands, topped up when half of its places are free.

    Args:
        capacity: how many messages may be held or under way at any moment.
        handle: called with each delivery, in the order of arrival, on the event loop.
        ack_wait_seconds: what the consumer is configured with, where what is held shall be kept (see `Lease`); with 0
            it is delivered to others after the ack wait.
        keep_seconds_max: for how long a message is kept at most, from its arrival or its last `in_progress` on.
    """

    def __init__(
        self,
        link: Connection,
        stream: str,
        consumer: str,
        capacity: int,
        handle: Callable[[Delivery], None],
        ack_wait_seconds: float = 0.0,
        keep_seconds_max: float = math.inf,
    ) -> None:
        self.link, self.stream, self.consumer, self.capacity = link, stream, consumer, capacity
        self._handle = handle
        self._lease = Lease(link, consumer, ack_wait_seconds, keep_seconds_max) if ack_wait_seconds else None
        self.request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = link.new_inbox()
        self._requests: dict[str, int] = {}
        self._count = 0
        self._asked = 0
        self._held = 0
        self._heard = time.monotonic()
        self._stopped = False
        self._draining = False
        self._subscription: Subscription | None = None
        self.refused = ""
        """The server's last refusal to deliver, for instance that there is no such consumer."""
        self._refused_since: float | None = None

    async def start(self) -> None:
        """Subscribe to the answers and ask for the first messages."""
        self._subscription = await self.link.subscribe(f"{self._inbox}.*", self._on_message)
        self.link.add_pull(self)
        if self._lease is not None:
            self._lease.start()
        self.ask()

    def stop(self) -> None:
        """Ask for nothing more; what is held stays held."""
        self._stopped = True

    async def drain(self) -> None:
        """Ask for nothing more, and return when nothing more can come; what was under way is handed out until then.

        Without this the server goes on to serve the requests that stand, for as long as they last, and each message
        it sends and gets back counts as a delivery. So does one that it is about to send when the subscription goes,
        hence the wait: either the requests are used up, or there is nothing to send just now.

        A cluster goes on even when the subscription has gone, where the consumer is imported from another account and
        its leader is another server than this one: as long as a request stands, it delivers to nobody. So there the
        wait lasts until all requests are used up or have expired.
        """
        self._stopped = self._draining = True
        self._heard = started = time.monotonic()
        if self.link.may_be_clustered:
            while self._asked and time.monotonic() < started + CLUSTER_DRAIN_SECONDS_MAX:
                await asyncio.sleep(QUIET_SECONDS / 10)
        while self._asked and self._heard + QUIET_SECONDS > time.monotonic() < started + DRAIN_SECONDS_MAX:
            await asyncio.sleep(QUIET_SECONDS / 10)
        if self._subscription is not None:
            await self.link.flushed()
            with contextlib.suppress(*LOST):
                await self._subscription.drain()  # type: ignore[no-untyped-call]

    async def leave(self) -> None:
        """End a pull whose consumer is gone. What it delivered is still handled; the server hears nothing of that."""
        self._stopped = True
        self.link.drop_pull(self)
        self.close()
        self._lease = None
        if self._subscription is not None:
            with contextlib.suppress(*LOST):
                await self._subscription.unsubscribe()

    async def is_accepted(self) -> bool:
        """Whether the server takes the pull, asked once: false where the consumer, or its leader, is not there."""
        asked = -1
        while asked != self._count:  # one that was asked again meanwhile may not have its answer yet
            asked = self._count
            await self.link.flushed()
        return not self.refused

    def refused_seconds(self, now: float) -> float:
        """For how long the server has refused to deliver, each time it was asked; 0 if it does not."""
        return now - self._refused_since if self._refused_since is not None else 0.0

    @property
    def held(self) -> int:
        """How many deliveries have a place: neither acked nor handed back, and not put aside."""
        return self._held

    def ask(self) -> None:
        """Request as many messages as there are free places."""
        free = self.capacity - self._asked - self._held
        if self._stopped or free <= 0:
            return
        self.refused = ""
        self._count += 1
        token = str(self._count)
        self._requests[token] = free
        self._asked += free
        self.link.send(
            self.request_subject,
            b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}'
            % (free, PULL_EXPIRES_SECONDS * 1_000_000_000, HEARTBEAT_SECONDS * 1_000_000_000),
            reply=f"{self._inbox}.{token}",
        )

    def keep(self, delivery: Delivery) -> None:
        """Count the time for which a message is kept anew."""
        if self._lease is not None:
            self._lease.keep(delivery)

    def settle(self, delivery: Delivery, verdict: bytes) -> None:
        """Tell the server the verdict on a message, if there is one and the message is not lost; keep it no more."""
        lease = self._lease
        if lease is not None:
            lease.look()
            lease.held.pop(delivery, None)
        if verdict and not delivery.is_lost:
            self.link.send(delivery.reply, verdict)

    def vacate(self) -> None:
        """Free one place."""
        self._held -= 1
        self._top_up()

    def occupy(self) -> None:
        """Take one place."""
        self._held += 1

    def close(self) -> None:
        """Keep nothing any more."""
        if self._lease is not None:
            self._lease.stop()

    def disconnected(self) -> None:
        """The connection was lost."""
        if self._lease is not None:
            self._lease.disconnected()

    def reconnected(self) -> None:
        """The connection is back: ask anew."""
        if self._lease is not None:
            self._lease.reconnected()
        self.renew()

    def renew(self) -> None:
        """Forget what was asked for and ask anew, as after a reconnect."""
        self._requests.clear()
        self._asked = 0
        self._heard = time.monotonic()
        self.ask()

    def check(self, now: float) -> None:
        """Renew a pull that the server has been silent about; called once a second."""
        if self._asked and now - self._heard > SILENCE_SECONDS_MAX:
            self.renew()
        elif not self._asked:
            self.ask()

    def _top_up(self) -> None:
        if (self._asked + self._held) * 2 <= self.capacity:
            self.ask()

    def _on_message(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        self._heard = time.monotonic()
        if headers is not None and not reply and (code := status_code(headers)):
            self._on_status(subject, code, headers)
            return
        self._refused_since = None
        self._asked = max(0, self._asked - 1)
        if self._stopped and not self._draining:
            self.link.send(reply, b"-NAK")
            return
        lease = self._lease
        if lease is not None and not lease.is_ours():
            return
        delivery = Delivery(self, subject, reply, data)
        self._held += 1
        if lease is not None:
            lease.held[delivery] = lease.looked
        self.link.guard.call(delivery, self._handle, delivery)
        self._top_up()

    def _on_status(self, subject: str, code: int, headers: bytes) -> None:
        """A request ended: expired (408), refused (409, 503), or is alive (100)."""
        if code in (100, 404, 408):
            self._refused_since = None
        if code == 100:
            return
        token = subject.rpartition(".")[2]
        asked = self._requests.pop(token, None)
        if asked is None:
            return
        self._asked = max(0, self._asked - _pending(headers, asked))
        if code in (404, 408):
            self.ask()
        else:
            # Nobody there, or the leader moves: the link's tick asks again within a second, so this cannot spin.
            self.refused = status_line(headers)
            self._refused_since = self._heard if self._refused_since is None else self._refused_since


def _pending(headers: bytes, otherwise: int) -> int:
    """How many messages of a request the server will not deliver any more."""
    for line in headers.split(b"\r\n"):
        if line.startswith(b"Nats-Pending-Messages:"):
            return int(line[22:])
    return otherwise
