"""Sagas of any shape, made of a description: one participant, one command, as many steps as wanted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from itertools import count
from random import Random
from typing import Any

import msgspec

from antiphon.contracts import Command, Compensation, Event, Retry
from antiphon.coordinator.definition.declared import DeclaredStep
from antiphon.coordinator.definition.definition import StepKind
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State

SECOND = 1_000_000_000
DEADLINE = timedelta(seconds=100)
TIMEOUT = timedelta(seconds=10)
BACKOFF = Retry(attempts=2, first_seconds=1, factor=2, cap_seconds=4)
LETTERS = "abcdefgh"
"""What steps are called, in the order they are declared."""

SHOP = "shop"


class Asked(Event, name="work.asked"):
    keys: tuple[str, ...] = ()


class Made(Event, name="work.made", owner=SHOP):
    what: str


class Make(Command[Made], name="work.make"):
    what: str


class Unmake(Compensation[Make], name="work.unmake"):
    reason: str
    what: str = ""
    call: str = ""


class Approved(Event, name="work.approved"):
    """A signal."""


class Delivered(Event, name="work.delivered", owner=SHOP):
    """What somebody does by himself."""


class Undeliverable(Event, name="work.undeliverable", owner=SHOP):
    """What he says who will not."""


class Part(msgspec.Struct, frozen=True):
    """One step as it is described: its kind, and the places of the steps it comes after."""

    kind: StepKind = "command"
    after: tuple[int, ...] = ()
    timed: bool = False
    pivot: bool = False
    kept: bool = False
    when: bool | None = None
    """Of an optional step: what its predicate says."""
    size: int = 0
    """Of a list: how many elements it has."""


class Shape(msgspec.Struct, frozen=True):
    """A saga as it is described. `child` is the shape of the saga that its children are."""

    parts: tuple[Part, ...]
    name: str = "work"
    locks: bool = False
    child: Shape | None = None
    broken: str = ""
    """The step whose function raises."""
    deadline: timedelta = DEADLINE
    fickle: bool = False
    """Whether its functions answer otherwise at every call."""


CALLS = count(1)


def _call(is_fickle: bool) -> str:
    """What makes a fickle function's answer differ from all that it gave before."""
    return f" {next(CALLS)}" if is_fickle else ""


@cache
def saga_of(shape: Shape) -> Saga[Asked]:
    """Build what is described."""
    locks = keys_of if shape.locks else None
    saga = Saga(Asked, name=shape.name, version=1, deadline=shape.deadline, backoff=BACKOFF, locks=locks)
    steps: list[DeclaredStep] = []
    for letter, part in zip(LETTERS, shape.parts, strict=False):
        steps.append(_step(saga, shape, letter, part, [steps[place] for place in part.after]))
    return saga


def random_shape(seed: int) -> Shape:
    """A saga of one to six steps with whatever a definition can say; the larger the seed, the more of it."""
    chance = Random(seed)
    count = 1 + min(5, seed // 40) if seed else 1
    pivot = chance.randrange(count) if chance.random() < 0.4 else count
    kinds: list[StepKind] = []
    parts: list[Part] = []
    for place in range(count):
        kind: StepKind = chance.choice(["command", "command", "command", "list", "signal", "event", "wait", "child"])
        kind = "command" if place == pivot or (kind in ("signal", "event") and kind in kinds) else kind
        if kind == "event" and place > pivot + 1:
            kind = "command"  # what may turn the saga past its pivot comes before anything that is never undone
        kinds.append(kind)
        after = {earlier for earlier in range(place) if chance.random() < 0.5}
        after = set(range(place)) if place == pivot else after | ({pivot} if place > pivot else set())
        if place > pivot + 1 and kinds[pivot + 1] == "event":
            after.add(pivot + 1)
        parts.append(
            Part(
                kind,
                tuple(sorted(after)),
                timed=chance.random() < 0.4,
                pivot=place == pivot,
                kept=place != pivot and chance.random() < 0.15,
                when=chance.random() < 0.5 if kind == "command" and place != pivot and chance.random() < 0.2 else None,
                size=chance.randrange(4) if kind == "list" else 0,
            )
        )
    inner = Shape((Part(),), name="inner")
    broken = LETTERS[chance.randrange(count)] if chance.random() < 0.05 else ""
    locks = chance.random() < 0.2
    return Shape(tuple(parts), locks=locks, child=inner, broken=broken, fickle=chance.random() < 0.5)


def keys_of(start: Asked) -> tuple[str, ...]:
    return start.keys


def _step(saga: Saga[Asked], shape: Shape, letter: str, part: Part, after: list[DeclaredStep]) -> DeclaredStep:
    timeout = TIMEOUT if part.timed else None
    is_past = any(step.is_pivot for step in _all_before(after))
    kept = part.kept and not is_past
    match part.kind:
        case "signal":
            return saga.signal(Approved, after=after, within=timeout)
        case "wait":
            return saga.wait(letter, TIMEOUT, after=after)
        case "event":
            return saga.awaits(Delivered, after=after, within=timeout, unless=Undeliverable)
        case "child":
            assert shape.child is not None
            declare = saga.child(
                saga_of(shape.child), after=after, timeout=None if is_past else timeout, needs_no_compensation=kept
            )
            return declare(named(letter, _ask(shape.fickle)))
        case "list":
            step = saga.each(after=after, at_most=max(1, part.size), timeout=timeout, needs_no_compensation=kept)(
                named(letter, make_each(part.size))
            )
            if not (kept or is_past):
                step.compensation(named(f"un_{letter}", _unmake(shape.fickle)))
            return step
        case "command" if part.when is not None:
            when = named(f"needs_{letter}", _says(part.when))
            optional = saga.step(after=after, timeout=timeout, when=when, needs_no_compensation=kept)(
                named(letter, _make(letter, shape.fickle))
            )
            if not (kept or is_past):
                optional.compensation(named(f"un_{letter}", _unmake(shape.fickle)))
            return optional
        case "command":
            plain = saga.step(after=after, timeout=timeout, pivot=part.pivot, needs_no_compensation=kept)(
                named(letter, _raise() if letter == shape.broken else _make(letter, shape.fickle))
            )
            turns_late = part.pivot and any(each.kind == "event" for each in shape.parts[LETTERS.index(letter) :])
            if turns_late or not (kept or is_past or part.pivot):
                plain.compensation(named(f"un_{letter}", _unmake(shape.fickle)))
            return plain


def _all_before(after: list[DeclaredStep]) -> list[DeclaredStep]:
    return [*after, *(step for earlier in after for step in _all_before(list(earlier.after)))]


F = Callable[..., Any]


def named(name: str, function: F) -> Any:
    """The function under the name that the definition and its answers go by."""
    function.__name__ = name
    return function


def _ask(is_fickle: bool) -> F:
    def ask(s: State[Asked]) -> Asked:
        return Asked(keys=(_call(is_fickle),))

    return ask


def _make(letter: str, is_fickle: bool) -> F:
    def make(s: State[Asked]) -> Make:
        return Make(what=letter + _call(is_fickle))

    return make


def _raise() -> F:
    def make(s: State[Asked]) -> Make:
        raise ZeroDivisionError

    return make


def make_each(size: int, is_fickle: bool = False) -> F:
    def make(s: State[Asked]) -> list[Make]:
        return [Make(what=str(number) + _call(is_fickle)) for number in range(size)]

    return make


def _says(answer: bool) -> F:
    def says(s: State[Asked]) -> bool:
        return answer

    return says


def _unmake(is_fickle: bool) -> F:
    def unmake(s: State[Asked], command: Make) -> Unmake:
        return Unmake(reason=s.reason, what=command.what, call=_call(is_fickle))

    return unmake
