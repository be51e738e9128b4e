"""Every subject, built and parsed here and nowhere else.

All subjects of one saga begin, after their first token, with the saga's path `<k>.<type>.<id>`, so that one
filter reads the whole of it and one partition holds it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, get_args

import msgspec

from .errors import Forged
from .identity import (
    CLIENT,
    COORDINATOR,
    LOCK,
    NOBODY,
    NOT_SAGAS,
    OPERATOR,
    PARKED_MESSAGE,
    PARTICIPANT,
    RESERVED,
    SAGA_TYPE,
    SagaKey,
    dashed,
    find_key,
    is_token,
)

Direction = Literal["do", "undo"]
"""Which way an attempt at a step goes."""
Sending = Literal["do", "undo", "close"]
"""What a command's subject says: an attempt in one direction, or the closing of a step that an operator resolves."""
Verb = Literal["retry", "edit", "resolve", "cancel", "pause", "resume"]
"""What an operator may ask for."""
VERBS: Final = frozenset(get_args(Verb))
FORGET: Final = "forget"
"""What an operator may ask for with a saga that has ended."""
MessageVerb = Literal["dismiss", "resend"]
"""What an operator may ask for with a message in PARKED."""
MESSAGE_VERBS: Final = frozenset(get_args(MessageVerb))

# --- SAGA: what coordinators write ------------------------------------------------------------------------------------


def command_subject(saga: SagaKey, participant: str, step: str, direction: Sending, attempt: int) -> str:
    """Where a command is stored; the message there is the journal entry as well.

    Args:
        attempt: counts from 1 in each direction; of a close, which of this step it is.
    """
    return f"saga.{saga.path}.c.cmd.{participant}.{step}.{direction}.{attempt}"


def record_subject(saga: SagaKey, name: str) -> str:
    """Where an accepted fact that sends nothing is recorded. `name` is unique within the journal."""
    return f"saga.{saga.path}.c.rec.{name}"


def end_subject(saga: SagaKey) -> str:
    """Where the outcome is stored; nothing is written under `c.` after it."""
    return f"saga.{saga.path}.c.end"


def journal_filter(saga: SagaKey) -> str:
    """All entries of one journal. Also the one guard string that every write under it carries."""
    return f"saga.{saga.path}.c.>"


def whole_saga_filter(saga: SagaKey) -> str:
    """All that SAGA holds of one saga: its journal, its timer, and what that has fired."""
    return f"saga.{saga.path}.>"


def state_subject(key: SagaKey) -> str:
    """Where the state of a lock, or of a saga type or participant that stands still, is stored: each time in the place
    of the one before."""
    return f"saga.{key.path}.c.state"


def states_filter(family: str) -> str:
    """The states of all locks, saga types or participants."""
    return f"saga.*.{family}.*.c.state"


def records_filter(saga: SagaKey) -> str:
    """The entries of one journal that send no command."""
    return f"saga.{saga.path}.c.rec.*"


def closes_filter(saga: SagaKey) -> str:
    """The closes of one saga's steps."""
    return f"saga.{saga.path}.c.cmd.*.*.close.*"


def timer_subject(saga: SagaKey) -> str:
    """The saga's one schedule."""
    return f"saga.{saga.path}.t.next"


def fired_subject(saga: SagaKey) -> str:
    """Where the schedule delivers when it is due."""
    return f"saga.{saga.path}.f.next"


SAGA_FILTER: Final = "saga.>"


def saga_partition_filter(partition: int) -> str:
    """All that SAGA holds of the sagas of one partition."""
    return f"saga.{partition}.>"


FIRED_FILTER: Final = "saga.*.*.*.f.next"


def ends_filter(saga_type: str = "*", saga_id: str = "*") -> str:
    """The outcomes of all sagas, or of those of one type or with one id."""
    return f"saga.*.{saga_type}.{saga_id}.c.end"


ENDS_FILTER: Final = ends_filter()
JOURNALS_FILTER: Final = "saga.*.*.*.c.>"


def commands_filter(participant: str, direction: Sending) -> str:
    """The commands of one participant in one direction: what its consumer delivers."""
    return f"saga.*.*.*.c.cmd.{participant}.*.{direction}.*"


# What the messages of a definition looked like. Three dots, so that no filter of sagas matches it.


def schemas_subject(definition: str, digest: str) -> str:
    """Where the schemas of a definition's messages are kept.

    Args:
        definition: its label, `<name>.v<version>.<shape hash>`.
        digest: the schemas' own, as journals name it.
    """
    return f"saga.schemas.{dashed(definition)}.{digest}"


def schemas_filter(definition: str) -> str:
    """All schemas that the messages of one definition ever had."""
    return schemas_subject(definition, "*")


SCHEMAS_FILTER: Final = "saga.schemas.>"


def parse_schemas(subject: str) -> str:
    """The digest in the subject of kept schemas."""
    return subject.rpartition(".")[2]


class CommandAddress(msgspec.Struct, frozen=True, gc=False):
    """What a command's subject says."""

    saga: SagaKey
    participant: str
    step: str
    direction: Sending
    attempt: int
    """Of a close, its number."""

    @property
    def is_close(self) -> bool:
        """Whether it closes a step, and is no attempt at it."""
        return self.direction == "close"

    @property
    def way(self) -> Direction:
        """The direction of an attempt; a close is none.

        Raises:
            ValueError: it is a close.
        """
        if self.direction == "close":
            raise ValueError("a close is no attempt")
        return self.direction


def parse_command(subject: str) -> CommandAddress:
    """Read a command's subject.

    Raises:
        Forged: it is not one, or its partition is not the saga's.
    """
    tokens = subject.split(".")
    if len(tokens) != 10 or tokens[0] != "saga" or tokens[4] != "c" or tokens[5] != "cmd":
        raise Forged("not a command's subject", subject=subject)
    direction: Sending
    match tokens[8]:
        case "do":
            direction = "do"
        case "undo":
            direction = "undo"
        case "close":
            direction = "close"
        case _:
            raise Forged("a command is either do, undo or close", subject=subject)
    return CommandAddress(_saga(tokens, subject), tokens[6], tokens[7], direction, _number(tokens[9], subject))


class EntryAddress(msgspec.Struct, frozen=True, gc=False):
    """What the subject of a journal entry says: a command, a record, or the end."""

    saga: SagaKey
    kind: Literal["cmd", "rec", "end"]
    command: CommandAddress | None = None


def parse_entry(subject: str) -> EntryAddress:
    """Read the subject of a journal entry.

    Raises:
        Forged: it is not one.
    """
    tokens = subject.split(".")
    match tokens[4:]:
        case ["c", "cmd", *_]:
            command = parse_command(subject)
            return EntryAddress(command.saga, "cmd", command)
        case ["c", "rec", _]:
            return EntryAddress(_saga(tokens, subject), "rec")
        case ["c", "end"]:
            return EntryAddress(_saga(tokens, subject), "end")
        case _:
            raise Forged("not a journal entry's subject", subject=subject)


def is_of_a_saga(subject: str) -> bool:
    """Whether a subject of SAGA is an entry of a saga's journal; states are not, nor are the journals of locks, which
    begin with a record.

    For whoever reads all journals: looked at token by token, and the partition is not checked.
    """
    tokens = subject.split(".", 6)
    return len(tokens) > 5 and tokens[4] == "c" and tokens[5] in ("cmd", "rec", "end") and tokens[2] not in NOT_SAGAS


def is_end(subject: str) -> bool:
    """Whether a subject of SAGA is that of an outcome."""
    return subject.endswith(".c.end")


def parse_state(subject: str) -> SagaKey:
    """The lock, saga type or participant whose state stands at a subject.

    Raises:
        Forged: it is no state's subject.
    """
    tokens = subject.split(".")
    if len(tokens) != 6 or tokens[0] != "saga" or tokens[4:] != ["c", "state"]:
        raise Forged("not a state's subject", subject=subject)
    return _saga(tokens, subject)


def parse_fired(subject: str) -> SagaKey:
    """Read the subject of a fired timer.

    Raises:
        Forged: it is not one.
    """
    tokens = subject.split(".")
    if len(tokens) != 6 or tokens[0] != "saga" or tokens[4:] != ["f", "next"]:
        raise Forged("not a fired timer's subject", subject=subject)
    return _saga(tokens, subject)


# --- EVENTS: what everybody else writes, and coordinators to each other -----------------------------------------------


def event_subject(path: str, source: str, event: str, step: str, attempt: int | str) -> str:
    """Where a participant stores an event; `path` is the saga's, taken over from the command's subject."""
    return f"evt.{path}.{source}.{event}.{step}.{attempt}"


BY_ITSELF: Final = "on-"
"""What the step token of an event begins with that no command asked for; behind it stands what it is a reaction to."""


def is_by_itself(step: str) -> bool:
    """Whether a participant emitted an event by itself, by the step that its subject names."""
    return step.startswith(BY_ITSELF)


def start_subject(saga: SagaKey, source: str = CLIENT) -> str:
    """Where a client, or the coordinator of a parent saga, stores the start of a saga; the first write wins."""
    return f"evt.{saga.path}.{source}.start"


def cancel_subject(saga: SagaKey, source: str = CLIENT) -> str:
    """Where a client, or the coordinator of a parent saga, stores the wish to cancel; the first write wins."""
    return f"evt.{saga.path}.{source}.cancel"


def signal_subject(saga: SagaKey, signal: str) -> str:
    """Where a client stores a signal; the first write wins, so that a signal means one thing."""
    return f"evt.{saga.path}.client.signal.{signal}.1"


def verb_subject(saga: SagaKey, user: str, verb: str, key: str) -> str:
    """Where an operator stores what is to be done with a saga; `key` tells one request from the next."""
    return f"evt.{saga.path}.operator.{user}.{verb}.{key}"


def release_subject(saga: SagaKey) -> str:
    """Where a coordinator lets a child go that has done all its steps: its parent has ended."""
    return f"evt.{saga.path}.coordinator.let-go"


def child_subject(parent: SagaKey, outcome: str, step: str, attempt: int) -> str:
    """Where a coordinator tells a parent what became of the child of one of its steps."""
    return f"evt.{parent.path}.coordinator.child-{outcome}.{step}.{attempt}"


def ask_subject(lock: SagaKey, saga: SagaKey) -> str:
    """Where a coordinator asks for a lock on behalf of a saga."""
    return f"evt.{lock.path}.coordinator.ask.{saga.type}.{saga.id}"


def free_subject(lock: SagaKey, saga: SagaKey) -> str:
    """Where a coordinator says that a saga has ended and holds the lock no more."""
    return f"evt.{lock.path}.coordinator.free.{saga.type}.{saga.id}"


def granted_subject(saga: SagaKey, lock: SagaKey) -> str:
    """Where a coordinator tells a saga that it holds a lock."""
    return f"evt.{saga.path}.coordinator.granted.lock.{lock.id}"


def events_filter(saga: SagaKey, source: str) -> str:
    """All that one source has stored for one saga."""
    return f"evt.{saga.path}.{source}.>"


def event_filter(saga: SagaKey, owner: str, event: str) -> str:
    """Where an event stands that a participant has emitted by itself in one saga, whatever it was a reaction to."""
    return f"evt.{saga.path}.{owner}.{event}.*.1"


def is_filter(subject: str) -> bool:
    """Whether a subject has a token that stands for any."""
    return "*" in subject or ">" in subject


def in_saga(subject: str) -> str:
    """What a subject of EVENTS says behind its saga, in sagas of whatever id."""
    return subject.split(".", 4)[4]


def of_saga(saga: SagaKey, rests: Iterable[str]) -> list[str]:
    """The subjects of EVENTS for one saga, by what `in_saga` says of each."""
    path = f"evt.{saga.path}."
    return [path + rest for rest in rests]


def is_fact_of(saga: SagaKey, subject: str) -> bool:
    """Whether a subject of EVENTS is one saga's."""
    return subject.startswith(f"evt.{saga.path}.")


def start_subjects(saga: SagaKey) -> list[str]:
    """Where the start of a saga is stored, whoever started it."""
    return [start_subject(saga, source) for source in (CLIENT, COORDINATOR)]


def saga_events_filter(saga: SagaKey) -> str:
    """All that EVENTS holds of one saga, whoever wrote it; of a saga to which many subjects were written, too many for
    one read."""
    return f"evt.{saga.path}.>"


def source_filter(source: str) -> str:
    """All that one source has stored, of all sagas."""
    return f"evt.*.*.*.{source}.>"


def starts_filter(saga_type: str = "*", saga_id: str = "*", source: str = "*") -> str:
    """The starts of all sagas, or of those of one type, with one id, or started by clients or by coordinators."""
    return f"evt.*.{saga_type}.{saga_id}.{source}.start"


def is_start(subject: str) -> bool:
    """Whether a subject of EVENTS may be a start's: what `parse_fact` need not look at otherwise."""
    return subject.endswith(".start")


def message_verbs_filter(number: str = "*") -> str:
    """What operators have asked for with a message, or all messages, in PARKED."""
    return f"evt.*.{PARKED_MESSAGE}.{number}.{OPERATOR}.*.*.*"


# What coordinators hear, by who wrote it and what for. Together the filters match every fact that `parse_fact` knows,
# each once, but for events of participants that nobody set up.
BEGINNINGS_FILTERS: Final = (starts_filter(source=CLIENT), starts_filter(source=COORDINATOR))
CLIENT_FACTS_FILTERS: Final = ("evt.*.*.*.client.cancel", "evt.*.*.*.client.*.>")
OPERATOR_FACTS_FILTERS: Final = (source_filter(OPERATOR),)
PEER_FACTS_FILTERS: Final = (
    "evt.*.*.*.coordinator.cancel",
    "evt.*.*.*.coordinator.let-go",
    "evt.*.*.*.coordinator.*.>",
)


def answers_filters(participants: Iterable[str]) -> tuple[str, ...]:
    """All that the given participants store. With none, what nobody stores: a consumer without a filter gets all."""
    return tuple(source_filter(name) for name in sorted(set(participants))) or (source_filter(NOBODY),)


def heard_participants(filters: Iterable[str]) -> set[str]:
    """The participants whose events are delivered by filters of `answers_filters`."""
    sources = {tokens[4] for each in filters if len(tokens := each.split(".")) == 6 and tokens[5] == ">"}
    return {source for source in sources if is_token(source) and source not in RESERVED}


def cancels_filter(saga_type: str = "*") -> str:
    """Clients' wishes to cancel sagas of all types, or of one."""
    return f"evt.*.{saga_type}.*.client.cancel"


def signals_filter(saga_type: str = "*", signal: str = "*") -> str:
    """The signals to sagas of all types or of one, for every step or for one."""
    return f"evt.*.{saga_type}.*.client.signal.{signal}.1"


STARTS_FILTER: Final = starts_filter()
CLIENT_STARTS_FILTER: Final = starts_filter(source=CLIENT)
EVENTS_FILTER: Final = "evt.>"


def event_partition_filter(partition: int) -> str:
    """All that EVENTS holds of the sagas of one partition."""
    return f"evt.{partition}.>"


REACTION_STEP_CHARS: Final = len(BY_ITSELF) + 9
"""What may stand around an event's token in the step of a reaction to it."""


def reaction_step(event: str, step: str) -> str:
    """The step of a reaction: what was heard, and where a participant said it, which of its messages in this saga.

    Args:
        event: the token of the event that was heard.
        step: the step in the subject at which it was heard; empty for a start or a signal, which come once.
    """
    heard = BY_ITSELF + event
    return f"{heard}-{hashlib.sha256(step.encode()).hexdigest()[:8]}" if step else heard


def heard_filter(saga_type: str, owner: str, event: str, is_signal: bool = False) -> str:
    """The subjects at which an event is heard. The subject of a start does not say which event it holds.

    Args:
        saga_type: in which sagas; empty for those of every type.
        owner: the event's.
        event: its token.
        is_signal: whether a client's event is heard as a signal, and not as the start of its saga.
    """
    sagas = f"evt.*.{saga_type or '*'}.*"
    if owner != CLIENT:
        return f"{sagas}.{owner}.{event}.>"
    return f"{sagas}.client.signal.{event}.1" if is_signal else f"{sagas}.client.start"


def disjoint(filters: Iterable[str]) -> tuple[str, ...]:
    """The same subjects in filters of which none covers another: a consumer takes no others."""
    wanted = sorted(set(filters))
    return tuple(each for each in wanted if not any(other != each and _covers(other, each) for other in wanted))


def _covers(wide: str, narrow: str) -> bool:
    """Whether every subject that one filter of `heard_filter` matches is matched by another one."""
    ours, theirs = wide.split("."), narrow.split(".")
    return len(ours) == len(theirs) and all(one in ("*", other) for one, other in zip(ours, theirs, strict=True))


class FactAddress(msgspec.Struct, frozen=True, gc=False):
    """What the subject of a message in EVENTS says; `step` is empty where no step is named.

    `key` is the rest: who asks for a lock, which lock was granted, an operator's name and the key of the request.
    """

    saga: SagaKey
    source: str
    event: str
    step: str = ""
    attempt: int = 0
    key: tuple[str, str] = ("", "")

    @property
    def is_start(self) -> bool:
        """Whether it is the start of a saga. A participant may call an event of its own `start`, too."""
        return self.event == "start" and self.source in (CLIENT, COORDINATOR)

    @property
    def is_cancel(self) -> bool:
        """Whether a client, or a parent's coordinator, asks to cancel."""
        return self.event == "cancel" and self.source in (CLIENT, COORDINATOR)

    @property
    def is_signal(self) -> bool:
        """Whether it is a signal of a client."""
        return self.event == "signal" and self.source == CLIENT

    @property
    def token(self) -> str:
        """The token of the event that a participant, or a client with a signal, stores there; empty where the subject
        says none, as that of a start."""
        if self.is_signal:
            return self.step
        return "" if self.source in RESERVED else self.event


def parse_fact(subject: str) -> FactAddress:
    """Read a subject of EVENTS.

    Raises:
        Forged: it is none that the protocol knows, its partition is not the saga's, or it is about a lock, a saga type
            or a participant and from somebody who has no say there.
    """
    tokens = subject.split(".")
    if len(tokens) > 4 and tokens[2] in NOT_SAGAS:
        return _parse_fact_of_none(tokens, subject)
    if len(tokens) == 8 and tokens[0] == "evt" and tokens[4] not in RESERVED:
        if not _are_plain(tokens[4], tokens[5], tokens[6]):
            raise Forged("a part of it is not a token", subject=subject)
        return FactAddress(_saga(tokens, subject), tokens[4], tokens[5], tokens[6], _number(tokens[7], subject))
    match tokens[4:] if tokens[0] == "evt" else ():
        case [("client" | "coordinator") as source, ("start" | "cancel") as event]:
            return FactAddress(_saga(tokens, subject), source, event)
        case ["coordinator", "let-go"]:
            return FactAddress(_saga(tokens, subject), "coordinator", "let-go")
        case ["client", "signal", name, "1"]:
            return FactAddress(_saga(tokens, subject), "client", "signal", name)
        case ["operator", user, verb, key] if verb in VERBS or verb == FORGET:
            _require_tokens((user, key), subject)
            return FactAddress(_saga(tokens, subject), "operator", verb, key=(user, key))
        case ["coordinator", ("child-completed" | "child-compensated") as event, step, attempt]:
            return FactAddress(_saga(tokens, subject), "coordinator", event, step, _number(attempt, subject))
        case ["coordinator", "granted", first, second]:
            _require_tokens((first, second), subject)
            return FactAddress(_saga(tokens, subject), "coordinator", "granted", key=(first, second))
        case _:
            raise Forged(NO_SUBJECT, subject=subject)


NO_SUBJECT: Final = "no message of the protocol has this subject"
SAY: Final[dict[str, str]] = {
    LOCK: "a coordinator",
    SAGA_TYPE: "an operator",
    PARTICIPANT: "an operator",
    PARKED_MESSAGE: "an operator",
}
"""Who alone has a say about what is no saga."""
OPERATORS_VERBS: Final = {SAGA_TYPE: VERBS, PARTICIPANT: VERBS, PARKED_MESSAGE: MESSAGE_VERBS}
"""What an operator may say there."""


def _parse_fact_of_none(tokens: list[str], subject: str) -> FactAddress:
    """Read the subject of a message about a lock, a saga type, a participant or a message in PARKED."""
    family = tokens[2]
    match tokens[4:] if tokens[0] == "evt" else ():
        case ["coordinator", ("ask" | "free") as event, first, second] if family == LOCK:
            _require_tokens((first, second), subject)
            return FactAddress(_saga(tokens, subject), "coordinator", event, key=(first, second))
        case ["operator", user, verb, key] if verb in OPERATORS_VERBS.get(family, ()):
            _require_tokens((user, key), subject)
            return FactAddress(_saga(tokens, subject), "operator", verb, key=(user, key))
        case _:
            raise Forged(f"{NO_SUBJECT}: about a {family} only {SAY[family]} says anything", subject=subject)


_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


@lru_cache(maxsize=4096)
def _are_plain(source: str, event: str, step: str) -> bool:
    """Whether parts of a subject have the characters of tokens, remembered: there are few different ones. A name with
    what is added to it may be longer than a token."""
    return all(_PLAIN.fullmatch(each) is not None for each in (source, event, step))


def _require_tokens(found: Iterable[str], subject: str) -> None:
    if not all(is_token(token) for token in found):
        raise Forged("a part of it is not a token", subject=subject)


def _saga(tokens: list[str], subject: str) -> SagaKey:
    partition, saga_type, saga_id = tokens[1:4]
    key = find_key(saga_type, saga_id)
    if key is None:
        raise Forged("the saga's type or id is not a token", subject=subject)
    if partition != key.path[: -len(saga_type) - len(saga_id) - 2]:
        raise Forged(f"the partition of {saga_type}/{saga_id} is {key.partition}", subject=subject)
    return key


def _number(token: str, subject: str) -> int:
    number = _FIRST_NUMBERS.get(token)
    if number is not None:
        return number
    if not (token.isascii() and token.isdigit() and len(token) <= 9 and (token[0] != "0")):
        raise Forged(f"{token[:20]!r} is not an attempt", subject=subject)
    return int(token)


_FIRST_NUMBERS: Final = {str(number): number for number in range(1, 20)}
"""Nearly all attempts there are."""


# --- what a client with a bound stores, until it stands in EVENTS -----------------------------------------------------


def bounded_filter(stored_at: str, client: str) -> str:
    """Where a client with a bound stores what others store at a subject of EVENTS, or at a filter of theirs."""
    tokens = stored_at.split(".")
    return ".".join(("from", client, *tokens[1:4], *tokens[5:]))


BOUNDED_FILTER: Final = "from.>"


class BoundedAddress(msgspec.Struct, frozen=True):
    """What the subject of a message from a client with a bound says."""

    client: str
    saga: SagaKey
    stored_at: str
    """Where EVENTS holds it once a coordinator has copied it."""
    is_start: bool


def parse_bounded(subject: str) -> BoundedAddress:
    """Read the subject of a message from a client with a bound.

    Raises:
        Forged: it is none, or what a client cannot say.
    """
    tokens = subject.split(".")
    if len(tokens) < 6 or tokens[0] != "from":
        raise Forged("not a subject of a client with a bound", subject=subject)
    stored_at = ".".join(("evt", *tokens[2:5], CLIENT, *tokens[5:]))
    fact = parse_fact(stored_at)
    return BoundedAddress(tokens[1], fact.saga, stored_at, fact.is_start)


# --- PARKED, and requests ---------------------------------------------------------------------------------------------


ParkedKind = Literal["forged", "undecodable", "orphan", "unhandled", "fault", "saga"]
"""Why: it contradicts its subject; its bytes are wrong; no saga began; nobody here knows it; handling it raises. `saga`
is an index entry of a saga whose journal says that a person is needed."""
PARKED_KINDS: Final[dict[str, ParkedKind]] = {kind: kind for kind in get_args(ParkedKind)}

UNKNOWN: Final = "unknown"
"""The source of a message whose subject names none."""
MORE: Final = "-more"
"""What a kind ends with where it is said how many messages of that kind there was no room for."""
WITHDRAWN_KIND: Final = "withdrawn"


def parked_subject(kind: str, noticed_by: str, source: str) -> str:
    """Where a message that waits for a person is indexed: by the kind of reason, who noticed, and who wrote it."""
    return f"parked.{kind}.{noticed_by}.{source}"


def old_parked_subject(kind: str, noticed_by: str) -> str:
    """Where processes of earlier releases index a message; it does not say who wrote it."""
    return f"parked.{kind}.{noticed_by}"


def withdrawn_subject(noticed_by: str, stream: str, sequence: int) -> str:
    """Where a message is taken back that the same participant parked: a subject for each, so that there is room for it
    however many were parked."""
    return f"parked.{WITHDRAWN_KIND}.{noticed_by}.{stream}-{sequence}"


def more_subject(parked: str) -> str:
    """Where it is said how many messages there was no room for at a subject of `parked_subject`; that is said by whom
    it names, too."""
    _, kind, noticed_by, source = parked.split(".")
    return parked_subject(f"{kind}{MORE}", noticed_by, source)


def source_in(subject: str) -> str:
    """Who wrote a message of SAGA or EVENTS, by its subject."""
    if subject.startswith("saga."):
        return COORDINATOR
    source = saga_source(subject)
    return source if is_token(source) else UNKNOWN


class ParkedAddress(msgspec.Struct, frozen=True, gc=False):
    """What the subject of a message in PARKED says. Rights cover it, and nothing in the message's body is as certain.

    `saga` is the saga that an index entry is about; `source` is empty where an earlier release wrote it.
    """

    kind: ParkedKind
    noticed_by: str
    source: str = ""
    saga: SagaKey | None = None
    form: Literal["message", "more", "withdrawn"] = "message"


def parse_parked(subject: str) -> ParkedAddress:
    """Read a subject of PARKED.

    Raises:
        Forged: it is none that the protocol knows.
    """
    tokens = subject.split(".")
    match tokens:
        case ["parked", "saga", _, _, _]:
            return ParkedAddress("saga", COORDINATOR, COORDINATOR, _saga(tokens[1:], subject))
        case ["parked", kind, noticed_by, *rest] if len(rest) <= 1:
            _require_tokens((noticed_by, *rest), subject)
            source = rest[0] if rest else ""
            if kind == WITHDRAWN_KIND and source:
                return ParkedAddress("fault", noticed_by, source, form="withdrawn")
            found = PARKED_KINDS.get(kind.removesuffix(MORE))
            if found is not None and found != "saga":
                return ParkedAddress(found, noticed_by, source, form="more" if kind.endswith(MORE) else "message")
        case _:
            pass
    raise Forged("no message of PARKED has this subject", subject=subject)


def parked_saga_subject(saga: SagaKey) -> str:
    """Where a saga that waits for a person is indexed."""
    return f"parked.saga.{saga.path}"


def status_subject(saga: SagaKey) -> str:
    """Where clients ask the coordinators how a saga stands."""
    return f"antiphon.status.{saga.type}.{saga.id}"


def announce_subject(saga_type: str) -> str:
    """Where coordinators tell each other that sagas of a type stand still, or go on."""
    return f"antiphon.changed.{saga_type}"


def same_subject(saga: SagaKey, signal: str = "") -> str:
    """Where clients ask the coordinators whether what is stored is what they wanted to store, or what may come of it.

    Args:
        saga: whose start or signal it is.
        signal: the step that waits for the signal; empty for the start.
    """
    return f"antiphon.same.{saga.type}.{saga.id}.{f'signal.{signal}' if signal else 'start'}"


def same_cancel_subject(saga: SagaKey) -> str:
    """The same of a wish to cancel."""
    return f"antiphon.same.{saga.type}.{saga.id}.cancel"


ANNOUNCE_FILTER: Final = announce_subject("*")
STATUS_FILTER: Final = "antiphon.status.*.*"
SAME_FILTER: Final = "antiphon.same.>"
PARKED_FILTER: Final = "parked.>"
PARKED_SAGAS_FILTER: Final = "parked.saga.>"


def status_filter(saga_type: str) -> str:
    """The status requests about sagas of one type."""
    return f"antiphon.status.{saga_type}.*"


def same_filter(saga_type: str) -> str:
    """The questions whether starts of, signals to and cancels of sagas of one type are the same."""
    return f"antiphon.same.{saga_type}.>"


def same_starts_filter(saga_type: str = "*") -> str:
    """Those about starts."""
    return f"antiphon.same.{saga_type}.*.start"


def same_signals_filter(saga_type: str = "*", signal: str = "*") -> str:
    """Those about signals, for every step or for one."""
    return f"antiphon.same.{saga_type}.*.signal.{signal}"


def same_cancels_filter(saga_type: str = "*") -> str:
    """Those about wishes to cancel."""
    return f"antiphon.same.{saga_type}.*.cancel"


def status_queue(definitions: Iterable[str]) -> str:
    """The queue in which coordinators share status requests: one for all that have the same definitions of a saga type.

    Of coordinators that differ, each kind gets every request, so that whoever can tell does.

    Args:
        definitions: what tells the kinds apart.
    """
    kind = hashlib.sha256("\n".join(sorted(definitions)).encode()).hexdigest()[:12]
    return f"coordinators-{kind}"


def is_inbox(subject: str) -> bool:
    """Whether an answer may be sent to a subject that whoever asks has chosen: an inbox, in capitals or not, or what
    stands for one of another account."""
    return subject.lower().startswith(("_inbox.", "_inbox_", "_r_."))


def inbox_owner(inbox: str) -> str:
    """Whose an inbox is, as far as its subject says: a user's, by whose name ours begin; else one connection's."""
    first, _, rest = inbox.partition(".")
    return _named(rest.partition(".")[0] if first == "_INBOX" else first.removeprefix("_INBOX_"))


@lru_cache(maxsize=1024)
def _named(name: str) -> str:
    return name if is_token(name) else UNKNOWN


def parse_announcement(subject: str) -> str:
    """The saga type that an announcement is about."""
    return subject.rpartition(".")[2]


def parse_status(subject: str) -> SagaKey:
    """Read the subject of a status request.

    Raises:
        BadIdentity: type or id are no tokens.
        Forged: it is no status request.
    """
    tokens = subject.split(".")
    if len(tokens) != 4:
        raise Forged("not a status request", subject=subject)
    return SagaKey.of(tokens[2], tokens[3])


class SameAddress(msgspec.Struct, frozen=True):
    """What a question whether something is the same is about: a start, a wish to cancel, or the signal of a step."""

    saga: SagaKey
    what: Literal["start", "cancel", "signal"]
    signal: str = ""

    @property
    def stored_at(self) -> str:
        """Where EVENTS holds what is asked about."""
        match self.what:
            case "start":
                return start_subject(self.saga)
            case "cancel":
                return cancel_subject(self.saga)
            case "signal":
                return signal_subject(self.saga, self.signal)


def parse_same(subject: str) -> SameAddress:
    """Read the subject of a question whether what is stored is the same.

    Raises:
        BadIdentity: type or id are no tokens.
        Forged: it is no such question.
    """
    tokens = subject.split(".")
    match tokens:
        case ["antiphon", "same", saga_type, saga_id, ("start" | "cancel") as what]:
            return SameAddress(SagaKey.of(saga_type, saga_id), what)
        case ["antiphon", "same", saga_type, saga_id, "signal", signal]:
            _require_tokens((signal,), subject)
            return SameAddress(SagaKey.of(saga_type, saga_id), "signal", signal)
        case _:
            raise Forged("not a question whether something is the same", subject=subject)


# --- what runs --------------------------------------------------------------------------------------------------------

REGISTRATIONS_BUCKET: Final = "ANTIPHON_PARTICIPANTS"
"""The key-value bucket in which processes say what they do; its keys are `<name>.<instance>`."""


def registration_subject(name: str, instance: str) -> str:
    """Where one process of a participant, or a coordinator, says what it does."""
    return f"$KV.{REGISTRATIONS_BUCKET}.{name}.{instance}"


REGISTRATIONS_FILTER: Final = registration_subject("*", "*")
REGISTRATIONS_SUBJECTS: Final = f"$KV.{REGISTRATIONS_BUCKET}.>"


def parse_registration(subject: str) -> tuple[str, str]:
    """The name and the instance whose registration stands at a subject.

    Raises:
        Forged: it is no subject of a registration.
    """
    tokens = subject.split(".")
    if len(tokens) != 4 or tokens[:2] != ["$KV", REGISTRATIONS_BUCKET]:
        raise Forged("no registration has this subject", subject=subject)
    _require_tokens((tokens[2], tokens[3]), subject)
    return tokens[2], tokens[3]


# --- how far read models have read ------------------------------------------------------------------------------------

READMODELS_BUCKET: Final = "ANTIPHON_READMODELS"
"""The key-value bucket in which read models say how far they have read; its keys are their names."""


def readmodel_subject(name: str) -> str:
    """Where one read model says how far it has read."""
    return f"$KV.{READMODELS_BUCKET}.{name}"


READMODELS_FILTER: Final = readmodel_subject("*")
READMODELS_SUBJECTS: Final = f"$KV.{READMODELS_BUCKET}.>"


def parse_readmodel(subject: str) -> str:
    """The name of the read model whose place stands at a subject.

    Raises:
        Forged: it is no subject of a read model.
    """
    tokens = subject.split(".")
    if len(tokens) != 3 or tokens[:2] != ["$KV", READMODELS_BUCKET]:
        raise Forged("no read model has this subject", subject=subject)
    _require_tokens((tokens[2],), subject)
    return tokens[2]


# --- any subject ------------------------------------------------------------------------------------------------------


def matches(subject_filter: str, subject: str) -> bool:
    """Whether a subject falls under a filter, where `*` is one token and `>` all that follow."""
    if "*" not in subject_filter:  # most reads are of one saga
        return subject.startswith(subject_filter[:-1]) if subject_filter.endswith(">") else subject == subject_filter
    wanted, tokens = subject_filter.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(tokens) == len(wanted) and all(w in ("*", token) for w, token in zip(wanted, tokens, strict=True))


def is_of_sagas(subject: str) -> bool:
    """Whether a subject begins as those of SAGA and EVENTS do."""
    tokens = subject.split(".", 4)
    return len(tokens) == 5 and tokens[0] in ("saga", "evt")


def partition_in(subject: str) -> int | None:
    """The partition in a subject of SAGA or EVENTS, or in a filter of them; None where it names none."""
    tokens = subject.split(".", 2)
    token = tokens[1] if len(tokens) == 3 else ""
    return int(token) if token.isascii() and token.isdigit() else None


def saga_in(subject: str) -> SagaKey | None:
    """The saga of a subject of SAGA or EVENTS, whatever else it says; none if it names none."""
    tokens = subject.split(".", 4)
    return find_key(tokens[2], tokens[3]) if is_of_sagas(subject) else None


def numbered(subject_filter: str) -> str:
    """A filter with `$1`, `$2` in the place of each `*`, as mappings of the server have it."""
    numbers = itertools.count(1)
    return ".".join(f"${next(numbers)}" if token == "*" else token for token in subject_filter.split("."))


def saga_source(subject: str) -> str:
    """Who wrote a message of EVENTS, by its subject; empty if that says nobody."""
    tokens = subject.split(".", 5)
    return tokens[4] if len(tokens) > 4 and tokens[0] == "evt" else ""


def is_command(subject: str) -> bool:
    """Whether a subject begins as a command's does."""
    return subject.startswith("saga.") and subject.split(".", 6)[4:6] == ["c", "cmd"]


class Meant(msgspec.Struct, frozen=True, gc=False):
    """What a person means with a subject or a filter: a start, an event by its token, or a command by its step."""

    saga_type: str
    """Empty where the filter says none."""
    what: Literal["start", "event", "command"]
    event: str = ""
    step: str = ""
    direction: str = ""


def parse_meant(asked: str) -> Meant | None:
    """What is meant with a subject of EVENTS or of a command, in which tokens may be `*`; none if it is neither."""
    tokens = asked.split(".")
    saga_type = tokens[2] if len(tokens) > 4 and tokens[2] != "*" else ""
    match tokens:
        case ["evt", _, _, _, _, "start"]:
            return Meant(saga_type, "start")
        case ["evt", _, _, _, "client", "signal", name, *_] | ["evt", _, _, _, _, name, *_]:
            return Meant(saga_type, "event", event=name)
        case ["saga", _, _, _, "c", "cmd", _, step, direction, *_]:
            return Meant(saga_type, "command", step=step, direction=direction)
        case _:
            return None
