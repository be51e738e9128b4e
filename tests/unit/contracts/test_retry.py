"""Capped exponential backoff with full jitter, as a value that travels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.contracts import DefinitionError, Retry, WrongShape
from antiphon.contracts.retry import parse_retry


def test_bounds_grow_by_the_factor_up_to_the_cap() -> None:
    retry = Retry(attempts=9, first_seconds=1, factor=2, cap_seconds=10)
    assert [retry.bound_seconds(attempt) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_the_ten_thousandth_wait_is_the_cap_and_no_overflow() -> None:
    assert Retry().bound_seconds(10_000) == 30


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_every_wait_lies_between_nothing_and_its_bound(attempt: int, chance: float) -> None:
    retry = Retry()
    assert 0 <= retry.wait_seconds(attempt, chance) <= retry.bound_seconds(attempt)


def test_jitter_is_the_share_of_a_wait_that_is_drawn_by_lot() -> None:
    waits = {
        jitter: [Retry(1, 8, 1, 8, jitter).wait_seconds(1, chance) for chance in (0, 0.5)] for jitter in (1, 0.5, 0)
    }
    assert waits == {1: [0, 4], 0.5: [4, 6], 0: [8, 8]}


def test_full_jitter_travels_unsaid() -> None:
    assert Retry().encode() == "5/0.2/2/30"
    assert Retry(jitter=0.25).encode() == "5/0.2/2/30/0.25"


@pytest.mark.parametrize(
    "fields",
    [{"attempts": 0}, {"first_seconds": 0}, {"factor": 0.5}, {"first_seconds": 9, "cap_seconds": 8}, {"jitter": 1.5}],
    ids=repr,
)
def test_bounds_that_make_no_sense_are_the_authors(fields: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match="attempts count from 1"):
        Retry(**fields)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # numbers by name


@pytest.mark.parametrize(
    "retry", [Retry(), Retry(1, 0.05, 1.5, 900), Retry(7, 1, 1, 1), Retry(jitter=0), Retry(jitter=0.3)]
)
def test_it_is_read_as_it_was_written(retry: Retry) -> None:
    assert parse_retry(retry.encode()) == retry


@pytest.mark.parametrize("seconds", [3_153_600_001.0, float("inf"), float("nan"), -1.0])
def test_nothing_is_waited_for_longer_than_the_servers_clock_goes(seconds: float) -> None:
    with pytest.raises(DefinitionError, match="at most 3153600000, which is a hundred years"):
        Retry(cap_seconds=seconds)


def test_a_command_of_an_earlier_release_is_tried_within_that_time() -> None:
    assert parse_retry("5/1e+11/2/1e+12") == Retry(5, 3_153_600_000, 2, 3_153_600_000)


def test_without_a_retry_a_command_is_tried_once() -> None:
    assert parse_retry("").attempts == 1


@pytest.mark.parametrize(
    "text", ["5", "5/1/2", "a/1/2/3", "0/1/2/3", "5/1/2/3/4", "5/1/2/3/1/1", "5/1/2/3/", "5/nan/2/3", "5/1/inf/3"]
)
def test_another_form_is_a_wrong_shape(text: str) -> None:
    with pytest.raises(WrongShape, match="attempts/first/factor/cap"):
        parse_retry(text)
