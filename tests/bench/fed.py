"""A coordinator that is fed by a stub of the server, in one process: `python -m tests.bench.fed`.

There are no sockets and no other processes, so what is counted is the coordinator's own: bytes that a server would send
in, bytes that it would get out. The number of calls hardly moves from run to run, where CPU time does; to compare two
commits by time, run both by turns and take the least of each. Left out is what a saga costs beside its eight
messages: the sweeper's look at its start.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, cast

import msgspec
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.headers import traceparent_header
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.subjects import event_subject, is_end, start_subject
from antiphon.contracts.topology import EVENTS, STARTS, answers_consumer_name
from antiphon.coordinator.runtime.answers import KEPT
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.link import Link, settle_collector
from antiphon.order.messages import InventoryReserved, OrderPlaced, PaymentCharged, ShippingScheduled

from .ours import SAGAS, WORKERS, placed
from .report import interpreter

IN_FLIGHT: Final = 64
HELD_MAX: Final = 100
"""Deliveries that each pull holds."""

REPLIES: Final[dict[str, Event]] = {
    "inventory": InventoryReserved(reservation_id="order-0042", item_id="tea-sencha-200", quantity=3),
    "billing": PaymentCharged(charge_id="order-0042", customer_id="c-018", amount=5670),
    "shipping": ShippingScheduled(shipment_id="order-0042", country="ES", carrier="Quai Express"),
}
"""What each participant answers to its command."""


class Fed(msgspec.Struct, frozen=True):
    """What sagas have cost one coordinator."""

    sagas: int
    cpu_us: float
    """Microseconds of CPU a saga."""


class Server:
    """What nats-py's client is to a link, and what the server behind it would answer, as bytes.

    Every answer is kept until `answers` asks for all of them, as a client reads from its socket what has come.
    """

    is_connected, is_reconnecting, _max_payload = True, False, 1024 * 1024

    def __init__(self) -> None:
        self._server_info = {"jetstream": True}
        self._ps: Any = Parser(cast("Client", self))
        self._transport = self
        self._sids: dict[str, int] = {}
        self._stored = 0
        self._consumers: dict[str, tuple[int, str]] = {}
        """For each consumer, the subscription that a pull listens on, and where the server sends its messages."""
        self._written: list[bytes] = []
        self._answers: list[bytes] = []
        self.ended = 0

    # --- what a link asks of nats-py ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Take what the link has written."""
        self._written.append(data)

    @property
    def max_payload(self) -> int:
        """A property in nats-py's client, too."""
        return self._max_payload

    def new_inbox(self) -> str:
        """A subject of its own for each that asks."""
        return f"_INBOX_coordinator.{len(self._sids):022}"

    async def subscribe(self, subject: str, queue: str = "") -> Subscription:
        """Take a subscription."""
        number = self._sids[subject.removesuffix(".*")] = len(self._sids) + 1
        return Subscription(cast("Client", self), number, subject, queue)

    async def flush(self, timeout: int) -> None:
        """Nothing is under way."""

    async def parse(self, data: bytes) -> None:
        """Hand to the link what the server has sent."""
        await self._ps.parse(data)

    # --- what the server does -----------------------------------------------------------------------------------------

    def store_start(self, saga_id: str) -> None:
        """A client has started a saga."""
        subject = start_subject(SagaKey.of("plain", saga_id))
        envelope = Envelope(
            id=subject,
            source="client",
            type=OrderPlaced.__contract__.type,
            time=datetime.now(UTC),
            data=pack(placed("ES")),
        )
        self._deliver(STARTS, subject, encode(envelope))

    def answers(self) -> bytes:
        """All that has come of what was written since the last time."""
        written, self._written = b"".join(self._written), []
        for subject, reply, data in _frames(written):
            self._take(subject, reply, data)
        answers, self._answers = self._answers, []
        return b"".join(answers)

    def _take(self, subject: str, reply: str, data: bytes) -> None:
        if subject.startswith("$JS.API.CONSUMER.MSG.NEXT."):
            inbox = reply.rpartition(".")[0]
            self._consumers[subject.rpartition(".")[2]] = self._sids[inbox], reply
        elif subject.startswith("saga."):
            self._stored += 1
            self._confirm(reply)
            tokens = subject.split(".")
            if is_end(subject):
                self.ended += 1
            elif tokens[5] == "cmd":
                self._answer(tokens, data)
        else:
            assert subject.startswith("$JS.ACK."), subject

    def _confirm(self, reply: str) -> None:
        data = b'{"stream":"SAGA", "seq":%d}' % self._stored
        sid = self._sids[reply.rpartition(".")[0]]
        self._answers.append(b"MSG %b %d %d\r\n%b\r\n" % (reply.encode(), sid, len(data), data))

    def _answer(self, tokens: list[str], command: bytes) -> None:
        """A participant does as it was told."""
        participant, step, attempt = tokens[6], tokens[7], tokens[9]
        reply, now = REPLIES[participant], datetime.now(UTC)
        subject = event_subject(".".join(tokens[1:4]), participant, reply.__contract__.token, step, attempt)
        envelope = Envelope(
            id=subject,
            source=participant,
            type=reply.__contract__.type,
            time=now,
            data=pack(reply),
            command=str(self._stored),
            started=now,
            traceparent=msgspec.json.decode(command)["traceparent"],
        )
        self._deliver(answers_consumer_name(participant), subject, encode(envelope))

    def _deliver(self, consumer: str, subject: str, data: bytes) -> None:
        self._stored += 1
        sid, _ = self._consumers[consumer]
        ack = f"$JS.ACK.{EVENTS}.{consumer}.1.{self._stored}.{self._stored}.{time.time_ns()}.0"
        lines = traceparent_header(data)
        if lines:
            headers = f"NATS/1.0\r\n{lines}\r\n".encode()
            head = f"HMSG {subject} {sid} {ack} {len(headers)} {len(headers) + len(data)}\r\n".encode()
            self._answers.append(head + headers + data + b"\r\n")
        else:
            self._answers.append(f"MSG {subject} {sid} {ack} {len(data)}\r\n".encode() + data + b"\r\n")


def _frames(written: bytes) -> Iterator[tuple[str, str, bytes]]:
    """The subject, the reply subject and the payload of each frame."""
    at = 0
    while at < len(written):
        line_end = written.index(b"\r\n", at)
        kind, subject, *rest = written[at:line_end].decode().split(" ")
        begin, end = line_end + 2, line_end + 2 + int(rest[-1])
        if kind == "HPUB":
            begin += int(rest[-2])
        yield subject, rest[0], written[begin:end]
        at = end + 2


class Feeding:
    """A coordinator between deliveries, and how much of the process's time it has used."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._begun = 0

    @classmethod
    async def begin(cls) -> Feeding:
        """Have a coordinator attached."""
        server = Server()
        link = Link(cast("Client", server), "coordinator")
        await link._listen(cast("Any", SimpleNamespace()))
        coordinator = Coordinator(JetStreamStore(link), [saga.definition for saga in SAGAS.values()])
        for consumer in (STARTS, *map(answers_consumer_name, WORKERS)):
            await link.pull(EVENTS, consumer, HELD_MAX, coordinator.on_fact, **KEPT)
        await asyncio.sleep(0)
        server.answers()
        return cls(server)

    @property
    def ended(self) -> int:
        """How many sagas are over."""
        return self._server.ended

    async def run(self, sagas: int) -> Fed:
        """Lead so many sagas to their end."""
        end, wanted, spent = self._server.ended + sagas, self._begun + sagas, 0
        while self._server.ended < end:
            while self._begun < wanted and self._begun - self._server.ended < IN_FLIGHT:
                self._server.store_start(f"plain-0-{self._begun:06}")
                self._begun += 1
            spent += await self._turn(self._server.answers())
        await self._turn(self._server.answers())
        return Fed(sagas, spent / sagas / 1000)

    async def _turn(self, received: bytes) -> int:
        began = time.process_time_ns()
        await self._server.parse(received)
        await asyncio.sleep(0)  # the turn of the loop in which the link writes
        return time.process_time_ns() - began


class Calls:
    """Counts calls: of functions written in Python, and of all others."""

    def __init__(self) -> None:
        self.python = self.others = 0

    def __call__(self, frame: object, event: str, argument: object) -> None:
        """Take one event of the interpreter."""
        if event == "call":
            self.python += 1
        elif event == "c_call":
            self.others += 1


async def calls_a_saga(feeding: Feeding, sagas: int) -> tuple[float, float]:
    """How many calls a saga costs, of Python's functions and of others."""
    counted, turn = Calls(), feeding._turn

    async def counting(received: bytes) -> int:
        sys.setprofile(counted)
        spent = await turn(received)
        sys.setprofile(None)
        return spent

    feeding._turn = counting  # type: ignore[method-assign]
    await feeding.run(sagas)
    del feeding._turn
    return counted.python / sagas, counted.others / sagas


async def main(rounds: int, sagas: int) -> None:
    """Print the least and the median CPU time of many rounds, and the calls."""
    feeding = await Feeding.begin()
    await feeding.run(200)
    settle_collector()
    found = sorted([(await feeding.run(sagas)).cpu_us for _ in range(rounds)])
    python, others = await calls_a_saga(feeding, 100)
    print(interpreter())
    print(f"least {found[0]:.1f} µs, median {found[len(found) // 2]:.1f} µs of CPU a saga")
    print(f"{python:.0f} calls of Python's functions a saga, {others:.0f} of others")


if __name__ == "__main__":
    asyncio.run(main(*(int(each) for each in sys.argv[1:] or ("40", "250"))))
