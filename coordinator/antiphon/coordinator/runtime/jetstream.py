"""The store on JetStream: what each of the coordinator's wishes is on the wire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from antiphon.contracts import clock, headers, subjects
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.pairs import Pairs
from antiphon.contracts.reader import named_sequences
from antiphon.contracts.stored import NotRead, Outcome, SagaPages, StoredMessage, TooManySubjects
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link.connection import Link
from antiphon.link.guard import InHand
from antiphon.link.outcomes import CONSUMER_NOT_FOUND
from antiphon.link.reading import Joined
from antiphon.link.reading import Pages as Read
from antiphon.link.setup import api

from .ports import FACTS_READ_MAX, ArmGuard

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
    """The streams over one link."""

    def __init__(self, link: Link) -> None:
        self._link, self.guard = link, link.guard
        self._loop = asyncio.get_running_loop()
        self._requests: set[asyncio.Task[None]] = set()
        self._reading = 0
        self._unread: deque[tuple[InHand | None, _Both]] = deque()
        """Reads that wait for their turn, and for whom."""

    @property
    def pairs(self) -> Pairs:
        """Those of the link."""
        return self._link.pairs

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

    def read(self, key: SagaKey, expected: list[str], then: Callable[[SagaPages | NotRead], None]) -> None:
        """Read both streams at once, and then what the journal names and was not expected."""

        def report(result: SagaPages | NotRead) -> None:
            self._reading -= 1
            if self._unread:
                self._read(*self._unread.popleft())
            then(result)

        self._unread.append((self.guard.current, _Both(self._link, key, expected, report)))
        if self._reading < READS_MAX:
            self._read(*self._unread.popleft())

    def facts(self, wanted: list[str], then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        """Read them a few hundred at a time."""
        _read_facts(self._link, wanted, then)

    def facts_by_leader(self, wanted: list[str], then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        """Ask through the API, whose answers come from the stream's leader."""
        self._link.read_from_leader(EVENTS, wanted, then)

    def _read(self, whose: InHand | None, both: _Both) -> None:
        self._reading += 1
        self.guard.call(whose, both.read)

    def last(self, subject: str, then: Callable[[StoredMessage | Ambiguous | None], None]) -> None:
        """Read one subject."""

        def report(found: Read) -> None:
            known = _whole(found)
            then(known if isinstance(known, Ambiguous) else next(iter(known), None))

        self._link.read(SAGA, [subject], report)

    def states(self, family: str, then: Callable[[list[StoredMessage] | Ambiguous], None]) -> None:
        """Read all of them in one go."""
        self._link.read(SAGA, [subjects.states_filter(family)], lambda found: then(_whole(found)))

    def starts(
        self, stream: str, saga_type: str, after: int, then: Callable[[list[StoredMessage] | Ambiguous], None]
    ) -> None:
        """Read a page."""
        wanted = subjects.starts_filter(saga_type)
        self._link.page(stream, wanted, after + 1, STARTS_PER_READ, lambda found: then(_whole(found)))

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
            known = _whole(found)
            then(known if isinstance(known, Ambiguous) else {by_subject[message.subject] for message in known})

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


def _whole(found: Read) -> list[StoredMessage] | Ambiguous:
    """What was read at subjects of which coordinators alone write the messages, and never too many."""
    if isinstance(found, TooManySubjects):
        raise found
    return found


def _read_facts(link: Link, wanted: list[str], then: Callable[[Read], None]) -> None:
    """Read what EVENTS holds at subjects; of filters that match too much, nothing. The server refuses a read of nothing
    (408)."""
    parts = [wanted[first : first + FACTS_READ_MAX] for first in range(0, len(wanted), FACTS_READ_MAX)]
    if not parts:
        then([])
        return
    joined = Joined(len(parts), then)
    for part in parts:
        _read_few(link, part, joined.take)


def _read_few(link: Link, wanted: list[str], then: Callable[[Read], None]) -> None:
    def report(found: Read) -> None:
        exact = [subject for subject in wanted if not subjects.is_filter(subject)]
        if isinstance(found, TooManySubjects) and 0 < len(exact) < len(wanted):
            link.read(EVENTS, exact, then)
        else:
            then([] if isinstance(found, TooManySubjects) and not exact else found)

    link.read(EVENTS, wanted, report, most=FACTS_READ_MAX, whole=False)


class _Both:
    """Two reads under way, joined, and a third of what the journal names besides; the first failure is the answer."""

    def __init__(
        self, link: Link, key: SagaKey, expected: list[str], then: Callable[[SagaPages | NotRead], None]
    ) -> None:
        self._link, self._key, self._expected = link, key, expected
        self._then: Callable[[SagaPages | NotRead], None] | None = then
        self._entries: list[StoredMessage] | None = None
        self._events: list[StoredMessage] | None = None

    def read(self) -> None:
        self._link.read(SAGA, [subjects.journal_filter(self._key)], self._take_entries)
        _read_facts(self._link, self._expected, self._take_events)

    def _take_entries(self, found: Read) -> None:
        if isinstance(found, list):
            self._entries = found
            self._go_on()
        else:
            self._finish(found)

    def _take_events(self, found: Read) -> None:
        if isinstance(found, list):
            self._events = found
            self._go_on()
        else:
            self._finish(found)

    def _go_on(self) -> None:
        """Once both are there, read what is missing."""
        entries, events = self._entries, self._events
        if entries is None or events is None:
            return
        known = {message.sequence for message in events}
        missing = [sequence for sequence in named_sequences(entries) if sequence not in known]
        if missing:
            self._link.read_at(self._link.pairs.stream_of(EVENTS, self._key), missing, self._take_missing)
        else:
            self._finish(SagaPages(entries, events))

    def _take_missing(self, found: Read) -> None:
        if isinstance(found, list):
            events = sorted([*(self._events or ()), *found], key=lambda message: message.sequence)
            self._finish(SagaPages(self._entries or [], events))
        else:
            self._finish(found)

    def _finish(self, result: SagaPages | NotRead) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(result)
