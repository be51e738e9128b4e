"""The history of one saga: what its journal says, as a value. Pure.

`absorb` (in a file of its own) takes a fact in, `apply` (in `fold`) takes in what the journal says was done about it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from antiphon.contracts.identity import CLIENT, SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import End, Ending, Parent, SagaState, StepPhase
from antiphon.contracts.retry import Retry

from ..definition.definition import Definition, StepDefinition, element
from .facts import Action, Operated, SendClose

ENTRIES_MAX: Final = 900
"""The longest journal: one direct read returns at most 1000 messages, and must always return all of it."""

HEARD_MAX: Final = 100
"""So many facts of a participant from which nothing follows have an entry each; one more says that there are more. What
somebody stores has no bound, and a journal has."""

QUIET_NS: Final = 30_000_000_000
"""After so long a choreography that has gone on after its deadline counts as late anew."""

DEADLINE_REASON: Final = "its deadline passed"

KNOWS_MORE: Final = "its participant knows more than its journal"
"""Why a step has no known outcome, or waits for a person: SAGA was restored from a backup, and the participant did
since what the journal has lost."""

_CANCELLED: Final = "cancelled: "


def cancelled(reason: str) -> str:
    """Why a saga turns that was cancelled, said once, however many generations of parents were cancelled before it."""
    return _CANCELLED + reason.removeprefix(_CANCELLED)


NOW_NS: Final = 1
"""A due time in the past: an operator's retry is due at once."""

RELEASED_NS: Final = 2
"""A due time in the past: another that had failed has succeeded, so this is due at once."""


class StepRecord(msgspec.Struct, frozen=True, gc=False):
    """Where one step stands, or one element of a step over a list."""

    phase: StepPhase = "waiting"
    attempts: int = 0
    undo_attempts: int = 0
    elements: int = 0
    """Of a step over a list: how many there are. Each has a record of its own."""
    reply: Any = None
    """What it has earned: an event, a tuple of them, or the end of a child."""
    answer: int = 0
    """Where in EVENTS its participant's answer stands that it is done; 0 where there is none."""
    reason: str = ""
    sent_ns: int = 0
    """When its last command was written, by its writer's clock."""
    timeout_ns: int = 0
    """When it will have been waited for long enough; 0 if there is no such time."""
    again_ns: int = 0
    """When what failed is to be sent again; 0 while its answer is awaited."""
    since_ns: int = 0
    """When the first of the attempts failed; 0 while none has."""
    edited: Any = None
    """The command an operator put in the place of the one that failed."""
    command: bytes = b""
    """The payload that was sent last, or that is to be sent, if it stands in the journal."""
    undo: bytes = b""
    """The same of the compensation."""
    closes: int = 0
    """How often its participant was asked to close it."""
    closing: SendClose | None = None
    """The close that is not answered yet."""
    closing_ns: int = 0
    """When that was asked for, by the server's clock."""
    is_open: bool = False
    """Whether its participant has said that it may have happened outside."""
    unasked: Operated | None = None
    """The request by which it was resolved without its participant having been asked."""
    spread: tuple[bytes, ...] = ()
    """Of a step over a list: its commands, as far as the journal has them, until it has all."""


class History(msgspec.Struct, frozen=True, gc=False):
    """All that a decision depends on."""

    key: SagaKey
    definition: Definition
    steps: dict[str, StepRecord]
    start: Event | None = None
    start_digest: str = ""
    started_ns: int = 0
    parent: Parent | None = None
    now_ns: int = 0
    """The latest time that a fact or a timer has told of, by the server's clock."""
    turned: str = ""
    """Why the saga is compensating; empty while it runs forward."""
    noted: str = ""
    """A deadline or a wish to cancel that came when the saga could not be turned."""
    overdue: bool = False
    """Whether its deadline has passed."""
    fault: str = ""
    """Why the saga cannot go on by itself."""
    unread: str = ""
    """Which message cannot be read here, and why: what follows from it is for a coordinator to say that can."""
    paused: str = ""
    """Who paused it, and why."""
    marked: frozenset[str] = frozenset()
    """Steps that the journal says wait for a person."""
    signals: dict[str, Event] = {}
    """What was signalled, or came about, by the step that waits for it; early or in time."""
    last: Event | None = None
    """Of a choreography: what was said last."""
    over: Ending | None = None
    """Of a choreography: how it ended, by what was said."""
    late: str = ""
    """Of a choreography: why it counts as late; empty until its deadline, and whenever something more was said. Of a
    saga that is led: why nothing more is tried by itself; empty once a person or a success has changed that."""
    said_ns: int = 0
    """Of a choreography: when anything was said last, by the server's clock."""
    is_quiet: bool = False
    """Of a choreography past its deadline: whether nothing was said for some time. One that goes on needs no person."""
    asks: tuple[str, ...] = ()
    """The locks it needs, in the order it asks for them."""
    granted: frozenset[str] = frozenset()
    held: bool = False
    """A child all of whose steps are done, and which waits for its parent."""
    let_go: bool = False
    end: End | None = None
    heard: dict[str, int] = {}
    """How many facts from which nothing followed the journal names, by the participant that stored them."""
    more: frozenset[str] = frozenset()
    """Participants of which the journal says that there are more, and names no more."""
    named: frozenset[int] = frozenset()
    """The sequences of all facts in EVENTS that the journal names."""
    sequence: int = 0
    """Where SAGA holds the last entry: what the next one is guarded with."""
    cause: str = ""
    """What the last entry was decided on."""
    entries: int = 0
    keys: dict[str, str] | None = None
    """What the saga is to be found by, as its first entry says."""
    gate_ns: int = 0
    """Before this time nothing is tried again by itself; 0 while nothing has been."""
    asked_ns: int = 0
    """When an operator had something tried again last."""
    is_full: bool = False
    """Whether a request was rejected without an entry of its own: the one that says so is rewritten for the next."""
    refused: int = 0
    """The sequence of the last request that was: older ones that no entry names were rejected, too."""
    sampled: bool | None = None
    """Whether its trace is sampled, as the first command in the journal says; None before it."""

    @property
    def has_started(self) -> bool:
        """Whether its start is known, even if that cannot be read here."""
        return self.start is not None or self.started_ns > 0

    @property
    def state(self) -> SagaState:
        """The saga's state in one word."""
        if self.end is not None:
            return self.end.outcome
        return "compensating" if self.turned else "running"

    @property
    def parked(self) -> str:
        """Why a person should look at the saga; empty where none needs to."""
        if self.end is not None:
            return ""
        if self.fault or self.late:
            return self.fault or self.late
        return "; ".join(tired_reason(self, name, step) for name, step in self.steps.items() if is_tired(self, step))

    @property
    def is_past_pivot(self) -> bool:
        """Whether the point of no return was passed: the pivot's command is in the journal, and was not refused."""
        pivot = self.definition.pivot
        return bool(pivot) and self.steps[pivot].phase not in ("waiting", "refused")

    def outcome_of(self, name: str) -> Any:
        """What a step has earned; None if it was skipped.

        Raises:
            LookupError: it is not over.
        """
        step = self.steps[name]
        if step.phase not in ("done", "skipped", "undone", "undoing"):
            raise LookupError(f"step {name} is not done")
        return step.reply


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One journal entry: what was done, on which fact, where SAGA holds it, and when it was made by its writer's
    clock."""

    sequence: int
    cause: str
    what: Action
    at_ns: int
    definition: str = ""
    payload: bytes = b""
    """Of a command: what it carries."""
    keys: dict[str, str] | None = None
    sampled: bool | None = None
    """Of a command: whether it says that the saga's trace is sampled."""


def begin(key: SagaKey, definition: Definition) -> History:
    """The history of a saga of which nothing is known."""
    return History(key, definition, {name: StepRecord() for name in definition.steps})


def with_step(history: History, name: str, **changes: object) -> History:
    """The history with one step changed."""
    return replace(history, steps={**history.steps, name: replace(history.steps[name], **changes)})


def elements_of(history: History, step: StepDefinition) -> list[StepRecord]:
    """The records of a list's elements, in order."""
    return [history.steps[element(step.name, number)] for number in range(history.steps[step.name].elements)]


# --- time -------------------------------------------------------------------------------------------------------------


def deadline_ns(history: History) -> int:
    """When the saga turns if it has not ended, by the server's clock."""
    return history.started_ns + history.definition.deadline_ns


def is_deadline_due(history: History) -> bool:
    """Whether the deadline still means something: it turns a saga once, and is what a choreography is late by."""
    return not (history.overdue or (history.turned and history.definition.is_led))


def has_missed_its_start(history: History, now_ns: int) -> bool:
    """Whether its deadline came, by the clock of whoever asks, before its first step: nothing is done then that would
    have to be undone. Nobody leads a choreography, so its participants begin at any time."""
    if not history.has_started or history.turned or not history.definition.is_led:
        return False
    return now_ns >= deadline_ns(history) and all(step.phase == "waiting" for step in history.steps.values())


def is_tired(history: History, step: StepRecord) -> bool:
    """Whether a person should know: something that must succeed was tried too often in vain, or is waited for past the
    pivot and too long. A time that is a step's own is not cut short by the saga's deadline."""
    match step.phase:
        case "awaiting":
            return not (history.turned or step.timeout_ns) and bool(step.reason or history.overdue)
        case "undoing" | "settling":
            attempts = step.undo_attempts
        case "sent":
            attempts = step.attempts
        case _:
            return False
    if step.is_open:
        return True
    patience = history.definition.backoff.attempts
    return attempts > patience or (attempts == patience and step.again_ns > 0)


def tired_reason(history: History, name: str, step: StepRecord) -> str:
    """Why a step waits for a person."""
    if step.phase == "awaiting":
        event = history.definition.step(name).signal
        assert event is not None  # a wait for time has a time of its own
        since = f"{name} {step.reason}" if step.reason else DEADLINE_REASON
        contract = event.__contract__
        unsaid = "nobody has signalled" if contract.owner == CLIENT else f"{contract.owner} has not said"
        return f"{since}, and {unsaid} {contract.type}"
    if step.is_open:
        return f"{name} may have happened outside: {step.reason}"
    attempts, what = {
        "undoing": (step.undo_attempts, "compensation"),
        "settling": (step.undo_attempts, "settlement"),
    }.get(step.phase, (step.attempts, "command"))
    return f"the {what} of {name} was tried {attempts} times: {step.reason}"


def wait_ns(backoff: Retry, key: SagaKey, step: str, attempt: int) -> int:
    """How long after a failed attempt the next one is due.

    The chance is a hash of what it is for, so that every reader of a journal computes the same time and different
    sagas still spread over the whole interval.
    """
    seed = hashlib.sha256(f"{key}/{step}/{attempt}".encode()).digest()
    return round(backoff.wait_seconds(attempt, int.from_bytes(seed[:8]) / 2**64) * 1e9) + 1
