"""Spans as the messages of OTLP, in portions that gRPC takes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from ..export.formats import CODES, KINDS, LOCAL
from ..projection.spans import NAMESPACE, PROJECTION, SCOPE, Span, SpanEvent, SpanLink, Value

CHUNK_BYTES_MAX: Final = 1024 * 1024
"""Of one message; a client takes four times as much unless it is told otherwise."""
CHARACTERS_MAX: Final = 1_000
"""Of one text, such as a reason: with this and the next, any one span fits into a message."""
EVENTS_MAX: Final = 256


def chunks(spans: Sequence[Span]) -> Iterator[otlp.TracesData]:
    """The spans of one trace, in as many messages as they need. None of them is empty."""
    if not spans:
        return
    data = _traces(spans)
    if len(spans) == 1 or data.ByteSize() <= CHUNK_BYTES_MAX:
        yield data
        return
    half = len(spans) // 2
    yield from chunks(spans[:half])
    yield from chunks(spans[half:])


def _traces(spans: Sequence[Span]) -> otlp.TracesData:
    by_service = groupby(sorted(spans, key=lambda span: span.service), key=lambda span: span.service)
    return otlp.TracesData(resource_spans=[_resource_spans(service, list(group)) for service, group in by_service])


def _resource_spans(service: str, spans: list[Span]) -> otlp.ResourceSpans:
    resource = Resource(attributes=_attributes({"service.name": service, "service.namespace": NAMESPACE}))
    scope = InstrumentationScope(name=SCOPE, version=PROJECTION)
    return otlp.ResourceSpans(
        resource=resource, scope_spans=[otlp.ScopeSpans(scope=scope, spans=[_span(span) for span in spans])]
    )


def _span(span: Span) -> otlp.Span:
    return otlp.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        flags=LOCAL,
        name=span.name,
        kind=otlp.Span.SpanKind.ValueType(KINDS[span.kind]),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_attributes(span.attributes),
        events=[_event(event) for event in span.events[:EVENTS_MAX]],
        dropped_events_count=max(0, len(span.events) - EVENTS_MAX),
        links=[_link(link) for link in span.links],
        status=otlp.Status(code=otlp.Status.StatusCode.ValueType(CODES[span.status]), message=_cut(span.message)),
    )


def _event(event: SpanEvent) -> otlp.Span.Event:
    return otlp.Span.Event(time_unix_nano=event.at_ns, name=event.name, attributes=_attributes(event.attributes))


def _link(link: SpanLink) -> otlp.Span.Link:
    return otlp.Span.Link(
        trace_id=bytes.fromhex(link.trace_id),
        span_id=bytes.fromhex(link.span_id),
        attributes=_attributes({"saga.link": link.why}),
        flags=LOCAL,
    )


def _attributes(attributes: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(string_value=_cut(value))


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS_MAX else f"{text[: CHARACTERS_MAX - 1]}…"
