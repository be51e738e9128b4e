"""Spans as the OpenTelemetry SDK knows them, for its exporters. Needs the extra `otlp`.

Resource and scope say nothing about the process that exports, so that whoever exports a span makes the same bytes.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..projection.spans import NAMESPACE, PROJECTION, SCOPE, Span

KINDS: Final = {"internal": SpanKind.INTERNAL, "producer": SpanKind.PRODUCER, "consumer": SpanKind.CONSUMER}
CODES: Final = {"unset": StatusCode.UNSET, "ok": StatusCode.OK, "error": StatusCode.ERROR}
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope(SCOPE, PROJECTION)


def readable(span: Span) -> ReadableSpan:
    """A span as exporters take it."""
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=_context(span.trace_id, span.parent_id) if span.parent_id else None,
        resource=_resource(span.service),
        attributes=span.attributes,
        events=[Event(event.name, event.attributes, event.at_ns) for event in span.events],
        links=[Link(_context(link.trace_id, link.span_id), {"saga.link": link.why}) for link in span.links],
        kind=KINDS[span.kind],
        status=Status(CODES[span.status], span.message or None),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=SAMPLED)


@cache
def _resource(service: str) -> Resource:
    return Resource({"service.name": service, "service.namespace": NAMESPACE})
