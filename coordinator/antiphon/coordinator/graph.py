"""A definition as immutable data: steps, edges, the answers each step may get, and the hash of its shape."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from antiphon.contracts.messages import (
    AnswerKind,
    Contract,
    Event,
    Refusal,
    Settled,
    Undone,
    answer_name,
    answer_type,
    settle_type,
)
from antiphon.contracts.retry import Retry
from antiphon.contracts.wire import COORDINATOR, Direction, dashed

from .check import ancestors, check_complete, is_past_pivot

if TYPE_CHECKING:
    from .choreography import Choreography
    from .saga import AnyStep, Kind, Saga


class Order(msgspec.Struct, frozen=True):
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
    kind: Kind
    participant: str
    after: tuple[str, ...]
    dependents: tuple[str, ...]
    visible: frozenset[str]
    """All steps it comes after, however far back."""
    do: Order | None
    undo: Order | None
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

    def order(self, direction: Direction) -> Order:
        """What is sent in a direction."""
        order = self.do if direction == "do" else self.undo
        assert order is not None, f"step {self.name} has nothing to send in the direction {direction}"
        return order


class Expected(msgspec.Struct, frozen=True):
    """An answer that a step may get: what it means, who must have sent it, and its shape."""

    step: str
    direction: Direction
    kind: AnswerKind
    source: str
    type: str
    shape: Any


Meaning = Literal["step", "note", "turn", "completed", "compensated"]
"""What follows from an event that a participant emits by itself: a step waits for it, or it says that what the step
waits for will not come; nothing follows; the saga turns; it has ended."""


class Heard(msgspec.Struct, frozen=True):
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
    events: dict[str, Heard] = {}
    """What participants emit by themselves, by its versioned type."""
    is_led: bool = True
    """Whether anybody commands. Nobody does in a choreography, which has no steps."""
    begins: tuple[str, ...] = ()
    """Of a choreography: the participants that react to its start."""

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


def define(saga: Saga[Any]) -> Definition:
    """Compile a saga.

    Raises:
        DefinitionError: it is not complete.
    """
    check_complete(saga)
    steps = {step.name: _step(saga, step) for step in saga.steps}
    events = _events(saga)
    answers = {(e.step, token): e for step in saga.steps for token, e in _answers(step)}
    return Definition(
        name=saga.name,
        version=saga.version,
        shape=_shape(saga),
        start_type=saga.start.__contract__.type,
        start_shape=saga.start,
        deadline_ns=_ns(saga.deadline),
        backoff=saga.backoff,
        settle_retry=saga.compensation_retry.encode(),
        locks=saga.locks,
        keys=saga.keys,
        steps=steps,
        pivot=next((step.name for step in saga.steps if step.is_pivot), ""),
        is_timed=any(step.timeout is not None or step.is_pivot for step in saga.steps),
        answers=answers,
        sources=tuple(dict.fromkeys((*_asked(steps), *(heard.shape.__contract__.owner for heard in events.values())))),
        children=tuple(step.child.definition for step in saga.steps if step.child is not None),
        events=events,
    )


def observe(saga: Choreography[Any]) -> Definition:
    """Compile a choreography: the same, with nothing to do."""
    events = {event.__contract__.type: _heard_in(saga, event) for event in (*saga.flow, *saga.ends)}
    del events[saga.start.__contract__.type]
    return Definition(
        name=saga.name,
        version=saga.version,
        shape=_hashed(observed(saga)),
        start_type=saga.start.__contract__.type,
        start_shape=saga.start,
        deadline_ns=_ns(saga.deadline),
        backoff=Retry(),
        settle_retry="",
        locks=None,
        keys=saga.keys,
        steps={},
        pivot="",
        is_timed=False,
        answers={},
        sources=tuple(dict.fromkeys(heard.shape.__contract__.owner for heard in events.values())),
        children=(),
        events=events,
        is_led=False,
        begins=saga.flow[saga.start],
    )


def _heard_in(saga: Choreography[Any], event: type[Event]) -> Heard:
    means: Meaning = "note"
    if event in saga.completes:
        means = "completed"
    elif event in saga.compensates:
        means = "compensated"
    elif event in saga.turns:
        means = "turn"
    return Heard(event, means, next=saga.flow.get(event, ()))


def _asked(steps: dict[str, StepDefinition]) -> list[str]:
    """The participants that are sent commands."""
    return [step.participant for step in steps.values() if step.kind in ("command", "list")]


def _events(saga: Saga[Any]) -> dict[str, Heard]:
    """What participants emit by themselves in a saga that is led."""
    events = {event.__contract__.type: Heard(event, "note") for event in saga.noted}
    for step in saga.steps:
        if step.kind == "event" and step.signal is not None:
            events |= {each.__contract__.type: Heard(each, "step", step.name) for each in (step.signal, *step.unless)}
    return events


def _step(saga: Saga[Any], step: AnyStep) -> StepDefinition:
    return StepDefinition(
        name=step.name,
        kind=step.kind,
        participant=step.command.__contract__.owner if step.command else COORDINATOR,
        after=tuple(earlier.name for earlier in step.after),
        dependents=tuple(later.name for later in saga.steps if step in later.after),
        visible=frozenset(earlier.name for earlier in ancestors(step)),
        do=_do(step),
        undo=_undo(saga, step),
        when=step.when,
        timeout_ns=_ns(step.timeout),
        elements_max=step.elements_max,
        is_pivot=step.is_pivot,
        is_retriable=is_past_pivot(step),
        is_kept=step.needs_no_compensation or is_past_pivot(step),
        signal=step.signal,
        unless=step.unless,
        reply=step.command.__reply__ if step.command else step.signal if step.kind == "event" else None,
        child=step.child.name if step.child else "",
    )


def _do(step: AnyStep) -> Order | None:
    if step.make is None:
        return None
    shape = step.command or (step.child.start if step.child else None)
    assert shape is not None
    return Order(shape.__contract__, shape, step.make, step.retry.encode())


def _undo(saga: Saga[Any], step: AnyStep) -> Order | None:
    if step.undo_command is None or step.undo_make is None:
        return None
    contract = step.undo_command.__contract__
    return Order(contract, step.undo_command, step.undo_make, saga.compensation_retry.encode(), step.undo_takes)


def _answers(step: AnyStep) -> list[tuple[str, Expected]]:
    """All answers a step may get, each with its token in subjects."""
    if step.command is None:
        return []
    command, reply = step.command.__contract__, step.command.__reply__
    kinds: tuple[AnswerKind, ...] = ("refused", "exhausted", "superseded")
    owner = command.owner
    found = [(reply.__contract__.token, Expected(step.name, "do", "done", owner, reply.__contract__.type, reply))]
    found += [_plain(step.name, "do", command, kind, Refusal) for kind in kinds]
    if step.undo_command is not None:
        undo = step.undo_command.__contract__
        found.append(_plain(step.name, "undo", undo, "done", Undone))
        found += [_plain(step.name, "undo", undo, kind, Refusal) for kind in kinds]
    if step.is_pivot:
        settle = settle_contract(command)
        found.append(_plain(step.name, "undo", command, "settled", Settled))
        found += [_plain(step.name, "undo", settle, kind, Refusal) for kind in ("exhausted", "superseded")]
    return found


def settle_contract(command: Contract) -> Contract:
    """What the question is called that finds out what became of a pivot's command."""
    return Contract(settle_type(command).rpartition(".v")[0], command.version, command.owner)


def _plain(step: str, direction: Direction, contract: Contract, kind: AnswerKind, shape: Any) -> tuple[str, Expected]:
    expected = Expected(step, direction, kind, contract.owner, answer_type(contract, kind), shape)
    return dashed(answer_name(contract, kind)), expected


def _ns(duration: timedelta | None) -> int:
    return round(duration.total_seconds() * 1e9) if duration else 0


def _shape(saga: Saga[Any]) -> str:
    """Twelve digits of a hash over everything that decides how a saga in flight goes on."""
    return _hashed(described(saga))


def _hashed(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def observed(saga: Choreography[Any]) -> list[str]:
    """The shape of a choreography in words, a line for the saga and one for each event.

    Who reacts to an event is no part of it: that decides what is said of a saga that is late, and nothing else.
    """
    lines = [f"{saga.name} choreography start={saga.start.__contract__.type} deadline={saga.deadline}"]
    events = [_heard_in(saga, event) for event in (*saga.flow, *saga.ends) if event is not saga.start]
    return lines + sorted(f"{heard.shape.__contract__.type} {heard.means}" for heard in events)


def described(saga: Saga[Any]) -> list[str]:
    """The shape in words, a line for the saga and one for each step.

    Times are part of it: a journal says that time was up and not how much time there was, so it must be read by the
    times it was written by. How often and how far apart something is tried is not.
    """
    locks = f" locks={saga.locks.__name__}" if saga.locks else ""
    lines = [f"{saga.name} start={saga.start.__contract__.type} deadline={saga.deadline}{locks}"]
    lines += [" ".join([step.name, step.kind, *_features(step)]) for step in saga.steps]
    return lines + [f"notes {event.__contract__.type}" for event in saga.noted]


def _features(step: AnyStep) -> list[str]:
    features = [f"after={','.join(earlier.name for earlier in step.after)}"] if step.after else []
    if step.command is not None:
        features += [f"do={step.command.__contract__.type}", f"reply={step.command.__reply__.__contract__.type}"]
    if step.undo_command is not None:
        features.append(f"undo={step.undo_command.__contract__.type}")
    if step.when is not None:
        features.append(f"when={step.when.__name__}")
    if step.timeout is not None:
        features.append(f"timeout={step.timeout}")
    if step.signal is not None:
        features.append(f"signal={step.signal.__contract__.type}")
    if step.unless:
        features.append(f"unless={','.join(event.__contract__.type for event in step.unless)}")
    if step.child is not None:
        features.append(f"child={step.child.name}")
    if step.is_pivot:
        features.append("pivot")
    if step.kind == "child" and step.needs_no_compensation:
        features.append("kept")
    return features
