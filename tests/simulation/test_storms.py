"""Real coordinators in bad weather: sagas of random shapes end well, all of them, once it is calm."""

from __future__ import annotations

import os

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from antiphon.contracts.payloads import Parked
from antiphon.contracts.topology import PARKED
from tests.simulation.sagas import random_shape
from tests.simulation.storm import Storm
from tests.simulation.walk import SHAPES

STORMS = int(os.environ.get("ANTIPHON_STORMS", "100"))
"""How many storms are lived through; `make explore` has more."""


@settings(max_examples=STORMS, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@example(
    shape=363, seed=4788, coordinators=2
)  # the end is written in the sweeper's turn, and the lock is told by nobody
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


def test_a_saga_that_stands_still_is_parked_once_however_often_it_is_swept() -> None:
    parked = list[tuple[int, str]]()
    for shape in [shape for shape in range(100) if random_shape(shape).broken]:
        storm = Storm(random_shape(shape), seed=shape)
        storm.calm_down()
        storm.platform.run(3600.0)
        index = [msgspec.json.decode(message.data, type=Parked) for message in storm.platform.streams[PARKED]]
        parked += [(shape, str(each.saga)) for each in index]
    assert len(parked) > 5
    assert len(parked) == len(set(parked))
