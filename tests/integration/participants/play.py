"""The coordinator's side, played by the tests: commands are stored, and answers looked up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from antiphon.contracts import Command, Compensation, Event, SagaKey
from antiphon.contracts.envelope import Envelope, decode, encode, pack
from antiphon.contracts.messages import Settle, settle_type
from antiphon.contracts.payloads import RECORD_TYPE, Record
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import (
    Direction,
    command_subject,
    event_subject,
    events_filter,
    record_subject,
    start_subject,
)
from antiphon.contracts.topology import EVENTS, PARKED, SAGA, Listener, participant_consumer_name
from antiphon.link import Link, StoredMessage
from antiphon.link.setup import api
from antiphon.participants import Database, Participant, Worker
from antiphon.participants.memory import MemoryDatabase
from tests.support.server import Form, Platform, platform

from .stock import Release, Reserve

QUICK = Retry(attempts=3, first_seconds=0.01, factor=1.0, cap_seconds=0.01)
TRACEPARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
SECONDS = 120.0
T = TypeVar("T")


class HasParticipant(Protocol):
    """Stock, or another participant called so."""

    participant: Participant


@dataclass
class Play:
    """A platform, a coordinator's link and an administrator's, and the workers a test started."""

    up: Platform
    link: Link
    administrator: Link
    workers: list[Worker] = field(default_factory=list[Worker])
    links: list[Link] = field(default_factory=list[Link])

    async def worker(self, stock: HasParticipant, database: Database | None = None, **settings: Any) -> Worker:
        """A started worker, on a connection of its own."""
        link = await self.up.connect("stock")
        self.links.append(link)
        worker = Worker(stock.participant, link, database or MemoryDatabase(), **settings)
        await worker.start()
        self.workers.append(worker)
        return worker

    async def do(self, saga: str, attempt: int = 1, *, retry: Retry = QUICK, pieces: int = 1) -> int:
        """Store the command of a saga's only step; gives its sequence."""
        return await self.send(saga, "do", attempt, Reserve(pieces=pieces), retry)

    async def undo(self, saga: str, attempt: int = 1, *, retry: Retry = QUICK) -> int:
        """Store its compensation."""
        return await self.send(saga, "undo", attempt, Release(), retry)

    async def settle(self, saga: str, attempt: int = 1) -> int:
        """Store the question what became of it."""
        subject = subject_of(saga, "undo", attempt)
        what = {"type": settle_type(Reserve.__contract__), "data": pack(Settle())}
        return await self.link.store(subject, envelope_of(subject, Reserve(), QUICK, **what))

    async def send(
        self,
        saga: str,
        direction: Direction,
        attempt: int,
        command: Command[Any] | Compensation[Any],
        retry: Retry,
        **changes: Any,
    ) -> int:
        """Store a command as a coordinator does."""
        subject = subject_of(saga, direction, attempt)
        return await self.link.store(subject, envelope_of(subject, command, retry, **changes))

    async def answer(self, saga: str, event: str, attempt: int = 1, seconds: float = SECONDS) -> Envelope:
        """The answer of a saga's only step with this token, as soon as it is stored."""

        async def find() -> Envelope | None:
            return next((e for e in await self.answers(saga) if e.id.endswith(f".{event}.reserve.{attempt}")), None)

        return await come(find, f"the answer {event} of attempt {attempt} of {saga}", seconds)

    async def answers(self, saga: str) -> list[Envelope]:
        """All answers stored for a saga."""
        found = await self.link.read_all(EVENTS, [events_filter(SagaKey.of("order", saga), "stock")])
        return [decode(message.data, message.subject) for message in found]

    async def parked(self) -> StoredMessage:
        """The message in PARKED, once there is one."""

        async def find() -> StoredMessage | None:
            found = await self.administrator.read_all(PARKED, ["parked.>"])
            return found[0] if found else None

        return await come(find, "a parked message")

    async def noted(self, sequence: int, saga: str) -> None:
        """Have a journal name an event, as a coordinator does that knows of nobody who fails because of it."""
        subject = record_subject(SagaKey.of("shop", saga), "n1")
        envelope = Envelope(
            id=subject,
            source="coordinator",
            type=RECORD_TYPE,
            time=datetime.now(UTC),
            data=pack(Record()),
            cause=f"e{sequence}",
        )
        await self.administrator.store(subject, encode(envelope))

    async def tell(self, event: Event, saga: str, step: str = "said", attempt: int = 1, **changes: Any) -> int:
        """Store an event as whoever owns it does, of a client a start; changes make it one that its owner would not."""
        contract, subject = event.__contract__, told_subject(event, saga, step, attempt)
        attributes: dict[str, Any] = {
            "id": subject,
            "source": contract.owner,
            "type": contract.type,
            "time": datetime.now(UTC),
            "data": pack(event),
            "traceparent": TRACEPARENT,
        }
        return await self.administrator.store(subject, encode(Envelope(**(attributes | changes))))

    async def follows(self, saga: str, event: str, step: str, seconds: float = SECONDS) -> Envelope:
        """What stock publishes by itself in a saga, as soon as it is stored."""

        async def find() -> Envelope | None:
            found = await self.said(saga)
            return next((each for each in found if each.id.endswith(f".stock.{event}.{step}.1")), None)

        return await come(find, f"the event {event} at {step} of {saga}", seconds)

    async def said(self, saga: str) -> list[Envelope]:
        """All that stock has published in a saga of the shop."""
        found = await self.administrator.read_all(EVENTS, [events_filter(SagaKey.of("shop", saga), "stock")])
        return [decode(message.data, message.subject) for message in found]

    async def all_heard(self) -> None:
        """Wait until every event was taken and acked."""

        async def find() -> bool | None:
            found = await api(self.administrator, f"CONSUMER.INFO.{EVENTS}.stock-on")
            return True if found["num_ack_pending"] == found["num_pending"] == 0 else None

        await come(find, "nothing pending for reactions")

    async def consumer(self, direction: Direction = "do") -> dict[str, Any]:
        """What the server says about a consumer."""
        name = participant_consumer_name("stock", direction)
        return await api(self.administrator, f"CONSUMER.INFO.{SAGA}.{name}")

    async def is_settled(self, direction: Direction = "do") -> None:
        """Wait until the consumer has nothing to deliver and nothing that is not acked."""

        async def find() -> bool | None:
            found = await self.consumer(direction)
            return True if found["num_ack_pending"] == found["num_pending"] == 0 else None

        await come(find, f"nothing pending in {direction}")

    async def close(self) -> None:
        """Drain what runs and close what was opened."""
        for worker in self.workers:
            await worker.drain(grace_seconds=0.0)
        for link in (*self.links, self.link, self.administrator):
            await link.close()


@asynccontextmanager
async def play(
    folder: Path, form: Form = "plain", *, ack_wait_seconds: float = 600.0, listeners: Sequence[Listener] = ()
) -> AsyncIterator[Play]:
    """A fresh server for one test."""
    with platform(folder, form, participants=("stock",)) as up:
        await up.set_up(ack_wait_seconds, listeners)
        playing = Play(up, await up.connect("coordinator"), await up.connect("administrator"))
        try:
            yield playing
        finally:
            await playing.close()


def told_subject(event: Event, saga: str, step: str = "said", attempt: int = 1) -> str:
    """Where whoever owns an event stores it."""
    contract, key = event.__contract__, SagaKey.of("shop", saga)
    if contract.owner == "client":
        return start_subject(key)
    return event_subject(key.path, contract.owner, contract.token, step, attempt)


def subject_of(saga: str, direction: Direction = "do", attempt: int = 1) -> str:
    """Where the command of a saga's only step is stored."""
    return command_subject(SagaKey.of("order", saga), "stock", "reserve", direction, attempt)


def envelope_of(subject: str, command: Command[Any] | Compensation[Any], retry: Retry = QUICK, **changes: Any) -> bytes:
    """A command's bytes; changes make it one that a coordinator would not send."""
    attributes: dict[str, Any] = {
        "id": subject,
        "source": "coordinator",
        "type": command.__contract__.type,
        "time": datetime.now(UTC),
        "data": pack(command),
        "retry": retry.encode(),
        "traceparent": TRACEPARENT,
    }
    return encode(Envelope(**(attributes | changes)))


async def come(find: Callable[[], Awaitable[T | None]], what: str, seconds: float = SECONDS) -> T:
    """Ask until there is something, and more rarely the longer it takes: the server and the worker answer beside it."""
    pause = 0.005
    try:
        async with asyncio.timeout(seconds):
            while (found := await find()) is None:
                await asyncio.sleep(pause)
                pause = min(1.2 * pause, 0.05)
            return found
    except TimeoutError:
        raise AssertionError(f"{what} did not come within {seconds:g} s") from None
