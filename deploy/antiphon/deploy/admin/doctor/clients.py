"""Clients with a bound of open sagas: who has reached it, whether coordinators copy what such a client stores, and
whether a client's account has its starts go where they are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.bounds import Number
from antiphon.contracts.counting import counted
from antiphon.contracts.differences import Difference, consumer_differences, stream_differences
from antiphon.contracts.headers import NO_STREAM
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.pairs import base_of
from antiphon.contracts.topology import (
    BOUNDED,
    BOUNDED_STARTS,
    EVENTS,
    Bound,
    bounded_consumer,
    bounded_stream_name,
    parse_bounded_stream,
)
from antiphon.link import Link
from antiphon.link.setup import bounded_streams, bounds_set, info_of, replicas_asked

from ..rights import ANY, Grant
from .findings import Deployment, Finding
from .streams import works_of

SECONDS: Final = 10.0
TOKEN: Final = "antiphon-doctor"
"""What stands in a subject for any token: no saga, stream or consumer is called so."""
NO_REQUEST: Final = b"{antiphon doctor tries a right"
"""No body that any of the server's requests takes. It begins as JSON does, since a purge takes whatever is none for a
purge of everything (nats-server 2.15.1)."""


class _State(msgspec.Struct, frozen=True):
    """What a stream holds."""

    messages: Number = 0


class _Stored(msgspec.Struct, frozen=True):
    """Which stream refused a message."""

    stream: str = ""


async def clients(found: Deployment) -> list[Finding]:
    """Who has as many sagas open as it may, and whether anybody copies what clients with a bound store."""
    bounds = await bounds_set(found.link)
    ours = {stream.name for bound in bounds for stream in bound.streams}
    findings = [_half(stream) for stream in await bounded_streams(found.link) if stream not in ours]
    for bound in bounds:
        findings += await _as_made(found.link, bound)
        findings += await _of(found.link, bound)
    return findings


def _half(stream: str) -> Finding:
    """A stream whose bound is not to be had: that of the starts is gone, or counts none."""
    _, client, saga_type = parse_bounded_stream(stream) or ("", "", "")
    said = f"of client {client} there is stream {stream}, and no stream that bounds its open sagas of type {saga_type}"
    return Finding(
        "clients", "fault", said, f"antiphon setup --bound {client}={saga_type}:NUMBER; or delete the stream"
    )


async def _as_made(link: Link, bound: Bound) -> list[Finding]:
    """How a bound's streams and consumers differ from what a set-up makes."""
    replicas, found = await replicas_asked(link), list[Difference]()
    for stream in bound.streams:
        consumer, info = bounded_consumer(stream), await info_of(link, f"STREAM.INFO.{stream.name}")
        its = await info_of(link, f"CONSUMER.INFO.{stream.name}.{consumer.name}")
        found += stream_differences(stream, info["config"], replicas) if info else [_missing(stream.name)]
        found += consumer_differences(consumer, its["config"]) if its else [_missing(stream.name, consumer.name)]
    return [Finding("clients", "fault", each.sentence, each.remedy) for each in found]


def _missing(stream: str, consumer: str = "") -> Difference:
    what = f"consumer {consumer} of stream {stream}" if consumer else f"stream {stream}"
    return Difference(f"there is no {what}")


async def _of(link: Link, bound: Bound) -> list[Finding]:
    named = f"{bound.client}={bound.saga_type}"
    starts, signals = (each.name for each in bound.streams)
    findings = list[Finding]()
    works = await works_of(link, [(starts, BOUNDED), (signals, BOUNDED)])
    if idle := [stream for stream, consumer in works if works[stream, consumer].is_idle]:
        said = f"no coordinator takes what client {bound.client} stores in {' and '.join(idle)}: its sagas do not begin"
        remedy = (
            f"start a coordinator; where one runs, its accounts do not know the bound: make them anew with antiphon "
            f"rights --bound {named}, or delete both streams if the name is mistyped"
        )
        findings.append(Finding("clients", "fault", said, remedy))
    info = await info_of(link, f"STREAM.INFO.{starts}") or {}
    taken = msgspec.convert(info.get("state", {}), _State).messages
    said = (
        f"client {bound.client} has {counted(taken, 'saga')} of type {bound.saga_type} open, and may have {bound.most}"
    )
    if taken >= bound.most:
        remedy = f"wait until some have ended, or let it have more: antiphon setup --bound {named}:NUMBER"
        findings.append(Finding("clients", "warning", f"{said}: its next start is refused", remedy))
    return findings or [Finding("clients", "fine", said)]


# --- where a client's starts go, tried with its own credentials -------------------------------------------------------


async def starts_of(
    link: Link, client: str, granted: Sequence[Grant], bounds: Mapping[tuple[str, str], int]
) -> list[Finding]:
    """Whether a client's starts go to the stream where they are counted, for each type that it may start.

    Args:
        link: a connection of that client's.
        client: its name.
        granted: what it may do.
        bounds: how many sagas may be open, by client and saga type.
    """
    findings = list[Finding]()
    for saga_type in sorted({each.saga_type for each in granted if "start" in each.verbs}):
        key = SagaKey.of(TOKEN if saga_type == ANY else saga_type, TOKEN)
        stream = await stream_at(link, subjects.start_subject(key))
        findings += _judged(client, saga_type, stream, bounds.get((client, saga_type), 0))
    return findings


def _judged(client: str, saga_type: str, stream: str, most: int) -> list[Finding]:
    named = f"{client}={saga_type}"
    if most and stream != bounded_stream_name(BOUNDED_STARTS, client, saga_type):
        said = (
            f"{client} may have more than {most} sagas of type {saga_type} open: its starts go to "
            f"{stream or 'no stream'}, where nobody counts them"
        )
        remedy = f"make the accounts anew with antiphon rights --bound {named}, and have the server reload them"
        return [Finding("rights", "fault", said, remedy)]
    if not most and base_of(stream) != EVENTS:
        said = f"{client} can start no saga of type {saga_type}: its account is one with a bound, and none was set"
        return [Finding("rights", "fault", said, f"antiphon setup --bound {named}:NUMBER")]
    return []


async def stream_at(link: Link, subject: str) -> str:
    """The stream that would store what this connection publishes to a subject; empty where none would.

    Nothing is stored: a message says that it is for another stream, and the stream that refuses it says its own name.

    Raises:
        TimeoutError: the server has not answered.
    """
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def take(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        if not told.done():
            told.set_result(data)

    inbox = f"{link.new_inbox()}.1"
    await link.subscribe(inbox, take)
    link.send(subject, NO_REQUEST, NO_STREAM, reply=inbox)
    async with asyncio.timeout(SECONDS):
        data = await told
    return msgspec.json.decode(data, type=_Stored).stream if data else ""
