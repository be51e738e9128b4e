"""The payloads that Antiphon itself writes: a wish to cancel, what a journal records, how a saga stands, what waits for
a person."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from .bounds import REASON_CHARS_MAX, Element, Elements, Number, Sequence, Tally
from .envelope import unpack_raw
from .errors import BadIdentity, Forged, Undecodable, Unusable
from .identity import SagaKey, Token
from .subjects import ParkedKind, parked_saga_subject, parked_subject, parse_parked, source_in, withdrawn_subject

CANCEL_TYPE: Final = "saga.cancel.v1"
RECORD_TYPE: Final = "saga.recorded.v1"
END_TYPE: Final = "saga.ended.v1"
TIMER_TYPE: Final = "saga.timer.v1"
CHILD_START_TYPE: Final = "saga.child-started.v1"
LET_GO_TYPE: Final = "saga.let-go.v1"
CHILD_ENDED_TYPE: Final = "saga.child-ended.v1"
LOCK_ASK_TYPE: Final = "lock.asked.v1"
LOCK_FREE_TYPE: Final = "lock.freed.v1"
LOCK_GRANTED_TYPE: Final = "lock.granted.v1"
LOCK_STATE_TYPE: Final = "lock.state.v1"
PAUSE_STATE_TYPE: Final = "halt.state.v1"
SCHEMAS_TYPE: Final = "saga.schemas.v1"
"""Kept schemas; the payload is `antiphon.contracts.compat.schema.Contracts`."""


def verb_type(verb: str) -> str:
    """The type of an operator's request: `saga.retry.v1`."""
    return f"saga.{verb}.v1"


Ending = Literal["completed", "compensated"]
"""How a saga ends; there is no third way."""


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A client's wish that the saga be undone."""

    reason: str


class Record(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """An entry that sends no command: a fact was recorded, or something was found out about a step.

    At most one of the groups below is filled in; none means that the fact has been absorbed and nothing follows.
    """

    fault: str = ""
    """Why the saga cannot go on by itself."""
    unread: bool = False
    """The fault is that the coordinator which wrote this cannot read a message. One that can reads over it."""

    step: str = ""
    """The step that the next six are about."""
    skipped: bool = False
    """Its `when` said no."""
    elements: Elements = -1
    """How many commands it sends, one for each element of its list, now that all of them are in the journal."""
    commands: tuple[msgspec.Raw, ...] = ()
    """Commands of its list: those of the element `first` and of the ones behind it. A list that is too large for one
    entry stands in several; what is sent is what they say. Absent in journals of earlier releases."""
    first: Element = 0
    """The number of the element that `commands` begins with; with 0 whatever an earlier entry has of it is void."""
    awaits: bool = False
    """From now on it waits, for a signal or for time."""
    parked: str = ""
    """Why a person should look at it; it is still tried again."""

    asks: tuple[str, ...] = ()
    """The locks the saga needs before its first step, in the order it asks for them."""
    held: bool = False
    """All steps of this child are done; it waits to be let go by its parent, or cancelled."""

    more: str = ""
    """A participant that has said so much from which nothing followed that no more of it is recorded from here on."""

    turned: str = ""
    """Why what was done in a saga that nobody leads is being undone from here on."""

    by: str = ""
    """The operator whose request this is about; the request is the fact that the entry names."""
    rejected: str = ""
    """Why that request came too late or made no sense; nothing was changed."""
    request: Sequence = 0
    """Where EVENTS holds that request, if the fact that the entry names is a participant's word on it."""
    unasked: bool = False
    """The request counts although the step's participant was not asked: an attempt may still run there."""
    full: bool = False
    """The request was rejected for want of room. One entry, the last, says so of all such requests."""


class End(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The outcome of a saga, and why it was compensated."""

    outcome: Ending
    reason: str = ""
    start: str = ""
    """The digest of the client's start, which stays as long as this does: of a saga that was purged but for its end, it
    tells the same start from another one. Empty for a child, and in journals of earlier releases."""
    forgotten: str = ""
    """Who had it forgotten what was said in it, when and why; then it says no reason of its own."""


def start_digest(type_: str, data: bytes | msgspec.Raw) -> str:
    """The digest of a start: the beginning of SHA-256 over its type, a line feed and its payload as it was stored.

    Args:
        type_: the versioned type.
        data: the JSON of the payload, byte for byte.
    """
    found = hashlib.sha256(type_.encode() + b"\n")
    found.update(bytes(data))
    return found.hexdigest()[:32]


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """Who started a child saga, and whether the child may end only when its parent lets it go or cancels it."""

    type: Token
    id: Token
    step: Token
    attempt: Number
    hold: bool


class ChildStart(msgspec.Struct, frozen=True, kw_only=True):
    """The start of a child saga, as the coordinator of its parent stores it."""

    parent: Parent
    type: str
    """The versioned tag of the event the child begins with, which is `event`."""
    event: msgspec.Raw
    child: str = ""
    """The child itself, as `type/id`."""


class Empty(msgspec.Struct, frozen=True, kw_only=True):
    """A message whose subject says all there is to say."""


NO_PAYLOAD: Final = msgspec.Raw(b"null")
"""Not None: a field that may be None or Raw is one that msgspec reads as null and nothing else."""


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator asks for; the verb stands in the subject, and in the message's type.

    `payload` is a command's on `edit`, and a step's reply on `resolve`, where it has one. `happened` is for resolving
    a pivot: whether its effect is there.
    """

    step: str = ""
    reason: str = ""
    payload: msgspec.Raw = NO_PAYLOAD
    happened: bool | None = None
    claim: Number = 0
    """Of a `resolve`: the claim after which the operator has looked outside; 0 where none is named."""
    asks: bool = False
    """Of a `resolve`: whether the step's participant is asked before it counts. Otherwise it counts at once, although
    an attempt may still run there; so do the requests of earlier releases, in whose time nobody was asked."""

    @property
    def has_payload(self) -> bool:
        """Whether it brings a payload."""
        return bytes(self.payload) != b"null"


class OnceMore(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator has a coordinator handle once more: a message of EVENTS, by its subject."""

    subject: str


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an operator's request; EVENTS holds it at `sequence`, since `at` (RFC 3339)."""

    sequence: Sequence
    at: str
    user: str
    verb: str
    reason: str = ""
    rejected: str = ""
    """Why nothing was changed; empty if the request was fulfilled."""

    @property
    def is_accepted(self) -> bool:
        """Whether it was fulfilled."""
        return not self.rejected


class PauseState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether all sagas of a type, or a participant, stand still, and the requests that led there, the last ones."""

    paused: str = ""
    """By whom and why; empty while they go on."""
    requests: tuple[Request, ...] = ()


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a saga waits for, and when (RFC 3339, UTC)."""

    what: str
    at: str


class Timer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the saga's one schedule: all that is due, for whoever looks."""

    due: tuple[Due, ...]


StepPhase = Literal[
    "waiting", "skipped", "awaiting", "sent", "done", "refused", "unknown", "settling", "undoing", "undone"
]
"""Where a step stands. `unknown` may or may not have happened; `settling` is a pivot of which that is being found out;
`awaiting` is a signal or a timer, and `refused` also one that did not come in time."""

SagaState = Literal["running", "compensating", "completed", "compensated"]


class StepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One step as a status answer shows it."""

    name: str
    phase: StepPhase
    attempts: Number


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a saga stands."""

    type: str
    id: str
    state: SagaState
    definition: str
    started: str
    reason: str = ""
    parked: str = ""
    paused: str = ""
    noted: str = ""
    """A deadline or a wish to cancel that came after the point of no return."""
    unread: str = ""
    """Why no coordinator begins it: its start cannot be read. Nothing of it has happened."""
    steps: tuple[StepStatus, ...] = ()
    entries: Number = 0
    """How many entries its journal has, of at most 900."""
    purged: bool = False
    """It has ended long ago, and its journal was purged: nothing but the state and its reason is known."""


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A coordinator's answer to a status request; without a status there is no such saga (or it was not read)."""

    status: Status | None = None
    error: str = ""


Verdict = Literal["same", "other", "unread", "none", "busy"]
"""What is stored: the same, something else, what the coordinator that says so cannot read, or nothing, which is said to
whoever asks for the prospect as well; others get no answer then. "busy" says that it was not looked at, because its
source asks too much: ask again."""

Prospect = Literal["", "unstarted", "early", "awaited", "taken", "passed"]
"""What may come of a signal or of a wish to cancel: the saga is not started; it runs, and the step's turn has not come;
the step waits for it now, or the saga can be cancelled; the journal has it already; nothing can come of it any more.
Empty in the answers of coordinators of earlier releases."""


class Resent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client wanted to store where something had been stored before."""

    type: str
    data: msgspec.Raw
    defaults: tuple[str, ...] = ()
    """The fields of `data` that hold what they hold where nobody says anything: one of them may have been added to the
    event after the first one was stored."""
    prospect: bool = False
    """Whether the answer shall say, too, what may come of it, also where nothing is stored."""


class ResentAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A coordinator's answer to that. Whoever cannot tell is silent."""

    verdict: Verdict
    reason: str = ""
    """Why it cannot be read."""
    prospect: Prospect = ""
    """What may come of it, where that was asked for."""
    why: str = ""
    """Why nothing can come of it any more: "it has ended"."""
    version: Number = 0
    """Of a start, where the prospect was asked for: the version that the saga runs with, or would begin with; 0 where
    that is not known."""


# --- PARKED: one message for each message that could not be used, and for each saga that waits for a person -----------

PARKED_BYTES_MAX: Final = 512 * 1024
"""How much of a message is kept. As base64 it stays below the server's default max_payload of 1 MB; whoever sends more
loses the connection."""

PAYLOAD_BYTES_MIN: Final = 720 * 1024
"""How large a message the server must take at least: a parked one, with its reason and all that is said around it."""

WITHDRAWN: Final = ""
"""The reason that takes back what the same participant said of the same message before: it has come to its end."""


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was set aside, with where it came from and what it was. `data` is base64 in JSON.

    What it is, who noticed, who wrote it and which saga an index entry is about is taken from the subject in PARKED
    (`read_parked`): the body says it too, for readers of earlier releases, and whoever may write a body may write
    anything there.
    """

    kind: ParkedKind
    reason: str
    noticed_by: str
    stream: str
    sequence: Sequence
    subject: str
    data: bytes
    saga: SagaKey | None = None
    source: str = ""
    """Who wrote the message; empty where an earlier release parked it."""
    stays: bool = False
    """Whether it waits for a person whatever becomes of its saga."""

    @property
    def destination(self) -> str:
        """The subject in PARKED: a saga's own, one for each message that is taken back, or by kind, by who noticed and
        by who wrote the message."""
        if self.saga is not None:
            return parked_saga_subject(self.saga)
        if self.reason == WITHDRAWN:
            return withdrawn_subject(self.noticed_by, self.stream, self.sequence)
        return parked_subject(self.kind, self.noticed_by, source_in(self.subject))

    def encode(self) -> bytes:
        """As JSON, small enough to be stored whatever it is about: of the message, and of its reason, the beginning."""
        data, reason = self.data[:PARKED_BYTES_MAX], self.reason[:REASON_CHARS_MAX]
        return msgspec.json.encode(msgspec.structs.replace(self, data=data, reason=reason))


class More(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages there was no room for at a subject of PARKED, since the same process said so before."""

    count: Tally

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)


def read_parked(subject: str, data: bytes) -> Parked:
    """A message of PARKED; what it is comes from its subject.

    Raises:
        Forged: it is no subject of PARKED.
        Undecodable: the body is no such message.
    """
    address = parse_parked(subject)
    return msgspec.structs.replace(
        unpack_raw(data, Parked, subject),
        kind=address.kind,
        noticed_by=address.noticed_by,
        source=address.source,
        saga=address.saga,
    )


def parked_kind(error: Unusable) -> ParkedKind:
    """The kind of an unusable message, by the error that found it."""
    match error:
        case Forged() | BadIdentity():
            return "forged"
        case Undecodable():
            return "undecodable"
        case _:
            return "fault"
