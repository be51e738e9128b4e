"""Real coordinators in bad weather: sagas of random shapes end well, all of them, once it is calm."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.sagas import random_shape
from tests.simulation.storm import Storm
from tests.simulation.walk import SHAPES

STORMS = int(os.environ.get("ANTIPHON_STORMS", "100"))
"""How many storms are lived through; `make explore` has more."""


@settings(max_examples=STORMS, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, SHAPES - 1), st.integers(0, 2**32), st.integers(1, 3))
def test_after_a_storm_every_saga_has_ended_and_no_effect_is_lost_or_doubled(
    shape: int, seed: int, coordinators: int
) -> None:
    described = random_shape(shape)
    if described.broken:
        return  # it stands still by itself
    storm = Storm(described, seed, coordinators)
    storm.run()
    storm.require_all_well()
