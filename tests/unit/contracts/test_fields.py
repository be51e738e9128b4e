"""A class whose annotations name what is defined later is looked at when somebody names the class."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import Command, Compensation, DefinitionError, Event
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.participants import Participant, Transaction

HOUR = timedelta(hours=1)


class Begun(Event, name="late.begun"):
    plan: Plan


class Paved(Event, name="late.paved", owner="layer"):
    ways: list[Way]


class Pave(Command[Paved], name="late.pave"):
    metres: int


class Told(Event, name="late.told"):
    way: Way | None = None


class Asked(Event, name="late.asked"):
    metres: int


class Dug(Event, name="late.dug", owner="layer"):
    metres: int


class Dig(Command[Dug], name="late.dig"):
    metres: int


class Never(Event, name="late.never"):
    thing: Nowhere  # type: ignore[name-defined] # pyright: ignore[reportUndefinedVariable] # noqa: F821


class Way:
    """No struct."""


class Plan:
    """No struct either."""


def saga(start: Any = Asked) -> Saga[Any]:
    return Saga(start, name="late", version=1, deadline=HOUR)


def pave(s: State[Any]) -> Pave:
    return Pave(metres=1)


def pave_all(s: State[Any]) -> list[Pave]:
    return []


def ask(s: State[Any]) -> Begun:
    raise NotImplementedError


async def react(event: Any, tx: Transaction) -> Paved | None:
    return None


react.__annotations__.pop("event")

NAMED: list[tuple[Callable[[], Any], str]] = [
    (lambda: saga(Begun), "Begun.plan is of the class Plan"),
    (lambda: saga().step()(pave), r"Paved.ways\[\] is of the class Way"),
    (lambda: saga().each()(pave_all), r"Paved.ways\[\] is of the class Way"),
    (lambda: saga().signal(Told), "Told.way is of the class Way"),
    (lambda: saga().awaits(Paved), "Paved.ways"),
    (lambda: saga().records(Paved), "Paved.ways"),
    (lambda: choreography(Begun, Dug), "Begun.plan"),
    (lambda: choreography(Asked, Paved), "Paved.ways"),
    (lambda: Participant("layer").handles(Pave), "Paved.ways"),
    (lambda: Participant("layer").compensates(Pave), "Paved.ways"),
    (lambda: Participant("other").reacts_to(Paved), "Paved.ways"),
    (lambda: Participant("layer").reacts_to(Dug)(react), "Paved.ways"),
    (lambda: saga(Never), "Never: its annotations cannot be read .*Nowhere.*Import or define what they name"),
]


def choreography(start: Any, end: Any) -> Choreography[Any]:
    return Choreography(start, name="late", version=1, deadline=HOUR, flow={start: "layer"}, completes=end)


@pytest.mark.parametrize(("name", "sentence"), NAMED, ids=[sentence for _, sentence in NAMED])
def test_who_names_a_class_that_cannot_travel_is_told(name: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        name()


def test_a_compensation_that_cannot_travel_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Fill.ways\{\} is of the class Way"):

        class Fill(Compensation[Dig], name="late.fill"):
            ways: dict[str, Way]
