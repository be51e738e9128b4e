"""The store on JetStream: what each of the coordinator's wishes is on the wire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from antiphon.contracts import clock, headers, identity, subjects
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import Outcome, SagaPages, StoredMessage
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link.connection import Link
from antiphon.link.guard import InHand
from antiphon.link.outcomes import CONSUMER_NOT_FOUND
from antiphon.link.reading import Pages as Read
from antiphon.link.setup import api

from .ports import ArmGuard

STARTS_PER_READ: Final = 200
"""Few enough that all of a page's open sagas can be looked at within an ack wait."""

PAUSED_UNTIL: Final = "2200-01-01T00:00:00Z"
PAUSED_NS_MIN: Final = 365 * 24 * 3600 * 1_000_000_000
"""A consumer paused for longer is paused until further notice; one paused for less is about to be resumed."""

READS_MAX: Final = 32
"""Sagas that are read at once. The server drops a client to which more than 64 MB are on their way, and a journal of
900 entries with its facts may have one."""

RESUME_SECONDS: Final = 0.1
"""A consumer whose pause ends by its time delivers at once. One that is resumed by an empty request waits for the next
pull or heartbeat, up to five seconds (nats-server 2.15.1)."""


class JetStreamStore:
    """SAGA and EVENTS over one link."""

    def __init__(self, link: Link) -> None:
        self._link, self.guard = link, link.guard
        self._loop = asyncio.get_running_loop()
        self._requests: set[asyncio.Task[None]] = set()
        self._reading = 0
        self._unread: deque[tuple[InHand | None, _Both]] = deque()
        """Reads that wait for their turn, and for whom."""

    def append(
        self,
        key: SagaKey,
        subject: str,
        data: bytes,
        last_sequence: int,
        unschedule: bool,
        then: Callable[[Outcome], None],
    ) -> None:
        """Publish under the journal's guard."""
        lines = headers.guard_header(key, last_sequence) + headers.traceparent_header(data)
        if unschedule:
            lines += headers.unschedule_header(key)
        self._link.publish(subject, data, lines, then)

    def arm(self, key: SagaKey, due_ns: int, body: bytes, guard: ArmGuard, then: Callable[[Outcome], None]) -> None:
        """Publish the schedule."""
        lines = headers.schedule_header(key, due_ns)
        lines += headers.first_timer_guard(key) if guard == "first" else headers.guard_header(key, guard)
        self._link.publish(subjects.timer_subject(key), body, lines, then)

    def tell(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        """Publish to EVENTS."""
        self._link.publish(subject, data, "", then)

    def read(self, key: SagaKey, sources: tuple[str, ...], then: Callable[[SagaPages | Ambiguous], None]) -> None:
        """Read both streams at once.

        EVENTS is read by the sources the saga knows, so that nobody else can make a saga unreadable by writing many
        subjects under its path.
        """

        def report(result: SagaPages | Ambiguous) -> None:
            self._reading -= 1
            if self._unread:
                self._read(*self._unread.popleft())
            then(result)

        self._unread.append((self.guard.current, _Both(self._link, key, sources, report)))
        if self._reading < READS_MAX:
            self._read(*self._unread.popleft())

    def _read(self, whose: InHand | None, both: _Both) -> None:
        self._reading += 1
        self.guard.call(whose, both.read)

    def last(self, subject: str, then: Callable[[StoredMessage | Ambiguous | None], None]) -> None:
        """Read one subject."""

        def report(found: Read) -> None:
            then(found if isinstance(found, Ambiguous) else next(iter(found), None))

        self._link.read(SAGA, [subject], report)

    def states(self, family: str, then: Callable[[list[StoredMessage] | Ambiguous], None]) -> None:
        """Read all of them in one go."""
        self._link.read(SAGA, [subjects.states_filter(family)], then)

    def starts(self, saga_type: str, after: int, then: Callable[[list[StoredMessage] | Ambiguous], None]) -> None:
        """Read a page."""
        self._link.page(EVENTS, subjects.starts_filter(saga_type), after + 1, STARTS_PER_READ, then)

    def announce(self, saga_type: str, sequence: int) -> None:
        """Publish outside of all streams."""
        self._link.send(subjects.announce_subject(saga_type), b"%d" % sequence)

    def is_paused(self, stream: str, consumer: str, then: Callable[[bool | Ambiguous | None], None]) -> None:
        """Ask the server about the consumer."""

        def report(answer: dict[str, Any] | Ambiguous) -> None:
            if isinstance(answer, Ambiguous):
                then(answer)
            elif "error" in answer:
                then(_no_such_consumer(answer))
            else:
                then(answer.get("pause_remaining", 0) > PAUSED_NS_MIN)

        self._ask(f"CONSUMER.INFO.{stream}.{consumer}", None, report)

    def pause(self, stream: str, consumer: str, paused: bool, then: Callable[[Ambiguous | None], None]) -> None:
        """Ask the server to pause it for very long, or for a moment more (ADR-1, CONSUMER.PAUSE)."""
        until = PAUSED_UNTIL if paused else clock.rfc3339(clock.nanoseconds(self.now()) + int(RESUME_SECONDS * 1e9))

        def report(answer: dict[str, Any] | Ambiguous) -> None:
            if isinstance(answer, Ambiguous):
                then(answer)
            else:
                then(_no_such_consumer(answer) if "error" in answer else None)

        self._ask(f"CONSUMER.PAUSE.{stream}.{consumer}", {"pause_until": until}, report)

    def _ask(
        self, subject: str, body: dict[str, Any] | None, then: Callable[[dict[str, Any] | Ambiguous], None]
    ) -> None:
        whose = self.guard.current

        async def ask() -> None:
            answer: dict[str, Any] | Ambiguous
            try:
                answer = await api(self._link, subject, body)
            except Exception as error:
                answer = Ambiguous(str(error) or type(error).__name__)
            self.guard.call(whose, then, answer)

        task = self._loop.create_task(ask())
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def ended(self, keys: list[SagaKey], then: Callable[[set[SagaKey] | Ambiguous], None]) -> None:
        """Ask for all outcomes in one read; for none at once, because the server refuses a read of nothing (408)."""
        if not keys:
            then(set())
            return
        by_subject = {subjects.end_subject(key): key for key in keys}

        def report(found: Read) -> None:
            then(found if isinstance(found, Ambiguous) else {by_subject[message.subject] for message in found})

        self._link.read(SAGA, list(by_subject), report)

    def park(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        """Publish to PARKED."""
        self._link.publish(subject, data, "", then)

    def now(self) -> datetime:
        """The wall clock."""
        return datetime.now(UTC)

    def later(self, delay_seconds: float, call: Callable[[], None]) -> None:
        """Call from the event loop."""
        self._loop.call_later(delay_seconds, self.guard.call, self.guard.current, call)


def _no_such_consumer(answer: dict[str, Any]) -> Ambiguous | None:
    """What an error means: that there is none, or that nobody knows."""
    error = answer["error"]
    return None if error.get("err_code") == CONSUMER_NOT_FOUND else Ambiguous(str(error.get("description")))


class _Both:
    """Two reads under way, joined; the first failure is the answer."""

    def __init__(
        self, link: Link, key: SagaKey, sources: tuple[str, ...], then: Callable[[SagaPages | Ambiguous], None]
    ) -> None:
        self._link, self._key, self._sources = link, key, sources
        self._then: Callable[[SagaPages | Ambiguous], None] | None = then
        self._found: dict[str, list[StoredMessage]] = {}

    def read(self) -> None:
        self._link.read(SAGA, [subjects.journal_filter(self._key)], lambda found: self._take(SAGA, found))
        events = [subjects.events_filter(self._key, source) for source in (*identity.PLATFORM_SOURCES, *self._sources)]
        self._link.read(EVENTS, events, lambda found: self._take(EVENTS, found))

    def _take(self, stream: str, found: Read) -> None:
        if isinstance(found, Ambiguous):
            self._finish(found)
            return
        self._found[stream] = found
        if len(self._found) == 2:
            self._finish(SagaPages(self._found[SAGA], self._found[EVENTS]))

    def _finish(self, result: SagaPages | Ambiguous) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(result)
