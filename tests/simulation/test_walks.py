"""Sagas of random shapes on random ways, and whatever happens, what was promised holds."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.walk import BUDGETS, SHAPES, walk

CASES = int(os.environ.get("ANTIPHON_WALKS", "1500"))
"""How many ways are gone; `make explore` goes more."""


@settings(max_examples=CASES, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, SHAPES - 1), st.integers(0, len(BUDGETS) - 1), st.binary(max_size=40))
def test_no_way_of_any_saga_breaks_a_promise(shape: int, budget: int, choices: bytes) -> None:
    walk(shape, budget, choices)
