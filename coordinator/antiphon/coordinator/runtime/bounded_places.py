"""The places that open sagas take in the streams of clients with a bound: freed once a saga has ended.

Nothing is remembered that the streams do not hold: places that a coordinator which died has not freed are found by
looking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from itertools import islice
from typing import Final

import structlog

from antiphon.contracts import subjects
from antiphon.contracts.errors import AntiphonError, Forged
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.topology import SAGA
from antiphon.link import Link
from antiphon.link.faults import say
from antiphon.link.purging import delete

TOLD_SECONDS: Final = 0.05
"""How long after an end was told it is looked whether SAGA holds it."""
ENDS_PER_READ: Final = 500
LOOKED_AT_MAX: Final = 5_000
"""Of how many sagas it is asked in one look whether they have ended; of the others in the next ones."""

log = structlog.get_logger()


class Places:
    """The places that are taken, as one coordinator knows them.

    Args:
        link: a connection with a coordinator's rights.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._taken: dict[SagaKey, dict[str, int]] = {}
        """The sequence of a saga's start, by stream: two clients may have stored one of the same saga."""
        self._own: set[SagaKey] = set()
        """Those whose starts were copied here: of their ends this coordinator takes care at once."""
        self._read_up_to: dict[str, int] = {}
        self._told: set[SagaKey] = set()
        """Sagas that may have ended: it is about to be looked."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: dict[str, set[asyncio.Task[None]]] = {}
        """What is being asked of a stream, which a refusal ends: an answer will not come."""

    def take(self, key: SagaKey, stream: str, sequence: int) -> None:
        """Note where a start is that was copied here."""
        self._taken.setdefault(key, {})[stream] = sequence
        self._own.add(key)

    def on_end(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        """An end was written; whether it is stored is to be seen."""
        key = subjects.saga_in(subject)
        if key is not None and key in self._own:
            self.look_soon(key)

    def look_soon(self, key: SagaKey) -> None:
        """Free a saga's place if it has ended."""
        if not self._told:
            self._begin(self._look_at_told())
        self._told.add(key)

    def free_soon(self, stream: str, sequence: int) -> None:
        """Free the place of what is no start."""
        self._begin(self._delete(stream, sequence))

    async def free_ended(self, streams: Collection[str]) -> None:
        """Free the places of sagas that have ended, whoever has copied their starts.

        No stream waits for another one: one may be refused to this user, or not answer for now.

        Args:
            streams: of clients with a bound.

        Raises:
            Ambiguous: the server did not say which sagas have ended.
        """
        await asyncio.gather(*(self._of(stream, partial(self._read_on, stream)) for stream in streams))
        looked_at = list(islice(self._taken, LOOKED_AT_MAX))
        await self._free(looked_at)
        for key in looked_at:  # to the end of the row
            if (places := self._taken.pop(key, None)) is not None:
                self._taken[key] = places

    async def _read_on(self, stream: str) -> None:
        """Learn of the places that were taken since."""
        while page := await self._link.next_page(stream, subjects.BOUNDED_FILTER, self._read_up_to.get(stream, 0) + 1):
            self._read_up_to[stream] = page[-1].sequence
            for each in page:
                try:
                    key = subjects.parse_bounded(each.subject).saga
                except Forged:  # whoever it is delivered to frees its place
                    continue
                self._taken.setdefault(key, {})[stream] = each.sequence

    async def _look_at_told(self) -> None:
        await asyncio.sleep(TOLD_SECONDS)
        told, self._told = self._told, set()
        await self._free(list(told))

    async def _free(self, keys: list[SagaKey]) -> None:
        """Free the places of those that have ended."""
        for first in range(0, len(keys), ENDS_PER_READ):
            by_end = {subjects.end_subject(key): key for key in keys[first : first + ENDS_PER_READ]}
            ended: dict[str, list[SagaKey]] = {}
            for end in await self._link.read_all(SAGA, list(by_end)):
                key = by_end[end.subject]
                self._own.discard(key)
                for stream in self._taken.get(key, {}):
                    ended.setdefault(stream, []).append(key)
            await asyncio.gather(
                *(self._of(stream, partial(self._free_in, stream, theirs)) for stream, theirs in ended.items())
            )

    async def _free_in(self, stream: str, keys: list[SagaKey]) -> None:
        """Free places in one stream."""
        for key in keys:
            if (sequence := self._taken.get(key, {}).get(stream)) is not None:
                await self._delete(stream, sequence)
                self._forget(key, stream)

    def _forget(self, key: SagaKey, stream: str) -> None:
        places = self._taken.get(key, {})
        places.pop(stream, None)
        if not places:
            self._taken.pop(key, None)

    async def _delete(self, stream: str, sequence: int) -> None:
        await delete(self._link, stream, sequence)

    # --- streams that are refused -------------------------------------------------------------------------------------

    async def _of(self, stream: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something with one stream, until it is done, has failed, or the stream is refused."""

        async def begin() -> None:  # a task that is cancelled before it runs has begun nothing
            await attempted(work())

        task = asyncio.ensure_future(begin())
        self._working.setdefault(stream, set()).add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._working[stream].discard(task)

    def leave(self, stream: str) -> None:
        """Ask a stream nothing more that was refused; should it be allowed later, it is read from its beginning."""
        for task in self._working.get(stream, ()):
            task.cancel()
        self._read_up_to.pop(stream, None)
        for key in [key for key, places in self._taken.items() if stream in places]:
            self._forget(key, stream)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(attempted(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Free nothing more: another coordinator, or the next one, finds what is left."""
        for task in self._tasks:
            task.cancel()


async def attempted(work: Awaitable[None]) -> None:
    """Do what is done again later, whatever becomes of it."""
    try:
        await work
    except AntiphonError as error:
        log.info("client.not_served", reason=str(error))
    except Exception as error:
        say("client.faulty", error)
