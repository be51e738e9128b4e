"""Both streams in memory, read as a link reads them, with the weather of a real server if a test wants it."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from antiphon.contracts import SagaKey
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.subjects import is_of_a_saga
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.views.summary import Overview, begun, read_cause, read_told, tell, unread
from antiphon.link import StoredMessage
from tests.unit.decide.walk import Walk, Written, messages_of

PAGE = 12
"""Small, so that sagas lie across pages."""


class Streams:
    """SAGA and EVENTS, and how they answer."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.stormy = dice, False
        self.stored: dict[str, list[StoredMessage]] = {SAGA: [], EVENTS: []}
        self._time_ns = 1_000_000_000_000
        self._deleted = {SAGA: 0, EVENTS: 0}
        """Up to which sequence something was deleted: no message has that again."""

    def store(self, stream: str, subject: str, data: bytes) -> None:
        """Append a message."""
        self._time_ns += self.dice.randrange(1, 10**9)
        found = self.stored[stream]
        last = max(self._deleted[stream], found[-1].sequence if found else 0)
        found.append(StoredMessage(subject, last + 1, self._time_ns, data))

    async def next_page(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = PAGE
    ) -> list[StoredMessage]:
        """As `Link.next_page`; in a storm some reads fail, and some are answered by a replica that lags."""
        await asyncio.sleep(0)
        assert subject_filter == ">"
        stored = self.stored[stream]
        if self.stormy and self.dice.random() < 0.05:
            raise Ambiguous("a storm")
        if self.stormy and self.dice.random() < 0.2:
            stored = stored[: self.dice.randrange(len(stored) + 1)]
        first = bisect_left(stored, from_sequence, key=lambda message: message.sequence)
        return stored[first : first + most]

    async def read_all(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        """As `Link.read_all`, of subjects without wildcards; a message that is replaced keeps its place here."""
        await asyncio.sleep(0)
        if self.stormy and self.dice.random() < 0.2:
            return []
        return [message for message in self.stored[stream] if message.subject in filters]

    def purge(self, saga: SagaKey) -> None:
        """Have nothing of a saga be there."""
        for stream, stored in self.stored.items():
            self._deleted[stream] = max(self._deleted[stream], stored[-1].sequence if stored else 0)
            self.stored[stream] = [message for message in stored if f".{saga.path}." not in message.subject]

    def live(self, sagas: int, lives: int = 8, moves: int = 25) -> None:
        """Have sagas live at random, some to their end, all at once; and some things that are no sagas."""
        patterns = [_pattern(self.dice, moves) for _ in range(lives)]
        under_way = [
            Written(self.dice.choice(patterns), SagaKey.of("trip", f"s-{number}"), b"c-%d" % (number % 3))
            for number in range(sagas)
        ]
        places = dict.fromkeys(under_way, 0)
        while under_way:
            saga = self.dice.choice(under_way)
            subject, data, is_event = saga.message(places[saga], len(self.stored[EVENTS]))
            self.store(EVENTS if is_event else SAGA, subject, data)
            places[saga] += 1
            if places[saga] == len(saga.life):
                under_way.remove(saga)
            elif self.dice.random() < 0.1:
                self.store(SAGA, "saga.1.order.o-1.t.next", b"a timer")
                self.store(SAGA, "saga.1.lock.l-1.c.state", b"a lock")

    def folded(self) -> dict[str, Overview]:
        """What the model must be: all there is, folded once, in order."""
        rows: dict[str, Overview] = {}
        events = {message.sequence: message for message in self.stored[EVENTS]}
        for message in self.stored[EVENTS]:
            cause = read_cause(message)
            if cause is not None and cause.address.event == "start":
                key = cause.address.saga
                rows[str(key)] = begun(rows.get(str(key), unread(key)), cause)
        for message in (each for each in self.stored[SAGA] if is_of_a_saga(each.subject)):
            told = read_told(message)
            assert told is not None
            key, cause_at = told.address.saga, told.cause_sequence
            cause = read_cause(events[cause_at]) if cause_at else None
            rows[str(key)] = tell(rows.get(str(key), unread(key)), told, cause)
        return rows


def _pattern(dice: random.Random, moves: int) -> Any:
    walk = Walk(dice.randrange(10**9))
    for _ in range(dice.randrange(moves)):
        if walk.life.history.end is None:
            walk.move()
    return messages_of(walk.life)


def by_name(rows: Iterable[Overview]) -> dict[str, Overview]:
    """Rows by `type/id`."""
    return {f"{row.type}/{row.id}": row for row in rows}
