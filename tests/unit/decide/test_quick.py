"""The quick way to a plan leads to the plan that the full way leads to, from wherever a saga may be, and further."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon.contracts.clock import moment
from antiphon.contracts.payloads import End, Operation
from antiphon.coordinator.decision.author import Author
from antiphon.coordinator.decision.facts import Answer, Fact, Operated
from antiphon.coordinator.decision.history import ENTRIES_MAX, History, begin
from antiphon.coordinator.decision.plan import full_plan, plan
from antiphon.coordinator.decision.planned import Plan
from antiphon.coordinator.decision.quick import quick_plan
from tests.simulation.explore import PARENT
from tests.simulation.sagas import LETTERS, SECOND, Made, Part, Shape
from tests.simulation.walk import BUDGETS, SHAPES, walk
from tests.simulation.world import BEGUN_NS, KEY, Budget, Model

CASES = int(os.environ.get("ANTIPHON_WALKS", "300"))
"""How many sagas are looked at; `make explore` looks at more."""

BY_HAND = Operated(10_000, BEGUN_NS, "ann", "resolve", Operation(reason="by hand"))

SAGAS: dict[str, list[Any]] = {
    "turned": ["it was refused"],
    "noted": ["cancelled: no"],
    "fault": ["it raised"],
    "unread": ["cannot be read"],
    "paused": ["ann: let me look"],
    "late": ["nothing more is tried"],
    "overdue": [True],
    "marked": [frozenset("b")],
    "heard": [{"shop": 3}],
    "more": [frozenset({"shop"})],
    "gate_ns": [BEGUN_NS, BEGUN_NS + 50 * SECOND],
    "asked_ns": [BEGUN_NS],
    "is_full": [True],
    "sampled": [True, False, None],
    "keys": [{"order": "o-1"}],
    "held": [True],
    "entries": [ENTRIES_MAX - 3, ENTRIES_MAX - 2, ENTRIES_MAX - 1, ENTRIES_MAX],
    "named": [frozenset[int]()],
    "now_ns": [BEGUN_NS + 5 * SECOND, BEGUN_NS + 200 * SECOND],
}
"""What is changed of a saga, up to three things at once, to what it may be elsewhere or never is."""

STEPS: dict[str, list[Any]] = {
    "phase": ["waiting", "sent", "done", "skipped", "refused", "unknown", "settling", "undone"],
    "attempts": [0, 1, 2, 5],
    "timeout_ns": [0, BEGUN_NS + SECOND, BEGUN_NS + 90 * SECOND],
    "again_ns": [0, 1, BEGUN_NS, BEGUN_NS + 60 * SECOND],
    "since_ns": [0, BEGUN_NS],
    "command": [b"", b'{"what":"a"}'],
    "is_open": [True],
    "unasked": [BY_HAND],
    "reason": ["shop was closed"],
}
"""The same of a step."""


def changes(known: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    one = st.sampled_from(sorted(known)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(known[name])))
    return st.lists(one, max_size=3).map(dict)


def changed(history: History, saga: dict[str, Any], letter: str, step: dict[str, Any]) -> History:
    steps = history.steps
    if letter in steps:
        steps = {**steps, letter: replace(steps[letter], **step)}
    return replace(history, steps=steps, **saga)


def compare(history: History, fact: Fact, at_ns: int, ratio: float) -> Plan | None:
    """The quick plan, if there is one, which is the full one."""
    author = Author()
    quick = quick_plan(history, fact, moment(at_ns), author, ratio)
    if quick is not None:
        full = full_plan(history, fact, moment(at_ns), False, "", author, ratio, "")
        assert replace(quick, error=None) == replace(full, error=None)
        assert quick.error is None or type(quick.error) is type(full.error)
        assert list(quick.entries[0].after.steps) == list(full.entries[0].after.steps)
    return quick


@settings(max_examples=CASES, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, SHAPES - 1),
    st.integers(0, len(BUDGETS) - 1),
    st.binary(max_size=30),
    changes(SAGAS),
    st.sampled_from(LETTERS[:4]),
    changes(STEPS),
    st.sampled_from([0, 5 * SECOND, 150 * SECOND]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_fact_of_any_saga_is_planned_alike_on_both_ways_wherever_the_saga_stands(
    shape: int,
    budget: int,
    choices: bytes,
    saga: dict[str, Any],
    letter: str,
    step: dict[str, Any],
    later_ns: int,
    ratio: float,
) -> None:
    world = walk(shape, budget, choices)
    for before in (begin(KEY, world.history.definition), *(entry.after for entry in world.entries)):
        for fact in world.facts.values():
            compare(changed(before, saga, letter, step), fact, BEGUN_NS + later_ns, ratio)


ROW = (Part(), Part(after=(0,), timed=True), Part(after=(1,), pivot=True), Part(after=(2,)))


@pytest.mark.parametrize("deadline", [timedelta(seconds=100), timedelta(days=1)])
@pytest.mark.parametrize("broken", ["", "c"])
def test_a_saga_that_goes_well_goes_the_quick_way_from_its_start_to_its_end(deadline: timedelta, broken: str) -> None:
    model = Model(Shape(ROW, deadline=deadline, broken=broken))
    world = model.begin(Budget(0, 0, 0, 0, 0))
    while moves := [move for move in model.moves(world) if move[0] in ("deliver", "handle")]:
        if moves[0][0] == "deliver":
            fact = world.facts[moves[0][1]]
            assert compare(world.history, fact, world.now_ns, 1.0) is not None, fact
        world = model.after(world, moves[0])
    assert world.history.state == ("running" if broken else "completed")
    assert world.history.fault == ("c raised ZeroDivisionError" if broken else "")


def test_a_coordinator_asks_the_quick_way_first_unless_something_is_held_or_was_handled_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Model(Shape(ROW))
    world = model.begin(Budget())
    (fact,) = world.facts.values()
    marked = Plan(fault="quick")
    monkeypatch.setattr("antiphon.coordinator.decision.plan.quick_plan", lambda *_: marked)
    now = moment(world.now_ns)
    assert plan(world.history, fact, now) is marked
    assert plan(world.history, fact, now, is_repeated=True) is not marked
    assert plan(world.history, fact, now, hold="ann paused it") is not marked
    assert plan(world.history, fact, now, refusal="too many are open") is not marked


def test_two_ways_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(Shape(ROW))
    world = model.begin(Budget())
    (fact,) = world.facts.values()
    monkeypatch.setattr("antiphon.coordinator.decision.quick.timer_to_set", lambda *_: None)
    with pytest.raises(AssertionError):
        compare(world.history, fact, world.now_ns, 1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"end": End(outcome="completed")},
        {"turned": "it was refused"},
        {"fault": "it raised"},
        {"unread": "cannot be read"},
        {"paused": "ann: let me look"},
        {"gate_ns": BEGUN_NS},
        {"entries": ENTRIES_MAX},
        {"parent": PARENT},
        {"named": frozenset({2})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_out_of_the_ordinary_is_left_to_the_full_way(change: dict[str, Any]) -> None:
    model = Model(Shape(ROW))
    world = model.begin(Budget())
    (started,) = world.facts.values()
    begun = plan(world.history, started, moment(world.now_ns)).entries[0].after
    answer = Answer(2, world.now_ns, "a", "do", 1, "done", 1, Made(what="a"))
    assert compare(begun, answer, world.now_ns, 1.0) is not None
    assert compare(replace(begun, **change), answer, world.now_ns, 1.0) is None
