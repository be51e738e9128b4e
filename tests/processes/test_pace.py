"""What the demo says of its rate: before the kills and after them, apart from the pauses that they cost."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from antiphon.deploy.local.pace import Pace, pace


def every(seconds: float, first: float, count: int) -> list[float]:
    return [first + seconds * number for number in range(count)]


def test_a_pause_after_a_kill_is_no_part_of_the_rate() -> None:
    ends = [*every(0.1, 100.1, 20), *every(0.1, 102.1, 10), *every(0.1, 110.1, 11)]
    assert astuple(pace(100.0, ends, killed=102.0)) == pytest.approx((10, 10, 7.1))


def test_the_pauses_of_two_kills_are_told_together() -> None:
    ends = [*every(0.1, 0.1, 10), *every(0.05, 2.0, 21), *every(0.05, 5.0, 21)]
    assert astuple(pace(0.0, ends, killed=1.0)) == pytest.approx((10, 20, 1.0 + 2.0))


def test_what_is_slow_before_the_kills_is_slow_and_no_pause() -> None:
    assert astuple(pace(0.0, [1.0, 2.0, 2.1], killed=2.0)) == pytest.approx((1, 10, 0))


def test_where_nothing_ends_after_the_kill_there_is_no_rate() -> None:
    assert pace(0.0, [0.5, 1.0], killed=1.0) == Pace(before=2.0, after=0.0, pause_seconds=0.0)


def test_where_nothing_was_left_to_run_that_is_said() -> None:
    assert str(Pace(2.0, 0.0, 0.0)) == "2.0 sagas/s; nothing was left to run after the kills"


def test_a_pace_is_a_sentence() -> None:
    assert str(Pace(34.02, 47.9, 7.23)) == (
        "34.0 sagas/s before the kills, 47.9 after them, and 7.2 s in which nothing ended"
    )
