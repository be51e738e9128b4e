"""The floor: the tightest loop that carries a saga over JetStream, written by hand, with nothing around it.

A saga of three steps is eight messages: a start, three commands, three answers, an end. All are in a file
stream, each delivery is acked only after what it causes is stored, and whatever the coordinator writes is guarded by
the sequence of the saga's last entry. There are no retries, no inbox, no timers, no types and no checks: this is the
price of the messages alone, and what Antiphon costs is measured against it.

It reaches deep into nats-py to be a floor. That is no example to follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import nats

from .load import Driver, Load, Seen

STREAM: Final = "FLOOR"
STEPS: Final = {"A": ("A", "A-undo"), "B": ("B", "B-undo"), "C": ("C", "C-last")}
"""The commands that each worker answers."""
WORKERS: Final = tuple(STEPS)
NEXT: Final[dict[bytes, dict[bytes, bytes]]] = {
    b"plain": {b"start": b"A", b"A": b"B", b"B": b"C"},
    b"compensated": {b"start": b"A", b"A": b"B", b"B": b"C", b"C": b"B-undo", b"B-undo": b"A-undo"},
    b"diamond": {b"start": b"A", b"A": b"B", b"join": b"C-last"},
}
"""What follows on what, by the shape that a saga's id begins with; what has no entry ends the saga."""
ORDER: Final = {"order_id": "order-0042", "customer_id": "c-018", "item_id": "tea-sencha-200", "amount": 5670}

PULL_BATCH: Final = 200
PULL_SECONDS: Final = 30

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Handler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Called with subject, reply subject, data and headers."""


class Wire:
    """A connection of nats-py, of which only the socket and the parser are left."""

    def __init__(self, nc: Any) -> None:
        self.nc = nc
        self._frames: list[bytes] = []
        self._handlers: dict[int, Handler] = {}
        self._soon = asyncio.get_running_loop().call_soon
        self._stored_inbox = nc.new_inbox().encode()
        self._unacked: dict[bytes, bytes | Callable[[int], None]] = {}
        self._count = 0
        original, handlers = nc._process_msg, self._handlers

        async def process(sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
            handle = handlers.get(sid)
            if handle is None:
                await original(sid, subject, reply, data, headers)
            else:
                handle(subject, reply, data, headers)

        nc._process_msg = process

    @classmethod
    async def connect(cls, url: str) -> Wire:
        wire = cls(await nats.connect(url))
        await wire.subscribe(wire._stored_inbox.decode() + ".*", wire._on_stored)
        return wire

    def send(self, frame: bytes) -> None:
        """Send a frame together with all others of this turn of the loop."""
        self._frames.append(frame)
        if len(self._frames) == 1:
            self._soon(self._flush)

    def publish(self, subject: bytes, data: bytes, delivery: bytes = b"") -> None:
        """Store a message, and then ack the delivery that caused it."""
        self.send(b"PUB %b %b %d\r\n%b\r\n" % (subject, self._once_stored(delivery), len(data), data))

    def publish_guarded(
        self, saga: bytes, subject: bytes, data: bytes, last: int, then: bytes | Callable[[int], None]
    ) -> None:
        """Store a message if the saga's last command is where it was, and then ack the delivery that caused it, or go
        on with where it is stored."""
        head = (
            b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: %d\r\n"
            b"Nats-Expected-Last-Subject-Sequence-Subject: s.%b.cmd.*\r\n\r\n" % (last, saga)
        )
        reply, whole = self._once_stored(then), len(head) + len(data)
        self.send(b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, len(head), whole, head, data))

    def ack(self, delivery: bytes) -> None:
        """Say that what a delivery causes is stored."""
        self.send(b"PUB %b  4\r\n+ACK\r\n" % delivery)

    async def subscribe(self, subject: str, handle: Handler) -> None:
        subscription = await self.nc.subscribe(subject)
        self._handlers[subscription._id] = handle

    async def pull(self, durable: str, handle: Callable[[bytes, bytes, bytes], None]) -> None:
        """Keep a pull request standing, topped up when half of it is delivered."""
        inbox = self.nc.new_inbox()
        request, reply = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{durable}".encode(), inbox.encode()
        asked = 0

        def ask() -> None:
            nonlocal asked
            body = b'{"batch":%d,"expires":%d}' % (PULL_BATCH - asked, PULL_SECONDS * 1_000_000_000)
            asked = PULL_BATCH
            self.send(b"PUB %b %b %d\r\n%b\r\n" % (request, reply, len(body), body))

        def on_message(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
            nonlocal asked
            if headers and not reply:  # the request has expired
                asked = 0
                ask()
                return
            asked -= 1
            if asked < PULL_BATCH // 2:
                ask()
            handle(subject, reply, data)

        await self.subscribe(inbox, on_message)
        ask()

    def _once_stored(self, then: bytes | Callable[[int], None]) -> bytes:
        self._count += 1
        token = b"%d" % self._count
        self._unacked[token] = then
        return b"%b.%b" % (self._stored_inbox, token)

    def _on_stored(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        then = self._unacked.pop(subject[len(self._stored_inbox) + 1 :])
        if b'"error"' in data:
            raise SystemExit(f"floor: a message was not stored: {data.decode()}")
        if not isinstance(then, bytes):
            then(_decode(data)["seq"])
        elif then:
            self.ack(then)

    def _flush(self) -> None:
        self.nc._transport.write(b"".join(self._frames))
        self._frames.clear()


async def set_up(url: str) -> None:
    """Create the stream and its consumers."""
    nc = await nats.connect(url)
    stream = {"name": STREAM, "subjects": ["s.>"], "storage": "file", "retention": "limits", "num_replicas": 1}
    await _api(nc, f"STREAM.CREATE.{STREAM}", stream)
    filters = {
        "coordinator": ["s.*.start", "s.*.evt.*"],
        **{worker: [f"s.*.cmd.{each}" for each in steps] for worker, steps in STEPS.items()},
    }
    for durable, subjects in filters.items():
        what = {"durable_name": durable, "filter_subjects": subjects, "deliver_policy": "all"}
        how = {"ack_policy": "explicit", "max_ack_pending": 100_000, "ack_wait": 30_000_000_000}
        await _api(nc, f"CONSUMER.CREATE.{STREAM}.{durable}", {"stream_name": STREAM, "config": what | how})
    await nc.close()


async def serve(role: str, url: str, ready: Callable[[], None]) -> None:
    """Run one role for ever."""
    await (coordinator(url) if role == "coordinator" else worker(url, role))
    ready()
    await asyncio.Event().wait()


async def coordinator(url: str) -> None:
    """Answer every start and every event with the next command, or with the end."""
    wire = await Wire.connect(url)
    joined: dict[bytes, int] = {}

    def on_fact(subject: bytes, reply: bytes, data: bytes) -> None:
        _, saga, *_, fact = subject.split(b".")
        shape = saga.partition(b"-")[0]
        last = 0 if fact == b"start" else _decode(data)["sequence"]
        if shape == b"diamond" and fact in (b"B", b"C"):
            first = joined.pop(saga, 0)
            if not first:
                joined[saga] = last
                wire.ack(reply)
                return
            fact, last = b"join", max(first, last)
        step = NEXT[shape].get(fact)
        if step is None:
            wire.publish_guarded(saga, b"s.%b.end" % saga, b'{"outcome":"over"}', last, reply)
        elif shape == b"diamond" and step == b"B":
            send(saga, step, last, lambda sequence: send(saga, b"C", sequence, reply))
        else:
            send(saga, step, last, reply)

    def send(saga: bytes, step: bytes, last: int, then: bytes | Callable[[int], None]) -> None:
        body = _encode({"step": step.decode(), "order": ORDER})
        wire.publish_guarded(saga, b"s.%b.cmd.%b" % (saga, step), body, last, then)

    await wire.pull("coordinator", on_fact)


async def worker(url: str, name: str) -> None:
    """Answer every command with an event that names it."""
    wire = await Wire.connect(url)

    def on_command(subject: bytes, reply: bytes, data: bytes) -> None:
        command = _decode(data)
        body = _encode({"step": command["step"], "done": True, "sequence": int(reply.split(b".")[5])})
        _, saga, _, step = subject.split(b".")
        wire.publish(b"s.%b.evt.%b" % (saga, step), body, reply)

    await wire.pull(name, on_command)


async def client(url: str, load: Load) -> Seen:
    """Start sagas and see them end."""
    wire = await Wire.connect(url)
    driver = Driver(load, lambda saga: wire.publish(b"s.%b.start" % saga.encode(), _encode(ORDER)))
    await wire.subscribe("s.*.end", lambda subject, *_: driver.ended(subject.split(b".")[1].decode()))
    await wire.nc.flush()
    seen = await driver.run()
    await wire.nc.close()
    return seen


async def _api(nc: Any, subject: str, body: dict[str, Any]) -> None:
    answer = msgspec.json.decode((await nc.request(f"$JS.API.{subject}", _encode(body), timeout=10)).data)
    if "error" in answer:
        raise SystemExit(f"floor: {subject}: {answer['error']}")
