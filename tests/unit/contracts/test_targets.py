"""What a set-up makes of a stream or consumer that is there, and what would be less safe then."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.contracts.targets import (
    HALF_OF_THE_ROOM,
    UNKNOWN_BOUND,
    Loss,
    Stored,
    consumer_target,
    removed_filters,
    setting_changes,
    stream_reductions,
    stream_target,
)
from antiphon.contracts.topology import (
    ADVISORIES,
    ASKED_REPLICAS,
    BUCKETS,
    EVENTS,
    PARKED,
    PLATFORM_CONSUMERS,
    REGISTRATIONS,
    SAGA,
    STREAMS,
    SWEEPER,
)

STREAM = {stream.name: stream for stream in (*STREAMS, *BUCKETS)}
(SWEEPS,) = (each for each in PLATFORM_CONSUMERS if each.name == SWEEPER)
DAY_NS = 86_400 * 10**9


@pytest.mark.parametrize("name", STREAM)
def test_a_stream_that_is_as_it_must_be_is_left_alone(name: str) -> None:
    as_it_is: dict[str, Any] = {
        **STREAM[name].config(3),
        "max_bytes": 10**9,
        "duplicate_window": 120,
        "deny_delete": False,
    }
    as_it_is |= {"metadata": {**as_it_is["metadata"], "_nats.level": "2"}, "allow_rollup_hdrs": name == SAGA}
    most = 10**9 if STREAM[name].config(3)["max_bytes"] != 10**9 else -1
    assert setting_changes(as_it_is, stream_target(STREAM[name], as_it_is, 3, most)) == []


def test_what_an_administrator_set_besides_stays() -> None:
    found = {**STREAM[SAGA].config(1), "placement": {"tags": ["ssd"]}, "max_age": DAY_NS, "no_ack": True}
    target = stream_target(STREAM[SAGA], found, 1, -1)
    assert (target["placement"], target["max_age"], target["no_ack"]) == ({"tags": ["ssd"]}, 0, None)
    assert {(each.setting, each.was_in_words, each.becomes_in_words) for each in setting_changes(found, target)} == {
        ("max_age", "86400 s", "none"),
        ("no_ack", "on", "off"),
    }


def test_a_bound_that_nobody_gave_is_said_to_be_half_of_the_room() -> None:
    found = STREAM[EVENTS].config(1)
    (change,) = setting_changes(found, stream_target(STREAM[EVENTS], found, 1, UNKNOWN_BOUND))
    assert (change.setting, change.becomes_in_words) == ("max_bytes", HALF_OF_THE_ROOM)


def test_replicas_that_were_asked_for_and_not_written_down_are_a_change() -> None:
    found = {**STREAM[SAGA].config(1), "metadata": {}}
    (change,) = setting_changes(found, stream_target(STREAM[SAGA], found, 1, -1))
    assert (change.setting, change.becomes) == (ASKED_REPLICAS, "1")


def test_a_consumer_goes_on_from_where_it_is() -> None:
    there: dict[str, Any] = {
        **SWEEPS.config(),
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": 7,
        "pause_until": "2100",
    }
    there |= {"filter_subject": there.pop("filter_subjects")[0]}  # which is how the server writes a single one
    target = consumer_target(SWEEPS, there)
    assert (target["deliver_policy"], target["opt_start_seq"], target["pause_until"]) == (
        "by_start_sequence",
        7,
        "2100",
    )
    assert setting_changes(there, target) == []
    changed = {**there, "max_deliver": 5, "backoff": [1]}
    mended = {each.setting for each in setting_changes(changed, consumer_target(SWEEPS, changed))}
    assert mended == {"max_deliver", "backoff"}


LESS_SAFE: list[tuple[str, dict[str, Any], dict[str, Any], Stored, Loss]] = [
    (SAGA, {}, {"num_replicas": 1}, Stored(), Loss.FEWER_REPLICAS),
    (EVENTS, {"max_bytes": 100}, {"max_bytes": 99}, Stored(), Loss.SMALLER_BOUNDS),
    (EVENTS, {"max_msgs_per_subject": 5}, {}, Stored(most_of_a_subject=2), Loss.LOST_MESSAGES),
    (EVENTS, {"max_msgs_per_subject": -1}, {}, Stored(most_of_a_subject=2), Loss.LOST_MESSAGES),
    (PARKED, {"max_msgs_per_subject": -1}, {}, Stored(most_of_a_subject=1001), Loss.LOST_MESSAGES),
    (ADVISORIES, {"max_msgs": -1}, {}, Stored(messages=100_001), Loss.LOST_MESSAGES),
    (REGISTRATIONS.name, {"max_age": DAY_NS}, {}, Stored(messages=1, age_seconds=91), Loss.LOST_MESSAGES),
    (REGISTRATIONS.name, {"max_bytes": -1}, {}, Stored(bytes=1 << 40), Loss.LOST_MESSAGES),
]


@pytest.mark.parametrize(("name", "changed", "becomes", "stored", "loss"), LESS_SAFE)
def test_what_is_less_safe_is_named(
    name: str, changed: dict[str, Any], becomes: dict[str, Any], stored: Stored, loss: Loss
) -> None:
    found = {**STREAM[name].config(3), **changed}
    target = {**stream_target(STREAM[name], found, 3, max(found["max_bytes"], -1) if name == EVENTS else -1), **becomes}
    assert [each.kind for each in stream_reductions(found, target, 3, stored)] == [loss]


@pytest.mark.parametrize(("name", "changed", "becomes", "stored", "loss"), LESS_SAFE)
def test_what_loses_nothing_is_not(
    name: str, changed: dict[str, Any], becomes: dict[str, Any], stored: Stored, loss: Loss
) -> None:
    """The other way round, or where nothing is stored that a tighter bound would drop."""
    found = {**STREAM[name].config(3), **changed}
    target = {**stream_target(STREAM[name], found, 3, max(found["max_bytes"], -1) if name == EVENTS else -1), **becomes}
    if loss is Loss.LOST_MESSAGES:
        assert [*stream_reductions(found, target, 3, Stored())] == []
    else:
        assert [*stream_reductions(target, found, target["num_replicas"], stored)] == []


def test_a_filter_that_another_one_covers_is_not_removed() -> None:
    found = {"filter_subjects": ["evt.*.order.*.billing.charged.>", "evt.*.trip.*.billing.charged.>"]}
    wider = replace(SWEEPS, filters=("evt.*.*.*.billing.>",)).config()
    narrower = replace(SWEEPS, filters=("evt.*.order.*.billing.charged.>",)).config()
    assert removed_filters(found, wider) == []
    assert removed_filters(found, narrower) == ["evt.*.trip.*.billing.charged.>"]
