"""The streams and consumers of the platform, as values. An administrator creates them; everyone else binds by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from . import identity, subjects
from .envelope import MESSAGE_BYTES_MAX
from .errors import BadIdentity, DefinitionError

SAGA: Final = "SAGA"
EVENTS: Final = "EVENTS"
PARKED: Final = "PARKED"
ADVISORIES: Final = "ADVISORIES"

STARTS: Final = "coordinator-starts"
CLIENT_FACTS: Final = "coordinator-clients"
OPERATOR_FACTS: Final = "coordinator-operators"
PEER_FACTS: Final = "coordinator-peers"
ANSWERS_PREFIX: Final = "coordinator-answers-"
"""What the names of the consumers begin with that bring the answers and events of one participant each."""
FORMER_FACTS: Final = "coordinator"
"""The consumer from which coordinators of the first release pull facts of all kinds."""
FORMER_ANSWERS: Final = "coordinator-answers"
"""The one from which coordinators of the release after it pull the answers and events of all participants."""
FORMER_CONSUMERS: Final = (FORMER_FACTS, FORMER_ANSWERS)
"""What coordinators of this release leave alone, and no platform has that began with it."""
TIMERS: Final = "timers"
SWEEPER: Final = "sweeper"
EXPORTER: Final = "exporter"

ADMINISTRATOR: Final = "administrator"
READMODEL: Final = "readmodel"
PLATFORM_USERS: Final = (ADMINISTRATOR, READMODEL, EXPORTER, *identity.PLATFORM_SOURCES)
"""Who connects, beside participants, where nobody gave them other names."""

SERVER_VERSION_MIN: Final = (2, 12, 8)
"""Message schedules came with 2.12.0. Before 2.12.8 a server heeds `Nats-Schedule-Next` in streams without schedules:
whoever may store one event could erase those of others. tests/servers has both sides of this line."""

COORDINATOR_ACK_WAIT_SECONDS: Final = 3.0
"""How long a fact waits for another coordinator after the one that held it died."""

PARTICIPANT_ACK_WAIT_SECONDS: Final = 3.0
"""How long a command waits for another worker after the one that held it died. A worker extends it for all it holds."""

RECOVERY_SECONDS: Final = PARTICIPANT_ACK_WAIT_SECONDS + 1.0
"""Within how long a command whose worker dies is answered by another one that has a place for it. Mostly it is a third
of that."""

EXPORTER_ACK_WAIT_SECONDS: Final = 3.0
"""How long an entry waits for another exporter after the one that held it died. One that waits for its backend extends
it."""

ACK_PENDING_MAX: Final = 100_000
"""Commands handed back with a delay stay pending, so the bound must be far above what fails at any moment."""

PARKED_PER_SOURCE_MAX: Final = 1_000
"""How many parked messages of one kind, noticed by one process's name and from one source, are kept: the first ones. Of
the rest there is a count."""


ASKED_REPLICAS: Final = "antiphon.replicas"
"""Under this name a stream's metadata says how many copies of it were asked for, which its setting may not any more."""

PARKED_BYTES: Final = 1 << 30
"""How much PARKED may take where nobody said otherwise and the server has as much: whoever parks chooses the kind and
the source, so that the bound of one source bounds no disk."""


REGISTRATION_SECONDS: Final = 90.0
"""How long a process that says no more that it is there is taken to be there."""

REGISTRATION_BYTES_MAX: Final = 256 * 1024
"""How much one process may say of itself."""

REGISTRATIONS_BYTES_MAX: Final = 64 * 1024 * 1024
"""How much all may together. One has a few kilobytes; the server sets this much of its disk aside."""


PLACE_BYTES_MAX: Final = 8 * 1024
"""How much one read model may say of its place."""

READMODELS_MAX: Final = 64
"""How many read models there may be."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, as the server's API takes it."""

    name: str
    subjects: tuple[str, ...]
    settings: dict[str, Any] = {}

    def config(self, replicas: int) -> dict[str, Any]:
        """The stream's configuration for a server with the given number of replicas."""
        return {
            "name": self.name,
            "subjects": list(self.subjects),
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_age": 0,
            "max_bytes": -1,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "allow_direct": True,
            "num_replicas": replicas,
            "metadata": {ASKED_REPLICAS: str(replicas)},
            **self.settings,
        }


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A durable pull consumer, as the server's API takes it."""

    stream: str
    name: str
    filters: tuple[str, ...]
    ack_wait_seconds: float
    ack_pending_max: int = ACK_PENDING_MAX
    deliver: str = "all"
    start_sequence: int = 0
    """With `by_start_sequence`: the first message of the stream that it may deliver."""

    def config(self) -> dict[str, Any]:
        """The consumer's configuration."""
        return {
            "durable_name": self.name,
            "filter_subjects": list(self.filters),
            "ack_policy": "explicit",
            "deliver_policy": self.deliver,
            **({"opt_start_seq": self.start_sequence} if self.start_sequence else {}),
            "max_deliver": -1,
            "ack_wait": int(self.ack_wait_seconds * 1e9),
            "max_ack_pending": self.ack_pending_max,
        }


STREAMS: Final = (
    # The server takes no schedules together with discard new (2.15.1); without limits nothing is ever discarded.
    Stream(name=SAGA, subjects=(subjects.SAGA_FILTER,), settings={"allow_msg_schedules": True, "discard": "old"}),
    # One message a subject and no schedules, roll-ups, TTLs or batches: whoever may write here can do nothing but add.
    Stream(
        name=EVENTS,
        subjects=(subjects.EVENTS_FILTER,),
        settings={"max_msgs_per_subject": 1, "discard_new_per_subject": True},
    ),
    Stream(
        name=PARKED,
        subjects=(subjects.PARKED_FILTER,),
        settings={"max_msgs_per_subject": PARKED_PER_SOURCE_MAX, "discard_new_per_subject": True},
    ),
    Stream(
        name=ADVISORIES,
        subjects=("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",),
        settings={"discard": "old", "max_msgs": 100_000},
    ),
)

REGISTRATIONS: Final = Stream(
    name=f"KV_{subjects.REGISTRATIONS_BUCKET}",
    subjects=(subjects.REGISTRATIONS_SUBJECTS,),
    # What is not renewed goes. No roll-ups, so that nobody can erase what others say; and bounded, so that whoever says
    # too much keeps others from speaking for as long as that stays, and fills no disk.
    settings={
        "max_age": int(REGISTRATION_SECONDS * 1e9),
        "max_msgs_per_subject": 1,
        "max_msg_size": REGISTRATION_BYTES_MAX,
        "max_bytes": REGISTRATIONS_BYTES_MAX,
    },
)
"""A key-value bucket (ADR-8) of what runs. Apart from the streams that the platform cannot be without."""


READMODELS: Final = Stream(
    name=f"KV_{subjects.READMODELS_BUCKET}",
    subjects=(subjects.READMODELS_SUBJECTS,),
    # Nothing expires: purges wait also for a read model that has been away for long. Bounded by its keys and their
    # size, so that nothing of the server's disk has to be set aside.
    settings={"max_msgs_per_subject": 1, "max_msg_size": PLACE_BYTES_MAX, "max_msgs": READMODELS_MAX},
)
"""A key-value bucket (ADR-8) of how far read models have read. Old sagas that one of them has not read are kept."""

BUCKETS: Final = (REGISTRATIONS, READMODELS)
"""What the platform can be without for a while."""


def _facts(name: str, filters: tuple[str, ...]) -> Consumer:
    return Consumer(stream=EVENTS, name=name, filters=filters, ack_wait_seconds=COORDINATOR_ACK_WAIT_SECONDS)


def answers_consumer_name(participant: str) -> str:
    """`coordinator-answers-inventory` for what the participant `inventory` stores."""
    return ANSWERS_PREFIX + participant


def answers_consumer(participant: str) -> Consumer:
    """What coordinators hear of one participant: its answers, and what it says by itself.

    Each participant has one, so that the flood of one stands before nobody else's answers.
    """
    return _facts(answers_consumer_name(participant), (subjects.source_filter(participant),))


def answering_participants(consumers: Iterable[str]) -> set[str]:
    """The participants that coordinators hear, by the names of the consumers of EVENTS."""
    named = {each.removeprefix(ANSWERS_PREFIX) for each in consumers if each.startswith(ANSWERS_PREFIX)}
    return {name for name in named if may_be_participant(name)}


def former_answers_consumer(participants: Iterable[str]) -> Consumer:
    """The one consumer for the answers of all participants, for coordinators of the release that had it.

    A filter for each participant, since no filter says "neither a client nor an operator nor a coordinator".
    """
    return _facts(FORMER_ANSWERS, subjects.answers_filters(participants))


FACT_CONSUMERS: Final = (
    _facts(STARTS, subjects.BEGINNINGS_FILTERS),
    _facts(CLIENT_FACTS, subjects.CLIENT_FACTS_FILTERS),
    _facts(OPERATOR_FACTS, subjects.OPERATOR_FACTS_FILTERS),
    _facts(PEER_FACTS, subjects.PEER_FACTS_FILTERS),
)
"""What brings facts to coordinators, besides what participants store. One for each kind of writer and purpose, so that
a flood of one kind does not stand before the others: each has its own places in every coordinator, and all come to the
same handler."""


def fact_consumers(participants: Iterable[str]) -> tuple[Consumer, ...]:
    """All that bring facts to coordinators where these participants are set up."""
    return (*map(answers_consumer, sorted(set(participants))), *FACT_CONSUMERS)


PLATFORM_CONSUMERS: Final = (
    *FACT_CONSUMERS,
    Consumer(stream=SAGA, name=TIMERS, filters=(subjects.FIRED_FILTER,), ack_wait_seconds=COORDINATOR_ACK_WAIT_SECONDS),
    # Every start stays pending here until its saga has ended: the pending starts are the list of open sagas.
    Consumer(stream=EVENTS, name=SWEEPER, filters=(subjects.STARTS_FILTER,), ack_wait_seconds=60.0, ack_pending_max=-1),
)


EXPORTER_CONSUMER: Final = Consumer(
    stream=SAGA, name=EXPORTER, filters=(subjects.JOURNALS_FILTER,), ack_wait_seconds=EXPORTER_ACK_WAIT_SECONDS
)
"""What becomes of sagas, for their traces. Apart from those that the platform cannot be without."""


# --- what a client with a bound stores --------------------------------------------------------------------------------

BOUND_MAX: Final = 10_000
"""How many sagas of a type one client may have open at most where it has a bound: coordinators remember where they are,
some 300 bytes each."""

SIGNALS_WAITING_MAX: Final = 1_000
"""How many signals and wishes to cancel of such a client may wait until a coordinator has copied them."""

BOUNDED_STARTS: Final = "STARTS"
BOUNDED_SIGNALS: Final = "SIGNALS"

BOUNDED: Final = "bounded"
"""The consumer from which coordinators take what such a client has stored."""


class Bound(msgspec.Struct, frozen=True):
    """How many sagas of one type a client may have open.

    Raises:
        BadIdentity: the client or the type cannot be a token.
        DefinitionError: so many cannot be counted.
    """

    client: str
    saga_type: str
    most: int

    def __post_init__(self) -> None:
        identity.check_token(self.client, "client")
        identity.check_token(self.saga_type, "saga type")
        if not 0 < self.most <= BOUND_MAX:
            raise DefinitionError(
                f"client {self.client} cannot have a bound of {self.most} open sagas of type {self.saga_type}; give "
                f"one from 1 to {BOUND_MAX}."
            )

    @property
    def streams(self) -> tuple[Stream, Stream]:
        """The streams of that client's starts, one place for each open saga, and of what else it says of them.

        The first refuses a start when all places are taken. What is copied from the second is removed by the ack.
        """
        starts = subjects.starts_filter(self.saga_type, source=identity.CLIENT)
        others = (subjects.cancels_filter(self.saga_type), subjects.signals_filter(self.saga_type))
        return (
            self._stream(BOUNDED_STARTS, (starts,), {"max_msgs": self.most}),
            self._stream(BOUNDED_SIGNALS, others, {"max_msgs": SIGNALS_WAITING_MAX, "retention": "workqueue"}),
        )

    def _stream(self, kind: str, stored_at: tuple[str, ...], settings: dict[str, Any]) -> Stream:
        return Stream(
            name=bounded_stream_name(kind, self.client, self.saga_type),
            subjects=tuple(subjects.bounded_filter(each, self.client) for each in stored_at),
            settings={
                "max_msgs_per_subject": 1,
                "discard_new_per_subject": True,
                "max_msg_size": MESSAGE_BYTES_MAX,
                **settings,
            },
        )


def bounded_stream_name(kind: str, client: str, saga_type: str) -> str:
    """`STARTS=shop=order`. No token has an `=`, so that no two clients share a stream."""
    return f"{kind}={client}={saga_type}"


def parse_bounded_stream(name: str) -> tuple[str, str, str] | None:
    """The kind, the client and the saga type of a stream of `Bound.streams`; none if it is no such stream."""
    kind, _, rest = name.partition("=")
    client, _, saga_type = rest.partition("=")
    is_one = kind in (BOUNDED_STARTS, BOUNDED_SIGNALS) and identity.is_token(client) and identity.is_token(saga_type)
    return (kind, client, saga_type) if is_one else None


def bounded_consumer(stream: Stream) -> Consumer:
    """The consumer over a stream of `Bound.streams`."""
    return Consumer(
        stream=stream.name, name=BOUNDED, filters=stream.subjects, ack_wait_seconds=COORDINATOR_ACK_WAIT_SECONDS
    )


def is_of_platform(consumer: str) -> bool:
    """Whether a consumer of that name belongs to the platform, and `antiphon setup` alone creates it."""
    fixed = (*FORMER_CONSUMERS, BOUNDED, *(each.name for each in (*PLATFORM_CONSUMERS, EXPORTER_CONSUMER)))
    return consumer in fixed or consumer.startswith(ANSWERS_PREFIX)


def check_participant(name: str) -> str:
    """Return `name` if a participant may have it.

    Raises:
        BadIdentity: it cannot be a token, is a name of the platform, or its consumers would be another participant's.
    """
    identity.check_token(name, "participant")
    if name in identity.RESERVED or name in PLATFORM_USERS or is_of_platform(name):
        raise BadIdentity(f"{name!r} is a name of the platform; call the participant something else")
    for suffix in (
        participant_consumer_name("", "undo"),
        participant_consumer_name("", "close"),
        reactions_consumer_name(""),
    ):
        if name.endswith(suffix):
            raise BadIdentity(
                f"participant {name!r} would have the consumer that is for another one's work: no participant's name "
                f"may end in {suffix}; call it something else"
            )
    return name


def may_be_participant(name: str) -> bool:
    """Whether a participant may have that name."""
    try:
        check_participant(name)
    except BadIdentity:
        return False
    return True


def participant_consumer_name(participant: str, direction: subjects.Sending) -> str:
    """`inventory` for commands, `inventory-undo` for compensations, `inventory-close` for what operators close.

    Each has its own, so that compensations that keep failing never stand before healthy commands, and those that hang
    never before an operator's close. Workers of earlier releases pull no closes.
    """
    return participant if direction == "do" else f"{participant}-{direction}"


def participant_consumers(
    participant: str, ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS
) -> tuple[Consumer, Consumer, Consumer]:
    """The consumers over SAGA that one participant's workers share."""
    return (
        _participant_consumer(participant, "do", ack_wait_seconds),
        _participant_consumer(participant, "undo", ack_wait_seconds),
        _participant_consumer(participant, "close", ack_wait_seconds),
    )


def _participant_consumer(participant: str, direction: subjects.Sending, ack_wait_seconds: float) -> Consumer:
    return Consumer(
        stream=SAGA,
        name=participant_consumer_name(participant, direction),
        filters=(subjects.commands_filter(participant, direction),),
        ack_wait_seconds=ack_wait_seconds,
    )


class Listener(msgspec.Struct, frozen=True):
    """A participant by its name, and the filters of the events that it reacts to."""

    name: str
    hears: tuple[str, ...] = ()


def reactions_consumer_name(participant: str) -> str:
    """`inventory-on` for the events that a participant reacts to."""
    return f"{participant}-on"


def participant_consumers_of(participant: str) -> tuple[tuple[str, str], ...]:
    """What delivers work to a participant, as stream and consumer: commands, compensations, and events if it reacts to
    any. What a pause holds back; a close does no work, and is delivered to a paused participant as well."""
    return (
        (SAGA, participant_consumer_name(participant, "do")),
        (SAGA, participant_consumer_name(participant, "undo")),
        (EVENTS, reactions_consumer_name(participant)),
    )


def reactions_consumer(listener: Listener, ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS) -> Consumer:
    """The consumer over EVENTS that delivers what a participant reacts to.

    It begins with what is stored from then on: a reaction that is added to a running platform must not charge for all
    orders there ever were.
    """
    return Consumer(
        stream=EVENTS,
        name=reactions_consumer_name(listener.name),
        filters=subjects.disjoint(listener.hears),
        ack_wait_seconds=ack_wait_seconds,
        deliver="new",
    )
