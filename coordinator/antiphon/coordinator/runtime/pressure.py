"""What presses on the platform, looked at now and then: how full EVENTS and PARKED are, and whose starts wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog

from antiphon.contracts import subjects
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.topology import PARKED, STARTS
from antiphon.link import Link
from antiphon.link.faults import say
from antiphon.link.setup import Room, info_of, room_of
from antiphon.tracing.telemetry.metrics import Gauges

from .coordinator import Coordinator

LOOK_SECONDS: Final = 5.0
CLOSED_AT: Final = 0.9
"""From which share of its room on EVENTS takes no new sagas of clients. What is left is for those that have begun."""
SHARES: Final = 10
"""What is left up to there is copied for clients with a bound in so many parts, one for each look: so many coordinators
together copy no more than there is."""
STARTS_WAITING: Final = 1_000
"""So many starts that wait are worth a line of the log."""
STARTS_PER_LOOK: Final = 200
"""By so many of them, the oldest, it is told whose they are."""
SAY_SECONDS: Final = 60.0
"""How far apart lines of the log about one thing are."""

log = structlog.get_logger()


class _Position(msgspec.Struct):
    stream_seq: int = 0


class _Info(msgspec.Struct):
    num_pending: int = 0
    delivered: _Position = msgspec.field(default_factory=_Position)


@asynccontextmanager
async def watched(link: Link, coordinator: Coordinator, gauges: Gauges) -> AsyncGenerator[None]:
    """Look, for the length of the block, and once before it.

    Args:
        link: a connection with a coordinator's rights.
        coordinator: is told when no saga may begin.
        gauges: where what is found is put.
    """
    watch = Watch(link, coordinator, gauges)
    await watch.look()
    looking = asyncio.ensure_future(watch.keep_looking())
    try:
        yield
    finally:
        looking.cancel()


class Watch:
    """What one coordinator sees, and what it has said of it."""

    def __init__(self, link: Link, coordinator: Coordinator, gauges: Gauges) -> None:
        self._link, self._coordinator, self._gauges = link, coordinator, gauges
        self._said: dict[str, float] = {}

    async def keep_looking(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once. What cannot be seen now stays as it was."""
        try:
            rooms = [await room_of(self._link, stream) for stream in self._link.pairs.events]
            if there := [room for room in rooms if room is not None]:
                self._see_room(there)
            if (room := await room_of(self._link, PARKED)) is not None:
                self._see_parked(room)
            await self._see_starts()
        except Ambiguous as error:
            log.info("pressure.not_seen", reason=str(error))
        except Exception as error:  # the next look may see more
            say("pressure.faulty", error)
        self._gauge("antiphon.requests.waiting", "saga.source", self._coordinator.requests.waiting())
        self._gauge("antiphon.sagas.bounded", "saga.type", self._coordinator.journals.admission.open())

    def _see_room(self, rooms: list[Room]) -> None:
        """Close the way to sagas that have not begun while the room is for those that have, and open it again. Of
        several pairs the fullest counts: which one a saga goes to is nobody's choice."""
        room = max(rooms, key=lambda each: each.share)
        admission, was_closed = self._coordinator.journals.admission, bool(self._coordinator.journals.admission.closed)
        self._gauges["antiphon.events.filled", ()] = room.share
        if not all(each.most for each in rooms):
            remedy = "as administrator: antiphon setup"
            self._say("events.unbounded", remedy=remedy, reason="clients may fill the disk that SAGA needs")
        admission.closed = closed(room) if room.share >= CLOSED_AT else ""
        if room.most:
            admission.allowance = max(0, int(CLOSED_AT * room.most) - room.used) // SHARES
        if admission.closed:
            self._say("events.nearly_full", used=room.used, most=room.most, remedy="deploy/README.md, Room")
        elif was_closed:
            log.info("events.has_room", used=room.used, most=room.most)

    def _see_parked(self, room: Room) -> None:
        """Say that PARKED is nearly full: what finds no room there waits, and nobody is shown it."""
        self._gauges["antiphon.parked.filled", ()] = room.share
        if not room.most:
            self._say("parked.unbounded", remedy="as administrator: antiphon setup", reason="it may fill the disk")
        if room.share >= CLOSED_AT:
            self._say("parked.nearly_full", used=room.used, most=room.most, remedy="deploy/README.md, Room")

    async def _see_starts(self) -> None:
        """Find out whose starts wait, where many do: by the oldest, and taken for all."""
        waiting = Counter[str]()
        for stream in self._link.pairs.events:
            waiting += await self._starts_in(stream)
        self._gauge("antiphon.starts.waiting", "saga.type", waiting)
        for saga_type, count in waiting.items():
            self._say("starts.waiting", about=saga_type, saga_type=saga_type, count=count)

    async def _starts_in(self, stream: str) -> Counter[str]:
        """How many starts wait in one pair, by type; none where they are few."""
        info = msgspec.convert(await info_of(self._link, f"CONSUMER.INFO.{stream}.{STARTS}") or {}, _Info)
        if info.num_pending < STARTS_WAITING // self._link.pairs.count:
            return Counter()
        after = info.delivered.stream_seq + 1
        page = await self._link.next_page(stream, subjects.starts_filter(), after, most=STARTS_PER_LOOK)
        types = Counter(key.type for each in page if (key := subjects.saga_in(each.subject)) is not None)
        return Counter({saga_type: info.num_pending * count // len(page) for saga_type, count in types.items()})

    def _gauge(self, name: str, label: str, found: Mapping[str, int]) -> None:
        """Put numbers in the place of those before."""
        for known in [each for each in self._gauges if each[0] == name]:
            del self._gauges[known]
        self._gauges.update({(name, ((label, each),)): count for each, count in found.items()})

    def _say(self, event: str, about: str = "", **values: object) -> None:
        """Log a thing, and again after a while as long as it is so."""
        now = asyncio.get_running_loop().time()
        if now - self._said.get(event + about, -SAY_SECONDS) >= SAY_SECONDS:
            self._said[event + about] = now
            log.warning(event, **values)


def closed(room: Room) -> str:
    """Why no saga begins while EVENTS is nearly full."""
    return (
        f"refused, with nothing done: stream EVENTS has taken {room.share:.0%} of its room, and the rest is for the "
        "answers of sagas that have begun. Start it under another id once an administrator has made room"
    )
