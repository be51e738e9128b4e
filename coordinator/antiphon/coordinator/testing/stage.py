"""What a participant's worker has in a rehearsal in the place of its connection: pulls and publishes in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Literal

from antiphon.contracts.pairs import ONE_PAIR
from antiphon.contracts.stored import Delivered, Outcome
from antiphon.contracts.topology import EVENTS, PARKED, Listener, participant_consumers, reactions_consumer

from ..runtime.memory import MemoryPlatform

Death = Literal["before commit", "after commit"]
"""When a participant's process dies: with nothing done, or with all done and nothing said."""


class Died(Exception):
    """The process is gone; nothing it does from here on is heard of."""


class Stage:
    """The link of one participant's process. Once the process died it delivers nothing and lets nothing pass."""

    pairs = ONE_PAIR

    def __init__(self, platform: MemoryPlatform, participant: Listener) -> None:
        self._platform, self.participant = platform, participant.name
        self._consumers = (*participant_consumers(participant.name), reactions_consumer(participant))
        self.slow_seconds = 0.0
        self.dies: Death | None = None
        self.is_dead = False
        self.held = 0
        """Commands that are being worked on."""
        self.changed = asyncio.Event()
        self._postponed: Counter[int] = Counter()
        self._handlers: list[tuple[str, Callable[[Delivered], None]]] = []

    async def pull(
        self, stream: str, consumer: str, capacity: int, handle: Callable[[Held], None], ack_wait_seconds: float = 0.0
    ) -> Stage:
        """Take part in a consumer. All there is may be held at once."""

        def deliver(delivery: Delivered) -> None:
            self._deliver(delivery, handle)

        found = next(each for each in self._consumers if each.name == consumer)
        self._platform.consume(found, deliver)
        self._handlers.append((consumer, deliver))
        return self

    def publish(self, subject: str, data: bytes, headers: str, then: Callable[[Outcome], None]) -> None:
        """Store an answer; confirmed at once."""
        if not self.is_dead:
            then(self._platform.store(EVENTS, subject, data))

    async def store(self, subject: str, data: bytes) -> int:
        """Store what is parked."""
        outcome = self._platform.store(PARKED, subject, data)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def flush(self) -> None:
        """Nothing waits to be sent."""

    async def drain(self) -> None:
        """Nothing is under way."""

    # --- faults -------------------------------------------------------------------------------------------------------

    def reached(self, point: str) -> None:
        """Die here if that was asked for."""
        if self.is_dead or point == self.dies:
            self.die()
            raise Died(f"{self.participant} died {point}")

    def die(self) -> None:
        """Leave, without a word to anybody. What is being worked on comes to its end, and nobody hears of it."""
        if not self.is_dead:
            self.is_dead = True
            for consumer in self._consumers:
                for name, handler in self._handlers:
                    if name == consumer.name:
                        self._platform.leave(consumer, handler)

    # --- deliveries ---------------------------------------------------------------------------------------------------

    def _deliver(self, delivery: Delivered, handle: Callable[[Held], None]) -> None:
        if self.slow_seconds and not self._postponed[delivery.sequence]:
            self._postponed[delivery.sequence] += 1
            delivery.hand_back(self.slow_seconds)
            return
        self.held += 1
        handle(Held(self, delivery, delivery.deliveries - self._postponed[delivery.sequence]))

    def released(self) -> None:
        """Somebody is done with a command."""
        self.held -= 1
        self.changed.set()


class Held:
    """One delivered command; what a worker expects of a `Delivery`."""

    is_lost = False

    def __init__(self, stage: Stage, delivery: Delivered, deliveries: int) -> None:
        self._stage, self._delivery = stage, delivery
        self.stream, self.subject, self.data = delivery.stream, delivery.subject, delivery.data
        self.sequence, self.stored_ns, self.deliveries = delivery.sequence, delivery.stored_ns, deliveries

    def ack(self) -> None:
        """All it asked for is durable."""
        if not self._stage.is_dead:
            self._delivery.ack()
        self._stage.released()

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Deliver it again."""
        if not self._stage.is_dead:
            self._delivery.hand_back(delay_seconds)
        self._stage.released()

    def end(self, reason: str) -> None:
        """Never deliver it again."""
        self.ack()

    def in_progress(self) -> None:
        """Virtual time stands still while it is worked on."""

    def leave_place(self) -> None:
        """There are as many places as commands."""

    def take_place(self) -> None:
        """There are as many places as commands."""

    def drop(self) -> None:
        """Let it come again after the ack wait."""
        self._stage.released()
