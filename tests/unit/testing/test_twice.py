"""A step's function that is none is told of by the tests of whoever wrote it, before chance decides in production."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator import Saga, State
from antiphon.coordinator.testing import given, rehearse
from antiphon.participants import Participant, Transaction
from antiphon.participants.testing import Service

COUNT = itertools.count()
PRICES = {"cap": 1, "ink": 2, "pen": 3}


class Asked(Event, name="twice.asked"):
    items: frozenset[str] = frozenset(PRICES)
    listed: tuple[str, ...] = ("pen", "cap", "ink", "cap")
    prices: dict[str, int]


class Kept(Event, name="twice.kept", owner="shelf"):
    pass


class Keep(Command[Kept], name="twice.keep"):
    item: str
    price: int = 0
    tags: tuple[str, ...] = ()


class Drop(Compensation[Keep], name="twice.drop"):
    item: str


def a_saga(make: Callable[[State[Asked]], list[Keep]]) -> Saga[Asked]:
    saga = Saga(Asked, name="twice", version=1, deadline=timedelta(days=1))

    def keep_all(s: State[Asked]) -> list[Keep]:
        return make(s)

    def drop_all(s: State[Asked], command: Keep) -> Drop:
        return Drop(item=command.item)

    saga.each()(keep_all).compensation(drop_all)
    return saga


def keeps(items: Iterable[str]) -> list[Keep]:
    return [Keep(item=item) for item in items]


CHANCE: dict[str, Callable[[State[Asked]], list[Keep]]] = {
    "a set's order": lambda s: keeps(s.start.items),
    "a list of a set": lambda s: keeps(list(s.start.items)),
    "a set made of a list": lambda s: keeps(set(s.start.listed)),
    "a set in braces": lambda s: keeps({item for item in s.start.listed if item}),
    "a frozenset of a set": lambda s: keeps(frozenset(s.start.items)),
    "a set in a command": lambda s: [Keep(item="a", tags=tuple(set(s.start.listed)))],
    "a set of tuples": lambda s: keeps(item for item, _ in {(item, 1) for item in s.start.listed}),
    "a number that grows": lambda s: keeps([str(next(COUNT))]),
}

PURE: dict[str, Callable[[State[Asked]], list[Keep]]] = {
    "sorted": lambda s: keeps(sorted(s.start.items)),
    "a list in its order": lambda s: keeps(s.start.listed),
    "a dict in its order": lambda s: keeps(s.start.prices),
    "a look into a set": lambda s: keeps(item for item in s.start.listed if item in s.start.items),
    "a look into a dict": lambda s: [Keep(item=item, price=PRICES[item]) for item in sorted(s.start.items)],
    "a default for what a dict lacks": lambda s: [Keep(item="a", price=PRICES.get(s.start.listed[0], 0))],
    "a set of one": lambda s: keeps(set(s.start.listed[:1])),
    "a comparison": lambda s: keeps("p" for item in s.start.listed if item == "pen"),
    "a match": lambda s: keeps(_matched(item) for item in s.start.listed),
}


def _matched(item: str) -> str:
    match item:
        case "pen" | "ink":
            return "to write"
        case _:
            return "to wear"


@pytest.mark.parametrize("make", CHANCE.values(), ids=CHANCE)
def test_a_list_that_chance_has_put_in_order_is_told_of(make: Callable[[State[Asked]], list[Keep]]) -> None:
    given(a_saga(make), Asked(prices=PRICES)).is_parked(
        "keep_all gives another list each time it is called. Make it of the state"
    )


@pytest.mark.parametrize("make", PURE.values(), ids=PURE)
def test_a_function_of_the_state_is_left_alone(make: Callable[[State[Asked]], list[Keep]]) -> None:
    given(a_saga(make), Asked(prices=PRICES)).is_not_parked()


@pytest.mark.parametrize("make", [CHANCE["a set's order"], CHANCE["a number that grows"]])
async def test_a_rehearsal_fails_with_the_sentence(make: Callable[[State[Asked]], list[Keep]]) -> None:
    shelf = Participant("shelf")

    @shelf.handles(Keep)
    async def keep(command: Keep, tx: Transaction) -> Kept:
        return Kept()

    @shelf.compensates(Keep)
    async def drop(command: Drop, kept: Kept, tx: Transaction) -> None: ...

    saga = a_saga(make)
    async with Service.open(shelf) as service, rehearse([saga], [service]) as rehearsal:
        with pytest.raises(AssertionError, match="keep_all gives another list each time"):
            await rehearsal.start(saga, Asked(prices=PRICES))


@pytest.mark.parametrize("function", ["command", "compensation", "when", "keys", "locks"])
def test_each_kind_of_function_is_asked_twice(function: str) -> None:
    def chance(where: str) -> str:
        return str(next(COUNT)) if where == function else "same"

    def found_by(start: Asked) -> dict[str, str]:
        return {"by": chance("keys")}

    def needed(start: Asked) -> list[str]:
        return [chance("locks")]

    def is_wanted(s: State[Asked]) -> bool:
        return int(chance("when")) % 2 == 0 if function == "when" else True

    locks: Any = needed if function == "locks" else None
    saga = Saga(Asked, name="twice", version=1, deadline=timedelta(days=1), keys=found_by, locks=locks)

    @saga.step(when=is_wanted)
    def keep_one(s: State[Asked]) -> Keep:
        return Keep(item=chance("command"))

    @keep_one.compensation
    def drop_one(s: State[Asked]) -> Drop:
        return Drop(item=chance("compensation"))

    scenario = given(saga, Asked(prices=PRICES))
    if function == "compensation":
        scenario = scenario.when_cancelled("enough")
    scenario.is_parked(f"gives {'another list' if function == 'locks' else 'something else'} each time it is called")
