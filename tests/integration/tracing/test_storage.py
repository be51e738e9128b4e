"""Which sagas Jaeger finds, and in what form: without a server."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from antiphon.contracts.identity import SagaKey, digest
from antiphon.tracing.export.readable_spans import readable
from antiphon.tracing.jaeger import index as index_module
from antiphon.tracing.jaeger import storage_pb2 as api
from antiphon.tracing.jaeger.encode import CHUNK_BYTES_MAX, EVENTS_MAX, chunks
from antiphon.tracing.jaeger.index import Index
from antiphon.tracing.jaeger.query import DEPTH, Query, matches
from antiphon.tracing.jaeger.request import DEPTH_MAX, BadQuery, query_of
from antiphon.tracing.jaeger.sagas import calls_in, spans_at
from antiphon.tracing.projection.project import project
from antiphon.tracing.projection.spans import Span, SpanEvent, SpanLink
from tests.integration.tracing.voyage import KEY, Voyage
from tests.support.receiver import flat

FOREVER = 2**62


def key_of(number: int) -> SagaKey:
    return SagaKey.of("order" if number % 3 else "parcel", f"n{number}")


def trace_id(key: SagaKey) -> bytes:
    return digest(key.type, key.id)[:16]


def newest(index: Index, since_ns: int = 0, until_ns: int = FOREVER, saga_type: str = "") -> list[SagaKey]:
    return [key for portion in index.newest(since_ns, until_ns, saga_type) for key in portion]


# --- the index --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 40), max_size=60), st.integers(0, 60), st.integers(0, 60), st.sampled_from(["", "order"])
)
def test_sagas_are_found_by_trace_id_and_by_time(times: list[int], since: int, until: int, saga_type: str) -> None:
    """Times may run backwards, as between servers."""
    index = Index(segment_sagas=3)
    for number, at in enumerate(times):
        index.add(key_of(number), at)
    assert [index.find(trace_id(key_of(number))) for number in range(len(times))] == list(
        map(key_of, range(len(times)))
    )
    assert index.find(trace_id(key_of(len(times)))) is None
    wanted = [key_of(n) for n, at in enumerate(times) if since <= at <= until and key_of(n).type.startswith(saga_type)]
    assert newest(index, since, until, saga_type) == wanted[::-1]


def test_trace_ids_that_begin_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_alike(saga_type: str, saga_id: str) -> bytes:
        return bytes(8) + digest(saga_type, saga_id)[8:]

    monkeypatch.setattr(index_module, "digest", half_alike)
    index = Index(segment_sagas=8)
    for number in range(20):
        index.add(key_of(number), number)
    for number in range(20):
        key = key_of(number)
        assert index.find(half_alike(key.type, key.id)[:16]) == key


def test_the_oldest_sagas_go_when_there_are_too_many() -> None:
    index = Index(segment_sagas=8, segments_max=2)
    for number in range(30):
        index.add(key_of(number), number)
    assert newest(index) == [key_of(number) for number in range(29, 7, -1)]
    assert index.find(trace_id(key_of(7))) is None


def test_a_rare_type_is_among_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "TYPES_MAX", 2)
    index = Index()
    rare = SagaKey.of("rare", "r")
    index.add(rare, 0)
    for number in range(1_000):
        index.add(SagaKey.of("order", f"n{number}"), number)
        index.add(SagaKey.of(f"invented{number}", "x"), number)
    samples = index.samples(10)
    assert rare in samples
    assert SagaKey.of("order", "n999") in samples
    assert samples[0] == rare
    assert len(samples) == 10
    assert len(index.samples(1_000)) == 1_000


def test_of_fewer_sagas_than_are_surveyed_none_is_left_out() -> None:
    index = Index()
    keys = [SagaKey.of("order", f"n{number}") for number in range(93)]
    for number, key in enumerate(keys):
        index.add(key, number)
    assert set(index.samples(200)) == set(keys)


def test_nothing_has_no_samples() -> None:
    assert Index().samples(10) == []


# --- queries ----------------------------------------------------------------------------------------------------------


def span(name: str, parent: str = "1", service: str = "antiphon", length: int = 5, **more: Any) -> Span:
    attributes = {"saga.type": "order", **more.pop("attributes", {})}
    ident, kind = more.pop("id", name), more.pop("kind", "internal")
    return Span("0", ident, parent, name, kind, service, 10, 10 + length, attributes, **more)


TRACE = [
    span("saga order", "", length=100, id="1", attributes={"saga.outcome": "completed", "saga.entries": 7}),
    span("charge", attributes={"saga.outcome": "refused"}, status="error"),
    span("process billing", service="billing", attributes={"saga.lost": True, "saga.queue_ms": 1.5}),
]


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(service="billing"),
        Query(operation="charge", shortest_ns=5, longest_ns=5),
        Query(service="billing", attributes={"saga.outcome": "completed"}),
        Query(service="billing", attributes={"saga.lost": "true", "saga.queue_ms": "1.5", "error": "false"}),
        Query(attributes={"saga.outcome": "refused", "error": "true", "span.kind": "INTERNAL"}),
        Query(since_ns=10, until_ns=10, shortest_ns=100),
        Query(attributes={"saga.entries": "7"}),
    ],
)
def test_a_saga_is_found_by(query: Query) -> None:
    assert matches(query, TRACE)


@pytest.mark.parametrize(
    "query",
    [
        Query(service="shipping"),
        Query(operation="charg"),
        Query(service="billing", operation="charge"),
        Query(service="billing", shortest_ns=6),
        Query(operation="charge", longest_ns=4),
        Query(since_ns=11),
        Query(until_ns=9),
        Query(attributes={"saga.nothing": "1"}),
        Query(service="billing", attributes={"saga.outcome": "refused"}),
        Query(operation="saga order", attributes={"error": "true"}),
    ],
)
def test_a_saga_is_not_found_by(query: Query) -> None:
    assert not matches(query, TRACE)


def test_a_saga_in_which_nothing_was_decided_is_not_found() -> None:
    assert not matches(Query(), [])


def asked(**fields: Any) -> api.TraceQueryParameters:
    return api.TraceQueryParameters(**fields)


def attribute(**value: Any) -> api.KeyValue:
    return api.KeyValue(key="k", value=api.AnyValue(**value))


def test_what_is_not_said_is_not_asked_for() -> None:
    assert query_of(asked()) == Query(depth=DEPTH)
    assert query_of(asked(search_depth=-1)).depth == DEPTH
    assert query_of(asked(search_depth=2**31 - 1)).depth == DEPTH_MAX


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"string_value": "a"}, "a"),
        ({"bool_value": True}, "true"),
        ({"int_value": -3}, "-3"),
        ({"double_value": 1.5}, "1.5"),
    ],
)
def test_values_are_compared_as_texts(value: dict[str, Any], text: str) -> None:
    assert query_of(asked(attributes=[attribute(**value)])).attributes == {"k": text}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"filter": b"\x0a\x00"}, "structured filters"),
        ({"attributes": [attribute(string_value="a")] * 33}, "33 attributes"),
        ({"attributes": [attribute(string_value="a" * 1025)]}, "1025 characters"),
        ({"attributes": [attribute(bytes_value=b"a")]}, "a text, a number"),
        ({"attributes": [api.KeyValue(key="k")]}, "a text, a number"),
        ({"service_name": "s" * 1025}, "the service is named by 1025"),
        ({"start_time_min": Timestamp(seconds=2), "start_time_max": Timestamp(seconds=1)}, "swap them"),
        ({"start_time_min": Timestamp(seconds=-2)}, "negative"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadQuery, match=said):
        query_of(asked(**fields))


@pytest.mark.parametrize(
    ("query", "saga_type"),
    [
        (Query(operation="saga order"), "order"),
        (Query(operation="saga started"), ""),
        (Query(operation="charge"), ""),
        (Query(attributes={"saga.type": "order"}), "order"),
    ],
)
def test_the_type_is_known_where_the_question_tells(query: Query, saga_type: str) -> None:
    assert query.saga_type == saga_type


# --- what is sent -----------------------------------------------------------------------------------------------------


def bytes_of(messages: list[TracesData]) -> dict[tuple[str, str], bytes]:
    return {ident: data for message in messages for ident, data in flat(message)}  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_sent_is_what_the_exporter_sends(seed: int) -> None:
    voyage = Voyage(seed, trouble=0.3).live()
    spans = list(project(KEY, voyage.entries(), voyage.events()).spans)
    assert bytes_of(list(chunks(spans))) == dict(flat(encode_spans([readable(each) for each in spans])))


def test_a_long_trace_comes_in_portions_of_which_none_is_empty() -> None:
    spans = [span("process x", id=f"{number:016x}", attributes={"text": "a" * 900}) for number in range(4_000)]
    spans = [replace(each, trace_id="ab" * 16, parent_id="cd" * 8) for each in spans]
    messages = list(chunks(spans))
    assert len(messages) > 3
    assert all(0 < message.ByteSize() <= CHUNK_BYTES_MAX for message in messages)
    assert len(bytes_of(messages)) == len(spans)
    assert list(chunks([])) == []


def test_no_span_is_too_large() -> None:
    """A client that is told nothing else takes four MiB."""
    events = tuple(SpanEvent("parked", 1, {"saga.reason": "漢" * 100_000}) for _ in range(900))
    large = Span("ab" * 16, "cd" * 8, "", "saga x", "internal", "antiphon", 1, 2, {"saga.reason": "漢" * 10**6}, events)
    (message,) = chunks([large])
    assert message.ByteSize() < 4 * 1024 * 1024
    (sent,) = message.resource_spans[0].scope_spans[0].spans
    assert (len(sent.events), sent.dropped_events_count) == (EVENTS_MAX, 900 - EVENTS_MAX)
    assert sent.attributes[0].value.string_value.endswith("漢…")


def test_what_is_still_open_lasts_until_now_and_lies_in_its_parent() -> None:
    voyage = Voyage(1).live()
    entries = voyage.entries()
    for length in range(1, len(entries)):
        found = project(KEY, entries[:length], voyage.events())
        now_ns = entries[length - 1].stored_ns + 60_000_000_000
        spans = {each.span_id: each for each in spans_at(found, now_ns)}
        (root,) = (each for each in spans.values() if not each.parent_id)
        assert root.end_ns == now_ns
        assert root.attributes["saga.open"]
        for each in spans.values():
            parent = spans[each.parent_id or each.span_id]
            assert parent.start_ns <= each.start_ns <= each.end_ns <= parent.end_ns
            assert ("saga.open" in each.attributes) == (each.closed_by == 0)


def test_a_service_is_called_by_whoever_sent_what_it_worked_on() -> None:
    sent = SpanLink("0", "send billing", "sent by")
    answered = SpanLink("0", "process billing", "answers")
    elsewhere = SpanLink("1", "no span of this trace", "starts")
    spans = [
        *TRACE[:2],
        span("send billing"),
        span("process billing", service="billing", links=(sent,), kind="consumer"),
        span("try", "process billing", service="billing"),
        span("late answer", service="billing", links=(answered,), kind="consumer"),
        span("event", service="shipping", links=(elsewhere,), kind="consumer"),
        span("saga ended", service="shipping"),
        span("heard", service="ledger", links=(SpanLink("0", "event", "reacts to"),), kind="consumer"),
    ]
    assert list(calls_in(spans)) == [("antiphon", "billing"), ("antiphon", "shipping"), ("shipping", "ledger")]
