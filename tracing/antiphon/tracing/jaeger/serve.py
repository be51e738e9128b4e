"""The process that Jaeger asks."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import structlog

from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.stored import NobodyReads
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link import Credentials, Link
from antiphon.link.connection import streams_missing
from antiphon.link.fitness import Fitness, payload, reads
from antiphon.link.pairs import find_pairs
from antiphon.link.probes import served
from antiphon.link.process import stand_back, told_to_stop

if TYPE_CHECKING:
    from .sagas import Sagas

log = structlog.get_logger()

LISTEN: Final = "127.0.0.1:17271"
"""Where Jaeger's own examples look for a storage. Whoever reaches it can read all sagas."""
PORT_MAX: Final = 65_535
DRAIN_SECONDS: Final = 5.0
"""How long questions that are being answered may go on after SIGTERM."""


async def serve(
    servers: str | list[str],
    *,
    listen: str = LISTEN,
    name: str = "jaeger-storage",
    credentials: Credentials | None = None,
    http: str = "",
) -> None:
    """Answer Jaeger's questions until SIGTERM or SIGINT.

    Args:
        servers: URLs of NATS servers.
        listen: host and port; port 0 takes a free one, which the log tells.
        name: the connection's name.
        credentials: who connects; taken from the environment when left out.
        http: `host:port` of the pages that say whether it lives and is ready; see `antiphon.link.probes`.

    Raises:
        PlatformError: the platform is not as it must be, or nobody can listen there; the sentence has the remedy.
    """
    try:
        from .service import listen as answer
    except ImportError:
        raise PlatformError("Jaeger cannot be answered without antiphon[jaeger]; install it.") from None
    from .sagas import Sagas

    address = re.fullmatch(r"\S+:([0-9]{1,5})", listen)
    if address is None or int(address[1]) > PORT_MAX:  # gRPC would listen on what is left of it
        raise PlatformError(f"--listen {listen}: give a host and a port, such as {LISTEN}.")
    stand_back()
    told = told_to_stop()
    async with AsyncExitStack() as held:
        probes = held.enter_context(served(http))
        link = await Link.connect(servers, name=name, credentials=credentials)
        held.push_async_callback(link.close)
        await find_pairs(link)
        sagas = Sagas(link)
        if not await _load(link, sagas, told):
            return
        server, port = await answer(sagas, listen)
        log.info("jaeger_storage.ready", port=port, sagas=len(sagas.index))
        fitness = Fitness(link, [payload(link), reads(link, (SAGA, EVENTS))])
        probes.ready(link, fitness)
        try:
            async with fitness.watched():
                await link.until(told)
        finally:
            probes.ending()
            await server.stop(DRAIN_SECONDS)
        if link.failure.done():
            raise link.failure.result()
        log.info("jaeger_storage.stopped")


async def _load(link: Link, sagas: Sagas, told: asyncio.Event) -> bool:
    """Read the starts of all sagas; false if the process was told to stop before that was done."""
    loading = asyncio.ensure_future(sagas.refresh())
    stopping = asyncio.ensure_future(told.wait())
    await asyncio.wait((loading, stopping, link.failure), return_when=asyncio.FIRST_COMPLETED)
    is_loaded = loading.done()
    loading.cancel()
    stopping.cancel()
    (failed,) = await asyncio.gather(loading, return_exceptions=True)  # or nobody would have asked what became of it
    if link.failure.done():
        raise link.failure.result()
    if not is_loaded:
        return False
    if isinstance(failed, NobodyReads):
        raise streams_missing(link.may_be_clustered)
    if isinstance(failed, Ambiguous):
        raise PlatformError(f"the starts of sagas could not be read ({failed}). Look at the server's log.")
    if failed is not None:
        raise failed
    return True
