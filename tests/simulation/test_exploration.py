"""Every way that a few sagas can go is gone, in every order, and nothing is lost on any of them."""

from __future__ import annotations

import sys

import pytest

from antiphon.coordinator.decision import plan, quick
from tests.simulation.explore import MODELS, SMALL, SUITE, explore
from tests.simulation.sagas import Part, Shape
from tests.simulation.world import Broken, Budget, Model


@pytest.mark.parametrize("name", MODELS)
def test_no_order_of_answers_crashes_duplicates_and_time_breaks_a_saga(name: str) -> None:
    for budget in SUITE.get(name, (SMALL,)):
        found = explore(MODELS[name], budget)
        sys.stdout.write(f"{name}: {found}\n")  # shown with -s
        assert found.ends == found.completed + found.compensated + found.parked
        assert found.compensated
        assert found.completed or name == "raises"


def test_an_exploration_tells_the_way_to_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in (plan, quick):
        monkeypatch.setattr(way, "timer_to_set", lambda *_, **__: None)
    with pytest.raises(Broken, match=r"the timer at 0\n.*deliver"):
        explore(Model(Shape((Part("wait"),))), Budget())
