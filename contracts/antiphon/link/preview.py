"""What a set-up would make of a server, before anything is changed: each stream and consumer with the settings that
become others, and what would be less safe than it is. It only asks and reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from antiphon.contracts.counting import counted
from antiphon.contracts.differences import Config, asked_replicas, filters_in
from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.pairs import ONE_PAIR, Pairs, count_in
from antiphon.contracts.subjects import EVENTS_FILTER, SAGA_FILTER, heard_participants
from antiphon.contracts.targets import (
    Loss,
    Reduction,
    SettingChange,
    Stored,
    consumer_target,
    is_tighter,
    removed_filters,
    setting_changes,
    stream_reductions,
    stream_target,
    undelivered,
)
from antiphon.contracts.topology import (
    ADMINISTRATOR,
    BOUNDED_SIGNALS,
    BOUNDED_STARTS,
    BUCKETS,
    EVENTS,
    EXPORTER,
    EXPORTER_CONSUMER,
    FACT_CONSUMERS,
    FORMER_ANSWERS,
    FORMER_FACTS,
    PARKED,
    PARTICIPANT_ACK_WAIT_SECONDS,
    PLATFORM_CONSUMERS,
    READMODEL,
    REGISTRATIONS,
    Bound,
    Consumer,
    Listener,
    Stream,
    answers_consumer,
    bounded_consumer,
    bounded_stream_name,
    check_participant,
    former_answers_consumer,
    parse_bounded_stream,
    participant_consumers,
    reactions_consumer,
    reactions_consumer_name,
)

from .connection import Link
from .outcomes import NOT_FOUND
from .servers import require_servers
from .setup import bounded_streams, bounds_set, insist, set_up_participants, stream_names, unneeded_former_consumers

Info = dict[str, Any]
"""What the server tells of a stream or consumer."""
Action = Literal["create", "change", "keep", "delete"]
NO_CLIENTS: Final = frozenset((ADMINISTRATOR, COORDINATOR, READMODEL, EXPORTER))
"""Users that every platform has, which are no clients."""
REACTIONS: Final = reactions_consumer_name("")
"""How the names of the consumers end that deliver what participants react to."""

MEANT: Final[dict[Loss, str]] = {
    Loss.FEWER_REPLICAS: "Without --replicas there stay as many as there are",
    Loss.SMALLER_BOUNDS: "Without the option for it a bound stays as it is",
    Loss.LOST_MESSAGES: "Take a backup (nats stream backup), or let the workers finish what waits",
}
"""What an administrator can do in the place of each."""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What an administrator wants set up.

    Args:
        listeners: participants; for those that react to events, with what they hear.
        replicas: copies of each stream; 0 for as many as before, and one where nothing was.
        ack_wait_seconds: how long a command waits for another worker after the one that held it died.
        events_bytes: how much EVENTS may take; 0 for as much as before, and half of the room where nothing was.
        parked_bytes: the same for PARKED.
        forget_reactions: participants whose consumer for reactions is to be deleted.
        client_bounds: how many sagas of a type clients may have open; bounds that were set before stay.
        forget_bounds: clients and saga types whose bound is to be deleted, with its streams.
        forget_former: whether to delete the consumers that only coordinators of earlier releases use.
        pairs: over how many pairs of streams sagas are to be spread; 0 for as many as there are, and at first one.
    """

    listeners: tuple[Listener, ...] = ()
    replicas: int = 0
    ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS
    events_bytes: int = 0
    parked_bytes: int = 0
    forget_reactions: tuple[str, ...] = ()
    forget_former: bool = False
    client_bounds: tuple[Bound, ...] = ()
    forget_bounds: tuple[tuple[str, str], ...] = ()
    pairs: int = 0

    def consumers(self) -> list[Consumer]:
        """The consumers of the participants.

        Raises:
            BadIdentity: no participant may have such a name.
        """
        found = list[Consumer]()
        for each in self.listeners:
            check_participant(each.name)
            found += participant_consumers(each.name, self.ack_wait_seconds)
            if each.hears:
                found.append(reactions_consumer(each, self.ack_wait_seconds))
        return found


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one stream or consumer.

    Args:
        stream: the stream, or that of the consumer.
        consumer: the consumer's name; empty for a stream.
        action: what is done.
        settings: what becomes of the settings of one that is there.
        reductions: what is less safe then.
        config: the configuration that it is to have.
    """

    stream: str
    consumer: str = ""
    action: Action
    settings: tuple[SettingChange, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    config: dict[str, Any] = {}

    @property
    def kind(self) -> Literal["stream", "consumer", "bucket"]:
        """What it is."""
        if self.consumer:
            return "consumer"
        return "bucket" if self.stream in {each.name for each in BUCKETS} else "stream"

    @property
    def what(self) -> str:
        """What it is called in sentences."""
        return f"consumer {self.consumer} of stream {self.stream}" if self.consumer else f"stream {self.stream}"


class Preview(msgspec.Struct, frozen=True):
    """Everything that a set-up looks after, with what would become of it."""

    changes: tuple[Change, ...]
    replicas: int
    pairs: Pairs = ONE_PAIR

    @property
    def pending(self) -> tuple[Change, ...]:
        """What is not as it is to be."""
        return tuple(each for each in self.changes if each.action != "keep")

    def bound_of(self, stream: str) -> int:
        """How many bytes a stream may take then, of several pairs together; 0 where that is known once it is made."""
        names = self.pairs.names(stream)
        bounds = [int(each.config["max_bytes"]) for each in self.changes if each.stream in names and not each.consumer]
        return sum(bounds) if all(bounds) else 0

    def require_allowed(self, allowed: Iterable[Loss]) -> None:
        """Check that an administrator has named every kind of loss.

        Raises:
            LessSafe: one was not named.
        """
        permitted = {*allowed}
        refused = [each for change in self.changes for each in change.reductions if each.kind not in permitted]
        if refused:
            raise LessSafe(refused)


class LessSafe(PlatformError):
    """A set-up would make a platform less safe, and nobody has said that this is meant.

    Args:
        reductions: what would be less safe.
    """

    def __init__(self, reductions: Sequence[Reduction]) -> None:
        self.reductions = tuple(reductions)
        kinds = list(dict.fromkeys(each.kind for each in reductions))
        instead = " ".join(f"{MEANT[kind]}." for kind in kinds)
        options = " ".join(f"--allow {kind}" for kind in kinds)
        sentences = "; ".join(dict.fromkeys(each.sentence for each in reductions))
        super().__init__(
            f"nothing was changed, because the platform would be less safe: {sentences}. {instead} "
            f"If it is meant: the same command with {options}."
        )


async def preview(link: Link, desired: Desired) -> Preview:
    """What a set-up would make of the server.

    Args:
        link: a connection with an administrator's rights.
        desired: what is to be set up.

    Raises:
        BadIdentity: no participant may have such a name.
        PlatformError: the server cannot tell, more copies are asked for than there are servers, a bound is less than
            what a stream holds, sagas are spread over another number of pairs, coordinators of an earlier release still
            need what is to be deleted, a client's bound is of somebody who is no client, or there is none to forget.
    """
    theirs = desired.consumers()  # names are looked at before the server is asked anything
    pairs = await _pairs(link, desired)
    link.spread_over(pairs)
    of_clients = await _streams_of_clients(link, desired)
    wanted = (*pairs.streams(), *BUCKETS, *of_clients)
    infos = {each.name: await _info(link, f"STREAM.INFO.{each.name}") for each in wanted}
    before = asked_replicas({name: info["config"] for name, info in infos.items() if info is not None})
    replicas = desired.replicas or max(1, before)
    if replicas > _copies(infos.values()):
        await require_servers(link, replicas)
    bounds = {PARKED: desired.parked_bytes, **dict.fromkeys(pairs.events, desired.events_bytes // pairs.count)}
    streams = [
        await _stream(link, each, infos[each.name], replicas, before, bounds.get(each.name, -1))
        # First those that need no more room than they are known to: half of what is left then is for the others.
        for each in sorted(wanted, key=lambda each: each.name in bounds)
    ]
    fixed = (*PLATFORM_CONSUMERS[len(FACT_CONSUMERS) :], EXPORTER_CONSUMER)
    copied = [bounded_consumer(each) for each in of_clients]
    consumers = [await _consumer(link, each, infos) for each in pairs.spread((*fixed, *theirs, *copied))]
    _require_clients(desired, await _set_up(link, infos))
    facts = [await _consumer(link, each, infos) for each in await _facts(link, desired, infos)]
    return Preview((*streams, *consumers, *facts, *await _deleted(link, desired, infos)), replicas, pairs)


async def _pairs(link: Link, desired: Desired) -> Pairs:
    """The pairs of streams that there are, or are to be.

    Raises:
        PlatformError: the server cannot tell, or there are others than those that are wanted.
    """
    there = count_in([*await stream_names(link, SAGA_FILTER), *await stream_names(link, EVENTS_FILTER)])
    if desired.pairs and there not in (0, desired.pairs):
        raise PlatformError(
            f"sagas are spread over {counted(there, 'pair')} of streams, and that stays so: the number says where each "
            f"saga is. Leave --streams out. For {desired.pairs} set up another server, start new sagas there, and let "
            "those that run here end."
        )
    return Pairs(there or desired.pairs or 1)


def _copies(infos: Iterable[Info | None]) -> int:
    """How many copies each stream has at least; 0 where one is not there yet."""
    return min((info["config"].get("num_replicas", 1) if info is not None else 0 for info in infos), default=0)


async def _info(link: Link, subject: str, **body: object) -> Info | None:
    """What the server tells; None where there is no such thing.

    Raises:
        PlatformError: the server cannot tell.
    """
    answer = await insist(link, subject, body)
    error = answer.get("error")
    if error is None:
        return answer
    if error.get("code") == NOT_FOUND:
        return None
    raise PlatformError(
        f"the server does not answer {subject} ({error.get('description')}). Try again in some seconds."
    )


# --- streams ----------------------------------------------------------------------------------------------------------


async def _streams_of_clients(link: Link, desired: Desired) -> list[Stream]:
    """The streams of clients with a bound: of those that have one, and of those that are to get one."""
    return [stream for bound in await client_bounds(link, desired) for stream in bound.streams]


async def client_bounds(link: Link, desired: Desired) -> list[Bound]:
    """The bounds that clients have once all is done that is desired.

    Args:
        link: a connection with an administrator's rights.
        desired: what is to be set up.
    """
    bounds = {(each.client, each.saga_type): each for each in (*await bounds_set(link), *desired.client_bounds)}
    return [each for named, each in bounds.items() if named not in desired.forget_bounds]


def _require_clients(desired: Desired, participants: set[str]) -> None:
    """Check that who is to get a bound may be a client.

    Raises:
        PlatformError: it is a participant, or a name of the platform.
    """
    known = participants | {each.name for each in desired.listeners}
    for client in (each.client for each in desired.client_bounds):
        if client in known or client in NO_CLIENTS:
            whose = "a participant" if client in known else "a user of the platform itself"
            raise PlatformError(
                f"{client} is {whose} and no client, so that it can have no bound of open sagas, and nothing was "
                "changed. Name the client, as antiphon rights --client does."
            )


async def _stream(
    link: Link, stream: Stream, info: Info | None, replicas: int, replicas_before: int, bound: int
) -> Change:
    """What becomes of a stream.

    Args:
        bound: how many bytes it may take; 0 for as many as before, -1 where `stream` says it.
    """
    used, before = (info["state"]["bytes"], max(0, info["config"].get("max_bytes", 0))) if info else (0, 0)
    if 0 < bound <= used:
        raise PlatformError(f"{stream.name} has {used} bytes already, so it cannot be bound to {bound}; give more.")
    target = stream_target(stream, info and info["config"], replicas, (bound or before) if bound >= 0 else -1)
    if info is None:
        return Change(stream=stream.name, action="create", config=target)
    found: Config = info["config"]
    settings = setting_changes(found, target)
    reductions = stream_reductions(found, target, replicas_before, await _stored(link, info, target))
    action: Action = "change" if settings else "keep"
    return Change(stream=stream.name, action=action, settings=(*settings,), reductions=(*reductions,), config=target)


async def _stored(link: Link, info: Info, target: Config) -> Stored:
    """What a stream holds, as far as it matters for its bounds."""
    state, found = info["state"], info["config"]
    messages: int = state["messages"]
    age = seconds_in(info["ts"]) - seconds_in(state["first_ts"]) if messages else 0.0
    most = 1
    if is_tighter("max_msgs_per_subject", found, target) and state.get("num_subjects", 0) < messages:
        most = await _most_of_a_subject(link, found["name"])
    return Stored(messages, state["bytes"], age, most)


def seconds_in(text: str) -> float:
    """A time that the server tells, in seconds since 1970."""
    return msgspec.convert(text, datetime, strict=False).timestamp()


async def _most_of_a_subject(link: Link, stream: str) -> int:
    """How many messages the subject has that has most, asked page by page."""
    most, offset, total = 1, 0, 1
    while offset < total:
        info = await _info(link, f"STREAM.INFO.{stream}", subjects_filter=">", offset=offset) or {}
        page: dict[str, int] = info.get("state", {}).get("subjects") or {}
        most = max(most, *page.values(), 1)
        offset, total = offset + len(page), info.get("total", 0) if page else 0
    return most


# --- consumers --------------------------------------------------------------------------------------------------------


async def _consumer(link: Link, consumer: Consumer, streams: dict[str, Info | None]) -> Change:
    """What becomes of a consumer."""
    info = await _consumer_info(link, consumer.stream, consumer.name, streams)
    target = consumer_target(consumer, info and info["config"])
    if info is None:
        return Change(stream=consumer.stream, consumer=consumer.name, action="create", config=target)
    settings = setting_changes(info["config"], target)
    reductions = await _unheard(link, consumer, info, target) if settings else []
    return Change(
        stream=consumer.stream,
        consumer=consumer.name,
        action="change" if settings else "keep",
        settings=(*settings,),
        reductions=(*reductions,),
        config=target,
    )


async def _consumer_info(link: Link, stream: str, name: str, streams: dict[str, Info | None]) -> Info | None:
    return None if streams[stream] is None else await _info(link, f"CONSUMER.INFO.{stream}.{name}")


async def _unheard(link: Link, consumer: Consumer, info: Info, target: Config) -> list[Reduction]:
    """What a participant that reacts to less than before would never react to."""
    participant = consumer.name.removesuffix(REACTIONS) if consumer.name.endswith(REACTIONS) else ""
    waiting: int = info["num_pending"] + info["num_ack_pending"]
    removed = removed_filters(info["config"], target)
    if not (participant and removed and waiting):
        return []
    behind = info["ack_floor"]["stream_seq"] + 1
    try:
        lost = min(waiting, sum([await _count(link, consumer.stream, each, behind) for each in removed]))
    except Ambiguous:  # the stream allows no direct reads, which this set-up mends: some of what waits may be of them
        lost = waiting
    return [undelivered(participant, lost)] if lost else []


async def _count(link: Link, stream: str, subject_filter: str, from_sequence: int) -> int:
    """How many messages of a stream match, from a sequence on."""
    first, rest = await link.page_with_rest(stream, subject_filter, from_sequence, most=1)
    return len(first) + rest


async def _facts(link: Link, desired: Desired, streams: dict[str, Info | None]) -> list[Consumer]:
    """The consumers that bring facts to coordinators, of all participants that were ever set up: those that have
    consumers of their own for commands, and those whose answers coordinators of the release before hear.

    They begin behind what the consumers of earlier releases have finished, where there are any; else with all that
    there is. Those that are there stay where they are.
    """
    there = await _set_up(link, streams)
    if link.pairs.count > 1:  # no earlier release knows several pairs
        everybody = there | {each.name for each in desired.listeners}
        return link.pairs.spread((*FACT_CONSUMERS, *map(answers_consumer, sorted(everybody))))
    former_facts = await _consumer_info(link, EVENTS, FORMER_FACTS, streams)
    former_answers = await _consumer_info(link, EVENTS, FORMER_ANSWERS, streams)
    before = heard_participants(filters_in(former_answers["config"])) if former_answers else set[str]()
    everybody = before | there | {each.name for each in desired.listeners}
    first, first_answer = _first_after(former_facts), _first_after(former_answers)
    answers = [_from(answers_consumer(name), first_answer if name in before else first) for name in sorted(everybody)]
    consumers = [*(_from(each, first) for each in FACT_CONSUMERS), *answers]
    if former_answers is not None and not desired.forget_former:  # coordinators of that release hear newcomers, too
        consumers.append(former_answers_consumer(everybody))
    return consumers


async def _set_up(link: Link, streams: dict[str, Info | None]) -> set[str]:
    """The participants that have consumers for commands, in whichever streams there are."""
    if any(streams[name] is None for name in link.pairs.saga):
        return set()
    return await set_up_participants(link)


def _first_after(former: Info | None) -> int:
    """The first sequence behind all that a consumer has finished; 0 where there is no such consumer."""
    return 0 if former is None else former["ack_floor"]["stream_seq"] + 1


def _from(consumer: Consumer, first: int) -> Consumer:
    """The consumer, beginning with a sequence of its stream; with 0 as it begins by itself."""
    if first == 0:
        return consumer
    return msgspec.structs.replace(consumer, deliver="by_start_sequence", start_sequence=first)


async def _deleted(link: Link, desired: Desired, streams: dict[str, Info | None]) -> list[Change]:
    """The consumers and streams that an administrator wants deleted, of those that are there."""
    changes = await _forgotten_bounds(link, desired)
    for participant in desired.forget_reactions:
        name = reactions_consumer_name(participant)
        for stream in link.pairs.events:
            info = await _consumer_info(link, stream, name, streams)
            if info is not None:
                waiting = info["num_pending"] + info["num_ack_pending"]
                reductions = (undelivered(participant, waiting),) if waiting else ()
                changes.append(Change(stream=stream, consumer=name, action="delete", reductions=reductions))
    if desired.forget_former and streams[REGISTRATIONS.name] is not None:
        former = await unneeded_former_consumers(link)
        changes += [Change(stream=EVENTS, consumer=name, action="delete") for name in former]
    return changes


async def _forgotten_bounds(link: Link, desired: Desired) -> list[Change]:
    """The streams of bounds that are to be forgotten.

    Raises:
        PlatformError: there is no such bound.
    """
    changes = list[Change]()
    for client, saga_type in desired.forget_bounds:
        names = [bounded_stream_name(kind, client, saga_type) for kind in (BOUNDED_STARTS, BOUNDED_SIGNALS)]
        infos = {name: await _info(link, f"STREAM.INFO.{name}") for name in names}
        if not any(infos.values()):
            raise PlatformError(await _no_bound(link, client, saga_type))
        for name, info in infos.items():
            if info is not None:
                left: int = info["state"]["messages"]
                reductions = (Reduction(Loss.LOST_MESSAGES, _left(name, left)),) if left else ()
                config: dict[str, Any] = info["config"]
                changes.append(Change(stream=name, action="delete", reductions=reductions, config=config))
    return changes


async def _no_bound(link: Link, client: str, saga_type: str) -> str:
    """The sentence for a bound that is not there."""
    parsed = map(parse_bounded_stream, await bounded_streams(link))
    known = sorted({f"{each[1]}={each[2]}" for each in parsed if each is not None})
    return (
        f"client {client} has no bound of open sagas of type {saga_type} to forget, and nothing was changed. "
        f"Bounds that are set: {', '.join(known) or 'none'}."
    )


def _left(stream: str, left: int) -> str:
    """What would be lost with a stream of a client with a bound."""
    kind, client, saga_type = parse_bounded_stream(stream) or ("", "", "")
    what = ("open saga",) if kind == BOUNDED_STARTS else ("signal or wish to cancel", "signals and wishes to cancel")
    return f"client {client} has {counted(left, *what)} of type {saga_type} in stream {stream}"
