"""What an administrator may ask the server about streams and consumers; and the check that they are there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import msgspec

from antiphon.contracts.differences import (
    Config,
    asked_replicas,
    filters_in,
)
from antiphon.contracts.errors import Ambiguous, PlatformError, ServerUnfit, StreamMissing, Unusable
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.registration import WIRE, read_registration
from antiphon.contracts.subjects import BOUNDED_FILTER, heard_participants, registration_subject
from antiphon.contracts.topology import (
    BOUND_MAX,
    BOUNDED_STARTS,
    BUCKETS,
    EVENTS,
    FORMER_ANSWERS,
    FORMER_CONSUMERS,
    PLATFORM_CONSUMERS,
    REGISTRATIONS,
    Bound,
    Consumer,
    answering_participants,
    answers_consumer_name,
    parse_bounded_stream,
    participant_consumer_name,
    reactions_consumer_name,
)

from .connection import Link, missing
from .delivery import Pull
from .outcomes import CONSUMER_NOT_FOUND, NOT_FOUND

TRIES_MAX: Final = 40
WAIT_SECONDS: Final = 0.25
"""A cluster that has just started refuses streams ("no suitable peers") until it has a leader, about a second."""

CONSUMER_SECONDS: Final = 5.0
"""How long a consumer may be away at the start, as while another process sets it up."""
ELECTION_SECONDS: Final = 15.0
"""The same in a cluster, where its leader may be being chosen: after a kill that took up to eight seconds."""
LOOK_AGAIN_SECONDS: Final = 0.2

NO_CLUSTER: Final = 10074
"""What a server that is alone says of several replicas, with a status that stands for a passing trouble."""
UPDATE_FAILED: Final = frozenset({10012, 10052})
FOR_GOOD: Final = "can not"
"""What the server says, with a status that stands for a passing trouble, of settings that nobody can change."""
NO_PEERS: Final = 10005
NO_RESOURCES: Final = 10023
NO_STORAGE: Final = frozenset({NO_PEERS, NO_RESOURCES, 10047})
"""What the server says to a stream that would set aside more than there is: in a cluster, that no peer is suitable."""


class NotChanged(PlatformError):
    """A stream or consumer is not as it must be, and the server lets nobody change that. The sentences say what an
    administrator can do."""


async def replicas_asked(link: Link) -> int:
    """How many copies of each stream were asked for; one where there are no streams yet.

    Args:
        link: a connection with an administrator's rights.
    """
    return max(1, asked_replicas(await stream_configs(link)))


async def stream_configs(link: Link) -> dict[str, Config]:
    """The configurations of the platform's streams, by name, of those that are there.

    Args:
        link: a connection that may ask about streams.
    """
    there = (*link.pairs.streams(), *BUCKETS)
    answers = {each.name: await insist(link, f"STREAM.INFO.{each.name}", {}) for each in there}
    return {name: answer["config"] for name, answer in answers.items() if "config" in answer}


async def consumer_configs(link: Link) -> dict[tuple[str, str], Config]:
    """The configurations of all consumers of SAGA and EVENTS, by stream and name.

    Args:
        link: a connection with an administrator's rights.
    """
    found: dict[tuple[str, str], Config] = {}
    for stream in (*link.pairs.saga, *link.pairs.events):
        offset, total = 0, 1
        while offset < total:
            answer = await insist(link, f"CONSUMER.LIST.{stream}", {"offset": offset})
            page: list[dict[str, Any]] = answer.get("consumers") or []
            found |= {(stream, each["name"]): each["config"] for each in page}
            offset, total = offset + len(page), answer.get("total", 0) if page else 0
    return found


async def require_platform(link: Link, consumers: Iterable[Consumer] = PLATFORM_CONSUMERS) -> None:
    """Check that the streams and the given consumers exist; asked again while a cluster chooses their leaders.

    Raises:
        StreamMissing: one does not; the sentence has the command that creates it.
        PlatformError: the server cannot tell.
    """
    for stream in link.pairs.streams():
        await _require(link, f"STREAM.INFO.{stream.name}", missing(stream.name))
    for consumer in link.pairs.spread(consumers):
        where = f"{consumer.stream}.{consumer.name}"
        await _require(link, f"CONSUMER.INFO.{where}", missing(consumer.stream, consumer.name))


async def _require(link: Link, subject: str, otherwise: StreamMissing) -> None:
    error: dict[str, Any] | None = {"code": 503, "description": "no answer"}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ELECTION_SECONDS):
            error = (await insist(link, subject, {})).get("error")
    if error and error.get("code", 0) >= 500:
        said = error.get("description")
        raise PlatformError(
            f"the server cannot tell whether its streams are there ({said}). Try again in some seconds."
        )
    if error:
        raise otherwise


async def left_behind(link: Link, participant: str) -> int | None:
    """How many events wait in the consumer that was made for a participant's reactions; None if it has none."""
    name = reactions_consumer_name(participant)
    infos = [await info_of(link, f"CONSUMER.INFO.{stream}.{name}") for stream in link.pairs.events]
    there = [info["num_pending"] + info["num_ack_pending"] for info in infos if info is not None]
    return sum(there) if there else None


async def forget_reactions(link: Link, participant: str) -> None:
    """Delete the consumer that was made for a participant's reactions; what waits in it will never be reacted to.

    Raises:
        PlatformError: the server refused.
    """
    for stream in link.pairs.events:
        await delete_consumer(link, stream, reactions_consumer_name(participant))


async def heard(link: Link) -> set[str]:
    """The participants whose answers and events are delivered to coordinators: those that have a consumer for them.

    Raises:
        PlatformError: the server cannot tell.
    """
    names = [await consumer_names(link, stream) for stream in link.pairs.events]
    return answering_participants(set[str]().union(*names))


async def require_answers(link: Link) -> None:
    """Check that whoever the coordinators of an earlier release hear is heard by those of this one, too.

    Raises:
        StreamMissing: `antiphon setup` of this release has not been there; the sentence has the command.
        PlatformError: the server cannot tell.
    """
    if link.pairs.count > 1:
        return  # no earlier release knows several pairs
    former = await insist(link, f"CONSUMER.INFO.{EVENTS}.{FORMER_ANSWERS}", {})
    before = heard_participants(filters_in(former.get("config", {})))
    if unheard := sorted(before - await heard(link) if before else ()):
        raise missing(EVENTS, answers_consumer_name(unheard[0]))


async def former_consumers(link: Link) -> list[str]:
    """The consumers that are there from which only coordinators of earlier releases pull; none has several pairs."""
    if link.pairs.count > 1:
        return []
    return [name for name in FORMER_CONSUMERS if await info_of(link, f"CONSUMER.INFO.{EVENTS}.{name}") is not None]


async def former_coordinators(link: Link) -> int:
    """How many coordinators of earlier releases there are, as far as can be seen: those that say so, and those that
    pull from consumers that only they use.

    Args:
        link: a connection with an administrator's rights.
    """
    said = 0
    for stored in await link.read_all(REGISTRATIONS.name, [registration_subject(COORDINATOR, "*")]):
        with contextlib.suppress(Unusable):
            said += read_registration(stored.subject, stored.data).wire < WIRE
    found = [await info_of(link, f"CONSUMER.INFO.{EVENTS}.{name}") for name in FORMER_CONSUMERS]
    pulls: int = sum(info.get("num_waiting", 0) for info in found if info is not None)
    return max(said, pulls)


async def forget_former_facts(link: Link) -> None:
    """Delete the consumers from which only coordinators of earlier releases pull; none of them can start any more then.

    Raises:
        PlatformError: some are there, or the server refused.
    """
    for name in await unneeded_former_consumers(link):
        await delete_consumer(link, EVENTS, name)


async def unneeded_former_consumers(link: Link) -> list[str]:
    """The consumers that are there from which only coordinators of earlier releases pull, if there is none of them.

    Raises:
        PlatformError: some are there.
    """
    there = await former_consumers(link)
    if there and (running := await former_coordinators(link)):
        raise PlatformError(
            f"coordinators of an earlier release run, {running} as far as can be seen, and need "
            f"{consumers_in_words(there)}. Stop them first; one that died is counted for a minute and a half."
        )
    return there


def consumers_in_words(names: Iterable[str]) -> str:
    """The consumers of that name, for a sentence."""
    return " and ".join(f"consumer {name}" for name in names)


async def set_up_participants(link: Link) -> set[str]:
    """All participants that have consumers for commands and for compensations."""
    found = [await consumer_names(link, stream) for stream in link.pairs.saga]
    return {name for names in found for name in names if participant_consumer_name(name, "undo") in names}


async def consumer_names(link: Link, stream: str) -> set[str]:
    """The names of all consumers of a stream, asked page by page.

    Raises:
        PlatformError: the server cannot tell.
    """
    names = set[str]()
    while True:
        answer = await insist(link, f"CONSUMER.NAMES.{stream}", {"offset": len(names)})
        if error := answer.get("error"):
            raise PlatformError(f"the server does not list the consumers of stream {stream}: {error['description']}.")
        page: list[str] = answer.get("consumers") or []
        names.update(page)
        if not page or len(names) >= answer["total"]:
            return names


# --- what a client with a bound stores --------------------------------------------------------------------------------


async def bounded_streams(link: Link) -> list[str]:
    """The names of the streams that take what clients with a bound store.

    Args:
        link: a connection that may ask which streams there are.

    Raises:
        Ambiguous: the server cannot tell.
    """
    names = await stream_names(link, BOUNDED_FILTER)
    return sorted(name for name in names if parse_bounded_stream(name) is not None)


async def stream_names(link: Link, subject_filter: str) -> list[str]:
    """The names of all streams that hold what a filter matches, or a part of it.

    Args:
        link: a connection that may ask which streams there are.
        subject_filter: the filter.

    Raises:
        Ambiguous: the server cannot tell.
    """
    names = list[str]()
    while True:
        answer = await insist(link, "STREAM.NAMES", {"subject": subject_filter, "offset": len(names)})
        if error := answer.get("error"):
            raise Ambiguous(f"the server does not list its streams ({error.get('description')})")
        page: list[str] = answer.get("streams") or []
        names += page
        if not page or len(names) >= answer.get("total", 0):
            return names


async def bounds_set(link: Link) -> list[Bound]:
    """The bounds of open sagas that clients have.

    Args:
        link: a connection that may ask about streams.
    """
    found = list[Bound]()
    for name in await bounded_streams(link):
        named = parse_bounded_stream(name)
        if named is not None and named[0] == BOUNDED_STARTS:
            config: Config = (await insist(link, f"STREAM.INFO.{name}", {})).get("config", {})
            most = config.get("max_msgs", 0)
            if 0 < most <= BOUND_MAX:
                found.append(Bound(named[1], named[2], most))
    return found


# --- how much EVENTS and PARKED may take ------------------------------------------------------------------------------


class Bounds(msgspec.Struct, frozen=True):
    """How many bytes the streams may take that others than coordinators write to."""

    events: int
    parked: int


class Room(msgspec.Struct, frozen=True):
    """How many bytes a stream has, and how many it may have; 0 where nothing bounds it but the server's disk."""

    used: int
    most: int

    @property
    def share(self) -> float:
        """How much of its room it has taken, from 0 to 1."""
        return self.used / self.most if self.most else 0.0


async def room_of(link: Link, stream: str) -> Room | None:
    """How full a stream is; None where there is no such stream.

    Raises:
        Ambiguous: the server cannot tell.
    """
    info = await info_of(link, f"STREAM.INFO.{stream}")
    if info is None:
        return None
    return Room(info["state"]["bytes"], max(0, info["config"].get("max_bytes", 0)))


async def delete_consumer(link: Link, stream: str, name: str) -> None:
    answer = await insist(link, f"CONSUMER.DELETE.{stream}.{name}", {})
    if (error := answer.get("error")) and error.get("err_code") != CONSUMER_NOT_FOUND:
        raise PlatformError(f"the server refused to delete consumer {name}: {error.get('description')}.")


async def insist(link: Link, subject: str, body: dict[str, Any], passing: Collection[int] = ()) -> dict[str, Any]:
    """Ask until a young cluster has found its leaders.

    Args:
        link: a connection that may ask.
        subject: what stands behind `$JS.API.`.
        body: the request.
        passing: error codes that pass as well, where others would mean that it stays so.
    """
    answer: dict[str, Any] = {"error": {"code": 503, "description": "no answer"}}
    for _ in range(TRIES_MAX):
        with contextlib.suppress(Ambiguous):
            answer = await api(link, subject, body)
        error = answer.get("error", {})
        if is_final(error) and error.get("err_code") not in passing:
            break
        await asyncio.sleep(WAIT_SECONDS)
    return answer


def is_final(error: dict[str, Any]) -> bool:
    """Whether asking again changes nothing. A young cluster knows no peers yet; a server at its limit stays there, and
    so does what can never be changed."""
    if error.get("err_code") == NO_PEERS:
        return "storage" in error.get("description", "")
    if error.get("err_code") in UPDATE_FAILED and FOR_GOOD in error.get("description", ""):
        return True
    return error.get("code", 0) < 500 or error.get("err_code") in {*NO_STORAGE, NO_CLUSTER}


async def api(link: Link, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to JetStream's API (ADR-1).

    Raises:
        ServerUnfit: JetStream is not there.
        RightsMissing: this user may not ask.
    """
    try:
        data = await link.request(f"$JS.API.{subject}", msgspec.json.encode(body) if body else b"")
    except Ambiguous:
        if link.failure.done():
            raise link.failure.result().with_traceback(None) from None
        raise
    answer: dict[str, Any] = msgspec.json.decode(data)
    if answer.get("error", {}).get("err_code") in (10039, 10076):
        raise ServerUnfit(f"JetStream is not enabled for this account: {answer['error'].get('description')}.")
    return answer


async def info_of(link: Link, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What JetStream tells of a stream, of a consumer or of the account; None where there is nothing of that name.

    Args:
        link: a connection that may ask.
        subject: the request's subject behind `$JS.API.`, such as `STREAM.INFO.EVENTS`.
        body: the request itself, such as from where on a list is wanted.

    Raises:
        Ambiguous: nothing can be told now, as while no server leads. It must not be taken for "not there".
        ServerUnfit: JetStream is not there.
        RightsMissing: this user may not ask.
    """
    answer = await api(link, subject, body)
    error = answer.get("error")
    if error is None:
        return answer
    if error.get("code") == NOT_FOUND:
        return None
    raise Ambiguous(f"the server cannot tell ({subject}: {error.get('description')})")


async def require_accepted(pulls: Iterable[Pull], waits: Callable[[StreamMissing, float], None]) -> None:
    """Check that the server takes the pulls: for those whose account has no streams, who cannot ask about them.

    Args:
        pulls: of one process.
        waits: told at once of the first consumer that is not there yet, and for how many seconds it is waited for.

    Raises:
        StreamMissing: a consumer is not there, and not because its leader is being chosen.
        RightsMissing: this user may not pull from it.
    """
    has_said = False
    for pull in pulls:
        seconds = ELECTION_SECONDS if pull.link.may_be_clustered else CONSUMER_SECONDS
        try:
            async with asyncio.timeout(seconds):
                while not await pull.is_accepted():
                    if not has_said and not pull.link.failure.done():
                        waits(missing(pull.stream, pull.consumer), seconds)
                        has_said = True
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
        except TimeoutError:
            raise missing(pull.stream, pull.consumer) from None
        if pull.link.failure.done():
            raise pull.link.failure.result()
