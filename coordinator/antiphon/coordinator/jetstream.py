"""The store on JetStream: what each of the coordinator's wishes is on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from antiphon.contracts import wire
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.parked import Parked
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.contracts.wire import SagaKey
from antiphon.link.link import Link
from antiphon.link.outcomes import Outcome
from antiphon.link.reading import Pages as Read
from antiphon.link.reading import StoredMessage

from .ports import ArmGuard, Pages


class JetStreamStore:
    """SAGA and EVENTS over one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()

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
        headers = wire.guard_header(key, last_sequence)
        if unschedule:
            headers += wire.unschedule_header(key)
        self._link.publish(subject, data, headers, then)

    def arm(self, key: SagaKey, due_ns: int, body: bytes, guard: ArmGuard, then: Callable[[Outcome], None]) -> None:
        """Publish the schedule."""
        headers = wire.schedule_header(key, due_ns)
        headers += wire.first_timer_guard(key) if guard == "first" else wire.guard_header(key, guard)
        self._link.publish(wire.timer_subject(key), body, headers, then)

    def tell(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        """Publish to EVENTS."""
        self._link.publish(subject, data, "", then)

    def read(self, key: SagaKey, sources: tuple[str, ...], then: Callable[[Pages | Ambiguous], None]) -> None:
        """Read both streams at once.

        EVENTS is read by the sources the saga knows, so that nobody else can make a saga unreadable by writing many
        subjects under its path.
        """
        _Both(then).read(self._link, key, sources)

    def last(self, subject: str, then: Callable[[StoredMessage | Ambiguous | None], None]) -> None:
        """Read one subject."""

        def report(found: Read) -> None:
            then(found if isinstance(found, Ambiguous) else next(iter(found), None))

        self._link.read(SAGA, [subject], report)

    def ended(self, keys: list[SagaKey], then: Callable[[set[SagaKey] | Ambiguous], None]) -> None:
        """Ask for all outcomes in one read; for none at once, because the server refuses a read of nothing (408)."""
        if not keys:
            then(set())
            return
        by_subject = {wire.end_subject(key): key for key in keys}

        def report(found: Read) -> None:
            then(found if isinstance(found, Ambiguous) else {by_subject[message.subject] for message in found})

        self._link.read(SAGA, list(by_subject), report)

    def park(self, parked: Parked, then: Callable[[Outcome], None]) -> None:
        """Publish to PARKED."""
        self._link.publish(parked.destination, parked.encode(), "", then)

    def now(self) -> datetime:
        """The wall clock."""
        return datetime.now(UTC)

    def later(self, delay_seconds: float, call: Callable[[], None]) -> None:
        """Call from the event loop."""
        self._loop.call_later(delay_seconds, call)


class _Both:
    """Two reads under way, joined; the first failure is the answer."""

    def __init__(self, then: Callable[[Pages | Ambiguous], None]) -> None:
        self._then: Callable[[Pages | Ambiguous], None] | None = then
        self._found: dict[str, list[StoredMessage]] = {}

    def read(self, link: Link, key: SagaKey, sources: tuple[str, ...]) -> None:
        link.read(SAGA, [wire.journal_filter(key)], lambda found: self._take(SAGA, found))
        events = [wire.events_filter(key, source) for source in (*wire.PLATFORM_SOURCES, *sources)]
        link.read(EVENTS, events, lambda found: self._take(EVENTS, found))

    def _take(self, stream: str, found: Read) -> None:
        if isinstance(found, Ambiguous):
            self._finish(found)
            return
        self._found[stream] = found
        if len(self._found) == 2:
            self._finish(Pages(self._found[SAGA], self._found[EVENTS]))

    def _finish(self, result: Pages | Ambiguous) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(result)
