"""What a coordinator may learn about a saga: four kinds of facts, and what it may do: two kinds of actions."""

from __future__ import annotations

import msgspec

from antiphon.contracts.messages import AnswerKind, Event
from antiphon.contracts.platform import End
from antiphon.contracts.wire import Direction


class Start(msgspec.Struct, frozen=True):
    """A client began the saga. `sequence` is where EVENTS holds it, `at_ns` when it was stored there."""

    sequence: int
    at_ns: int
    event: Event


class Answer(msgspec.Struct, frozen=True):
    """A participant answered a command, which SAGA holds at `command`. `event` is the reply of a command that is done;
    `reason` says why it is not."""

    sequence: int
    at_ns: int
    step: str
    direction: Direction
    attempt: int
    kind: AnswerKind
    command: int
    event: Event | None = None
    reason: str = ""


class Cancel(msgspec.Struct, frozen=True):
    """A client wants the saga undone."""

    sequence: int
    at_ns: int
    reason: str


class Tick(msgspec.Struct, frozen=True):
    """Time has come to `at_ns`: the saga's timer fired, or the sweeper looked."""

    at_ns: int


Fact = Start | Answer | Cancel | Tick


class Send(msgspec.Struct, frozen=True):
    """Send a step's command, or the compensation of it."""

    step: str
    direction: Direction
    attempt: int


class Finish(msgspec.Struct, frozen=True):
    """End the saga."""

    end: End


Action = Send | Finish


def cause_of(fact: Fact) -> str:
    """How a journal entry names the fact it decides on."""
    return f"t{fact.at_ns}" if isinstance(fact, Tick) else f"e{fact.sequence}"
