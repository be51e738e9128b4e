"""Who may do what: the accounts of a production server, made from lists of participants, clients and operators.

Rights in NATS cover the subject that is published to, and neither headers nor the reply subject. So whoever shares an
account with a stream can have an answer of the server stored in it. Therefore the streams live in an account of the
platform, and everybody who is not the platform lives in an account of their own, which imports just what its role
needs: an answer then goes back through the import, and a reply subject names something in the asker's own account only.
A client has an account to itself, so that the server tells clients apart, and rights by saga type and verb.

A token `*` in a published subject passes every right that has a wildcard there. So no client reads EVENTS, and what a
right leaves open must be harmless where it stands for all.

The text holds no secrets: passwords come from the server's environment, and an nkey stands there by its public half.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from antiphon.contracts import subjects
from antiphon.contracts.errors import DefinitionError
from antiphon.contracts.identity import CLIENT, COORDINATOR, NOT_SAGAS, OPERATOR, check_token, dashed
from antiphon.contracts.pairs import SPREAD, Pairs
from antiphon.contracts.topology import (
    ADMINISTRATOR,
    BOUNDED,
    BOUNDED_SIGNALS,
    BOUNDED_STARTS,
    CLIENT_FACTS,
    EVENTS,
    EXPORTER,
    FORMER_ANSWERS,
    FORMER_CONSUMERS,
    FORMER_FACTS,
    OPERATOR_FACTS,
    PARKED,
    PEER_FACTS,
    PLATFORM_CONSUMERS,
    READMODEL,
    REGISTRATIONS,
    SAGA,
    STARTS,
    SWEEPER,
    TIMERS,
    answers_consumer_name,
    bounded_stream_name,
    check_participant,
    participant_consumers,
    reactions_consumer_name,
)
from antiphon.contracts.topology import READMODELS as READMODELS_BUCKET
from antiphon.link.pairs import VARIABLE

from ..files import nats_string, write_private

PLATFORM: Final = "PLATFORM"
OPERATORS: Final = "OPERATORS"
READMODELS: Final = "READMODELS"
EXPORTERS: Final = "EXPORTERS"

API: Final = "$JS.API"
SERVER_ENVIRONMENT: Final = "nats-server.env"


@dataclass(frozen=True)
class Need:
    """One subject of the platform that a role uses from its own account, and why.

    `one` and `many` are services and say how many messages answer a request; `feed` comes without being asked for.
    """

    subject: str
    why: str
    kind: Literal["one", "many", "feed"] = "one"
    to: str = ""
    """The platform's subject, where the own account calls it otherwise."""

    @property
    def exported(self) -> str:
        """What the platform's account calls it."""
        return self.to or self.subject

    @property
    def local(self) -> str:
        """What the own account calls it, where that differs, with the platform's `*` by their numbers."""
        return subjects.numbered(self.subject)


SIGNAL: Final = "signal."
"""What the verb of one signal begins with; behind it stands the signal's name."""

VERBS: Final = ("start", "cancel", "read")
"""What a client may do with the sagas of a type where nobody says otherwise. `read` is how they stand and how they end.
Signals are granted one by one."""

ANY: Final = "*"
"""All types, or all signals. Nobody but an operator has it."""


@dataclass(frozen=True)
class Grant:
    """What a client may do with the sagas of one type.

    Args:
        saga_type: the type.
        verbs: `start`, `cancel`, `read`, and `signal.<name>` for each signal.

    Raises:
        BadIdentity: the type or a signal's name cannot be a token.
        DefinitionError: there is no such verb.
    """

    saga_type: str
    verbs: tuple[str, ...] = VERBS

    def __post_init__(self) -> None:
        if self.saga_type != ANY:
            check_token(self.saga_type, "saga type")
        if self.saga_type in NOT_SAGAS:
            raise DefinitionError(f"{self.saga_type!r} is no saga type; nothing starts a {self.saga_type}.")
        for verb in self.verbs:
            name = verb.removeprefix(SIGNAL)
            if name == verb and verb not in VERBS:
                raise DefinitionError(f"{verb[:80]!r} is no verb: {', '.join(VERBS)} and {SIGNAL}NAME are.")
            if name not in (verb, ANY):
                check_token(dashed(name), "signal")

    def needs(self) -> Iterable[Need]:
        """The subjects that it is about."""
        for verb in self.verbs:
            yield from _verb_needs(self.saga_type, verb)


EVERYTHING: Final = Grant(ANY, (*VERBS, f"{SIGNAL}{ANY}"))
"""What an operator may do in a client's place."""


def _verb_needs(saga_type: str, verb: str) -> tuple[Need, ...]:
    match verb:
        case "start":
            return (
                Need(subjects.starts_filter(saga_type, source=CLIENT), "start sagas"),
                Need(subjects.same_starts_filter(saga_type), "ask whether the start that is stored is the same"),
            )
        case "cancel":
            return (
                Need(subjects.cancels_filter(saga_type), "ask for a cancel"),
                Need(subjects.same_cancels_filter(saga_type), "ask whether there is a saga to cancel"),
            )
        case "read":
            ends = subjects.ends_filter(saga_type)
            return (
                Need(ends, "hear of outcomes", "feed"),
                Need(f"{API}.DIRECT.GET.{SAGA}.{ends}", "read an outcome"),
                Need(subjects.status_filter(saga_type), "ask how a saga stands"),
            )
        case _:
            signal = dashed(verb.removeprefix(SIGNAL))
            return (
                Need(subjects.signals_filter(saga_type, signal), "send this signal"),
                Need(
                    subjects.same_signals_filter(saga_type, signal),
                    "ask whether a saga waits for it, and whether the one that is stored is the same",
                ),
            )


@dataclass(frozen=True)
class User:
    """Who connects, and what that user may publish and subscribe to inside its account."""

    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    may_answer: bool = False
    """Whether it may publish to the reply subject of a request it got."""


@dataclass(frozen=True)
class Account:
    """An account: its users, and what it imports from the platform's."""

    name: str
    users: tuple[User, ...]
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Rights:
    """All accounts of one platform.

    Args:
        participants: their names; each gets an account.
        clients: what programs may do with sagas, by their names; each gets an account.
        operators: the people who deal with what waits for them, each with a user, under whose name the requests are.
        nkeys: public nkeys by user; whoever has none logs in with a password.
        starts: the types of the sagas that a participant's program starts, by its name.
        former_clients: the names of programs with a client of an earlier release. They may start, cancel and signal
            every saga, and read what others have started.
        bounds: the saga types of which a client may have a bounded number of sagas open, by its name. What it stores
            about these goes to streams of its own; see `antiphon.contracts.topology.Bound`.
        pairs: over how many pairs of streams the platform's sagas are spread.

    Raises:
        BadIdentity: a name cannot be a token, or no participant may have it.
        DefinitionError: two users are told apart by nothing.
    """

    participants: Sequence[str]
    clients: Mapping[str, Sequence[Grant]] = field(default_factory=dict[str, Sequence[Grant]])
    operators: Sequence[str] = (OPERATOR,)
    nkeys: Mapping[str, str] = field(default_factory=dict[str, str])
    starts: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    former_clients: Sequence[str] = ()
    bounds: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    pairs: int = 1

    def __post_init__(self) -> None:
        _check_names(self.participants, (*self.clients, *self.former_clients), self.operators)
        if strangers := sorted(self.starts.keys() - set(self.participants)):
            raise DefinitionError(f"{strangers[0]} starts sagas and is no participant. Name it as one, or as a client.")
        for name, types in self.starts.items():
            if ANY in types:
                raise DefinitionError(f"{name} cannot be let start every saga type: name each that its program starts.")
        for name, types in self.bounds.items():
            for saga_type in types:
                self._check_bound(name, saga_type)
        if strangers := sorted(self.nkeys.keys() - set(self.users())):
            raise DefinitionError(f"there is no user {strangers[0]!r} to give an nkey to: {', '.join(self.users())}.")

    def _check_bound(self, name: str, saga_type: str) -> None:
        """Check that a bound is one of a client that stores something.

        Raises:
            DefinitionError: it is not.
        """
        refused = f"{name} cannot have a bound of open sagas of type {saga_type}"
        if name in self.former_clients:
            raise DefinitionError(
                f"{refused}: it is a client of an earlier release, which may do everything with all sagas. Once "
                f"its program runs this release, name it with --client {name}={saga_type} and no more with "
                "--former-client, have the accounts made anew with its bound, and the server reload them."
            )
        if name in (*self.participants, *self.operators):
            whose = "a participant" if name in self.participants else "an operator"
            raise DefinitionError(f"{refused}: it is {whose}, and only clients have bounds. Leave the bound out.")
        granted = {verb for grant in self.clients.get(name, ()) if grant.saga_type == saga_type for verb in grant.verbs}
        if not granted:
            raise DefinitionError(
                f"client {refused}: it may do nothing with sagas of that type. Grant that "
                f"(--client {name}={saga_type}), or leave the bound out."
            )
        if granted == {"read"}:
            raise DefinitionError(
                f"client {refused}: it may only read of sagas of that type, and stores nothing that could be counted. "
                f"Grant it more (--client {name}={saga_type}:start,read), or leave the bound out."
            )

    def accounts(self) -> list[Account]:
        """The platform's account, and one for each participant, for each client and for all operators."""
        pairs = Pairs(self.pairs)
        found = self._accounts()
        return found if pairs.count == 1 else [_spread(each, pairs) for each in found]

    def _accounts(self) -> list[Account]:
        return [
            Account(PLATFORM, (administrator_user(), coordinator_user(self.participants, self.bounds))),
            *(
                _outside(f"PARTICIPANT-{name}", name, participant_needs(name, self.starts.get(name, ())))
                for name in self.participants
            ),
            *(
                _outside(f"CLIENT-{name}", name, bounded(client_needs(grants), name, self.bounds.get(name, ())))
                for name, grants in self.clients.items()
            ),
            *(_outside(f"CLIENT-{name}", name, FORMER_CLIENT_NEEDS) for name in self.former_clients),
            Account(OPERATORS, tuple(map(operator_user, self.operators)), OPERATOR_NEEDS),
            _outside(READMODELS, READMODEL, READMODEL_NEEDS),
            _outside(EXPORTERS, EXPORTER, EXPORTER_NEEDS),
        ]

    def users(self) -> list[str]:
        """The names of all users."""
        return [user.name for account in self.accounts() for user in account.users]

    def config(self) -> str:
        """The text for nats.conf: the accounts, and no secrets."""
        accounts = self.accounts()
        return "\n".join(
            [*_HEAD, "accounts {", *(line for a in accounts for line in self._account(a, accounts)), "}", ""]
        )

    def new_passwords(self) -> dict[str, str]:
        """A fresh password for every user that has no nkey."""
        # The letter in front keeps the server from reading a password as a number.
        return {name: f"p{secrets.token_hex(24)}" for name in self.users() if name not in self.nkeys}

    def _account(self, account: Account, accounts: list[Account]) -> list[str]:
        lines = [f"  {nats_string(account.name)} {{", "    users: ["]
        lines += [f"      {_user_line(user, self.nkeys.get(user.name))}" for user in account.users]
        lines.append("    ]")
        if account.name == PLATFORM:
            lines += ["    jetstream: enabled", "    exports: [", *map(_export_line, exports(accounts)), "    ]"]
        if account.needs:
            lines += ["    imports: [", *(_import_line(need) for need in account.needs), "    ]"]
        return [*lines, "  }"]


_HEAD = (
    "# Made by `antiphon rights`: make it anew when a participant or a client comes or goes, then have each server",
    "# read it. Passwords are taken from the server's environment, which a reload does not change: where a user with a",
    "# password is new, a reload is refused; add its variable there and restart each server, one after the other. A",
    "# user with an nkey (--nkey) needs no restart.",
)


# --- what each role needs ---------------------------------------------------------------------------------------------


def participant_needs(participant: str, starts: Sequence[str] = ()) -> tuple[Need, ...]:
    """What a participant uses of the platform.

    Args:
        participant: its name.
        starts: the types of the sagas that its program starts.
    """
    needs = [
        Need(subjects.source_filter(participant), "store its own events"),
        Need(subjects.parked_subject("*", participant, "*"), "park what it cannot use, under its own name"),
        Need(subjects.old_parked_subject("*", participant), "the same, for workers of earlier releases"),
    ]
    for consumer in participant_consumers(participant):
        needs += [
            Need(f"{API}.CONSUMER.MSG.NEXT.{SAGA}.{consumer.name}", "pull its own commands", "many"),
            Need(f"$JS.ACK.{SAGA}.{consumer.name}.>", "ack them, hand them back, keep them longer"),
        ]
    heard = reactions_consumer_name(participant)
    needs += [
        Need(f"{API}.CONSUMER.MSG.NEXT.{EVENTS}.{heard}", "pull the events it reacts to", "many"),
        Need(f"$JS.ACK.{EVENTS}.{heard}.>", "ack them, hand them back, keep them longer"),
    ]
    needs.append(Need(subjects.registration_subject(participant, "*"), "say what it does and that it is there"))
    needs += client_needs(Grant(saga_type, ("start",)) for saga_type in starts)
    return tuple(needs)


def client_needs(grants: Iterable[Grant]) -> tuple[Need, ...]:
    """What a client uses of the platform, each once."""
    return tuple(dict.fromkeys(need for grant in grants for need in grant.needs()))


def bounded(needs: Iterable[Need], client: str, saga_types: Iterable[str]) -> tuple[Need, ...]:
    """What a client uses, with what it stores about sagas of some types put into streams of its own. Its program still
    publishes to the same subjects: its account's imports say what these stand for."""
    stored_at = {each for saga_type in saga_types for each in _stored_at(saga_type)}
    return tuple(
        replace(need, to=subjects.bounded_filter(need.subject, client))
        if any(subjects.matches(each, need.subject) for each in stored_at)
        else need
        for need in needs
    )


def _stored_at(saga_type: str) -> tuple[str, str, str]:
    """Where clients store what they have to say of sagas of a type."""
    return (
        subjects.starts_filter(saga_type, source=CLIENT),
        subjects.cancels_filter(saga_type),
        subjects.signals_filter(saga_type),
    )


FORMER_CLIENT_NEEDS: Final = (
    *client_needs([EVERYTHING]),
    *(
        Need(f"{API}.DIRECT.GET.{EVENTS}.{found}", "see what was stored before, whoever stored it")
        for found in (subjects.CLIENT_STARTS_FILTER, subjects.signals_filter())
    ),
)
"""What clients of earlier releases need, which ask no coordinator whether what is stored is the same."""

REQUESTS: Final = subjects.source_filter(OPERATOR)
"""The requests of all operators; a user may store only those that name it."""

OPERATOR_NEEDS: Final = (
    Need(f"{API}.DIRECT.GET.{SAGA}", "read journals", "many"),
    Need(f"{API}.DIRECT.GET.{EVENTS}", "read events", "many"),
    Need(f"{API}.DIRECT.GET.{PARKED}", "read what is parked", "many"),
    Need(f"{API}.DIRECT.GET.{REGISTRATIONS.name}", "see what runs", "many"),
    Need(REQUESTS, "ask for retries, edits, and so on, under the own name only"),
    *client_needs([EVERYTHING]),
)
"""An operator reads everything, and writes what a client does and requests of its own; it cannot forge either.

Requests about streams and consumers are missing on purpose: the server answers them for the asker's account, and says
that it has no JetStream.
"""


READMODEL_NEEDS: Final = (
    Need(f"{API}.DIRECT.GET.{SAGA}", "read journals", "many"),
    Need(f"{API}.DIRECT.GET.{EVENTS}", "read the facts that they name", "many"),
    Need(f"{API}.DIRECT.GET.{READMODELS_BUCKET.name}", "see what was said under its name", "many"),
    Need(subjects.READMODELS_FILTER, "say how far it has read, so that old sagas are kept until then"),
)
"""The projector reads everything, and writes nothing but its place; it has no consumer, so there is nothing to ack."""


EXPORTER_NEEDS: Final = (
    Need(f"{API}.CONSUMER.MSG.NEXT.{SAGA}.{EXPORTER}", "pull journal entries", "many"),
    Need(f"$JS.ACK.{SAGA}.{EXPORTER}.>", "ack them once the backend has their spans"),
    Need(f"{API}.DIRECT.GET.{SAGA}", "read journals", "many"),
    Need(f"{API}.DIRECT.GET.{EVENTS}", "read the facts that they name", "many"),
)


def coordinator_needs(
    participants: Iterable[str], bounds: Mapping[str, Sequence[str]] | None = None
) -> tuple[Need, ...]:
    """What coordinators use in the platform's account: they write journals and read both streams.

    Args:
        participants: whom they hear. Each has a consumer, and no right covers all of these but one that covers those of
            reactions, too.
        bounds: the saga types of which clients have a bound, by the client's name.
    """
    needs = [
        Need(subjects.SAGA_FILTER, "append to journals and set timers"),
        Need(
            subjects.source_filter(COORDINATOR), "start child sagas, tell parents of them, ask for locks and grant them"
        ),
        Need(subjects.parked_subject("*", COORDINATOR, "*"), "park what is forged or cannot be read"),
        Need(subjects.old_parked_subject("*", COORDINATOR), "the same, for coordinators of earlier releases"),
        Need(subjects.PARKED_SAGAS_FILTER, "index the sagas that wait for a person"),
    ]
    pulled = [
        *((EVENTS, answers_consumer_name(name), "a participant's answers and events") for name in participants),
        *((consumer.stream, consumer.name, PULLED[consumer.name]) for consumer in PLATFORM_CONSUMERS),
        *((EVENTS, name, PULLED[name]) for name in FORMER_CONSUMERS),
    ]
    for stream, name, what in pulled:
        needs += [
            Need(f"{API}.CONSUMER.MSG.NEXT.{stream}.{name}", f"pull {what}"),
            Need(f"$JS.ACK.{stream}.{name}.>", "ack them, or hand them back"),
        ]
    return (
        *needs,
        *(Need(f"{API}.DIRECT.GET.{stream}", "read sagas whole") for stream in (SAGA, EVENTS)),
        Need(f"{API}.DIRECT.GET.{REGISTRATIONS.name}", "see whether another coordinator archives old sagas"),
        Need(f"{API}.DIRECT.GET.{READMODELS_BUCKET.name}", "see what read models have read before it is purged"),
        Need(f"{API}.STREAM.MSG.GET.{EVENTS}", "ask the stream's leader whether a saga was ever started"),
        *(
            Need(f"{API}.STREAM.MSG.DELETE.{stream}", "purge sagas that are old enough, and forget one on demand")
            for stream in (SAGA, EVENTS, PARKED)
        ),
        Need(f"{API}.DIRECT.GET.{PARKED}", "count who waits for a person, for metrics"),
        Need(subjects.registration_subject(COORDINATOR, "*"), "say which sagas it serves and that it is there"),
        Need(f"{API}.STREAM.INFO.*", "find out that a stream is missing, or is not as it must be"),
        Need(f"{API}.CONSUMER.INFO.*.*", "find out that a consumer is missing, or is not as it must be"),
        Need(f"{API}.CONSUMER.NAMES.{EVENTS}", "find out whose answers there are to pull"),
        Need(f"{API}.STREAM.NAMES", "find out which clients have a bound"),
        *bound_needs(bounds or {}),
        Need(subjects.STATUS_FILTER, "answer how a saga stands", "feed"),
        Need(subjects.SAME_FILTER, "answer whether what is stored is what a client wanted to store", "feed"),
        Need(f"{API}.CONSUMER.PAUSE.*.*", "have a participant stand still, or go on"),
        Need(subjects.ANNOUNCE_FILTER, "tell each other that a saga type stands still, or goes on"),
        Need(subjects.ANNOUNCE_FILTER, "hear that", "feed"),
    )


def bound_needs(bounds: Mapping[str, Sequence[str]]) -> tuple[Need, ...]:
    """What coordinators use for clients with a bound: they copy what such a client stores to where others store it.

    Args:
        bounds: the saga types of which clients have one, by the client's name.
    """
    needs = list[Need]()
    for client, saga_types in bounds.items():
        for saga_type in saga_types:
            needs += (Need(each, "store what a client with a bound has said") for each in _stored_at(saga_type))
            needs.append(Need(subjects.ends_filter(saga_type), "hear of ends, which free places", "feed"))
            for kind in (BOUNDED_STARTS, BOUNDED_SIGNALS):
                stream = bounded_stream_name(kind, client, saga_type)
                needs += [
                    Need(f"{API}.CONSUMER.MSG.NEXT.{stream}.{BOUNDED}", "pull what a client with a bound stores"),
                    Need(f"$JS.ACK.{stream}.{BOUNDED}.>", "ack it, or hand it back"),
                ]
            starts = bounded_stream_name(BOUNDED_STARTS, client, saga_type)
            needs += [
                Need(f"{API}.DIRECT.GET.{starts}", "find the places of sagas that have ended"),
                Need(f"{API}.STREAM.MSG.DELETE.{starts}", "free them"),
            ]
    return tuple(dict.fromkeys(needs))


PULLED: Final = {
    STARTS: "starts",
    CLIENT_FACTS: "signals and wishes to cancel",
    OPERATOR_FACTS: "operators' requests",
    PEER_FACTS: "what coordinators tell each other",
    TIMERS: "timers that are due",
    SWEEPER: "starts whose sagas may be neglected",
    FORMER_FACTS: "facts, for coordinators of an earlier release",
    FORMER_ANSWERS: "all participants' answers and events, for coordinators of an earlier release",
}


def coordinator_user(participants: Iterable[str], bounds: Mapping[str, Sequence[str]] | None = None) -> User:
    """The user of all coordinators, which hear the given participants, and serve these clients with a bound."""
    return replace(_user(COORDINATOR, coordinator_needs(participants, bounds)), may_answer=True)


def operator_user(name: str) -> User:
    """An operator, whose requests bear its name."""
    user = _user(name, OPERATOR_NEEDS)
    own = tuple(REQUESTS.replace("operator.>", f"operator.{name}.>") if it == REQUESTS else it for it in user.publish)
    return replace(user, publish=own)


def administrator_user() -> User:
    """The user for `antiphon setup` and for emergencies: it may do everything in the platform's account."""
    return User(ADMINISTRATOR, (">",), (">",))


def inbox_of(user: str) -> str:
    """The subjects on which a user gets answers; `Link` makes its inboxes below them."""
    return f"_INBOX_{user}.>"


def password_variable(user: str) -> str:
    """The variable of the server's environment that holds a user's password."""
    return f"NATS_PASSWORD_{re.sub('[^A-Za-z0-9]', '_', user).upper()}"


def _spread(account: Account, pairs: Pairs) -> Account:
    """The account where SAGA and EVENTS are several streams."""
    return replace(
        account,
        users=tuple(_spread_user(user, pairs) for user in account.users),
        needs=tuple(replace(need, subject=each) for need in account.needs for each in of_pairs(need.subject, pairs)),
    )


def _spread_user(user: User, pairs: Pairs) -> User:
    is_coordinator = user.name == COORDINATOR
    found = (each for own in user.publish for each in of_pairs(own, pairs, in_short=is_coordinator))
    return replace(user, publish=tuple(dict.fromkeys(found)))


def of_pairs(asked: str, pairs: Pairs, *, in_short: bool = False) -> list[str]:
    """A subject of the server's API for each of the streams that SAGA or EVENTS stands for; any other as it is.

    Where it names a consumer, or a subject behind the stream, a `*` stands for the stream: no other stream has them.

    Args:
        asked: the subject with one pair.
        pairs: the pairs of streams.
        in_short: whether a `*` may stand for the stream in any case. In operator mode a user shows all its rights in
            one line when it connects, which the server bounds (4 kB), and coordinators use nearly every stream.
    """
    tokens = asked.split(".")
    at = next((place for place, token in enumerate(tokens) if token in SPREAD), 0)
    if tokens[0] != "$JS" or not at or pairs.count == 1:
        return [asked]
    names = ("*",) if in_short or tokens[at + 1 :] else pairs.names(tokens[at])
    return [".".join([*tokens[:at], name, *tokens[at + 1 :]]) for name in names]


def _outside(account: str, user: str, needs: tuple[Need, ...]) -> Account:
    return Account(account, (_user(user, needs),), needs)


def _user(name: str, needs: tuple[Need, ...]) -> User:
    """A user who publishes to the services it needs, hears the feeds it needs, and has an inbox.

    That is narrower than its account, where what is not imported is local: there users could answer, or listen to, each
    other.
    """
    asked = tuple(need.subject for need in needs if need.kind != "feed")
    heard = tuple(need.subject for need in needs if need.kind == "feed")
    return User(name, asked, (inbox_of(name), *heard))


def _check_names(participants: Sequence[str], clients: Sequence[str], operators: Sequence[str]) -> None:
    for name in participants:
        check_participant(name)
    for name in clients:
        check_token(name, "client")
    for name in operators:
        check_token(name, "operator")
    users = [ADMINISTRATOR, COORDINATOR, READMODEL, EXPORTER, *operators, *participants, *clients]
    variables = Counter(map(password_variable, users))
    for variable, count in variables.items():
        if count > 1:
            raise DefinitionError(f"{count} users would have the password variable {variable}. Rename all but one.")


# --- as the server's configuration ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """A subject of the platform, how it answers, and the accounts that use it."""

    subject: str
    kind: Literal["one", "many", "feed"]
    takers: tuple[str, ...]

    @property
    def is_feed(self) -> bool:
        """Whether it comes without being asked for."""
        return self.kind == "feed"


def exports(accounts: Iterable[Account]) -> list[Export]:
    """What the platform's account exports, each subject once: a second export of a subject may replace the first."""
    takers = defaultdict[tuple[str, Literal["one", "many", "feed"]], list[str]](list)
    for account in accounts:
        for need in account.needs:
            takers[need.exported, need.kind].append(account.name)
    return [Export(subject, kind, tuple(names)) for (subject, kind), names in takers.items()]


def _export_line(export: Export) -> str:
    kind = "stream" if export.is_feed else "service"
    answers = ", response_type: stream" if export.kind == "many" else ""
    return f"      {{ {kind}: {nats_string(export.subject)}{answers}, accounts: {_listed(export.takers)} }}"


def _import_line(need: Need) -> str:
    kind = "stream" if need.kind == "feed" else "service"
    local = f", to: {nats_string(need.local)}" if need.to else ""
    return (
        f"      {{ {kind}: {{ account: {PLATFORM}, subject: {nats_string(need.exported)} }}{local} }} # to {need.why}"
    )


def _user_line(user: User, nkey: str | None) -> str:
    proof = f"nkey: {nkey}" if nkey else f"user: {nats_string(user.name)}, password: ${password_variable(user.name)}"
    rights = f"publish: {{ allow: {_listed(user.publish)} }}, subscribe: {{ allow: {_listed(user.subscribe)} }}"
    answer = ", allow_responses: true" if user.may_answer else ""
    return f"{{ {proof}, permissions: {{ {rights}{answer} }} }}"


def _listed(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(nats_string, texts))}]"


# --- the secrets ------------------------------------------------------------------------------------------------------


def server_environment(passwords: Mapping[str, str]) -> dict[str, str]:
    """The variables the server's configuration refers to."""
    return {password_variable(user): password for user, password in passwords.items()}


def write_secrets(folder: Path, passwords: Mapping[str, str], pairs: int = 1) -> list[Path]:
    """Write one file of environment variables for the server and one for each user, readable by their owner only.

    Args:
        folder: where.
        passwords: of each user.
        pairs: over how many pairs of streams sagas are spread, which users are told where there are several: most of
            them may not ask the server.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    told = {VARIABLE: str(pairs)} if pairs > 1 else {}
    files = {SERVER_ENVIRONMENT: server_environment(passwords)}
    files |= {
        f"{user}.env": {"NATS_USER": user, "NATS_PASSWORD": password, **told} for user, password in passwords.items()
    }
    for name, variables in files.items():
        write_private(folder / name, "".join(f"{variable}={value}\n" for variable, value in variables.items()))
    return [folder / name for name in files]
