"""The platform in memory, under virtual time: the streams, the timers and the consumers, as the server behaves.

Every answer is a callback that the next turn delivers, so that runs are the same every time. Tests bend the weather by
overriding what a `MemoryStore` is asked: reads may lag, answers may be lost. The conformance suite holds it to what the
real server does.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from antiphon.contracts import subjects
from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.pairs import ONE_PAIR
from antiphon.contracts.reader import named_sequences
from antiphon.contracts.stored import AlreadyStored, Delivered, NotRead, Outcome, SagaPages, StoredMessage
from antiphon.contracts.topology import EVENTS, PARKED, PARKED_PER_SOURCE_MAX, SAGA, Consumer
from antiphon.link.faults import say
from antiphon.link.guard import Guard

from .ports import FACTS_READ_MAX, ArmGuard

STARTS_PER_READ = 50
"""So few that small tests turn pages too."""

MATCHES_MAX = 1024
"""A server counts no more subjects than these for one read."""

BEGINNING_NS = 1_750_000_000_000_000_000
"""When virtual time begins: some day in June 2025."""

NANO = 1_000_000_000


T = TypeVar("T")


class MemoryPlatform:
    """Streams, timers and consumers, and the clock they share."""

    def __init__(self) -> None:
        self.now_ns = BEGINNING_NS
        self.streams: dict[str, list[StoredMessage]] = {SAGA: [], EVENTS: [], PARKED: []}
        self.schedules: dict[SagaKey, tuple[int, bytes]] = {}
        self._sequences = dict.fromkeys(self.streams, 0)
        self._consumers: dict[str, MemoryConsumer] = {}
        self.coordinators: list[Callable[[str, bytes], None]] = []
        """Who hears announcements, with their subject and data."""
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    # --- time ---------------------------------------------------------------------------------------------------------

    def later_ns(self, delay_ns: int, call: Callable[[], None]) -> None:
        """Call after a delay; calls due at the same time are made in the order they were asked for."""
        heapq.heappush(self._calls, (self.now_ns + max(0, delay_ns), next(self._order), call))

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything happen that happens by then."""
        end_ns = self.now_ns + round(seconds * NANO)
        while self.step(end_ns):
            pass
        self.now_ns = end_ns

    def step(self, end_ns: int) -> bool:
        """Let the next thing happen, if it does by then."""
        if not self._calls or self._calls[0][0] > end_ns:
            return False
        due_ns, _, call = heapq.heappop(self._calls)
        self.now_ns = max(self.now_ns, due_ns)
        call()
        return True

    # --- streams ------------------------------------------------------------------------------------------------------

    def store(self, stream: str, subject: str, data: bytes) -> Outcome:
        """Store a message; EVENTS takes one a subject, and PARKED the first ones."""
        if stream == EVENTS and self.last(EVENTS, subject):
            return AlreadyStored("maximum messages per subject exceeded")
        if stream == PARKED and sum(m.subject == subject for m in self.streams[PARKED]) >= PARKED_PER_SOURCE_MAX:
            return AlreadyStored("maximum messages per subject exceeded")
        self._sequences[stream] += 1
        message = StoredMessage(subject, self._sequences[stream], self.now_ns, data)
        self.streams[stream].append(message)
        for consumer in list(self._consumers.values()):
            consumer.offer(stream, message)
        return message.sequence

    def last(self, stream: str, subject_filter: str) -> int:
        """The sequence of the last message that matches, 0 if there is none."""
        found = (m.sequence for m in reversed(self.streams[stream]) if subjects.matches(subject_filter, m.subject))
        return next(found, 0)

    def read(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        """The last message of every subject that matches, in stream order."""
        found = {m.subject: m for m in self.streams[stream] if any(subjects.matches(f, m.subject) for f in filters)}
        return sorted(found.values(), key=lambda message: message.sequence)

    def schedule(self, key: SagaKey, due_ns: int, body: bytes) -> None:
        """Set the saga's timer in place of the one it may have."""
        armed = self.schedules[key] = (due_ns, body)

        def fire() -> None:
            if self.schedules.get(key) is armed:
                del self.schedules[key]
                self.store(SAGA, subjects.fired_subject(key), body)

        self.later_ns(due_ns - self.now_ns, fire)

    def forget(self, stream: str, subject: str) -> None:
        """Drop what a stream holds at a subject."""
        self.streams[stream] = [message for message in self.streams[stream] if message.subject != subject]

    # --- consumers ----------------------------------------------------------------------------------------------------

    def consume(self, consumer: Consumer, handle: Callable[[Delivered], None]) -> None:
        """Share a durable consumer: its messages go to its handlers in turn."""
        found = self._consumers.get(consumer.name)
        if found is None:
            found = self._consumers[consumer.name] = MemoryConsumer(self, consumer)
            found.handlers.append(handle)
            for message in self.streams[consumer.stream]:
                found.offer(consumer.stream, message)
        else:
            found.join(handle)

    def leave(self, consumer: Consumer, handle: Callable[[Delivered], None]) -> None:
        """Share it no more, as a process that died; what it held is delivered to others after the ack wait."""
        self._consumers[consumer.name].handlers.remove(handle)

    def is_paused(self, name: str) -> bool | None:
        """Whether a consumer delivers nothing; None if nobody ever shared it."""
        consumer = self._consumers.get(name)
        return consumer.is_paused if consumer else None

    def pause(self, name: str, paused: bool) -> None:
        """Have a consumer deliver nothing, or go on."""
        self._consumers[name].pause(paused)

    def pending(self, consumer: Consumer) -> int:
        """How many of its messages are not acked yet."""
        return len(self._consumers[consumer.name].pending)


class MemoryConsumer:
    """A durable consumer: delivers until it is acked, again after each ack wait."""

    def __init__(self, platform: MemoryPlatform, consumer: Consumer) -> None:
        self.platform, self.consumer = platform, consumer
        self.handlers: list[Callable[[Delivered], None]] = []
        self.pending: dict[int, int] = {}
        """Sequences that are not acked, with the number of their deliveries."""
        self.is_paused = False
        self._asked: dict[int, int] = {}
        """How often each was to be delivered."""
        self._unheard: list[tuple[StoredMessage, int]] = []
        """What was due while nobody took part, or nothing was to be delivered."""
        self._turn = 0

    def join(self, handle: Callable[[Delivered], None]) -> None:
        """Take one more handler, and deliver what nobody was there for."""
        self.handlers.append(handle)
        self._deliver_unheard()

    def pause(self, paused: bool) -> None:
        """Deliver nothing, not even again; or go on with what has waited."""
        self.is_paused = paused
        self._deliver_unheard()

    def _deliver_unheard(self) -> None:
        unheard, self._unheard = self._unheard, []
        for message, deliveries in unheard:
            self.deliver_after(0, message, deliveries)

    def offer(self, stream: str, message: StoredMessage) -> None:
        """Take a stored message on, if it is one of this consumer's."""
        if stream == self.consumer.stream and any(subjects.matches(f, message.subject) for f in self.consumer.filters):
            self.pending[message.sequence] = 0
            self.deliver_after(0, message, 0)

    def deliver_after(self, delay_ns: int, message: StoredMessage, deliveries: int) -> None:
        """Deliver after a delay, unless it was acked by then. The last request counts: a message that was handed
        back for longer than the ack wait stays away for as long."""
        asked = self._asked[message.sequence] = self._asked.get(message.sequence, 0) + 1

        def deliver() -> None:
            if message.sequence not in self.pending or self._asked.get(message.sequence) != asked:
                return
            if self.is_paused or not self.handlers:
                self._unheard.append((message, deliveries))
                return
            self.pending[message.sequence] = deliveries + 1
            self.deliver_after(round(self.consumer.ack_wait_seconds * NANO), message, deliveries + 1)
            self._turn += 1
            self.handlers[self._turn % len(self.handlers)](MemoryDelivery(self, message, deliveries + 1))

        self.platform.later_ns(delay_ns, deliver)

    def acked(self, sequence: int) -> None:
        """Deliver it no more."""
        self.pending.pop(sequence, None)
        self._asked.pop(sequence, None)


class MemoryDelivery:
    """One delivery of a message; see `Delivered`."""

    def __init__(self, consumer: MemoryConsumer, message: StoredMessage, deliveries: int) -> None:
        self._consumer, self._message = consumer, message
        self.stream, self.subject, self.data = consumer.consumer.stream, message.subject, message.data
        self.sequence, self.stored_ns, self.deliveries = message.sequence, message.stored_ns, deliveries

    def ack(self) -> None:
        """Done, whoever holds it now."""
        self._consumer.acked(self.sequence)

    def in_progress(self) -> None:
        """Start another ack wait."""
        wait_ns = round(self._consumer.consumer.ack_wait_seconds * NANO)
        self._consumer.deliver_after(wait_ns, self._message, self.deliveries)

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Deliver again after the delay, instead of after the ack wait."""
        self._consumer.deliver_after(round(delay_seconds * NANO), self._message, self.deliveries)


class MemoryStore:
    """What one coordinator sees of a `MemoryPlatform`; the port `Store`."""

    pairs = ONE_PAIR

    def __init__(self, platform: MemoryPlatform) -> None:
        self.platform, self.guard = platform, Guard(say)

    def append(
        self,
        key: SagaKey,
        subject: str,
        data: bytes,
        last_sequence: int,
        unschedule: bool,
        then: Callable[[Outcome], None],
    ) -> None:
        """Append under the journal's guard."""
        if self.platform.last(SAGA, subjects.journal_filter(key)) != last_sequence:
            self._answer(then, Conflict("wrong last sequence"))
            return
        if unschedule:
            self.platform.schedules.pop(key, None)
        self._answer(then, self.platform.store(SAGA, subject, data))

    def arm(self, key: SagaKey, due_ns: int, body: bytes, guard: ArmGuard, then: Callable[[Outcome], None]) -> None:
        """Set the timer, and keep its message in the stream as the server does until it fires."""
        if guard == "first":
            is_guarded = key not in self.platform.schedules
        else:
            is_guarded = guard == self.platform.last(SAGA, subjects.journal_filter(key))
        if not is_guarded:
            self._answer(then, Conflict("wrong last sequence"))
            return
        self.platform.schedule(key, due_ns, body)
        self.platform.forget(SAGA, subjects.timer_subject(key))  # a schedule takes the place of the one before
        self._answer(then, self.platform.store(SAGA, subjects.timer_subject(key), body))

    def tell(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        """Store in EVENTS."""
        self._answer(then, self.platform.store(EVENTS, subject, data))

    def read(self, key: SagaKey, expected: list[str], then: Callable[[SagaPages | NotRead], None]) -> None:
        """Read both streams as they are now."""
        entries = self.platform.read(SAGA, [subjects.journal_filter(key)])
        named, found = set(named_sequences(entries)), {m.sequence: m for m in self._facts(expected)}
        if not named <= found.keys():
            found |= {m.sequence: m for m in self.platform.streams[EVENTS] if m.sequence in named}
        self._answer(then, SagaPages(entries, [found[sequence] for sequence in sorted(found)]))

    def _facts(self, wanted: list[str]) -> list[StoredMessage]:
        found = self.platform.read(EVENTS, wanted)
        if len(found) > MATCHES_MAX:
            found = self.platform.read(EVENTS, [each for each in wanted if not subjects.is_filter(each)])
        return found[:FACTS_READ_MAX]

    def facts(self, wanted: list[str], then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        """Look for them."""
        parts = [wanted[first : first + FACTS_READ_MAX] for first in range(0, len(wanted), FACTS_READ_MAX)]
        found = [message for part in parts for message in self._facts(part)]
        self._answer(then, sorted(found, key=lambda message: message.sequence))

    def facts_by_leader(self, wanted: list[str], then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        """Look for them: nothing lags here."""
        self._answer(then, self.platform.read(EVENTS, wanted))

    def last(self, subject: str, then: Callable[[StoredMessage | Ambiguous | None], None]) -> None:
        """Look for the last one."""
        self._answer(then, next(iter(self.platform.read(SAGA, [subject])), None))

    def states(self, family: str, then: Callable[[list[StoredMessage] | Ambiguous], None]) -> None:
        """Look for them."""
        self._answer(then, self.platform.read(SAGA, [subjects.states_filter(family)]))

    def starts(
        self, stream: str, saga_type: str, after: int, then: Callable[[list[StoredMessage] | Ambiguous], None]
    ) -> None:
        """Look for the next ones."""
        wanted = subjects.starts_filter(saga_type)
        found = (m for m in self.platform.streams[stream] if m.sequence > after and subjects.matches(wanted, m.subject))
        self._answer(then, list(itertools.islice(found, STARTS_PER_READ)))

    def announce(self, saga_type: str, sequence: int) -> None:
        """Call everybody."""
        for hear in self.platform.coordinators:
            self.platform.later_ns(0, partial(hear, subjects.announce_subject(saga_type), b"%d" % sequence))

    def is_paused(self, stream: str, consumer: str, then: Callable[[bool | Ambiguous | None], None]) -> None:
        """Look at the consumer; its name is enough."""
        self._answer(then, self.platform.is_paused(consumer))

    def pause(self, stream: str, consumer: str, paused: bool, then: Callable[[Ambiguous | None], None]) -> None:
        """Stop the consumer, or let it go on."""
        self.platform.pause(consumer, paused)
        self._answer(then, None)

    def ended(self, keys: list[SagaKey], then: Callable[[set[SagaKey] | Ambiguous], None]) -> None:
        """Look for the outcomes."""
        self._answer(then, {key for key in keys if self.platform.last(SAGA, subjects.end_subject(key))})

    def park(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        """Store in PARKED."""
        self._answer(then, self.platform.store(PARKED, subject, data))

    def now(self) -> datetime:
        """Virtual time."""
        return datetime.fromtimestamp(self.platform.now_ns / NANO, UTC)

    def later(self, delay_seconds: float, call: Callable[[], None]) -> None:
        """Call after a delay in virtual time."""
        self.platform.later_ns(round(delay_seconds * NANO), partial(self.guard.call, self.guard.current, call))

    def _answer(self, then: Callable[[T], None], result: T) -> None:
        whose = self.guard.current
        self.platform.later_ns(0, lambda: self.guard.call(whose, then, result))
