"""A client that notes what it was told, so that it can be held against the journals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Event
from antiphon.coordinator import Antiphon, Choreography, Handle, Outcome, Saga
from antiphon.coordinator.client.store_once import TIMEOUT_SECONDS
from antiphon.link import Link
from antiphon.link.pairs import find_pairs

S = TypeVar("S", bound=Event)


@dataclass
class Told:
    """What clients were told: which sagas were started, and how sagas ended; and which they wanted to be started."""

    asked: set[SagaKey] = field(default_factory=set[SagaKey])
    started: set[SagaKey] = field(default_factory=set[SagaKey])
    outcomes: defaultdict[SagaKey, set[str]] = field(default_factory=lambda: defaultdict[SagaKey, set[str]](set))


class Witness(Antiphon):
    """The ordinary client.

    Args:
        link: its connection.
        told: where it notes what it is told.
    """

    def __init__(self, link: Link, told: Told) -> None:
        super().__init__(link)
        self._told = told

    async def start(
        self,
        saga: Saga[S] | Choreography[S],
        start: S,
        *,
        id: str,
        timeout: float = TIMEOUT_SECONDS,
        version: int | None = None,
    ) -> Handle:
        self._told.asked.add(SagaKey.of(saga.name, id))
        handle = await super().start(saga, start, id=id, timeout=timeout, version=version)
        self._told.started.add(handle.key)
        return handle

    async def end_of(self, key: SagaKey) -> Outcome:
        end = await super().end_of(key)
        self._told.outcomes[key].add(end.outcome)
        return end


@asynccontextmanager
async def witness(servers: str, name: str, told: Told) -> AsyncGenerator[Antiphon]:
    """Such a client for the length of a block."""
    link = await Link.connect(servers, name=name)
    await find_pairs(link)
    try:
        yield Witness(link, told)
    finally:
        await link.close()
