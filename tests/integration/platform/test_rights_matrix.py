"""Every user sends every subject there is, as it is and with a `*` in the place of each token: what it may not is
refused, and the server says so; what it may is stored under its own name, and it reads nothing that is another's.

The subjects come from `contracts`: from all that builds one there, with the values below for what they are made of.
What each user may stands here once more, in other words than in `rights.py`.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from antiphon.contracts import identity, subjects, topology
from antiphon.contracts.identity import CLIENT, COORDINATOR, OPERATOR, SagaKey
from antiphon.contracts.pairs import ONE_PAIR, SPREAD, Pairs, base_of
from antiphon.contracts.topology import ADVISORIES, EVENTS, EXPORTER, PARKED, READMODEL, READMODELS, REGISTRATIONS, SAGA
from antiphon.deploy.admin.rights import Grant, Rights
from antiphon.link import AlreadyStored, Link
from tests.support.certificates import MutualTLS
from tests.support.server import RIGHTS_FORMS, Form, Platform, platform

PARTICIPANTS: Final = ("inventory", "billing")
CLIENTS: Final[dict[str, dict[str, set[str]]]] = {
    "shop": {"order": {"start", "cancel", "read"}},
    "fraud": {"order": {"signal.fraud-cleared"}},
    "returner": {"returns": {"start"}, "order": {"read"}},
    "bounded": {"order": {"start", "cancel", "read", "signal.fraud-cleared"}},
    "inventory": {"returns": {"start"}},
}
"""What clients may do, and the participant that starts sagas."""
BOUND: Final = topology.Bound("bounded", "order", 10_000)
"""The client whose words go to streams of its own, and what about."""
OPERATORS: Final = ("ada", "bob")
FORMER: Final = "old"
UNKNOWN: Final = "unknown"
"""A participant that was set up, and that the accounts do not name."""
USERS: Final = (
    COORDINATOR,
    *PARTICIPANTS,
    *(name for name in CLIENTS if name not in PARTICIPANTS),
    FORMER,
    *OPERATORS,
    READMODEL,
    EXPORTER,
)
"""All but the administrator, who may do everything in the platform's account."""

LISTENERS: Final = [
    topology.Listener("inventory", (subjects.heard_filter("order", CLIENT, "order-placed"),)),
    topology.Listener("billing", (subjects.heard_filter("order", "inventory", "inventory-reserved"),)),
]


def rights(given: Rights) -> Rights:
    clients = {
        name: [Grant(saga_type, tuple(sorted(verbs))) for saga_type, verbs in types.items()]
        for name, types in CLIENTS.items()
        if name not in PARTICIPANTS
    }
    return Rights(
        PARTICIPANTS,
        clients,
        OPERATORS,
        starts={"inventory": ["returns"]},
        former_clients=[FORMER],
        bounds={BOUND.client: [BOUND.saga_type]},
        pairs=given.pairs,
    )


# --- what may be sent -------------------------------------------------------------------------------------------------

ORDER, RETURNS = SagaKey.of("order", "one"), SagaKey.of("returns", "one")
LOCK: Final = SagaKey.of(identity.LOCK, "shelf")
MESSAGE: Final = SagaKey.of(identity.PARKED_MESSAGE, "1")
KEYS: Final = {"saga": (ORDER, RETURNS, MESSAGE), "parent": (ORDER,), "lock": (LOCK,), "key": (ORDER, LOCK)}
VALUES: Final[dict[str, tuple[object, ...]]] = {
    "asked": (),
    "attempt": (1,),
    "partition": (5,),
    "client": (BOUND.client, "shop"),
    "definition": ("order.v1.7f0c7b067eec",),
    "digest": ("a07aadea398fd82a",),
    "direction": ("do", "undo", "close"),
    "event": ("inventory-reserved",),
    "family": (identity.LOCK,),
    "instance": ("x",),
    "is_signal": (False, True),
    "key": ("k1",),
    "kind": ("forged", "withdrawn", "saga"),
    "name": (*PARTICIPANTS, COORDINATOR),
    "number": ("1",),
    "noticed_by": (*PARTICIPANTS, COORDINATOR),
    "outcome": ("completed",),
    "owner": (*PARTICIPANTS, CLIENT),
    "parked": ("parked.forged.inventory.client",),
    "participant": PARTICIPANTS,
    "participants": (PARTICIPANTS,),
    "path": (ORDER.path,),
    "saga_id": ("one", "*"),
    "saga_type": ("order", "returns", "*"),
    "sequence": (1,),
    "signal": ("", "fraud-cleared", "other"),
    "source": (*PARTICIPANTS, CLIENT, COORDINATOR),
    "step": ("reserve",),
    "stored_at": (subjects.start_subject(ORDER), subjects.cancel_subject(ORDER), "evt.*.order.*.client.start"),
    "stream": (SAGA, EVENTS),
    "subject": (),
    "user": OPERATORS,
    "verb": ("cancel", "retry"),
}
"""What subjects are made of, by the name that it has where they are built. What is new there is to be added here."""


def built(ending: str) -> Iterator[str]:
    """All that the functions of `subjects` build whose names end so."""
    for name, build in inspect.getmembers(subjects, inspect.isfunction):
        if build.__module__ != subjects.__name__ or not name.endswith(ending) or name.startswith("parse"):
            continue
        given = [_values(build, each) for each in inspect.signature(build).parameters.values()]
        for chosen in itertools.product(*given):
            found = build(*chosen)
            yield from (each for each in ([found] if isinstance(found, str) else found) if all(each.split(".")))


def _values(build: Callable[..., Any], parameter: inspect.Parameter) -> tuple[object, ...]:
    found: Mapping[str, tuple[object, ...]] = KEYS if parameter.annotation == "SagaKey" else VALUES
    assert parameter.name in found, f"{build.__name__} takes {parameter}; say here what may stand there"
    return found[parameter.name]


ALL_STREAMS: Final = (*topology.STREAMS, *topology.BUCKETS, *BOUND.streams)
CONSUMERS: Final = [
    *map(topology.bounded_consumer, BOUND.streams),
    *topology.PLATFORM_CONSUMERS,
    topology.EXPORTER_CONSUMER,
    *map(topology.answers_consumer, (*PARTICIPANTS, UNKNOWN)),
    *(
        topology.Consumer(stream=EVENTS, name=name, filters=(), ack_wait_seconds=1)
        for name in topology.FORMER_CONSUMERS
    ),
    *(consumer for name in PARTICIPANTS for consumer in topology.participant_consumers(name)),
    *(topology.reactions_consumer(each) for each in LISTENERS),
]
STREAMS: Final = [stream.name for stream in ALL_STREAMS]
OF_STREAMS: Final = (
    *("CREATE", "UPDATE", "DELETE", "INFO", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE", "PEER.REMOVE"),
    *("LEADER.STEPDOWN",),
)
OF_CONSUMERS: Final = ("CREATE", "DURABLE.CREATE", "DELETE", "INFO", "PAUSE", "MSG.NEXT", "LEADER.STEPDOWN", "UNPIN")
OF_ALL: Final = (
    *("INFO", "STREAM.NAMES", "STREAM.LIST", "ACCOUNT.PURGE.PLATFORM", "META.LEADER.STEPDOWN", "SERVER.REMOVE"),
    *("STREAM.TEMPLATE.CREATE.x", "STREAM.TEMPLATE.NAMES", "ACCOUNT.STREAM.MOVE.PLATFORM.SAGA"),
)
OF_SYSTEM: Final = ("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.USER.INFO.x", "$SRV.PING")
FOREIGN: Final = ("_R_.x.y", "_INBOX_administrator.x", "_INBOX_nobody.x", "anything", "evt", "$JS.API")


def requests(stored: list[str]) -> Iterator[str]:
    """What the server answers."""
    api = "$JS.API"
    yield from (f"{api}.{verb}" for verb in OF_ALL)
    for stream in STREAMS:
        yield from (f"{api}.STREAM.{verb}.{stream}" for verb in OF_STREAMS)
        yield from (f"{api}.CONSUMER.{verb}.{stream}" for verb in ("CREATE", "NAMES", "LIST"))
        yield f"{api}.DIRECT.GET.{stream}"
        yield from (f"{api}.DIRECT.GET.{stream}.{subject}" for subject in stored if _is_in(stream, subject))
        yield f"{api}.CONSUMER.CREATE.{stream}.mine.>"
    for consumer in CONSUMERS:
        yield from (f"{api}.CONSUMER.{verb}.{consumer.stream}.{consumer.name}" for verb in OF_CONSUMERS)
        yield f"$JS.ACK.{consumer.stream}.{consumer.name}.1.1.1.1.0"
        yield f"$JS.FC.{consumer.stream}.{consumer.name}.x"
    yield from OF_SYSTEM
    yield from FOREIGN


def _is_in(stream: str, subject: str) -> bool:
    found = next(each for each in ALL_STREAMS if each.name == stream)
    return any(subjects.matches(each, subject) for each in found.subjects)


def bent(subject: str) -> Iterator[str]:
    """A subject as it is, with `*` for each token, with `*` for all but the first, and with all that follows."""
    tokens = subject.split(".")
    yield subject
    for place in range(len(tokens)):
        yield ".".join((*tokens[:place], "*", *tokens[place + 1 :]))
    yield ".".join((tokens[0], *("*" for _ in tokens[1:])))
    yield ".".join((*tokens[:-1], ">"))
    yield f"{subject}.more"


CONSTANTS: Final = [each for name, each in vars(subjects).items() if name.endswith(("_FILTER", "_SUBJECTS"))]
STORED: Final = sorted({*built("_subject"), *built("bounded_filter")})
FILTERS: Final = sorted({*built("_filter"), *built("_filters"), *CONSTANTS})
"""Published as they are, `*` and `>` are tokens like any other."""
SENT: Final = {each for subject in (*STORED, *requests(STORED)) for each in bent(subject)}
ALL: Final = sorted({*SENT, *FILTERS, *requests(FILTERS)}, key=str.lower)


def of_pairs(subject: str, pairs: Pairs) -> list[str]:
    """A request to SAGA or EVENTS, to the stream of each pair; any other subject as it is."""
    tokens = subject.split(".")
    places = [place for place, token in enumerate(tokens) if token in SPREAD and tokens[0] == "$JS"]
    found = [tokens]
    for place in places[:1]:
        found = [[*tokens[:place], name, *tokens[place + 1 :]] for name in pairs.names(tokens[place])]
    return [".".join(each) for each in found]


def in_base(subject: str) -> str:
    """The same request where there is one pair."""
    tokens = subject.split(".")
    return ".".join(map(base_of, tokens)) if tokens[0] == "$JS" else subject


def test_every_place_where_something_is_stored_is_among_them() -> None:
    """A subject that nobody has thought of here is one that nobody has thought of in `rights.py`."""
    lacking = [each for each in CONSTANTS if not any(subjects.matches(each, subject) for subject in STORED)]
    assert lacking == []
    assert len(ALL) > 2_000


# --- who may ----------------------------------------------------------------------------------------------------------

PULLED: Final = {
    COORDINATOR: {(each.stream, each.name) for each in topology.PLATFORM_CONSUMERS}
    | {(EVENTS, "coordinator"), (EVENTS, "coordinator-answers")}
    | {(EVENTS, f"coordinator-answers-{name}") for name in PARTICIPANTS}
    | {("STARTS=bounded=order", "bounded"), ("SIGNALS=bounded=order", "bounded")},
    EXPORTER: {(SAGA, EXPORTER)},
    **{
        name: {(SAGA, name), (SAGA, f"{name}-undo"), (SAGA, f"{name}-close"), (EVENTS, f"{name}-on")}
        for name in PARTICIPANTS
    },
}
READ: Final = {
    COORDINATOR: {SAGA, EVENTS, PARKED, REGISTRATIONS.name, READMODELS.name, "STARTS=bounded=order"},
    **{name: {SAGA, EVENTS, PARKED, REGISTRATIONS.name} for name in OPERATORS},
    READMODEL: {SAGA, EVENTS, READMODELS.name},
    EXPORTER: {SAGA, EVENTS},
}
"""The streams that they read whole."""


def is_granted(user: str, saga_type: str, verb: str) -> bool:
    """Whether a user may do something as a client, with sagas of a type."""
    return user in (*OPERATORS, FORMER) or verb in CLIENTS.get(user, {}).get(saga_type, ())


def copies(user: str, saga_type: str) -> bool:
    """Whether a user copies what a client with a bound has said of sagas of a type."""
    return user == COORDINATOR and saga_type == BOUND.saga_type


def sent_as(user: str, stored_at: str) -> str:
    """What a user has published to, by where it is stored: of a client with a bound, in streams of its own."""
    match stored_at.split("."):
        case ["from", BOUND.client, partition, BOUND.saga_type, saga_id, *what] if user == BOUND.client:
            return ".".join(("evt", partition, BOUND.saga_type, saga_id, "client", *what))
        case ["evt", _, BOUND.saga_type, _, "client", *_] if user == BOUND.client:
            return "nothing: it writes nothing there"
        case _:
            return stored_at


def may_send(user: str, sent: str, pairs: Pairs = ONE_PAIR) -> bool:
    """Whether a user may publish to a subject."""
    subject = in_base(sent)
    if pairs.count > 1 and _may_by_a_wildcard(user, subject.split(".")):
        return True
    match subject.split("."):
        case ["evt", _, saga_type, _, "client", "start" | "cancel"] if copies(user, saga_type):
            return True
        case ["evt", _, saga_type, _, "client", "signal", _, "1"] if copies(user, saga_type):
            return True
        case ["evt", _, saga_type, _, "client", *what]:
            return _may_as_client(user, saga_type, what)
        case ["evt", _, _, _, source, _, *rest] if user in OPERATORS:
            return source == OPERATOR and subject.split(".")[5] == user and bool(rest)
        case ["evt", _, _, _, source, _, *_]:
            return source == user and user in (*PARTICIPANTS, COORDINATOR)
        case ["saga", _, *_] | ["antiphon", "changed", _] | ["parked", "saga", _, *_] if user == COORDINATOR:
            return True
        case (
            ["parked", _, noticed_by]
            | ["parked", _, noticed_by, _]
            | ["$KV", subjects.REGISTRATIONS_BUCKET, noticed_by, _]
        ):
            return noticed_by == user and user in (*PARTICIPANTS, COORDINATOR)
        case ["$KV", subjects.READMODELS_BUCKET, _]:
            return user == READMODEL
        case ["antiphon", "status", saga_type, _]:
            return is_granted(user, saga_type, "read")
        case ["antiphon", "same", saga_type, _, ("start" | "cancel") as verb]:
            return is_granted(user, saga_type, verb)
        case ["antiphon", "same", saga_type, _, "signal", name]:
            return is_granted(user, saga_type, f"signal.{name}")
        case ["$JS", "ACK", stream, consumer, _, *_]:
            return (stream, consumer) in PULLED.get(user, ())
        case ["$JS", "API", *asked]:
            return _may_ask(user, asked)
        case _:
            return False


def _may_by_a_wildcard(user: str, asked: list[str]) -> bool:
    """Whether a `*` stands for the stream, where there are several pairs, and lets a user ask of another stream too."""
    match asked:
        case ["$JS", "API", "DIRECT", "GET", _] if user == COORDINATOR:
            return True
        case ["$JS", "API", "STREAM", "MSG", "GET" | "DELETE", _] if user == COORDINATOR:
            return True
        case ["$JS", "API", "CONSUMER", "NAMES", _] if user == COORDINATOR:
            return True
        case ["$JS", "ACK", _, consumer, _, *_] | ["$JS", "API", "CONSUMER", "MSG", "NEXT", _, consumer]:
            return any(consumer == mine for stream, mine in PULLED.get(user, ()) if stream in SPREAD)
        case ["$JS", "API", "DIRECT", "GET", _, "saga", _, saga_type, _, "c", "end"]:
            return is_granted(user, saga_type, "read")
        case ["$JS", "API", "DIRECT", "GET", _, "evt", _, _, _, "client", "start"]:
            return user == FORMER
        case ["$JS", "API", "DIRECT", "GET", _, "evt", _, _, _, "client", "signal", _, "1"]:
            return user == FORMER
        case _:
            return False


def _may_as_client(user: str, saga_type: str, what: list[str]) -> bool:
    match what:
        case ["start" | "cancel" as verb]:
            return is_granted(user, saga_type, verb)
        case ["signal", name, "1"]:
            return is_granted(user, saga_type, f"signal.{name}")
        case _:
            return False


def _may_ask(user: str, asked: list[str]) -> bool:
    match asked:
        case ["CONSUMER", "MSG", "NEXT", stream, consumer]:
            return (stream, consumer) in PULLED.get(user, ())
        case ["DIRECT", "GET", stream]:
            return stream in READ.get(user, ())
        case ["DIRECT", "GET", "SAGA", "saga", _, saga_type, _, "c", "end"]:
            return is_granted(user, saga_type, "read")
        case ["DIRECT", "GET", "EVENTS", "evt", _, _, _, "client", "start"]:
            return user == FORMER
        case ["DIRECT", "GET", "EVENTS", "evt", _, _, _, "client", "signal", _, "1"]:
            return user == FORMER
        case ["STREAM", "INFO", _] | ["STREAM", "MSG", "GET", "EVENTS"] | ["CONSUMER", "INFO" | "PAUSE", _, _]:
            return user == COORDINATOR
        case ["CONSUMER", "NAMES", "EVENTS"] | ["STREAM", "NAMES"]:
            return user == COORDINATOR
        case ["STREAM", "MSG", "DELETE", "SAGA" | "EVENTS" | "PARKED" | "STARTS=bounded=order"]:
            return user == COORDINATOR
        case _:
            return False


def may_hear(user: str, wanted: str) -> bool:
    """Whether a user may subscribe to a filter."""
    match wanted.split("."):
        case ["saga", "*", saga_type, _, "c", "end"]:
            return is_granted(user, saga_type, "read") or copies(user, saga_type)
        case ["antiphon", "status", _, "*"] | ["antiphon", "changed", "*"] | ["antiphon", "same", *_]:
            return user == COORDINATOR
        case _:
            return wanted == f"_INBOX_{user}.>"


# --- the stage --------------------------------------------------------------------------------------------------------

_REFUSED = re.compile(r"permissions violation for (?:publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)


@dataclass
class Caller:
    """A user's connection; it keeps what the server refuses, and whatever comes."""

    user: str
    link: Link
    refused: set[str] = field(default_factory=set[str])
    heard: list[bytes] = field(default_factory=list[bytes])

    @classmethod
    async def connect(cls, up: Platform, user: str) -> Caller:
        caller = cls(user, await up.connect(user))

        async def refuse(error: Exception) -> None:
            found = _REFUSED.search(str(error))
            assert found, error
            caller.refused.add(found.group(1).lower())

        caller.link.handle_error = refuse  # type: ignore[method-assign]
        caller.inbox = caller.link.new_inbox()
        await caller.link.subscribe(f"{caller.inbox}.*", lambda subject, reply, data, lines: caller.heard.append(data))
        return caller

    inbox: str = ""

    async def send(self, sent: Iterable[str], replies: Iterable[str] = (), lines: str = "") -> None:
        """Publish to subjects, with everything that a body may ask for, and wait until the server has dealt with it."""
        for number, subject in enumerate(sent):
            for body in _bodies(self.user, subject):
                for reply in replies or [f"{self.inbox}.{number}"]:
                    self.link.send(subject, body, lines, reply)
            if number % 100 == 0:
                await self.link.flushed()
        await self.link.flushed()
        await self.link.flushed()  # what the server had to ask itself


def _bodies(user: str, subject: str) -> list[bytes]:
    by = {"by": user}
    if subject.startswith("$JS.API.DIRECT.GET"):
        asks: list[dict[str, object]] = [
            {"seq": 1},
            {"next_by_subj": ">", "seq": 1},
            {"multi_last": [">"], "batch": 999},
        ]
        return [b"", *(json.dumps(each).encode() for each in asks)]
    if ".MSG.NEXT." in subject:
        return [json.dumps({"batch": 99, "no_wait": True}).encode()]
    return [json.dumps(by).encode()]


@asynccontextmanager
async def stage(folder: Path, form: Form = "accounts", *, is_encrypted: bool = False) -> AsyncIterator[Platform]:
    """The platform, with something of everybody's on it."""
    change = MutualTLS(folder).of if is_encrypted else lambda logins: logins
    with platform(folder, form, participants=PARTICIPANTS, rights=rights, change=change) as up:
        await up.set_up(listeners=LISTENERS, client_bounds=[BOUND])
        administrator = await up.connect("administrator")
        try:
            for subject in sorted(SECRETS):
                await administrator.store(subject, json.dumps({"by": "administrator", "secret": subject}).encode())
            yield up
        finally:
            await administrator.close()


def _secret(saga: SagaKey) -> Iterator[str]:
    yield subjects.start_subject(saga)
    yield subjects.cancel_subject(saga)
    yield subjects.signal_subject(saga, "fraud-cleared")
    for name in PARTICIPANTS:
        yield subjects.event_subject(saga.path, name, f"{name}-reserved", "reserve", 1)
        yield subjects.command_subject(saga, name, "reserve", "do", 1)
    yield subjects.verb_subject(saga, "bob", "cancel", "k1")
    yield subjects.end_subject(saga)
    yield subjects.record_subject(saga, "n1")


SECRETS: Final = {
    *(subject for each in ("order", "returns") for subject in _secret(SagaKey.of(each, "victim"))),
    subjects.parked_subject("forged", COORDINATOR, "billing"),
    subjects.registration_subject("billing", "other"),
    subjects.readmodel_subject("lists"),
}


def may_read(user: str, subject: str) -> bool:
    """Whether a user may read what is stored at a subject."""
    stream = next(each for each in STREAMS if _is_in(each, subject))
    if stream in READ.get(user, ()):
        return True
    if subjects.is_end(subject):
        return is_granted(user, subject.split(".")[2], "read")
    if user == FORMER:
        return ".client.start" in subject or ".client.signal." in subject
    delivered = [each for each in CONSUMERS if (each.stream, each.name) in PULLED.get(user, ())]
    return any(
        subjects.matches(found, subject) for each in delivered for found in each.filters if each.stream == stream
    )


async def stored(up: Platform) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """All that the streams hold."""
    link = await up.connect("administrator")
    try:
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for stream in (name for each in STREAMS for name in up.pairs.names(each)):
            if stream != ADVISORIES:
                read = [message async for message in link.scan(stream, ">")]
                found[stream] = [(message.subject, json.loads(message.data)) for message in read]
        return found
    finally:
        await link.close()


TARGETS: Final = (
    subjects.command_subject(ORDER, "billing", "charge", "do", 1),
    subjects.end_subject(ORDER),
    subjects.event_subject(ORDER.path, "nobody", "paid", "charge", 1),
    subjects.verb_subject(ORDER, "somebody", "cancel", "k9"),
    "parked.forged.nobody.client",
    "$JS.API.STREAM.PURGE.SAGA",
)
"""Reply subjects that nobody owns who asks for an answer."""

HEADERS: Final = {
    "Nats-Schedule": f"@at 2020-01-01T00:00:00Z\r\nNats-Schedule-Target: {TARGETS[2]}",
    "Nats-Schedule-Next": f"purge\r\nNats-Scheduler: {subjects.timer_subject(ORDER)}",
    "Nats-Rollup": "all",
    "Nats-TTL": "1",
    "Nats-Msg-Id": TARGETS[1],
    "Nats-Expected-Stream": "SAGA",
    "Nats-Expected-Last-Sequence": "0",
    "Nats-Expected-Last-Subject-Sequence": f"0\r\nNats-Expected-Last-Subject-Sequence-Subject: {TARGETS[1]}",
    "Nats-Incr": "+1",
    "Nats-Batch-Id": "b\r\nNats-Batch-Sequence: 1\r\nNats-Batch-Commit: 1",
    "Nats-Stream-Source": "SAGA 1 > >",
    "Nats-Trace-Dest": TARGETS[1],
    "Nats-Marker-Reason": "Remove",
    "Nats-Request-Info": '{"acc":"PLATFORM","user":"coordinator"}',
}


FORMS: Final[tuple[Form, ...]] = (*RIGHTS_FORMS, "pairs")
ERASES: Final = "$JS.API.STREAM.MSG.DELETE."
"""What erases. Coordinators may, since they purge what is old: rights cover subjects, and not what a request names."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("user", USERS)
async def test_what_a_user_may_not_is_refused_and_seen_and_what_it_may_does_no_harm(
    user: str, form: Form, tmp_path: Path
) -> None:
    await tries_everything(user, form, tmp_path)


@pytest.mark.parametrize("form", RIGHTS_FORMS)
async def test_it_is_the_same_where_both_sides_prove_by_certificates_who_they_are(form: Form, tmp_path: Path) -> None:
    await tries_everything("inventory", form, tmp_path, is_encrypted=True)


async def tries_everything(user: str, form: Form, folder: Path, *, is_encrypted: bool = False) -> None:
    """Send all subjects, and look at what was refused, stored and read."""
    async with stage(folder, form, is_encrypted=is_encrypted) as up, AsyncExitStack() as stack:
        caller = await Caller.connect(up, user)
        stack.push_async_callback(caller.link.close)
        every = sorted({each for subject in ALL for each in of_pairs(subject, up.pairs)}, key=str.lower)
        allowed = [subject for subject in every if may_send(user, subject, up.pairs)]
        refused = sorted({each.lower() for each in every} - {each.lower() for each in allowed})
        erases = [each for each in allowed if each.startswith(ERASES)]
        await caller.send(each for each in every if each not in erases)
        assert sorted(caller.refused) == refused

        if user != COORDINATOR:  # who may write to journals, where headers and replies are its own
            writes = [each for each in allowed if not each.startswith("$JS.")]
            await caller.send([each for each in allowed if "*" not in each], replies=TARGETS)
            for name, value in HEADERS.items():
                await caller.send((f"{each}" for each in _fresh(writes, name)), lines=f"{name}: {value}\r\n")
        assert sorted(caller.refused) == refused

        there = await stored(up)
        written = [(subject, body) for messages in there.values() for subject, body in messages]
        assert {subject for subject, body in written if body["by"] == "administrator"} >= SECRETS, "nothing is erased"
        assert [each for each in written if each[1].get("by") not in ("administrator", user)] == []
        own = [sent_as(user, each) for each, body in written if body["by"] == user]
        assert [each for each in own if not may_send(user, each)] == []

        if up.pairs.count == 1:
            assert (len(erases) == 4) is (user == COORDINATOR)
        else:
            assert bool(erases) is (user == COORDINATOR)
        seen = {each for each in SECRETS if any(each.encode() in data for data in caller.heard)}
        assert seen == {each for each in SECRETS if may_read(user, each)}


def _fresh(writes: Iterable[str], name: str) -> Iterator[str]:
    """Subjects at which nothing is stored yet, of the same rights: with another id."""
    for subject in writes:
        if "*" not in subject and ">" not in subject:
            yield subject.replace(".one", f".{name.lower()}")


@pytest.mark.parametrize("form", RIGHTS_FORMS)
@pytest.mark.parametrize("user", USERS)
async def test_what_a_user_may_not_hear_is_refused_and_seen(user: str, form: Form, tmp_path: Path) -> None:
    inboxes = {f"_INBOX_{each}.>" for each in USERS}
    wanted = {*FILTERS, *inboxes, *FOREIGN, ">", "*.>", "$SYS.>", "$JS.>"}
    async with stage(tmp_path, form) as up:
        caller = await Caller.connect(up, user)
        for each in sorted(wanted):
            await caller.link.subscribe(each, lambda *_: None)
        await caller.link.flushed()
        await caller.link.close()
    assert sorted(caller.refused) == sorted(each.lower() for each in wanted if not may_hear(user, each))


async def test_the_latest_start_is_read_by_no_client(tmp_path: Path) -> None:
    """What a literal `*` in the place of the id brought to every client: somebody else's order."""
    async with stage(tmp_path) as up:
        for user in ("shop", "fraud", "returner", "inventory"):
            caller = await Caller.connect(up, user)
            await caller.send([f"$JS.API.DIRECT.GET.{EVENTS}.{subjects.CLIENT_STARTS_FILTER}"])
            await caller.link.close()
            assert len(caller.refused) == 1
            assert caller.heard == []


async def test_a_program_that_may_start_sagas_may_start_those_and_no_others(tmp_path: Path) -> None:
    async with stage(tmp_path) as up:
        link = await up.connect("inventory")
        assert await link.store(subjects.start_subject(RETURNS), b"{}")
        with pytest.raises(AlreadyStored):
            await link.store(subjects.start_subject(RETURNS), b"{}")
        link.send(subjects.start_subject(ORDER), b"{}")
        await link.flushed()
        await link.close()
        assert "client.start" in str(link.failure.result())
