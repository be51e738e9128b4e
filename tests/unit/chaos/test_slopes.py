"""What is sampled over an hour: a leak is told from noise, from caches that fill, and from what comes and goes."""

from __future__ import annotations

import random
from itertools import count

import pytest

from tests.chaos.slopes import Series, Slope, slope_of

HOUR = [10.0 * number for number in range(360)]
TOLERANCE = 3.0


def judged(values: list[float], seconds: list[float] = HOUR) -> Slope:
    return slope_of(Series("memory of billing", "MB", TOLERANCE, values), seconds)


def noise(spread: float) -> list[float]:
    chance = random.Random(7)
    return [chance.gauss(0.0, spread) for _ in HOUR]


@pytest.mark.parametrize("an_hour", [4.0, 40.0])
def test_a_leak_is_seen_although_memory_goes_up_and_down(an_hour: float) -> None:
    found = judged([60.0 + an_hour * at / 3600 + each for at, each in zip(HOUR, noise(0.2), strict=True)])
    assert found.grows
    assert found.an_hour == pytest.approx(an_hour, rel=0.1)
    assert found.verdict == "grows"


def test_a_leak_below_the_tolerance_is_printed_and_does_not_count() -> None:
    found = judged([60.0 + 2.0 * at / 3600 for at in HOUR])
    assert not found.grows
    assert found.an_hour == pytest.approx(2.0)


def test_a_cache_that_fills_in_the_first_half_is_no_leak() -> None:
    found = judged([min(60.0, 20.0 + at / 30) for at in HOUR])
    assert not found.grows
    assert (found.first, found.mean, found.last) == (20.0, 60.0, 60.0)


def test_what_comes_and_goes_is_no_leak() -> None:
    assert not judged([300.0 + (number % 17) for number, _ in zip(count(), HOUR, strict=False)]).grows
    assert not judged([300.0 + each for each in noise(20.0)]).grows


def test_what_falls_is_no_leak() -> None:
    assert not judged([300.0 - at / 36 for at in HOUR]).grows


def test_what_comes_to_rest_late_is_no_leak() -> None:
    found = judged([60.0 - 0.01 * max(0.0, 2700.0 - at) for at in HOUR])
    assert not found.grows
    assert found.an_hour > 10.0
    assert found.of_last_quarter == pytest.approx(0.0, abs=0.01)


def test_a_short_run_is_not_judged() -> None:
    found = judged([60.0 + at for at in HOUR[:24]], HOUR[:24])
    assert found.grows is None
    assert found.verdict == "not judged"


def test_a_line_needs_three_samples() -> None:
    with pytest.raises(ValueError, match="memory of billing has 2 samples for 2 times, and needs 3"):
        judged([1.0, 2.0], [0.0, 10.0])
