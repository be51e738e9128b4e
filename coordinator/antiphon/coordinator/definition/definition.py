"""A definition as immutable data: steps, edges, the answers each step may get, and the hash of its shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from antiphon.contracts.messages import AnswerKind, Contract, Event
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import Direction, Sending

from .retention import Retention

StepKind = Literal["command", "list", "signal", "event", "wait", "child"]
"""What a step does: it sends a command, or a list of them, waits for a signal, an event or some time, or starts a child
saga."""


class CommandTemplate(msgspec.Struct, frozen=True):
    """How a step's command, or its compensation, is made and sent."""

    contract: Contract
    shape: Any
    """The class of the message."""
    make: Callable[..., Any]
    retry: str
    takes: int = 1
    """How much of the state, the command to undo, and its reply the function takes, in this order."""


class StepDefinition(msgspec.Struct, frozen=True):
    """One step: what it comes after, what comes after it, what it sends and how that is undone."""

    name: str
    kind: StepKind
    participant: str
    after: tuple[str, ...]
    dependents: tuple[str, ...]
    visible: frozenset[str]
    """All steps it comes after, however far back."""
    do: CommandTemplate | None
    undo: CommandTemplate | None
    when: Callable[[Any], bool] | None
    timeout_ns: int
    """How long it is waited for; 0 is as long as the saga's deadline."""
    elements_max: int
    is_pivot: bool
    is_retriable: bool
    """It comes after the pivot: it is tried until it succeeds."""
    is_kept: bool
    """It has an effect that is never undone."""
    signal: type[Event] | None
    """What it waits for: a signal, or an event that a participant emits by itself."""
    unless: tuple[type[Event], ...]
    """What says that this will not come."""
    reply: type[Event] | None
    child: str
    """The type of the saga it starts."""

    def template(self, direction: Direction) -> CommandTemplate:
        """What is sent in a direction."""
        template = self.do if direction == "do" else self.undo
        assert template is not None, f"step {self.name} has nothing to send in the direction {direction}"
        return template


class Expected(msgspec.Struct, frozen=True):
    """An answer that a step may get: what it means, who must have sent it, and its shape."""

    step: str
    direction: Sending
    kind: AnswerKind
    source: str
    type: str
    shape: Any


Meaning = Literal["step", "note", "turn", "completed", "compensated"]
"""What follows from an event that a participant emits by itself: a step waits for it, or it says that what the step
waits for will not come; nothing follows; the saga turns; it has ended."""


class EmittedEvent(msgspec.Struct, frozen=True):
    """An event that a participant emits by itself, and what it means to the saga."""

    shape: type[Event]
    means: Meaning
    step: str = ""
    """The step that waits for it."""
    next: tuple[str, ...] = ()
    """Of a choreography: the participants that react to it."""


class Definition(msgspec.Struct, frozen=True):
    """A saga, checked and compiled."""

    name: str
    version: int
    shape: str
    start_type: str
    start_shape: type[Event]
    deadline_ns: int
    backoff: Retry
    settle_retry: str
    """How a participant tries to say what became of a pivot."""
    locks: Callable[[Any], Iterable[str]] | None
    keys: Callable[[Any], dict[str, str]] | None
    """What a saga is to be found by; no part of the shape, since nothing is decided by it."""
    steps: dict[str, StepDefinition]
    pivot: str
    is_timed: bool
    """Whether anything but the deadline may become due while it runs forward."""
    answers: dict[tuple[str, str], Expected]
    sources: tuple[str, ...]
    children: tuple[Definition, ...]
    """The definitions of the sagas that its steps start."""
    events: dict[str, EmittedEvent] = {}
    """What participants emit by themselves, by its versioned type."""
    is_led: bool = True
    """Whether anybody commands. Nobody does in a choreography, which has no steps."""
    begins: tuple[str, ...] = ()
    """Of a choreography: the participants that react to its start."""
    schemas: str = ""
    """The digest of the schemas of its messages, which are no part of the shape."""
    retention: Retention = Retention()
    """How long it is kept once it has ended; no part of the shape either."""

    @property
    def label(self) -> str:
        """As a journal's first entry names it: name, version, hash of the shape."""
        return f"{self.name}.v{self.version}.{self.shape}"

    def step(self, name: str) -> StepDefinition:
        """The definition of a step, or of an element of one, which is called `<step>-<number>`."""
        return self.steps.get(name) or self.steps[name.rpartition("-")[0]]


def element(step: str, number: int) -> str:
    """What an element of a list is called in subjects and in histories. No function's name has a dash."""
    return f"{step}-{number}"
