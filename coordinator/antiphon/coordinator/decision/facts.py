"""What a coordinator may learn about a saga, as facts, and what it may do about it, as actions."""

from __future__ import annotations

from typing import Literal

import msgspec

from antiphon.contracts.messages import AnswerKind, Close, Closed, Event
from antiphon.contracts.payloads import End, Operation, Parent, Record
from antiphon.contracts.subjects import Direction, MessageVerb, Sending, Verb


class Start(msgspec.Struct, frozen=True, gc=False):
    """A client began the saga, or a step of another saga did, which is then its parent. `sequence` is where EVENTS
    holds it, `at_ns` when it was stored there."""

    sequence: int
    at_ns: int
    event: Event
    parent: Parent | None = None
    digest: str = ""
    """Of what the client stored."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A participant answered a command, which SAGA holds at `command`. `event` is the reply of a command that is done,
    or of one that turned out to be; `reason` says why it is not."""

    sequence: int
    at_ns: int
    step: str
    direction: Sending
    attempt: int
    kind: AnswerKind
    command: int
    event: Event | None = None
    reason: str = ""
    code: str = ""
    """`open` where the effect may have happened outside the participant's database."""
    found: bool = True
    """Of a compensation: whether there was something to undo."""
    closed: Closed | None = None
    """What a close met."""


class Signalled(msgspec.Struct, frozen=True, gc=False):
    """A client has sent the event that a step waits for, now or later."""

    sequence: int
    at_ns: int
    step: str
    event: Event


class Happened(msgspec.Struct, frozen=True, gc=False):
    """A participant emitted an event by itself."""

    sequence: int
    at_ns: int
    event: Event


class ChildEnded(msgspec.Struct, frozen=True, gc=False):
    """The child that a step started has done all its steps, or was compensated."""

    sequence: int
    at_ns: int
    step: str
    attempt: int
    end: End


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """A client wants the saga undone, or its parent does."""

    sequence: int
    at_ns: int
    reason: str
    by_parent: bool = False


class LetGo(msgspec.Struct, frozen=True, gc=False):
    """The saga's parent has ended and will not have it undone any more."""

    sequence: int
    at_ns: int


class Granted(msgspec.Struct, frozen=True, gc=False):
    """The saga holds a lock."""

    sequence: int
    at_ns: int
    lock: str


class Operated(msgspec.Struct, frozen=True, gc=False):
    """An operator asks for something."""

    sequence: int
    at_ns: int
    user: str
    verb: Verb
    operation: Operation


class OperatedOnMessage(msgspec.Struct, frozen=True, gc=False):
    """An operator asks for something with a message in PARKED. No fact of a saga."""

    user: str
    verb: MessageVerb
    operation: Operation


class Unread(msgspec.Struct, frozen=True, gc=False):
    """A message that the saga waits for, or that its journal names, and that does not fit the class it has here.

    `of` is what it is by its subject; `named` where only the journal knows what it was. `step` is the one that it is
    about, `command` where SAGA holds the command that it answers, as far as can be read. `reason` names the field.
    """

    sequence: int
    at_ns: int
    of: Literal["start", "answer", "signal", "event", "named"]
    reason: str
    step: str = ""
    direction: Direction = "do"
    command: int = 0
    parent: Parent | None = None


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has come to `at_ns`: the saga's timer fired, or the sweeper looked."""

    at_ns: int


Fact = Start | Answer | Signalled | Happened | ChildEnded | Cancel | LetGo | Granted | Operated | Unread | Tick


def is_start(fact: Fact) -> bool:
    """Whether a saga begins with a fact, whether or not that can be read here."""
    return isinstance(fact, Start) or (isinstance(fact, Unread) and fact.of == "start")


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a step's command, or the compensation of it. `step` may be an element of a list."""

    step: str
    direction: Direction
    attempt: int


class SendClose(msgspec.Struct, frozen=True, gc=False):
    """Ask a step's participant to close it as an operator says. `number` counts the closes of the step from 1, and
    EVENTS holds the operator's request at `request`."""

    step: str
    number: int
    request: int
    close: Close


class Finish(msgspec.Struct, frozen=True, gc=False):
    """End the saga."""

    end: End


Action = Send | SendClose | Record | Finish


def cause_of(fact: Fact) -> str:
    """How a journal entry names the fact it decides on."""
    return f"t{fact.at_ns}" if isinstance(fact, Tick) else f"e{fact.sequence}"
