"""Clients with a bound of open sagas: who has reached it, whether coordinators copy what such a client stores, and
whether the accounts know the bound."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.bounds import Number
from antiphon.contracts.counting import counted
from antiphon.contracts.differences import Difference, consumer_differences, stream_differences
from antiphon.contracts.errors import AntiphonError, PlatformError
from antiphon.contracts.headers import NO_STREAM
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.pairs import base_of
from antiphon.contracts.topology import (
    BOUNDED,
    EVENTS,
    Bound,
    bounded_consumer,
    parse_bounded_stream,
)
from antiphon.link import Link
from antiphon.link.setup import bounded_streams, bounds_set, info_of, replicas_asked

from ..rights import ANY, Grant
from .findings import Deployment, Finding
from .roles import NO_REQUEST, SECONDS, TOKEN, connected_as, credentials_in, refused_of, used_for
from .streams import works_of


class _State(msgspec.Struct, frozen=True):
    """What a stream holds."""

    messages: Number = 0


class _Stored(msgspec.Struct, frozen=True):
    """Which stream refused a message."""

    stream: str = ""


class _Tried(msgspec.Struct, frozen=True):
    """What the users' credentials have shown of the accounts.

    Args:
        starts: the stream that would store a client's starts, by client and saga type, of those that were tried.
        refused: what coordinators may not do that clients with a bound need; None where that was not tried.
    """

    starts: Mapping[tuple[str, str], str] = {}
    refused: Collection[str] | None = None


async def clients(found: Deployment) -> list[Finding]:
    """Who has as many sagas open as it may, whether anybody copies what clients with a bound store, and with the users'
    credentials whether the accounts know the bound: one finding about each bound, unless its streams are wrong."""
    bounds = await bounds_set(found.link)
    tried = await _try(found, bounds)
    ours = {stream.name for bound in bounds for stream in bound.streams}
    findings = [_half(stream) for stream in await bounded_streams(found.link) if stream not in ours]
    for bound in bounds:
        findings += await _as_made(found.link, bound)
        findings += _unknown_to_accounts(bound, tried) or await _of(found.link, bound, tried)
    known = {(each.client, each.saga_type) for each in bounds}
    return [*findings, *_unset(tried, known)]


def _half(stream: str) -> Finding:
    """A stream whose bound is not to be had: that of the starts is gone, or counts none."""
    _, client, saga_type = parse_bounded_stream(stream) or ("", "", "")
    said = f"of client {client} there is stream {stream}, and no stream that bounds its open sagas of type {saga_type}"
    return Finding(
        "clients",
        "fault",
        said,
        f"antiphon setup --bound {client}={saga_type}:NUMBER; or --forget-bound {client}={saga_type}",
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


async def _of(link: Link, bound: Bound, tried: _Tried) -> list[Finding]:
    named = f"{bound.client}={bound.saga_type}"
    starts, signals = (each.name for each in bound.streams)
    findings = list[Finding]()
    works = await works_of(link, [(starts, BOUNDED), (signals, BOUNDED)])
    if idle := [stream for stream, consumer in works if works[stream, consumer].is_idle]:
        waiting = sum(each.num_pending + each.num_ack_pending for each in works.values() if each.is_idle)
        said = (
            f"no coordinator takes what client {bound.client} stores in {' and '.join(idle)}; messages that wait "
            f"there: {waiting}"
        )
        unknown = f"; where one runs, the accounts do not know the bound: {_anew('them', named)}"
        remedy = f"start a coordinator{unknown if tried.refused is None else ''}"
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


# --- what the accounts make of a bound, tried with the users' own credentials -----------------------------------------


def _anew(what: str, named: str) -> str:
    return (
        f"make {what} anew with antiphon rights --bound {named}, and have the server reload them; if the name is "
        f"mistyped, antiphon setup --forget-bound {named}"
    )


def _unknown_to_accounts(bound: Bound, tried: _Tried) -> list[Finding]:
    """That the accounts do not know a bound, or not all of them."""
    starts, signals = (each.name for each in bound.streams)
    stream = tried.starts.get((bound.client, bound.saga_type), starts)
    said = list[str]()
    if stream != starts:
        more = f"{bound.client} may have more than {counted(bound.most, 'saga')} of type {bound.saga_type} open"
        said.append(f"{more}: its starts go to {stream or 'no stream'}, where nobody counts them")
    if not {*used_for(bound)}.isdisjoint(tried.refused or ()):
        said.append(f"coordinators may not take what client {bound.client} stores in {starts} and {signals}")
    if not said:
        return []
    named = f"{bound.client}={bound.saga_type}"
    what = f"the accounts do not know the bound of {bound.client}: {', and '.join(said)}"
    return [Finding("clients", "fault", what, _anew("the accounts", named))]


def _unset(tried: _Tried, known: Collection[tuple[str, str]]) -> list[Finding]:
    """Clients whose accounts have a bound that nobody has set."""
    return [
        Finding(
            "clients",
            "fault",
            f"{client} can start no saga of type {saga_type}: its account is one with a bound, and none was set",
            f"antiphon setup --bound {client}={saga_type}:NUMBER",
        )
        for (client, saga_type), stream in tried.starts.items()
        if (client, saga_type) not in known and base_of(stream) != EVENTS
    ]


async def _try(found: Deployment, bounds: Sequence[Bound]) -> _Tried:
    """Try with the credentials that there are where clients' starts go, and what coordinators may do for them."""
    try:
        there = credentials_in(Path(found.rights_folder), found.credentials) if found.rights_folder else {}
    except PlatformError:  # which is said where rights are looked at
        there = {}
    types = {(each.client, each.saga_type) for each in bounds}
    types |= {(name, each.saga_type) for name, grants in found.clients.items() for each in grants if _starts(each)}
    starts = dict[tuple[str, str], str]()
    for client, saga_type in sorted(each for each in types if each[0] in there):
        with suppress(AntiphonError, TimeoutError):  # who is not let in is told where rights are looked at
            async with connected_as(client, found.servers, there[client]) as link:
                if (stream := await _starts_at(link, saga_type)) is not None:
                    starts[client, saga_type] = stream
    refused: set[str] | None = None
    if bounds and COORDINATOR in there:
        with suppress(AntiphonError):
            async with connected_as(COORDINATOR, found.servers, there[COORDINATOR]) as link:
                refused = await refused_of(link, {each for bound in bounds for each in used_for(bound)})
    return _Tried(starts, refused)


def _starts(grant: Grant) -> bool:
    return "start" in grant.verbs


async def _starts_at(link: Link, saga_type: str) -> str | None:
    """The stream that would store what this connection starts; None where it may start nothing."""
    subject = subjects.start_subject(SagaKey.of(TOKEN if saga_type == ANY else saga_type, TOKEN))
    return None if await refused_of(link, [subject]) else await stream_at(link, subject)


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
