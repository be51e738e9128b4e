"""Which pair of streams holds which saga, and what the streams of several pairs are."""

from __future__ import annotations

import pytest

from antiphon.contracts import subjects
from antiphon.contracts.errors import DefinitionError, PlatformError
from antiphon.contracts.identity import PARTITIONS, SagaKey
from antiphon.contracts.pairs import ONE_PAIR, PAIRS_MAX, Pairs, base_of, count_in, pair_in, stream_name
from antiphon.contracts.topology import (
    ADVISORIES,
    EVENTS,
    EXPORTER_CONSUMER,
    PARKED,
    PLATFORM_CONSUMERS,
    SAGA,
    STREAMS,
    participant_consumers,
)

SAGAS = [SagaKey.of("order", f"order-{number}") for number in range(300)]
SEVERAL = pytest.mark.parametrize("count", [2, 3, 4, PAIRS_MAX])


def test_with_one_pair_nothing_has_another_name_or_other_subjects() -> None:
    assert ONE_PAIR.streams() is STREAMS
    assert (ONE_PAIR.saga, ONE_PAIR.events) == ((SAGA,), (EVENTS,))
    assert ONE_PAIR.spread(PLATFORM_CONSUMERS) == [*PLATFORM_CONSUMERS]
    assert {ONE_PAIR.stream_of(SAGA, key) for key in SAGAS} == {SAGA}
    assert ONE_PAIR.parts(SAGA, ["saga.*.order.*.c.end", "saga.1.order.a.c.end"]) == {
        SAGA: ["saga.*.order.*.c.end", "saga.1.order.a.c.end"]
    }


@SEVERAL
def test_each_partition_is_in_one_stream_of_each_kind_and_that_of_its_pair(count: int) -> None:
    streams = {stream.name: stream for stream in Pairs(count).streams()}
    for partition in range(PARTITIONS):
        for base, subject in (
            (SAGA, f"saga.{partition}.order.a.c.end"),
            (EVENTS, f"evt.{partition}.order.a.client.start"),
        ):
            holding = [
                name
                for name, stream in streams.items()
                if any(subjects.matches(each, subject) for each in stream.subjects)
            ]
            assert holding == [stream_name(base, partition % count, count)]
            assert Pairs(count).stream_at(base, subject) == holding[0]


@SEVERAL
def test_all_that_is_stored_of_a_saga_is_in_its_pair(count: int) -> None:
    pairs = Pairs(count)
    for key in SAGAS:
        assert pairs.stream_of(SAGA, key) == pairs.saga[key.partition % count]
        assert pairs.stream_of(EVENTS, key) == pairs.events[key.partition % count]
        for subject in (subjects.end_subject(key), subjects.timer_subject(key), subjects.journal_filter(key)):
            assert pairs.stream_at(SAGA, subject) == pairs.stream_of(SAGA, key)
        for subject in (subjects.start_subject(key), subjects.saga_events_filter(key)):
            assert pairs.stream_at(EVENTS, subject) == pairs.stream_of(EVENTS, key)


@SEVERAL
def test_sagas_are_spread_evenly(count: int) -> None:
    sizes = [sum(Pairs(count).pair_of(key) == pair for key in SAGAS) for pair in range(count)]
    assert min(sizes) > len(SAGAS) / count / 2


def test_what_belongs_to_no_saga_is_in_the_first_pair_or_in_a_stream_of_its_own() -> None:
    schemas = subjects.schemas_subject("order.v1.abc", "def")
    found = [stream.name for stream in Pairs(4).streams() if any(subjects.matches(s, schemas) for s in stream.subjects)]
    assert found == ["SAGA-0of4"]
    assert {PARKED, ADVISORIES} <= {stream.name for stream in Pairs(4).streams()}


def test_the_settings_of_the_streams_are_those_of_one_pair() -> None:
    one = {stream.name: stream.settings for stream in STREAMS}
    assert all(stream.settings == one[base_of(stream.name)] for stream in Pairs(3).streams())


def test_filters_go_to_the_streams_that_hold_what_they_match() -> None:
    parts = Pairs(2).parts(SAGA, ["saga.1.order.a.c.>", "saga.4.order.b.c.>", "saga.*.lock.*.c.state"])
    assert parts == {
        "SAGA-1of2": ["saga.1.order.a.c.>", "saga.*.lock.*.c.state"],
        "SAGA-0of2": ["saga.4.order.b.c.>", "saga.*.lock.*.c.state"],
    }
    assert Pairs(2).parts(PARKED, ["parked.>"]) == {PARKED: ["parked.>"]}


def test_each_stream_of_several_pairs_has_the_consumers_of_the_one() -> None:
    consumers = [*PLATFORM_CONSUMERS, EXPORTER_CONSUMER, *participant_consumers("billing")]
    spread = Pairs(2).spread(consumers)
    assert len(spread) == 2 * len(consumers)
    assert {(base_of(each.stream), each.name, each.filters) for each in spread} == {
        (each.stream, each.name, each.filters) for each in consumers
    }


def test_places_are_shared_and_each_pair_has_one_at_least() -> None:
    assert Pairs(4).shared(16) == [4, 4, 4, 4]
    assert Pairs(4).shared(10) == [3, 3, 2, 2]
    assert Pairs(4).shared(1) == [1, 1, 1, 1]
    assert ONE_PAIR.shared(16) == [16]


def test_the_names_of_streams_say_how_many_pairs_there_are() -> None:
    assert count_in([]) == count_in([PARKED, "STARTS=shop=order", "MINE", "SAGA-old"]) == 0
    assert count_in([SAGA, EVENTS, PARKED]) == 1
    assert count_in(["SAGA-3of4", PARKED]) == 4
    assert (base_of("EVENTS-3of4"), pair_in("EVENTS-3of4")) == (EVENTS, 3)
    assert (base_of("SAGA-new"), base_of(PARKED), pair_in(SAGA)) == ("SAGA-new", PARKED, 0)


def test_streams_of_two_platforms_are_refused() -> None:
    with pytest.raises(PlatformError, match="of 1 and of 4 pairs"):
        count_in([SAGA, "EVENTS-0of4"])


@pytest.mark.parametrize("count", [-1, 0, PAIRS_MAX + 1])
def test_there_is_a_bound(count: int) -> None:
    with pytest.raises(DefinitionError, match=f"give a number from 1 to {PAIRS_MAX}"):
        Pairs(count)
