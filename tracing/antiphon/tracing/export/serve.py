"""The exporter's process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import structlog

from antiphon.contracts.errors import StreamMissing
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link import Credentials, Link, require_accepted
from antiphon.link.fitness import Fitness, payload, pulls, reads
from antiphon.link.pairs import find_pairs
from antiphon.link.probes import Probes, served
from antiphon.link.process import on_stop, stand_back

from ..projection.sampling import ratio_of
from .backlog import Backlog
from .exporter import SLOW_SECONDS, Counting, Exporter
from .otlp import Backend

log = structlog.get_logger()


class Metrics(Protocol):
    """Where an exporter's numbers are shown."""

    @property
    def counts(self) -> Counting:
        """Counts what it does."""
        ...

    @property
    def differ(self) -> Callable[[int], None]:
        """Takes how many things of the platform are not as they must be."""
        ...

    def show(self, backlog: Backlog) -> None:
        """Show what it has not handed over yet."""


async def serve(
    servers: str | list[str],
    *,
    name: str = "exporter",
    credentials: Credentials | None = None,
    http: str = "",
    slow_seconds: float = SLOW_SECONDS,
    metrics: Callable[[Probes], AbstractAsyncContextManager[Metrics]] | None = None,
) -> None:
    """Export traces until SIGTERM or SIGINT. What is in hand then is exported by whoever comes next.

    Args:
        servers: URLs of NATS servers.
        name: the connection's name.
        credentials: who connects; taken from the environment when left out.
        http: `host:port` of the pages that say whether it lives and is ready, and of its metrics; see
            `antiphon.link.probes`.
        slow_seconds: how long a saga takes that is exported at its end although it was not sampled.
        metrics: shows its numbers; nobody does when left out.

    Raises:
        PlatformError: the environment, the platform, or the way to the backend, is not as it must be; the sentence has
            the remedy.
    """
    ratio = ratio_of(os.environ)
    stand_back()
    backend = Backend()
    async with AsyncExitStack() as held:
        probes = held.enter_context(served(http))
        link = await Link.connect(servers, name=name, credentials=credentials)
        held.push_async_callback(link.close)
        await find_pairs(link)
        told = asyncio.Event()
        shown = await held.enter_async_context(metrics(probes)) if metrics is not None else None
        exporter = Exporter(
            link,
            backend.send,
            why=lambda: backend.failure,
            endpoint=backend.endpoint,
            ratio=ratio,
            slow_seconds=slow_seconds,
            counts=shown.counts if shown is not None else None,
        )

        def stop() -> None:
            told.set()
            probes.ending()
            exporter.stop()
            backend.close()

        on_stop(stop)
        pulled = await exporter.start()
        await require_accepted(pulled, _say_what_is_missing)
        looks = [payload(link), reads(link, (SAGA, EVENTS)), pulls(link, lambda: pulled)]
        fitness = Fitness(link, looks, shown.differ) if shown is not None else Fitness(link, looks)
        if shown is not None:
            shown.show(exporter.backlog)
        await fitness.until_ready(told)
        log.info("exporter.ready", endpoint=backend.endpoint, sampled=ratio)
        probes.ready(link, fitness)
        running = asyncio.create_task(exporter.run(pulled))
        async with fitness.watched():
            await asyncio.wait((running, link.failure), return_when=asyncio.FIRST_COMPLETED)
        stop()
        await running
        if link.failure.done():
            raise link.failure.result()
        log.info("exporter.stopped")


def _say_what_is_missing(what: StreamMissing, seconds: float) -> None:
    log.warning("exporter.waits", reason=str(what), seconds=seconds)
