"""Sagas that were purged, one by one, noticed by looking after a few rows of the model now and then.

A purge leaves nothing that could be read on from a position. So the rows are gone through again and again, a page at a
time, and of each saga it is asked whether its start or its end is still there: two reads a page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from antiphon.contracts.identity import CLIENT, COORDINATOR, SagaKey
from antiphon.contracts.subjects import end_subject, parse_entry, parse_fact, start_subject
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link import Reads
from antiphon.link.tail import LAG_SECONDS_MAX

from .model import Generation, Model

PAGE: Final = 200
"""How many sagas are looked after at once; with two places where each may have started this is far from the 1,024
subjects that one read may name."""
LOOK_SECONDS: Final = 2.0
"""How often: 100,000 sagas are gone through in a quarter of an hour, at one read of each stream a look."""


class Purged:
    """Goes through the rows of a model, and forgets the sagas of which the streams hold neither start nor end.

    Args:
        link: a connection that may read both streams directly.
        model: where the rows are.
        lag_seconds: a saga must be missing for longer than that, since a replica that lags has none of the latest.
    """

    def __init__(self, link: Reads, model: Model, lag_seconds: float = LAG_SECONDS_MAX) -> None:
        self._link, self._model, self._lag_seconds = link, model, lag_seconds
        self._after = ""
        self._missed: dict[str, tuple[float, int]] = {}
        self._look_at = 0.0

    async def look_now_and_then(self, generation: Generation) -> list[str]:
        """Look if it is time to; the names (type/id) of those that were forgotten.

        Raises:
            Ambiguous, SQLAlchemyError: no answer.
        """
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_SECONDS
        return await self.look(generation)

    async def look(self, generation: Generation) -> list[str]:
        """Ask after the next page of sagas, and once more after those that were missing some time ago."""
        now = asyncio.get_running_loop().time()
        again = {
            name: changed_ns for name, (since, changed_ns) in self._missed.items() if now - since >= self._lag_seconds
        }
        gone = await self._missing(again)
        for name in again:
            del self._missed[name]
        if gone:
            await self._model.forget(generation, gone)
        page = await self._model.page(generation, self._after, PAGE)
        self._after = next(reversed(page)) if len(page) == PAGE else ""  # the last by the database's own order
        for name, changed_ns in (await self._missing(page)).items():
            self._missed.setdefault(name, (now, changed_ns))
        return list(gone)

    async def _missing(self, rows: Mapping[str, int]) -> dict[str, int]:
        """Those of which neither stream has what every saga has."""
        if not rows:
            return {}
        keys = [SagaKey.of(*name.split("/", 1)) for name in rows]
        starts = [start_subject(key, source) for key in keys for source in (CLIENT, COORDINATOR)]
        begun = await self._link.read_all(EVENTS, starts)
        there = {str(parse_fact(message.subject).saga) for message in begun}
        rest = [key for key in keys if str(key) not in there]
        there |= await self._ended(rest)
        return {name: changed_ns for name, changed_ns in rows.items() if name not in there}

    async def _ended(self, keys: Iterable[SagaKey]) -> set[str]:
        ends = [end_subject(key) for key in keys]
        return {str(parse_entry(m.subject).saga) for m in await self._link.read_all(SAGA, ends)} if ends else set()
