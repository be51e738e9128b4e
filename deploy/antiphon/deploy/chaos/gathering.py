"""The evidence of a run, read from the streams and the databases: each once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from antiphon.contracts.errors import Ambiguous, PlatformError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import (
    BEGINNINGS_FILTERS,
    ENDS_FILTER,
    EVENTS_FILTER,
    JOURNALS_FILTER,
    is_of_a_saga,
    saga_in,
)
from antiphon.contracts.topology import EVENTS, EXPORTER, PARKED, SAGA, SWEEPER
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.reading.sagas import timeline
from antiphon.coordinator.views.summary import Overview
from antiphon.coordinator.views.timeline import Timeline
from antiphon.link import Link
from antiphon.link.setup import info_of
from antiphon.link.tail import ALL
from antiphon.participants.engines import open_engine
from antiphon.tracing.projection.ids import trace_id

from ..readmodel.model import Places, Query, opened
from .evidence import ConsumerState, Effect, Evidence, InboxRow, StoredTrace
from .poison import Planted

LOOK_SECONDS: Final = 0.1
ROWS_MAX: Final = 10_000_000
"""More rows than a read model of a test has."""
UNCOUNTED: Final = frozenset({SWEEPER})
"""Consumers that hold messages for as long as sagas are open."""

Rows = Iterable[Sequence[Any]]
Ledger = str | Callable[[str], Awaitable[Rows]]
"""Where effects are read: a query, or a function that is given the database's URL. Rows of four columns, which are a
saga as `type/id`, a step, `do` or `undo`, and what was done; or of six, with an account and an amount."""


class Settling:
    """Looks whether anything still moves on a platform.

    Args:
        link: a connection with an administrator's rights.
        open: sagas that may be under way still, as `type/id`.
        exports: whether an exporter runs.
        readmodel: the URL of the read model; empty where none is kept.
        since: for each stream the sequence from which on it is looked at; all of it when left out.
        only: the sagas that are looked at, whatever becomes of others and of consumers; all when left out.
    """

    def __init__(
        self,
        link: Link,
        open: Iterable[str],
        *,
        exports: bool = False,
        readmodel: str = "",
        since: Mapping[str, int] | None = None,
        only: Container[SagaKey] | None = None,
    ) -> None:
        self._link, self._allowed, self._only = link, frozenset(open), only
        self._exports, self._readmodel = exports, readmodel
        self._open = set[SagaKey]()
        self._since, self._read_to = since or {}, dict[tuple[str, str], int]()
        """Where to read on, by stream and filter."""

    async def wait(self, seconds: float) -> None:
        """Wait until nothing moves, or the time is up: what is not over then is for the invariants to say."""
        gives_up = time.monotonic() + seconds
        while time.monotonic() < gives_up:
            with suppress(Ambiguous):  # a server is away, or a leader
                if await self._is_settled():
                    return
            await asyncio.sleep(LOOK_SECONDS)

    async def _is_settled(self) -> bool:
        if not await is_replicated(self._link):
            return False  # a direct read may be answered by a replica that is behind
        if self._only is None and any(
            each.pending or each.unacked for each in await read_consumers(self._link, exports=self._exports)
        ):
            return False
        pairs = self._link.pairs
        for stream in pairs.events:
            for subject_filter in BEGINNINGS_FILTERS:
                self._open |= await self._news(stream, subject_filter)
        for stream in pairs.saga:
            self._open -= await self._news(stream, ENDS_FILTER)
        open_now = {str(key) for key in self._open} - self._allowed
        if open_now:
            needed = {each.saga for each in await waiting(self._link) if each.kind == "saga"}
            if not open_now <= needed:
                return False
        return not self._readmodel or await self._is_projected()

    async def _is_projected(self) -> bool:
        """Whether the read model has all that the streams hold."""
        with suppress(PlatformError, SQLAlchemyError, OSError):  # it is not there yet
            async with opened(self._readmodel) as model:
                live = [each.places for each in await model.generations() if each.is_live]
            return bool(live) and not await self._is_beyond(live[0])
        return False

    async def _is_beyond(self, places: Places) -> bool:
        """Whether the streams hold more than the read model has taken in."""
        pairs = self._link.pairs
        read = places.all if places != Places() else (Places(),) * pairs.count
        for saga, events, each in zip(pairs.saga, pairs.events, read, strict=True):
            async for message in self._link.scan(saga, JOURNALS_FILTER, each.saga.sequence + 1):
                if is_of_a_saga(message.subject):
                    return True
            async for _ in self._link.scan(events, ALL, each.events.sequence + 1):
                return True
        return False

    async def _news(self, stream: str, subject_filter: str) -> set[SagaKey]:
        found = set[SagaKey]()
        place = stream, subject_filter
        async for message in self._link.scan(
            stream, subject_filter, self._read_to.get(place, self._since.get(stream, 1))
        ):
            self._read_to[place] = message.sequence + 1
            if (key := saga_in(message.subject)) is not None and (self._only is None or key in self._only):
                found.add(key)
        return found


async def is_replicated(link: Link) -> bool:
    """Whether every replica of the streams has all that was stored."""
    for stream in (*link.pairs.events, *link.pairs.saga, PARKED):
        info = await info_of(link, f"STREAM.INFO.{stream}") or {}
        replicas: list[dict[str, Any]] = info.get("cluster", {}).get("replicas") or []
        if not info or not all(each.get("current") and not each.get("lag") for each in replicas):
            return False
    return True


async def read_consumers(link: Link, *, exports: bool) -> list[ConsumerState]:
    """How the consumers of the platform stand.

    Args:
        link: a connection with an administrator's rights.
        exports: whether an exporter runs; else nobody need pull from its consumer.
    """
    found = list[ConsumerState]()
    for stream in (*link.pairs.events, *link.pairs.saga):
        total = 1
        while (offset := sum(each.stream == stream for each in found)) < total:
            answer = await info_of(link, f"CONSUMER.LIST.{stream}", {"offset": offset}) or {}
            infos: list[dict[str, Any]] = answer.get("consumers") or []
            total = answer.get("total", 0) if infos else 0
            found += [
                ConsumerState(stream, info["name"], info.get("num_pending", 0), info.get("num_ack_pending", 0))
                for info in infos
            ]
    return [each for each in found if each.name not in UNCOUNTED and (exports or each.name != EXPORTER)]


async def read_streams(link: Link, evidence: Evidence, planted: Planted) -> None:
    """Read both streams once, and what PARKED and the consumers say.

    Args:
        link: a connection with an administrator's rights.
        evidence: takes all of it.
        planted: messages of hostile users, which belong to no saga and must be in PARKED.
    """
    async for message in link.scan(EVENTS, EVENTS_FILTER):
        if not planted.is_of(message.subject, saga_in(message.subject)):
            evidence.take_event(message)
    async for message in link.scan(SAGA, JOURNALS_FILTER):
        if not planted.is_of(message.subject, saga_in(message.subject)):
            evidence.take_entry(message)
    listed = await waiting(link)
    found = {each.saga if each.kind == "saga" else each.subject for each in listed}
    evidence.unnoticed = sorted((planted.messages | planted.sagas) - found)
    evidence.parked = frozenset(SagaKey.of(*each.saga.split("/")) for each in listed if each.kind == "saga")
    evidence.set_aside = [
        f"PARKED holds a message of {each.source or 'nobody knows whom'} ({each.kind}): {each.reason}"
        for each in listed
        if each.kind not in ("saga", "paused") and not planted.is_of(each.subject, saga_in(each.subject))
    ]
    evidence.consumers = await read_consumers(link, exports=evidence.traces is not None)
    evidence.erased = 0
    for stream in link.pairs.events:
        if (info := await info_of(link, f"STREAM.INFO.{stream}")) is not None:
            evidence.erased += info["state"]["last_seq"] - info["state"]["messages"]


async def read_listed(url: str, planted: Planted) -> dict[str, Overview]:
    """The rows of the read model, but for sagas that hostile users have begun.

    Args:
        url: of its database.
        planted: those sagas.
    """
    async with opened(url) as model:
        rows = [(f"{row.type}/{row.id}", row) for row in await model.find(Query(limit=ROWS_MAX))]
    return {name: row for name, row in rows if name not in planted.sagas}


def untouched(traces: Mapping[str, StoredTrace], planted: Planted) -> dict[str, StoredTrace]:
    """What a tracing backend has, but for sagas that hostile users have begun."""
    theirs = {trace_id(SagaKey.of(*name.split("/"))) for name in planted.sagas}
    return {trace: spans for trace, spans in traces.items() if trace not in theirs}


async def read_inbox(url: str) -> list[InboxRow]:
    """What a participant's inbox says; nothing if it was never opened.

    Args:
        url: of its database, `sqlite:` or `postgresql:`.
    """
    from sqlalchemy import inspect, select

    from antiphon.participants.tables import inbox

    columns = (inbox.c.saga_type, inbox.c.saga_id, inbox.c.step, inbox.c.state, inbox.c.answer_type)
    engine = open_engine(url, writes=False)
    try:
        async with engine.connect() as connection:
            if not await connection.run_sync(lambda sync: inspect(sync).has_table(inbox.name)):
                return []
            rows = (await connection.execute(select(*columns))).all()
    finally:
        await engine.dispose()
    return [
        InboxRow(SagaKey.of(saga_type, saga_id), step, state, answer_type or "")
        for saga_type, saga_id, step, state, answer_type in rows
    ]


async def read_failed(url: str) -> dict[str, int]:
    """How many attempts at a command have failed, by its subject, as a participant's inbox says; nothing if there is
    none.

    Args:
        url: of its database, `sqlite:` or `postgresql:`.
    """
    from sqlalchemy import inspect, select

    from antiphon.participants.tables import attempts

    engine = open_engine(url, writes=False)
    try:
        async with engine.connect() as connection:
            if not await connection.run_sync(lambda sync: inspect(sync).has_table(attempts.name)):
                return {}
            rows = (await connection.execute(select(attempts.c.message, attempts.c.failed))).all()
    finally:
        await engine.dispose()
    return dict(tuple(row) for row in rows)


async def read_ledger(url: str, ledger: Ledger) -> list[Effect]:
    """What a team's own books say."""
    if not isinstance(ledger, str):
        return [Effect(*row) for row in await ledger(url)]
    from sqlalchemy import text

    engine = open_engine(url, writes=False)
    try:
        async with engine.connect() as connection:
            return [Effect(*row) for row in (await connection.execute(text(ledger))).all()]
    finally:
        await engine.dispose()


async def read_timelines(link: Link, most: int) -> list[Timeline]:
    """What happened in the sagas that have not ended, and in those that were started last."""
    keys = dict[SagaKey, None]()
    for subject_filter in BEGINNINGS_FILTERS:
        async for message in link.scan(EVENTS, subject_filter):
            if (key := saga_in(message.subject)) is not None:
                keys[key] = None
    ended = {key async for message in link.scan(SAGA, ENDS_FILTER) if (key := saga_in(message.subject)) is not None}
    found = sorted(keys, key=lambda key: key in ended, reverse=True)[-most:]
    timelines = list[Timeline]()
    for key in found:
        with suppress(Unusable):
            timelines.append(await timeline(link, key))
    return timelines


def readable(databases: Mapping[str, str]) -> dict[str, str]:
    """The databases that can be read from outside their participants' processes."""
    return {name: url for name, url in databases.items() if not url.startswith("memory:")}
