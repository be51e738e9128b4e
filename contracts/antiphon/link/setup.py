"""The administrator's step, once before anything runs: create streams and consumers. And the check that it was done."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from antiphon.contracts.differences import (
    OFF,
    Config,
    asked_replicas,
    consumer_differences,
    filters_in,
    name_of,
    said,
)
from antiphon.contracts.errors import Ambiguous, PlatformError, ServerUnfit, StreamMissing, Unusable
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.registration import WIRE, read_registration
from antiphon.contracts.subjects import heard_participants, registration_subject
from antiphon.contracts.topology import (
    EVENTS,
    EXPORTER_CONSUMER,
    FACT_CONSUMERS,
    FORMER_ANSWERS,
    FORMER_CONSUMERS,
    FORMER_FACTS,
    PARKED,
    PARKED_BYTES,
    PARTICIPANT_ACK_WAIT_SECONDS,
    PLATFORM_CONSUMERS,
    REGISTRATIONS,
    SAGA,
    STREAMS,
    Consumer,
    Listener,
    Stream,
    answering_participants,
    answers_consumer,
    answers_consumer_name,
    check_participant,
    former_answers_consumer,
    participant_consumer_name,
    participant_consumers,
    reactions_consumer,
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

PROBE: Final = "ANTIPHON_PROBE"
"""A stream that is made for a moment, to find out how much the server sets aside for one."""
ROOM_EXPONENT_MAX, ROOM_EXPONENT_MIN = 50, 12
"""Between a petabyte and 8 kB."""
NAME_IN_USE: Final = 10058
"""What the server says to the creation of a stream that is there with another configuration."""
ANEW: Final = (
    "Nothing is deleted for you: end all processes, take a backup (nats stream backup), delete "
    "the stream, and run the same command; or restore it under the settings that it must have."
)
"""What an administrator can do about a stream that cannot be changed."""
UPDATE_FAILED: Final = frozenset({10012, 10052})
FOR_GOOD: Final = "can not"
"""What the server says, with a status that stands for a passing trouble, of settings that nobody can change."""
NO_PEERS: Final = 10005
NO_STORAGE: Final = frozenset({NO_PEERS, 10023, 10047})
"""What the server says to a stream that would set aside more than there is: in a cluster, that no peer is suitable."""


async def set_up(
    link: Link,
    participants: Iterable[str | Listener],
    replicas: int = 0,
    ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS,
    events_bytes: int = 0,
    parked_bytes: int = 0,
) -> Bounds:
    """Create or update all streams and the consumers of the platform and the given participants.

    Coordinators hear the given participants, and those that were set up before. The consumers from which coordinators
    of earlier releases pull facts stay where they are, until `forget_former_facts`.

    Args:
        link: a connection with an administrator's rights.
        participants: the names whose commands shall be delivered. For one that reacts to events, `Participant.listener`
            has what it hears; its name alone leaves its consumer for them as it is.
        replicas: copies of each stream; 3 on a cluster of three. With 0 as many as were asked for before, and one where
            nothing was.
        ack_wait_seconds: how long a command waits for another worker after the one that held it died. Workers extend
            it for all that they hold, every three quarters of a second; those of release 0.1.0-67d7c3a every ten
            seconds, so that below thirty a long handler of theirs meets itself in the inbox, which costs it nothing
            but the wait.
        events_bytes: how much EVENTS may take of the server's room, so that SAGA always has some. With 0 what was set
            before stays; where nothing was, it is half of what can be set aside.
        parked_bytes: the same for PARKED, so that nobody who parks fills the disk. Where nothing was, it is a gigabyte,
            or half of what can be set aside where that is less.

    Returns:
        How many bytes both may take.

    Raises:
        BadIdentity: no participant may have such a name; nothing was changed.
        NotChanged: something stays as it is, because the server lets nobody change it; all else was done.
        PlatformError: the server refused; the sentence says what and why.
    """
    # All are looked at before anything is changed: a participant called `exporter` would take the exporter's consumer.
    theirs = [consumer for each in participants for consumer in _consumers(each, ack_wait_seconds)]
    replicas = replicas or await replicas_asked(link)
    unchanged = list[str]()
    for stream in (*STREAMS, REGISTRATIONS):
        if stream.name not in BOUNDED:
            unchanged += await _ensure_stream(link, stream, replicas)
    events = await _ensure_bounded(link, EVENTS, replicas, events_bytes, 1 << (ROOM_EXPONENT_MAX - 1), unchanged)
    parked = await _ensure_bounded(link, PARKED, replicas, parked_bytes, PARKED_BYTES, unchanged)
    for consumer in (*PLATFORM_CONSUMERS[len(FACT_CONSUMERS) :], EXPORTER_CONSUMER, *theirs):
        try:
            await _ensure_consumer(link, consumer)
        except NotChanged as error:
            unchanged.append(str(error))
    try:
        await _ensure_facts(link)
    except NotChanged as error:
        unchanged.append(str(error))
    if unchanged:
        raise NotChanged(" ".join(unchanged))
    return Bounds(events, parked)


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
    answers = {each.name: await _insist(link, f"STREAM.INFO.{each.name}", {}) for each in (*STREAMS, REGISTRATIONS)}
    return {name: answer["config"] for name, answer in answers.items() if "config" in answer}


async def consumer_configs(link: Link) -> dict[tuple[str, str], Config]:
    """The configurations of all consumers of SAGA and EVENTS, by stream and name.

    Args:
        link: a connection with an administrator's rights.
    """
    found: dict[tuple[str, str], Config] = {}
    for stream in (SAGA, EVENTS):
        offset, total = 0, 1
        while offset < total:
            answer = await _insist(link, f"CONSUMER.LIST.{stream}", {"offset": offset})
            page: list[dict[str, Any]] = answer.get("consumers") or []
            found |= {(stream, each["name"]): each["config"] for each in page}
            offset, total = offset + len(page), answer.get("total", 0) if page else 0
    return found


def _consumers(participant: str | Listener, ack_wait_seconds: float) -> list[Consumer]:
    listener = Listener(participant) if isinstance(participant, str) else participant
    check_participant(listener.name)
    commands = participant_consumers(listener.name, ack_wait_seconds)
    return [*commands, reactions_consumer(listener, ack_wait_seconds)] if listener.hears else [*commands]


async def require_platform(link: Link, consumers: Iterable[Consumer] = PLATFORM_CONSUMERS) -> None:
    """Check that the streams and the given consumers exist; asked again while a cluster chooses their leaders.

    Raises:
        StreamMissing: one does not; the sentence has the command that creates it.
        PlatformError: the server cannot tell.
    """
    for stream in STREAMS:
        await _require(link, f"STREAM.INFO.{stream.name}", missing(stream.name))
    for consumer in consumers:
        where = f"{consumer.stream}.{consumer.name}"
        await _require(link, f"CONSUMER.INFO.{where}", missing(consumer.stream, consumer.name))


async def _require(link: Link, subject: str, otherwise: StreamMissing) -> None:
    error: dict[str, Any] | None = {"code": 503, "description": "no answer"}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ELECTION_SECONDS):
            error = (await _insist(link, subject, {})).get("error")
    if error and error.get("code", 0) >= 500:
        said = error.get("description")
        raise PlatformError(
            f"the server cannot tell whether its streams are there ({said}). Try again in some seconds."
        )
    if error:
        raise otherwise


async def left_behind(link: Link, participant: str) -> int | None:
    """How many events wait in the consumer that was made for a participant's reactions; None if it has none."""
    info = await info_of(link, f"CONSUMER.INFO.{EVENTS}.{reactions_consumer_name(participant)}")
    return None if info is None else info["num_pending"] + info["num_ack_pending"]


async def forget_reactions(link: Link, participant: str) -> None:
    """Delete the consumer that was made for a participant's reactions; what waits in it will never be reacted to.

    Raises:
        PlatformError: the server refused.
    """
    await _delete_consumer(link, EVENTS, reactions_consumer_name(participant))


async def heard(link: Link) -> set[str]:
    """The participants whose answers and events are delivered to coordinators: those that have a consumer for them.

    Raises:
        PlatformError: the server cannot tell.
    """
    return answering_participants(await consumer_names(link, EVENTS))


async def require_answers(link: Link) -> None:
    """Check that whoever the coordinators of an earlier release hear is heard by those of this one, too.

    Raises:
        StreamMissing: `antiphon setup` of this release has not been there; the sentence has the command.
        PlatformError: the server cannot tell.
    """
    former = await _insist(link, f"CONSUMER.INFO.{EVENTS}.{FORMER_ANSWERS}", {})
    before = heard_participants(filters_in(former.get("config", {})))
    if unheard := sorted(before - await heard(link) if before else ()):
        raise missing(EVENTS, answers_consumer_name(unheard[0]))


async def former_consumers(link: Link) -> list[str]:
    """The consumers that are there from which only coordinators of earlier releases pull."""
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
    there = await former_consumers(link)
    if there and (running := await former_coordinators(link)):
        raise PlatformError(
            f"coordinators of an earlier release run, {running} as far as can be seen, and need "
            f"{consumers_in_words(there)}. Stop them first; one that died is counted for a minute and a half."
        )
    for name in there:
        await _delete_consumer(link, EVENTS, name)


def consumers_in_words(names: Iterable[str]) -> str:
    """The consumers of that name, for a sentence."""
    return " and ".join(f"consumer {name}" for name in names)


# --- the consumers that bring facts to coordinators -------------------------------------------------------------------


async def _ensure_facts(link: Link) -> None:
    """Create them behind what the consumers of earlier releases have finished, where there are any; else from the
    beginning. Those that are there stay where they are."""
    first = _first_after(await _insist(link, f"CONSUMER.INFO.{EVENTS}.{FORMER_FACTS}", {}))
    for consumer in FACT_CONSUMERS:
        await _ensure_behind(link, consumer, first)
    await _ensure_answers(link, first)


async def _ensure_answers(link: Link, first: int) -> None:
    """Have coordinators hear all participants that were ever set up: those that have consumers of their own for
    commands, and those whose answers coordinators of the release before hear."""
    former = await _insist(link, f"CONSUMER.INFO.{EVENTS}.{FORMER_ANSWERS}", {})
    before = heard_participants(filters_in(former.get("config", {})))
    everybody = before | await _participants(link)
    for name in sorted(everybody):
        await _ensure_behind(link, answers_consumer(name), _first_after(former) if name in before else first)
    if "error" not in former and everybody != before:
        await _have_former_coordinators_hear(link, everybody)


async def _have_former_coordinators_hear(link: Link, participants: set[str]) -> None:
    """Have coordinators of the release before hear these participants. Another administrator may be at it, so look
    whether all of them are there in the end."""
    for _ in range(TRIES_MAX):
        there = await _insist(link, f"CONSUMER.INFO.{EVENTS}.{FORMER_ANSWERS}", {})
        known = heard_participants(filters_in(there.get("config", {})))
        if "error" in there or participants <= known:
            return
        await _ensure_consumer(link, _beginning(former_answers_consumer(known | participants), there, 0))
    raise PlatformError(f"others change consumer {FORMER_ANSWERS} of stream {EVENTS} all the time; try again.")


async def _ensure_behind(link: Link, consumer: Consumer, first: int) -> None:
    """Create or update a consumer; if it is not there yet, so that it begins with a sequence of its stream, or with 0
    at the beginning."""
    there = await _insist(link, f"CONSUMER.INFO.{EVENTS}.{consumer.name}", {})
    await _ensure_consumer(link, _beginning(consumer, there, first))


def _first_after(former: dict[str, Any]) -> int:
    """The first sequence behind all that a consumer has finished; 0 where there is no such consumer."""
    return 0 if "error" in former else former["ack_floor"]["stream_seq"] + 1


def _beginning(consumer: Consumer, there: dict[str, Any], first: int) -> Consumer:
    """The consumer, beginning where the one that is there began, which the server lets nobody change."""
    config = there.get("config", {})
    deliver, sequence = config.get("deliver_policy"), config.get("opt_start_seq", 0)
    if deliver is None and first > 0:
        deliver, sequence = "by_start_sequence", first
    return msgspec.structs.replace(consumer, deliver=deliver or consumer.deliver, start_sequence=sequence)


async def _participants(link: Link) -> set[str]:
    """All participants that have consumers for commands and for compensations."""
    names = await consumer_names(link, SAGA)
    return {name for name in names if participant_consumer_name(name, "undo") in names}


async def consumer_names(link: Link, stream: str) -> set[str]:
    """The names of all consumers of a stream, asked page by page.

    Raises:
        PlatformError: the server cannot tell.
    """
    names = set[str]()
    while True:
        answer = await _insist(link, f"CONSUMER.NAMES.{stream}", {"offset": len(names)})
        if error := answer.get("error"):
            raise PlatformError(f"the server does not list the consumers of stream {stream}: {error['description']}.")
        page: list[str] = answer.get("consumers") or []
        names.update(page)
        if not page or len(names) >= answer["total"]:
            return names


async def _ensure_stream(link: Link, stream: Stream, replicas: int, **settings: int) -> list[str]:
    """Create or update a stream.

    Returns:
        What the server does not change, in sentences.
    """
    config = {**stream.config(replicas), **settings}
    answer = await _insist(link, f"STREAM.CREATE.{stream.name}", config)
    if answer.get("error", {}).get("err_code") == NAME_IN_USE:
        answer = await _insist(link, f"STREAM.UPDATE.{stream.name}", config)
        if "error" in answer and answer["error"].get("err_code") not in NO_STORAGE:
            return await _change_one_by_one(link, stream.name, config)
    _require_done(answer, f"stream {stream.name}")
    return []


async def _change_one_by_one(link: Link, stream: str, wanted: dict[str, Any]) -> list[str]:
    """Change what can be changed of a stream where the server refuses to change all at once."""
    answer = await _insist(link, f"STREAM.INFO.{stream}", {})
    _require_done(answer, f"stream {stream}")
    config: dict[str, Any] = answer["config"]
    config["metadata"] = {**(config.get("metadata") or {}), **wanted["metadata"]}
    whole = {**wanted, **{each: None for each in OFF if config.get(each) and each not in wanted}}
    refused = list[str]()
    for _ in range(len(whole)):  # some can only be changed after others
        refused, is_changed = list[str](), False
        for setting, value in whole.items():
            if config.get(setting) == value or setting == "metadata":
                continue
            answer = await _insist(link, f"STREAM.UPDATE.{stream}", {**config, setting: value})
            if error := answer.get("error"):
                is_state = f"{setting} is {said(setting, config.get(setting))} and must be {said(setting, value)}"
                refused.append(f"{is_state} ({error.get('description')})")
            else:
                config, is_changed = answer["config"], True
        if not is_changed:
            break
    return [f"The server does not change stream {stream}: {'; '.join(refused)}. {ANEW}"] if refused else []


# --- how much EVENTS and PARKED may take ------------------------------------------------------------------------------

BOUNDED: Final = (EVENTS, PARKED)
"""What others than coordinators store, as much as they like, must not fill the disk that SAGA needs."""


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


async def _ensure_bounded(
    link: Link, name: str, replicas: int, wanted: int, by_default: int, unchanged: list[str]
) -> int:
    """Create or update a stream with a bound in any case.

    Args:
        wanted: the bound; 0 leaves it as it was.
        by_default: what it is at most where it never had one.
        unchanged: takes what the server does not change.
    """
    (stream,) = (each for each in STREAMS if each.name == name)
    there = await room_of(link, name)
    used, before = (there.used, there.most) if there is not None else (0, 0)
    if wanted and wanted <= used:
        raise PlatformError(f"{name} has {used} bytes already, so it cannot be bound to {wanted}; give more.")
    most = wanted or before or used + await _half_of_the_room(link, name, replicas, by_default)
    unchanged += await _ensure_stream(link, stream, replicas, max_bytes=most)
    return most


async def _half_of_the_room(link: Link, name: str, replicas: int, most: int) -> int:
    """Half of what another stream could set aside, rounded down to a power of two, and at most `most`, which is one.

    The server tells nobody but its own administrator how much it may store, so a stream is made for a moment that wants
    that much. What is stored without being set aside counts as well.
    """
    used = int((await info_of(link, "INFO") or {}).get("storage", 0))
    for exponent in range(most.bit_length(), ROOM_EXPONENT_MIN, -1):
        if await _can_set_aside(link, replicas, used + (1 << exponent)):
            return 1 << (exponent - 1)
    raise PlatformError(f"the server has no room for stream {name}; give its jetstream block a larger max_file_store.")


async def _can_set_aside(link: Link, replicas: int, bytes_: int) -> bool:
    own = secrets.token_hex(4)
    stream = Stream(name=f"{PROBE}-{own}", subjects=(f"antiphon.probe.{own}",), settings={"max_bytes": bytes_})
    answer = await _insist(link, f"STREAM.CREATE.{stream.name}", stream.config(replicas))
    if error := answer.get("error"):
        if error.get("err_code") in NO_STORAGE:
            return False
        raise PlatformError(f"the server refused to set room aside: {error.get('description')}.")
    await _insist(link, f"STREAM.DELETE.{stream.name}", {})
    return True


async def _delete_consumer(link: Link, stream: str, name: str) -> None:
    answer = await _insist(link, f"CONSUMER.DELETE.{stream}.{name}", {})
    if (error := answer.get("error")) and error.get("err_code") != CONSUMER_NOT_FOUND:
        raise PlatformError(f"the server refused to delete consumer {name}: {error.get('description')}.")


async def _ensure_consumer(link: Link, consumer: Consumer) -> None:
    body = {"stream_name": consumer.stream, "config": consumer.config()}
    answer = await _insist(link, f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}", body)
    if (error := answer.get("error")) and _is_final(error):
        there = await _insist(link, f"CONSUMER.INFO.{consumer.stream}.{consumer.name}", {})
        if "config" in there:
            differ = "; ".join(each.sentence for each in consumer_differences(consumer, there["config"]))
            raise NotChanged(
                f"The server does not change {name_of(consumer)} ({error.get('description')}). {differ}. End who pulls "
                f"from it, delete it (nats consumer rm {consumer.stream} {consumer.name}), and run the same command: "
                "a new one delivers what there is once more, which costs time; one for reactions, what comes from then "
                "on."
            )
    _require_done(answer, name_of(consumer))


def _require_done(answer: dict[str, Any], what: str) -> None:
    if error := answer.get("error"):
        raise PlatformError(f"the server refused to create {what}: {error.get('description')}.")


async def _insist(link: Link, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask until a young cluster has found its leaders."""
    answer: dict[str, Any] = {"error": {"code": 503, "description": "no answer"}}
    for _ in range(TRIES_MAX):
        with contextlib.suppress(Ambiguous):
            answer = await api(link, subject, body)
        if _is_final(answer.get("error", {})):
            break
        await asyncio.sleep(WAIT_SECONDS)
    return answer


def _is_final(error: dict[str, Any]) -> bool:
    """Whether asking again changes nothing. A young cluster knows no peers yet; a server at its limit stays there, and
    so does what can never be changed."""
    if error.get("err_code") == NO_PEERS:
        return "storage" in error.get("description", "")
    if error.get("err_code") in UPDATE_FAILED and FOR_GOOD in error.get("description", ""):
        return True
    return error.get("code", 0) < 500 or error.get("err_code") in NO_STORAGE


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
            raise link.failure.result() from None
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
