"""A definition as immutable data: steps, edges, the answers each step may get, and the hash of its shape."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from antiphon.contracts.messages import (
    AnswerKind,
    Contract,
    Event,
    Refusal,
    Undone,
    answer_name,
    answer_type,
)
from antiphon.contracts.retry import Retry
from antiphon.contracts.wire import Direction, dashed

from .check import check_complete

if TYPE_CHECKING:
    from .saga import Saga, Step


class Order(msgspec.Struct, frozen=True):
    """How a step's command, or its compensation, is made and sent."""

    contract: Contract
    make: Callable[[Any], Any]
    retry: str


class StepDefinition(msgspec.Struct, frozen=True):
    """One step: what it comes after, what comes after it, what it sends and how that is undone."""

    name: str
    participant: str
    after: tuple[str, ...]
    dependents: tuple[str, ...]
    do: Order
    undo: Order | None

    def order(self, direction: Direction) -> Order:
        """What is sent in a direction."""
        order = self.do if direction == "do" else self.undo
        assert order is not None, f"step {self.name} has no compensation"
        return order


class Expected(msgspec.Struct, frozen=True):
    """An answer that a step may get: what it means, who must have sent it, and its shape."""

    step: str
    direction: Direction
    kind: AnswerKind
    source: str
    type: str
    shape: Any


class Definition(msgspec.Struct, frozen=True):
    """A saga, checked and compiled."""

    name: str
    version: int
    shape: str
    start_type: str
    start_shape: type[Event]
    deadline_ns: int
    backoff: Retry
    steps: dict[str, StepDefinition]
    answers: dict[tuple[str, str], Expected]
    sources: tuple[str, ...]

    @property
    def label(self) -> str:
        """As a journal's first entry names it: name, version, hash of the shape."""
        return f"{self.name}.v{self.version}.{self.shape}"


def define(saga: Saga[Any]) -> Definition:
    """Compile a saga.

    Raises:
        DefinitionError: it is not complete.
    """
    check_complete(saga)
    steps = {step.name: _step(saga, step) for step in saga.steps}
    answers = {(e.step, token): e for step in saga.steps for token, e in _answers(step)}
    return Definition(
        name=saga.name,
        version=saga.version,
        shape=_shape(saga),
        start_type=saga.start.__contract__.type,
        start_shape=saga.start,
        deadline_ns=round(saga.deadline.total_seconds() * 1e9),
        backoff=saga.compensation_backoff,
        steps=steps,
        answers=answers,
        sources=tuple(dict.fromkeys(step.participant for step in steps.values())),
    )


def _step(saga: Saga[Any], step: Step[Any]) -> StepDefinition:
    undo = None
    if step.undo_command is not None and step.undo_make is not None:
        undo = Order(step.undo_command.__contract__, step.undo_make, saga.compensation_retry.encode())
    return StepDefinition(
        name=step.name,
        participant=step.command.__contract__.owner,
        after=tuple(earlier.name for earlier in step.after),
        dependents=tuple(later.name for later in saga.steps if step in later.after),
        do=Order(step.command.__contract__, step.make, step.retry.encode()),
        undo=undo,
    )


def _answers(step: Step[Any]) -> list[tuple[str, Expected]]:
    """All answers a step may get, each with its token in subjects."""
    command, reply = step.command.__contract__, step.command.__reply__
    kinds: tuple[AnswerKind, ...] = ("refused", "exhausted", "superseded")
    owner = command.owner
    found = [(reply.__contract__.token, Expected(step.name, "do", "done", owner, reply.__contract__.type, reply))]
    found += [_plain(step.name, "do", command, kind, Refusal) for kind in kinds]
    if step.undo_command is not None:
        undo = step.undo_command.__contract__
        found.append(_plain(step.name, "undo", undo, "done", Undone))
        found += [_plain(step.name, "undo", undo, kind, Refusal) for kind in kinds]
    return found


def _plain(step: str, direction: Direction, contract: Contract, kind: AnswerKind, shape: Any) -> tuple[str, Expected]:
    expected = Expected(step, direction, kind, contract.owner, answer_type(contract, kind), shape)
    return dashed(answer_name(contract, kind)), expected


def _shape(saga: Saga[Any]) -> str:
    """Twelve digits of a hash over everything that decides how a saga in flight goes on."""
    lines = [f"{saga.name} {saga.start.__contract__.type}"]
    for step in saga.steps:
        undo = step.undo_command.__contract__.type if step.undo_command else "-"
        after = ",".join(earlier.name for earlier in step.after)
        reply = step.command.__reply__.__contract__.type
        lines.append(f"{step.name} after={after} do={step.command.__contract__.type} reply={reply} undo={undo}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
