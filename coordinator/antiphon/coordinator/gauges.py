"""What a coordinator that is asked for metrics looks up now and then: how far behind consumers are, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.topology import (
    EXPORTER_CONSUMER,
    PLATFORM_CONSUMERS,
    SWEEPER,
    Consumer,
    participant_consumers,
)
from antiphon.link import Link
from antiphon.tracing.metrics import Gauges

from .waiting import waiting

LOOK_SECONDS: Final = 10.0
"""How often consumers are asked how far they are."""
WAITING_EVERY: Final = 6
"""Who waits for a person is counted with every sixth look, because each of them is read."""
WAITING_SECONDS_MAX: Final = 5.0
"""For how long; with thousands that wait the number stays the one before."""

log = structlog.get_logger()


class _Info(msgspec.Struct):
    num_pending: int = 0
    num_ack_pending: int = 0


_decode = msgspec.json.Decoder(_Info).decode


async def keep_looking(link: Link, participants: Iterable[str], gauges: Gauges) -> None:
    """Look until cancelled.

    Args:
        link: a connection with a coordinator's rights.
        participants: whose consumers are looked at besides the platform's.
        gauges: where what is found is put.
    """
    consumers = [
        *PLATFORM_CONSUMERS,
        EXPORTER_CONSUMER,
        *(each for name in participants for each in participant_consumers(name)),
    ]
    turn = 0
    while True:
        for consumer in consumers:
            await _look(link, consumer, gauges)
        if turn % WAITING_EVERY == 0:
            await _count_waiting(link, gauges)
        turn += 1
        await asyncio.sleep(LOOK_SECONDS)


async def _look(link: Link, consumer: Consumer, gauges: Gauges) -> None:
    try:
        info = _decode(await link.request(f"$JS.API.CONSUMER.INFO.{consumer.stream}.{consumer.name}"))
    except (Ambiguous, msgspec.MsgspecError) as error:
        log.info("gauges.not_seen", consumer=consumer.name, reason=str(error))
        return
    which = (("messaging.consumer.group.name", consumer.name), ("messaging.destination.name", consumer.stream))
    gauges["antiphon.consumer.pending", which] = info.num_pending
    gauges["antiphon.consumer.unacked", which] = info.num_ack_pending
    if consumer.name == SWEEPER:
        gauges["antiphon.sagas.open", ()] = info.num_pending + info.num_ack_pending


async def _count_waiting(link: Link, gauges: Gauges) -> None:
    try:
        async with asyncio.timeout(WAITING_SECONDS_MAX):
            found = await waiting(link)
    except (Ambiguous, TimeoutError) as error:
        log.info("gauges.waiting_not_counted", reason=str(error) or "there are too many")
        return
    gauges["antiphon.sagas.waiting", ()] = len({each.saga for each in found if each.kind == "saga"})
