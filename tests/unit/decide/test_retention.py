"""For how long a saga is kept once it has ended: what an author may say, and what an operator may say instead."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.contracts import DefinitionError, PlatformError
from antiphon.coordinator.definition.retention import Retention, read_overrides, retentions, seconds_of
from antiphon.coordinator.definition.saga import Saga
from tests.support.trip import TRIP, TripAsked

DAY = 86_400.0


def kept(retention: Any) -> Saga[TripAsked]:
    saga = Saga(TripAsked, name="trip", version=1, deadline=timedelta(hours=1), retention=retention)
    saga.wait("rest", timedelta(seconds=1))
    return saga


@pytest.mark.parametrize(
    ("said", "retention"),
    [
        (None, Retention()),
        (timedelta(days=1), Retention(DAY, DAY)),
        ({"completed": timedelta(days=1)}, Retention(completed=DAY)),
        ({"completed": timedelta(days=1), "compensated": timedelta(days=2)}, Retention(DAY, 2 * DAY)),
    ],
)
def test_an_author_says_one_time_or_one_for_each_outcome(said: Any, retention: Retention) -> None:
    assert kept(said).definition.retention == retention


@pytest.mark.parametrize(
    "said",
    [
        *(timedelta(0), timedelta(days=-1), timedelta(days=40_000), 30, "30d"),
        *({"failed": timedelta(days=1)}, {"completed": None}, {"completed": 30}),
    ],
)
def test_what_is_no_time_or_no_outcome_is_refused(said: Any) -> None:
    with pytest.raises(DefinitionError, match="retention"):
        kept(said)


def test_it_is_no_part_of_the_shape() -> None:
    assert kept(timedelta(days=1)).definition.shape == kept(None).definition.shape


def test_an_operator_says_otherwise_by_type_and_outcome() -> None:
    declared = {"order": Retention(DAY, DAY), "trip": Retention(), "other": Retention(DAY)}
    said = read_overrides(["order=2d", "order:compensated=forever", "trip:completed=1w", "other=forever"])
    assert retentions(declared, said) == {"order": Retention(completed=2 * DAY), "trip": Retention(completed=7 * DAY)}
    assert retentions(declared, {}) == {"order": Retention(DAY, DAY), "other": Retention(completed=DAY)}
    with pytest.raises(
        PlatformError, match=r"sagas of type 'gone', and this coordinator has none; .* order, other, trip"
    ):
        retentions(declared, read_overrides(["gone=1d"]))


@pytest.mark.parametrize(
    "text", ["order", "order=", "order=1", "order=d", "=1d", "order:failed=1d", "order=0d", "order=-1d"]
)
def test_what_an_operator_misspells_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match=re.escape(text) + ".*is no (retention|time)"):
        read_overrides([text])


def test_times_have_a_unit() -> None:
    assert [seconds_of(each, "") for each in ("90s", "90m", "12h", "30d", "52w", "forever")] == [
        90.0,
        5_400.0,
        43_200.0,
        30 * DAY,
        364 * DAY,
        None,
    ]


def test_the_shortest_is_what_a_scan_ends_at() -> None:
    assert Retention(2.0, 1.0).shortest == 1.0
    assert (Retention(2.0).shortest, Retention().shortest) == (2.0, None)
    assert replace(TRIP.definition.retention, completed=1.0).seconds("compensated") is None
