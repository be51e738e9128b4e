"""Streams restored from a backup, beside a participant that knows more: each saga ends as what was done demands, or is
one that `antiphon compare` names before anything runs again."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.restored import Cut, RestoredStorm
from tests.simulation.sagas import random_shape
from tests.simulation.walk import SHAPES

STORMS = int(os.environ.get("ANTIPHON_STORMS", "60"))

CUTS: tuple[Cut, ...] = ("together", "drained")


@settings(max_examples=STORMS, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, SHAPES - 1), st.integers(0, 2**32), st.sampled_from(CUTS), st.booleans())
def test_after_a_restore_every_saga_ends_as_what_was_done_demands_or_was_named_before(
    shape: int, seed: int, cut: Cut, repeats: bool
) -> None:
    described = random_shape(shape)
    if described.broken:
        return  # it stands still by itself
    storm = RestoredStorm(described, seed, cut, repeats=repeats)
    storm.run()
    storm.require_all_well()


@pytest.mark.parametrize(("shape", "seed"), [(160, 400), (176, 416)])
def test_storms_after_which_a_saga_waited_for_ever(shape: int, seed: int) -> None:
    """For a step that its participant had taken back, or an answer that was read before its command was sent again."""
    storm = RestoredStorm(random_shape(shape), seed, "together", repeats=True)
    storm.run()
    storm.require_all_well()


def test_most_sagas_go_on_by_themselves() -> None:
    """Whoever named every saga would pass the test above."""
    storms = [RestoredStorm(random_shape(seed), seed, "together", repeats=True) for seed in range(60)]
    for storm in storms:
        storm.run()
    named, all_of_them = sum(len(storm.named) for storm in storms), sum(len(storm.keys) for storm in storms)
    assert 0 < named < all_of_them / 4
