"""The read model says how far it has read, so that coordinators purge nothing that it has not.

What it says is behind what its database has, never before it: a place is stored once its rows are committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from antiphon.contracts import subjects
from antiphon.contracts.errors import AntiphonError, RightsMissing
from antiphon.contracts.readmodel_places import KEPT_MAX, Place
from antiphon.contracts.registration import token
from antiphon.contracts.subjects import saga_in
from antiphon.contracts.topology import READMODELS
from antiphon.link import Link, Mark
from antiphon.link.faults import say
from antiphon.link.readmodel_places import RENEW_SECONDS, SILENT_SECONDS, readers, silent_seconds

from .model import Places

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.5
"""How soon after it has read on it says so. Purges come seconds later at the earliest."""
REMEDY: Final = (
    "old sagas are purged without waiting for this read model. As administrator: antiphon setup; with accounts, have "
    "them made anew before: antiphon rights"
)
TAKEN: Final = "give each database's read model a name of its own: --name"


class Announcing:
    """What one process says of the place of its model.

    Args:
        link: a connection with a read model's rights.
        name: the read model's; that of all processes over one database.
        database: a name that no other database has.
        joins: whether to say something where nothing of that name was said before.
    """

    def __init__(self, link: Link, name: str, database: str, *, joins: bool = True) -> None:
        self._link, self.name, self._database, self._joins = link, token(name), database, joins
        self._subject = subjects.readmodel_subject(self.name)
        self._place: Place | None = None
        self._stored: Place | None = None
        self._stored_at = -RENEW_SECONDS
        self._is_failing = self._is_shared = False
        for subject in (self._subject, f"$JS.API.DIRECT.GET.{READMODELS.name}"):
            link.on_refused[subject] = self._refused

    def at(self, places: Places) -> None:
        """The model is here; it will be said soon."""
        latest = [mark for each in places.all for mark in (each.saga, each.events)]
        earlier = [mark for each in places.all for mark in (*each.earlier_saga, *each.earlier_events)]
        self._place = Place(
            saga=places.saga.sequence,
            events=places.events.sequence,
            further=tuple((each.saga.sequence, each.events.sequence) for each in places.further),
            kept=_sagas((*latest, *earlier))[:KEPT_MAX],
            database=self._database,
        )

    @asynccontextmanager
    async def kept_up(self) -> AsyncGenerator[None]:
        """Say where the model is for the length of the block, and once more at its end."""
        saying = asyncio.ensure_future(self._again_and_again())
        try:
            yield
        finally:
            saying.cancel()
            await self.look()

    async def _again_and_again(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Say where the model is, if that is news or was said long ago. What fails is said again at the next look."""
        now, place = asyncio.get_running_loop().time(), self._place
        if place is None or self._link.failure.done():
            return
        if place == self._stored and now - self._stored_at < RENEW_SECONDS:
            return
        try:
            if await self._may_say(place):
                await self._link.store(self._subject, place.encode())
                self._stored = place
            self._stored_at, self._is_failing = now, False
        except AntiphonError as error:
            self._failed(str(error))
        except Exception as error:  # what nobody has expected must not end the projection
            say("readmodel.not_announced", error)

    async def _may_say(self, place: Place) -> bool:
        """Whether it is for this process to say: another database under the same name may be further behind."""
        there = next((each for each in await readers(self._link) if each.name == self.name), None)
        if there is None:
            if self._joins:
                remedy = f"should it be gone for good, as administrator: antiphon setup --forget-readmodel {self.name}"
                log.info("readmodel.registered", readmodel=self.name, effect="old sagas are kept for it", remedy=remedy)
            return self._joins
        is_other = there.place.database not in ("", self._database) and silent_seconds(there) < SILENT_SECONDS
        if is_other and not self._is_shared:
            log.warning("readmodel.name_taken", readmodel=self.name, remedy=TAKEN)
        self._is_shared = is_other
        pairs = range(1 + len(place.further))
        return not is_other or any(place.of_pair(pair)[0] < there.place.of_pair(pair)[0] for pair in pairs)

    def _refused(self, error: RightsMissing) -> None:
        self._failed(str(error))

    def _failed(self, reason: str) -> None:
        if not self._is_failing:
            log.warning("readmodel.unregistered", readmodel=self.name, reason=reason, remedy=REMEDY)
        self._is_failing = True


def _sagas(marks: Iterable[Mark]) -> tuple[str, ...]:
    """The sagas of these messages, each once."""
    found = (saga_in(mark.subject) for mark in marks)
    return tuple(dict.fromkeys(str(key) for key in found if key is not None))
