"""Gauges of a coordinator that is asked for metrics: how far behind consumers are, and how many sagas wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from antiphon.contracts.bounds import Number, Sequence
from antiphon.contracts.errors import Ambiguous, AntiphonError
from antiphon.contracts.topology import (
    EVENTS,
    EXPORTER_CONSUMER,
    PLATFORM_CONSUMERS,
    SWEEPER,
    answers_consumer_name,
    participant_consumers,
    reactions_consumer_name,
)
from antiphon.link import Link
from antiphon.link.faults import say
from antiphon.link.outcomes import CONSUMER_NOT_FOUND
from antiphon.link.setup import heard
from antiphon.tracing.telemetry.metrics import Gauges

from ..reading.parked import waiting

LOOK_SECONDS: Final = 10.0
"""How often consumers are asked how far they are."""
WAITING_EVERY: Final = 6
"""Who waits for a person is counted with every sixth look, because each of them is read."""
WAITING_SECONDS_MAX: Final = 5.0
"""For how long; with thousands that wait the number stays the one before."""

UNFINISHED: Final = ("antiphon.consumer.pending", "antiphon.consumer.unacked")
LAGS: Final = (*UNFINISHED, "antiphon.consumer.pulls")

log = structlog.get_logger()


class _Error(msgspec.Struct):
    err_code: Number = 0
    description: str = ""


class _Info(msgspec.Struct):
    num_pending: Sequence = 0
    num_ack_pending: Sequence = 0
    num_waiting: Sequence = 0
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Info).decode


async def keep_looking(link: Link, participants: Iterable[str], gauges: Gauges) -> None:
    """Look until cancelled.

    Args:
        link: a connection with a coordinator's rights.
        participants: whose consumers are looked at besides the platform's, those of reactions where there are any. What
            coordinators have to hear is looked at of all participants that are set up.
        gauges: where what is found is put.
    """
    named = [(each.stream, each.name) for each in (*PLATFORM_CONSUMERS, EXPORTER_CONSUMER)]
    for participant in participants:
        named += [(each.stream, each.name) for each in participant_consumers(participant)]
        named.append((EVENTS, reactions_consumer_name(participant)))
    turn, heard_once = 0, set[str]()
    while True:
        try:
            heard_once |= await heard(link)
            answers = [(EVENTS, answers_consumer_name(name)) for name in sorted(heard_once)]
            for base, consumer in (*named, *answers):
                for stream in link.pairs.names(base):
                    await _look(link, stream, consumer, gauges)
            _count_open(link.pairs.events, gauges)
            if turn % WAITING_EVERY == 0:
                await _count_waiting(link, gauges)
        except Exception as error:  # the next look may find more
            say("gauges.faulty", error)
        turn += 1
        await asyncio.sleep(LOOK_SECONDS)


async def _look(link: Link, stream: str, consumer: str, gauges: Gauges) -> None:
    which = _labels(stream, consumer)
    try:
        info = _decode(await link.request(f"$JS.API.CONSUMER.INFO.{stream}.{consumer}"))
    except (Ambiguous, msgspec.MsgspecError) as error:
        log.info("gauges.not_seen", consumer=consumer, reason=str(error))
        return
    if info.error is not None:
        if info.error.err_code != CONSUMER_NOT_FOUND:
            log.info("gauges.not_seen", consumer=consumer, reason=info.error.description)
            return
        for name in LAGS:  # drop the gauges of a missing consumer
            gauges.pop((name, which), None)
        return
    gauges["antiphon.consumer.pending", which] = info.num_pending
    gauges["antiphon.consumer.unacked", which] = info.num_ack_pending
    gauges["antiphon.consumer.pulls", which] = info.num_waiting


def _labels(stream: str, consumer: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("messaging.consumer.group.name", consumer), ("messaging.destination.name", stream)


def _count_open(streams: Iterable[str], gauges: Gauges) -> None:
    """Add up what the sweeper has of all pairs, once each of them was seen."""
    which = [(name, _labels(stream, SWEEPER)) for stream in streams for name in UNFINISHED]
    if all(each in gauges for each in which):
        gauges["antiphon.sagas.open", ()] = sum(gauges[each] for each in which)


async def _count_waiting(link: Link, gauges: Gauges) -> None:
    try:
        async with asyncio.timeout(WAITING_SECONDS_MAX):
            found = await waiting(link)
    except (AntiphonError, TimeoutError) as error:
        log.info("gauges.waiting_not_counted", reason=str(error) or "there are too many")
        return
    gauges["antiphon.sagas.waiting", ()] = len({each.saga for each in found if each.kind == "saga"})
