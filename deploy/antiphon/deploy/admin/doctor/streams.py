"""The streams and consumers: as they must be, copied as often as they should be, with room, and worked on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from antiphon.contracts.bounds import Number
from antiphon.contracts.counting import counted
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.pairs import base_of
from antiphon.contracts.subjects import REGISTRATIONS_FILTER
from antiphon.contracts.topology import (
    BUCKETS,
    EVENTS,
    EXPORTER,
    EXPORTER_CONSUMER,
    PARKED,
    PARTICIPANT_ACK_WAIT_SECONDS,
    PLATFORM_CONSUMERS,
    REGISTRATIONS,
    SAGA,
    Consumer,
    answers_consumer,
    is_of_platform,
    may_be_participant,
    participant_consumer_name,
    participant_consumers,
    reactions_consumer_name,
)
from antiphon.flow.running import read_running
from antiphon.link import Link, fitness
from antiphon.link.setup import bounded_streams, consumer_configs, heard, info_of

from .findings import Deployment, Finding, Grade

BEHIND: Final = 1000
"""How many messages that wait are pointed out."""
FILLING, FULL = 0.75, 0.9
"""Shares of a stream's room. From the second on no saga of a client begins."""
LAG_MAX: Final = 1000
"""How many messages a copy may be behind."""
UNEVEN_MAX: Final = 1
"""How many streams more than its even share a server may lead: the server chooses leaders by chance."""
MOVES_SECONDS: Final = PARTICIPANT_ACK_WAIT_SECONDS + 1.0
"""How far apart it is looked whether anybody ends what he has in hand."""
IDLE: Final = frozenset(("sweeper", "timers"))
"""Consumers of coordinators that hold messages back on purpose."""


async def server(found: Deployment) -> list[Finding]:
    """The server that answers."""
    if fault := found.link.payload_fault:
        return [Finding("server", "fault", fault)]
    version = found.link.nc.connected_server_version
    return [Finding("server", "fine", f"nats-server {version.major}.{version.minor}.{version.patch} answers")]


async def settings(found: Deployment) -> list[Finding]:
    """Whether streams and consumers are as `antiphon setup` makes them."""
    try:
        participants, answering = await participants_of(found.link), await heard(found.link)
    except PlatformError:  # there are no streams, which is what is looked at here
        participants, answering = [], set[str]()
    fixed = [*PLATFORM_CONSUMERS, *map(answers_consumer, sorted(answering))]
    theirs = [each for name in participants for each in participant_consumers(name)]
    differences = await fitness.settings(found.link, fixed, [*theirs, EXPORTER_CONSUMER])()
    if not differences:
        said = f"streams and consumers are as they must be, for {counted(len(participants), 'participant')}"
        return [Finding("settings", "fine", said)]
    return [
        Finding("settings", "fault" if each.is_grave else "warning", each.sentence, each.remedy) for each in differences
    ]


async def copies(found: Deployment) -> list[Finding]:
    """Whether each stream has a leader, and copies that are up to date."""
    findings, clusters = list[Finding](), dict[str, dict[str, Any]]()
    ours = [each.name for each in (*found.link.pairs.streams(), *BUCKETS)]
    for stream in (*ours, *await bounded_streams(found.link)):
        if (info := await info_of(found.link, f"STREAM.INFO.{stream}")) is not None:
            findings += _copies_of(stream, info, in_cluster=found.link.may_be_clustered)
            clusters[stream] = info.get("cluster") or {}
    findings += _leaders_of({stream: each for stream, each in clusters.items() if base_of(stream) != stream})
    worse = [each for each in findings if each.grade != "fine"]
    return worse or [Finding("copies", "fine", findings[0].what)] if findings else []


def _copies_of(stream: str, info: dict[str, Any], *, in_cluster: bool) -> list[Finding]:
    cluster: dict[str, Any] = info.get("cluster") or {}
    others: list[dict[str, Any]] = cluster.get("replicas") or []
    count = info["config"].get("num_replicas", 1)
    if not cluster.get("leader"):
        remedy = "start the servers that are missing; look at their logs"
        return [Finding("copies", "fault", f"stream {stream} has no leader: nothing can be stored in it", remedy)]
    away = [str(each.get("name"))[:80] for each in others if each.get("offline")]
    late = [
        str(each.get("name"))[:80]
        for each in others
        if not each.get("offline") and (not each.get("current") or each.get("lag", 0) > LAG_MAX)
    ]
    findings = list[Finding]()
    if away:
        said = f"of stream {stream} the copies on {', '.join(away)} are away: one more loss may stop it"
        findings.append(Finding("copies", "fault", said, "start these servers"))
    if late:
        said = f"of stream {stream} the copies on {', '.join(late)} are behind"
        findings.append(Finding("copies", "warning", said, "wait, and look at these servers' load if that stays so"))
    if count == 1 and in_cluster:
        said = f"stream {stream} has one copy, in a cluster: without that one server all stands still"
        findings.append(Finding("copies", "warning", said, "as administrator: antiphon setup --replicas 3"))
    return findings or [
        Finding("copies", "fine", f"each stream has a leader and {count} of {counted(count, 'copy', 'copies')}")
    ]


def _leaders_of(clusters: Mapping[str, dict[str, Any]]) -> list[Finding]:
    """Whether one server leads many more streams of pairs than the others: then these have not much of the work.

    Args:
        clusters: who has copies of each stream, as the server tells it.
    """
    servers, led = set[str](), defaultdict[str, list[str]](list)
    for stream, cluster in clusters.items():
        others: list[dict[str, Any]] = cluster.get("replicas") or []
        servers |= {str(each.get("name"))[:80] for each in others}
        if leader := str(cluster.get("leader") or "")[:80]:
            servers.add(leader)
            led[leader].append(stream)
    if len(servers) < 2 or not led:
        return []
    leader, streams = max(led.items(), key=lambda each: len(each[1]))
    if len(streams) <= -(-len(clusters) // len(servers)) + UNEVEN_MAX:
        return []
    said = f"server {leader} leads {len(streams)} of the {len(clusters)} streams of pairs, and the others do little"
    remedy = f"have others lead some: nats stream cluster step-down {streams[0]}"
    return [Finding("copies", "warning", said, remedy)]


async def room(found: Deployment) -> list[Finding]:
    """How full the streams are that have a bound, and the account."""
    findings = list[Finding]()
    for stream in (*found.link.pairs.events, PARKED):
        info = await info_of(found.link, f"STREAM.INFO.{stream}")
        if info is not None and (most := info["config"].get("max_bytes", -1)) > 0:
            option = f"--{base_of(stream).lower()}-max-bytes"
            findings.append(_filled(f"stream {stream}", info["state"]["bytes"], most, option))
    account = await info_of(found.link, "INFO") or {}
    limits: dict[str, int] = account.get("limits") or {}
    if (most := limits.get("max_storage", -1)) > 0:
        findings.append(_filled("the account's storage", account.get("storage", 0), most, "a larger limit"))
    return findings


def _filled(what: str, used: int, most: int, remedy: str) -> Finding:
    share, said = used / most, f"{what} has taken {used / 1e9:.3f} of {most / 1e9:.3f} GB"
    grade: Grade = "fault" if share >= FULL else "warning" if share >= FILLING else "fine"
    if grade == "fine":
        return Finding("room", grade, said)
    more = f"antiphon setup {remedy}" if remedy.startswith("--") else remedy
    return Finding("room", grade, said, f"have old sagas purged (deploy/docs/deletion.md), or {more}")


class Place(msgspec.Struct, frozen=True):
    """How far a consumer has come."""

    consumer_seq: Number = 0


class Work(msgspec.Struct, frozen=True):
    """How a consumer is worked on."""

    name: str
    num_pending: Number = 0
    num_ack_pending: Number = 0
    num_waiting: Number = 0
    delivered: Place = Place()
    ack_floor: Place = Place()
    is_idle: bool = False
    """Whether nobody asks for messages, nor ends any. What was in a dead worker's hands counts as in hand until
    somebody asks for it."""


async def work(found: Deployment) -> list[Finding]:
    """Whether somebody works on each consumer, and keeps up."""
    participants = await participants_of(found.link)
    spread = found.link.pairs.spread
    fixed = spread([*PLATFORM_CONSUMERS, *map(answers_consumer, sorted(await heard(found.link)))])
    theirs = {name: _of_all_pairs(found.link, _consumers_of(name)) for name in participants}
    exporters = _named(spread([EXPORTER_CONSUMER]))
    consumers = [*_named(fixed), *exporters, *(each for names in theirs.values() for each in names)]
    works = await works_of(found.link, consumers)
    findings = _coordinators([works[each] for each in _named(fixed) if each in works])
    for name, its in theirs.items():
        findings += _workers(name, [works[each] for each in its if each in works])
    findings += await _databases(found.link)
    if exporting := [works[each] for each in exporters if each in works]:
        findings.append(_exporter(exporting, found.link.pairs.saga))
    return findings


def _named(consumers: Iterable[Consumer]) -> list[tuple[str, str]]:
    return [(each.stream, each.name) for each in consumers]


def _of_all_pairs(link: Link, consumers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, consumer) for stream, consumer in consumers for name in link.pairs.names(stream)]


def _coordinators(works: list[Work]) -> list[Finding]:
    idle = list(dict.fromkeys(each.name for each in works if each.is_idle))
    behind = [each for each in works if each.num_pending > BEHIND and each.name not in IDLE]
    if all(each.is_idle for each in works):
        remedy = "start one: antiphon coordinator --app …"
        return [Finding("coordinators", "fault", "no coordinator runs: sagas stand still", remedy)]
    if idle:
        said = f"no coordinator hears {', '.join(idle)}"
        return [Finding("coordinators", "fault", said, "look at the coordinators' logs; start one of this release")]
    return [
        Finding(
            "coordinators",
            "warning",
            f"{counted(each.num_pending, 'message waits', 'messages wait')} in {each.name}",
            "more coordinators",
        )
        for each in behind
    ] or [Finding("coordinators", "fine", "coordinators run and keep up")]


def _consumers_of(participant: str) -> list[tuple[str, str]]:
    return [
        (SAGA, participant_consumer_name(participant, "do")),
        (SAGA, participant_consumer_name(participant, "undo")),
        (EVENTS, reactions_consumer_name(participant)),
    ]


def _workers(participant: str, works: list[Work]) -> list[Finding]:
    waiting = sum(each.num_pending + each.num_ack_pending for each in works if each.is_idle)
    start = f"start a worker: antiphon participant MODULE:{participant}"
    if all(each.is_idle for each in works):
        said = f"no worker of {participant} runs"
        if waiting:
            more = f"{said}, or all its places are taken; messages that are not done: {waiting}"
            return [Finding("participants", "fault", more, start)]
        return [Finding("participants", "warning", f"{said}; nothing waits for one", start)]
    if (pending := sum(each.num_pending for each in works)) > BEHIND:
        return [
            Finding(
                "participants",
                "warning",
                f"{counted(pending, 'message waits', 'messages wait')} for {participant}",
                "more workers",
            )
        ]
    return [Finding("participants", "fine", f"{participant} runs and keeps up")]


async def _databases(link: Link) -> list[Finding]:
    """Whether the processes of a participant use one database, by what they say of themselves."""
    stored = [(each.subject, each.data) async for each in link.scan(REGISTRATIONS.name, REGISTRATIONS_FILTER)]
    uses = defaultdict[str, dict[int, list[str]]](lambda: defaultdict(list))
    for each in read_running(stored).registrations:
        if each.database:
            uses[each.name][each.database].append(each.instance)
    return [
        Finding(
            "participants",
            "fault",
            f"processes of {name} use {len(instances)} databases, and none knows what the others have done: "
            + "; ".join(f"{', '.join(those)} one" for those in instances.values()),
            "stop all but those with the right one, and start them with its --database; what they did is in the others",
        )
        for name, instances in sorted(uses.items())
        if len(instances) > 1
    ]


def _exporter(works: list[Work], streams: Iterable[str]) -> Finding:
    pending = sum(each.num_pending for each in works)
    if any(each.is_idle for each in works):
        said = (
            f"no exporter runs; {counted(pending, 'message')} of journals for one to send, and old sagas are not purged"
        )
        delete = "; ".join(f"nats consumer rm {stream} {EXPORTER}" for stream in streams)
        remedy = (
            "leave it so where nobody looks at traces, as on a laptop. Else: antiphon exporter (pip install "
            "'antiphon[otlp]'). Where old sagas are to be purged and there is never to be one, its consumer goes: "
            f"{delete}, with NATS's own program"
        )
        return Finding("exporter", "warning", said, remedy)
    if pending > BEHIND:
        remedy = "look at its log: is the tracing backend away?"
        return Finding(
            "exporter", "warning", f"{counted(pending, 'message waits', 'messages wait')} for the exporter", remedy
        )
    return Finding("exporter", "fine", "the exporter runs and keeps up")


async def participants_of(link: Link) -> list[str]:
    """The participants that were set up, by the consumers of SAGA."""
    configs = await consumer_configs(link)
    names = {name for stream, name in configs if base_of(stream) == SAGA and not is_of_platform(name)}
    return sorted(name for name in names if may_be_participant(name))


async def works_of(link: Link, consumers: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Work]:
    """How consumers are worked on, by their streams and names. Where nobody asks for messages it is looked twice:
    whoever is busy with all that he may hold ends some of it meanwhile."""
    found = {each: await _work(link, *each) for each in consumers}
    works = {each: work for each, work in found.items() if work is not None}
    silent = {each for each, work in works.items() if not work.num_waiting}
    if any(works[each].num_ack_pending for each in silent):
        await asyncio.sleep(MOVES_SECONDS)
    for each in consumers:
        if each in silent and (again := await _work(link, *each)) is not None:
            before = works[each]
            moved = again.num_waiting or (again.delivered, again.ack_floor) != (before.delivered, before.ack_floor)
            works[each] = msgspec.structs.replace(again, is_idle=not moved)
    return works


async def _work(link: Link, stream: str, consumer: str) -> Work | None:
    info = await info_of(link, f"CONSUMER.INFO.{stream}.{consumer}")
    return None if info is None else msgspec.convert(info, Work)
