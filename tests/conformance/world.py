"""The same questions to memory and to a real server: a store, EVENTS, and the consumers that deliver."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.stored import AlreadyStored, Delivered, Outcome, Rejected
from antiphon.contracts.topology import EVENTS, Consumer
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from antiphon.coordinator.runtime.ports import Store
from antiphon.link import Link
from tests.support.server import until

T = TypeVar("T")
_numbers = itertools.count()


def fresh_key() -> SagaKey:
    """A saga that no other test knows."""
    return SagaKey.of("trip", f"t{next(_numbers)}-{time.time_ns()}")


class World(Protocol):
    store: Store

    async def put(self, subject: str, data: bytes) -> Outcome: ...
    async def consume(self, consumer: Consumer, handle: Callable[[Delivered], None]) -> None: ...
    async def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None: ...
    def now_ns(self) -> int: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.platform = MemoryPlatform()
        self.store: Store = MemoryStore(self.platform)

    async def put(self, subject: str, data: bytes) -> Outcome:
        return self.platform.store(EVENTS, subject, data)

    async def consume(self, consumer: Consumer, handle: Callable[[Delivered], None]) -> None:
        self.platform.consume(consumer, handle)

    async def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        end_ns = self.platform.now_ns + round(seconds * 1e9)
        while not condition():
            assert self.platform.now_ns < end_ns, "it did not come to be"
            self.platform.run(0.005)

    def now_ns(self) -> int:
        return self.platform.now_ns


class ServerWorld:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.store: Store = JetStreamStore(link)

    async def put(self, subject: str, data: bytes) -> Outcome:
        try:
            return await self.link.store(subject, data)
        except (Conflict, AlreadyStored, Rejected, Ambiguous) as error:
            return error

    async def consume(self, consumer: Consumer, handle: Callable[[Delivered], None]) -> None:
        for stream in self.link.pairs.names(consumer.stream):
            await self.link.pull(stream, consumer.name, 50, handle)

    async def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        await until(condition, seconds=seconds)

    def now_ns(self) -> int:
        return time.time_ns()


async def answer_of(world: World, ask: Callable[[Callable[[T], None]], None]) -> T:
    """Ask, and wait for the one answer."""
    got: list[T] = []
    ask(got.append)
    await world.until(lambda: got)
    assert len(got) == 1
    return got[0]


async def append(world: World, key: SagaKey, name: str, guard: int, unschedule: bool = False) -> Outcome:
    """Append a record, or the end if it is called so."""
    subject = subjects.end_subject(key) if name == "end" else subjects.record_subject(key, name)
    data = name.encode()
    return await answer_of(world, lambda then: world.store.append(key, subject, data, guard, unschedule, then))


async def appended(world: World, key: SagaKey, name: str, guard: int) -> int:
    """Append, and expect it to be stored."""
    outcome = await append(world, key, name, guard)
    assert isinstance(outcome, int)
    return outcome
