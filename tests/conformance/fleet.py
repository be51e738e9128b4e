"""Coordinators, participants and the weather over a platform in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.stored import Delivered, NoRoom, NotRead, Outcome, SagaPages
from antiphon.contracts.topology import (
    EVENTS,
    PARKED,
    PLATFORM_CONSUMERS,
    SAGA,
    Consumer,
    fact_consumers,
    participant_consumers,
)
from antiphon.coordinator.decision.entries import read_entry
from antiphon.coordinator.decision.facts import Send
from antiphon.coordinator.decision.history import Entry, History
from antiphon.coordinator.decision.replay import replay
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.versions import by_type
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from antiphon.coordinator.runtime.ports import ArmGuard
from tests.support.raw_worker import Close, Play, answer_message, closed_message, start_message, willing, yielding
from tests.support.trip import ASKED, PARTICIPANTS, TRIP

*_, TIMERS, SWEEPER = PLATFORM_CONSUMERS
KEY = SagaKey.of("trip", "t1")


class StormyStore(MemoryStore):
    """A store whose weather a test decides."""

    def __init__(self, platform: MemoryPlatform) -> None:
        super().__init__(platform)
        self.lag = 0
        """How many of the next reads of a journal miss its last entry."""
        self.lost_answers = 0
        """How many of the next appends are stored and never confirmed."""
        self.lost_writes = 0
        """How many of the next appends are neither stored nor confirmed."""
        self.rivals = 0
        """How many of the next appends find that somebody else was first."""
        self.slow_seconds = 0.0
        """How long appends are on their way."""
        self.reads = 0
        self.appends = 0
        self.armed = 0
        self.unscheduled = 0
        self.parked_is_full = False
        self.park_tries: list[str] = []
        """The subjects at which something was to be parked."""

    def append(
        self,
        key: SagaKey,
        subject: str,
        data: bytes,
        last_sequence: int,
        unschedule: bool,
        then: Callable[[Outcome], None],
    ) -> None:
        self.appends += 1
        self.unscheduled += unschedule
        if self.rivals:
            self.rivals -= 1
            last_sequence = -1
        if self.slow_seconds:
            arrive = super().append
            self.later(self.slow_seconds, lambda: arrive(key, subject, data, last_sequence, unschedule, then))
        elif self.lost_writes:
            self.lost_writes -= 1
            self.later(5.0, lambda: then(Ambiguous("no answer")))
        elif self.lost_answers:
            self.lost_answers -= 1
            super().append(key, subject, data, last_sequence, unschedule, lambda outcome: None)
            self.later(5.0, lambda: then(Ambiguous("no answer")))
        else:
            super().append(key, subject, data, last_sequence, unschedule, then)

    def arm(self, key: SagaKey, due_ns: int, body: bytes, guard: ArmGuard, then: Callable[[Outcome], None]) -> None:
        self.armed += 1
        super().arm(key, due_ns, body, guard, then)

    def park(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        self.park_tries.append(subject)
        if self.parked_is_full:
            self._answer(then, NoRoom("maximum bytes exceeded (503/10077)"))
        else:
            super().park(subject, data, then)

    def read(self, key: SagaKey, expected: list[str], then: Callable[[SagaPages | NotRead], None]) -> None:
        self.reads += 1

        def age(pages: SagaPages | NotRead) -> None:
            if self.lag and isinstance(pages, SagaPages):
                self.lag -= 1
                pages = SagaPages(pages.entries[:-1], pages.events)
            then(pages)

        super().read(key, expected, age)


class Fleet:
    """Any number of coordinators that share the platform's consumers."""

    def __init__(
        self, coordinators: int = 1, saga: Saga[Any] = TRIP, play: Play = willing, close: Close = yielding
    ) -> None:
        self.platform = MemoryPlatform()
        self.definition, self.play, self.close = saga.definition, play, close
        self.versions = by_type([self.definition])[saga.name]
        self.stores = [StormyStore(self.platform) for _ in range(coordinators)]
        self.coordinators = [Coordinator(store, [self.definition]) for store in self.stores]
        for coordinator in self.coordinators:
            self.join(coordinator)
        for name in PARTICIPANTS:
            for consumer in participant_consumers(name):
                self.platform.consume(consumer, self.answer)

    def join(self, coordinator: Coordinator) -> None:
        self.platform.coordinators.append(coordinator.on_announced)
        self.hear(coordinator.on_fact)
        self.platform.consume(TIMERS, coordinator.on_fired)
        self.platform.consume(SWEEPER, coordinator.on_start_to_watch)

    @property
    def consumers_of_facts(self) -> tuple[Consumer, ...]:
        """All consumers that bring facts."""
        return fact_consumers({*PARTICIPANTS, *self.definition.sources})

    def hear(self, handle: Callable[[Delivered], None]) -> None:
        """Take part in all consumers that bring facts."""
        for consumer in self.consumers_of_facts:
            self.platform.consume(consumer, handle)

    def hear_no_more(self, handle: Callable[[Delivered], None]) -> None:
        """Take part no more, as a process that died."""
        for consumer in self.consumers_of_facts:
            self.platform.leave(consumer, handle)

    def pending_facts(self) -> int:
        """How many facts are not acked yet."""
        return sum(self.platform.pending(consumer) for consumer in self.consumers_of_facts)

    def answer(self, delivery: Delivered) -> None:
        """Play the participant."""
        command = subjects.parse_command(delivery.subject)
        if command.is_close:
            met = self.close(command)
            if met is not None:
                self.put(*closed_message(command, delivery.sequence, met, self.definition))
                delivery.ack()
            return
        kind = self.play(command)
        if kind is not None:
            self.put(*answer_message(command, delivery.sequence, kind, self.definition))
            delivery.ack()

    def start(self, key: SagaKey = KEY) -> SagaKey:
        self.put(*start_message(key, ASKED))
        return key

    def put(self, subject: str, data: bytes) -> Outcome:
        return self.platform.store(EVENTS, subject, data)

    def deliver_again(self, subject: str) -> None:
        """Have every coordinator handle a stored event once more, at once."""
        message = next(m for m in self.platform.streams[EVENTS] if m.subject == subject)
        for coordinator in self.coordinators:
            coordinator.on_fact(Again(message.subject, message.data, message.sequence, message.stored_ns))

    def run(self, seconds: float = 1.0) -> None:
        self.platform.run(seconds)

    def entries(self, key: SagaKey = KEY) -> list[Entry]:
        stored = self.platform.read(SAGA, [subjects.journal_filter(key)])
        return [read_entry(message.subject, message.sequence, message.data) for message in stored]

    def history(self, key: SagaKey = KEY) -> History:
        events = self.platform.read(EVENTS, [f"evt.{key.path}.>"])
        return replay(
            key, self.versions, SagaPages(self.platform.read(SAGA, [subjects.journal_filter(key)]), events)
        ).history

    def state(self, key: SagaKey = KEY) -> str:
        return self.history(key).state

    def sends(self, key: SagaKey = KEY) -> list[tuple[str, str, int]]:
        whats = [entry.what for entry in self.entries(key)]
        return [(what.step, what.direction, what.attempt) for what in whats if isinstance(what, Send)]

    def parked(self) -> list[bytes]:
        return [message.data for message in self.platform.streams[PARKED]]


class Again:
    """A delivery that a test makes up; nobody waits for its ack."""

    stream = EVENTS

    def __init__(self, subject: str, data: bytes, sequence: int, stored_ns: int) -> None:
        self.subject, self.data, self.sequence, self.stored_ns = subject, data, sequence, stored_ns
        self.deliveries = 2
        self.verdicts: list[str] = []

    def ack(self) -> None:
        self.verdicts.append("ack")

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        self.verdicts.append("back")

    def in_progress(self) -> None:
        self.verdicts.append("kept")
