"""Whatever somebody has changed of a stream or consumer is found, and what is as it must be is not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.contracts import differences
from antiphon.contracts.differences import asked_replicas, changes, consumer_differences, stream_differences
from antiphon.contracts.topology import (
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
CONSUMER = {consumer.name: consumer for consumer in PLATFORM_CONSUMERS}
DAY_NS = 86_400 * 10**9

HARMFUL: list[tuple[str, dict[str, Any], str]] = [
    (SAGA, {"max_age": DAY_NS}, "max_age is 86400 s and must be none"),
    (SAGA, {"max_msgs": 1000}, "max_msgs is 1000 and must be none"),
    (SAGA, {"max_bytes": 1000}, "max_bytes is 1000 and must be none"),
    (SAGA, {"max_msgs_per_subject": 1}, "max_msgs_per_subject is 1"),
    (SAGA, {"max_msg_size": 100}, "max_msg_size is 100"),
    (SAGA, {"allow_direct": False}, "allow_direct is off and must be on (nobody can read sagas)"),
    (SAGA, {"allow_msg_schedules": None}, "allow_msg_schedules is off and must be on"),
    (SAGA, {"retention": "interest"}, "retention is interest and must be limits"),
    (SAGA, {"storage": "memory"}, "storage is memory and must be file"),
    (SAGA, {"subjects": ["saga.1.>"]}, "subjects must have saga.>"),
    (SAGA, {"sealed": True}, "sealed is on and must be off"),
    (SAGA, {"persist_mode": "async"}, "persist_mode is async and must be off"),
    (EVENTS, {"max_age": DAY_NS}, "max_age is 86400 s"),
    (EVENTS, {"discard": "old"}, "discard is old and must be new"),
    (EVENTS, {"max_msgs_per_subject": -1}, "max_msgs_per_subject is none and must be 1"),
    (EVENTS, {"discard_new_per_subject": None}, "discard_new_per_subject is none and must be on"),
    (EVENTS, {"allow_rollup_hdrs": True}, "allow_rollup_hdrs is on and must be off"),
    (EVENTS, {"allow_msg_schedules": True}, "allow_msg_schedules is on and must be off"),
    (EVENTS, {"no_ack": True}, "no_ack is on and must be off"),
]


@pytest.mark.parametrize(("name", "changed", "said"), HARMFUL)
def test_what_breaks_a_promise_is_grave(name: str, changed: dict[str, Any], said: str) -> None:
    (found,) = stream_differences(STREAM[name], {**STREAM[name].config(1), **changed}, 1)
    assert found.sentence.startswith(f"stream {name}: {said}")
    assert found.is_grave
    assert found.remedy == "as administrator: antiphon setup"


@pytest.mark.parametrize(
    ("name", "changed"),
    [(PARKED, {"max_age": DAY_NS}), (REGISTRATIONS.name, {"max_age": 0}), (SAGA, {"num_replicas": 1})],
)
def test_what_costs_no_saga_is_told_and_keeps_nobody_from_work(name: str, changed: dict[str, Any]) -> None:
    (found,) = stream_differences(STREAM[name], {**STREAM[name].config(3), **changed}, 3)
    assert not found.is_grave


@pytest.mark.parametrize("name", STREAM)
def test_a_stream_as_it_must_be_has_none(name: str) -> None:
    wanted = STREAM[name].config(3)
    as_the_server_says = {
        **{key: value for key, value in wanted.items() if value not in (False, 0)},
        "max_consumers": -1,
        "duplicate_window": 120 * 10**9,
        "compression": "none",
        "sealed": False,
        "deny_delete": False,
        "allow_rollup_hdrs": name == SAGA,
        "subjects": [*wanted["subjects"], "another.subject"],
        "metadata": {"_nats.ver": "2.15.1", **wanted["metadata"]},
    }
    assert list(stream_differences(STREAM[name], as_the_server_says, 3)) == []


def test_the_bound_of_what_refuses_is_the_administrators() -> None:
    assert list(stream_differences(STREAM[EVENTS], {**STREAM[EVENTS].config(1), "max_bytes": 10**9}, 1)) == []
    assert list(stream_differences(STREAM[SAGA], {**STREAM[SAGA].config(1), "max_msg_size": 2**20}, 1)) == []


def test_how_many_copies_were_asked_for_is_known_when_a_setting_is_lowered() -> None:
    three = {name: stream.config(3) for name, stream in STREAM.items()}
    lowered = {name: {**config, "num_replicas": 1} for name, config in three.items()}
    of_an_earlier_release = {name: {**config, "metadata": {}} for name, config in three.items()}
    strange = {name: {**config, "metadata": {"antiphon.replicas": "9" * 99}} for name, config in three.items()}
    assert [asked_replicas(each) for each in (three, lowered, of_an_earlier_release, strange, {})] == [3, 3, 3, 3, 0]


@pytest.mark.parametrize(
    ("changed", "said", "is_grave"),
    [
        ({"filter_subjects": ["saga.1.2.3"]}, "filter_subjects must have saga.*.*.*.f.next", True),
        ({"filter_subjects": [], "filter_subject": "saga.1.2.3"}, "filter_subjects must have saga.*.*.*.f.next", True),
        ({"ack_policy": "none"}, "ack_policy is none and must be explicit", True),
        ({"max_deliver": 5}, "max_deliver is 5 and must be none", True),
        ({"deliver_subject": "x"}, "deliver_subject is x and must be none", True),
        ({"headers_only": True}, "headers_only is on and must be none", True),
        ({"inactive_threshold": 10**9}, "inactive_threshold is 1 s and must be none", True),
        ({"ack_wait": 10**9}, "ack_wait is 1 s and must be 3 s", False),
        ({"max_ack_pending": 10}, "max_ack_pending is 10 and must be 100000", False),
    ],
)
def test_what_is_changed_of_a_consumer_is_found(changed: dict[str, Any], said: str, is_grave: bool) -> None:
    timers = CONSUMER["timers"]
    (found,) = consumer_differences(timers, {**timers.config(), **changed})
    assert found.sentence.startswith(f"consumer timers of stream SAGA: {said}")
    assert found.is_grave is is_grave


@pytest.mark.parametrize("name", CONSUMER)
def test_a_consumer_as_it_must_be_has_none_wherever_it_began_and_whatever_else_it_delivers(name: str) -> None:
    wanted = CONSUMER[name].config()
    config = {**wanted, "deliver_policy": "by_start_sequence", "opt_start_seq": 7, "ack_wait": 90 * 10**9}
    config["pause_until"] = "2030-01-01T00:00:00Z"
    assert list(consumer_differences(CONSUMER[name], config)) == []
    assert list(consumer_differences(CONSUMER[name], {**config, "filter_subjects": [">"]})) == []


def test_a_bound_where_all_must_be_pending_is_found() -> None:
    sweeper = CONSUMER[SWEEPER]
    (found,) = consumer_differences(sweeper, {**sweeper.config(), "max_ack_pending": 1000})
    assert "max_ack_pending is 1000 and must be none" in found.sentence
    lower = replace(sweeper, ack_wait_seconds=30.0)
    assert len(list(consumer_differences(sweeper, lower.config()))) == 1


def test_what_was_changed_is_told_in_words() -> None:
    before = {**STREAM[SAGA].config(1), "max_age": DAY_NS, "allow_direct": False, "subjects": ["a.>"]}
    assert changes(before, STREAM[SAGA].config(1)) == [
        "subjects was a.>, is saga.>",
        "max_age was 86400 s, is none",
        "allow_direct was off, is on",
    ]
    assert changes(before, before) == []
    assert differences.said("max_deliver", -1) == "none"
