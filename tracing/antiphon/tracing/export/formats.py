"""Traces as files: OTLP in JSON, and the JSON that Jaeger's page opens. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from ..projection.spans import NAMESPACE, PROJECTION, SCOPE, Span, SpanEvent, SpanLink, Value

KINDS: Final = {"internal": 1, "producer": 4, "consumer": 5}
CODES: Final = {"unset": 0, "ok": 1, "error": 2}
LOCAL: Final = 0x100
"""The flag that says: whether a context is remote is known, and it is not."""


def otlp(spans: Iterable[Span]) -> dict[str, Any]:
    """The trace as the OTLP specification has it in JSON: ids in hexadecimal, 64-bit numbers as text."""
    by_service = groupby(sorted(spans, key=lambda span: span.service), key=lambda span: span.service)
    return {"resourceSpans": [_resource_spans(service, list(group)) for service, group in by_service]}


def _resource_spans(service: str, spans: list[Span]) -> dict[str, Any]:
    resource = {"attributes": _otlp_attributes({"service.name": service, "service.namespace": NAMESPACE})}
    scope = {"name": SCOPE, "version": PROJECTION}
    return {"resource": resource, "scopeSpans": [{"scope": scope, "spans": [_otlp_span(span) for span in spans]}]}


def _otlp_span(span: Span) -> dict[str, Any]:
    status = {"code": CODES[span.status], **({"message": span.message} if span.message else {})}
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        **({"parentSpanId": span.parent_id} if span.parent_id else {}),
        "flags": LOCAL,
        "name": span.name,
        "kind": KINDS[span.kind],
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _otlp_attributes(span.attributes),
        "events": [_otlp_event(event) for event in span.events],
        "links": [_otlp_link(link) for link in span.links],
        "status": status,
    }


def _otlp_event(event: SpanEvent) -> dict[str, Any]:
    return {
        "timeUnixNano": str(event.at_ns),
        "name": event.name,
        "attributes": _otlp_attributes(event.attributes),
    }


def _otlp_link(link: SpanLink) -> dict[str, Any]:
    attributes = _otlp_attributes({"saga.link": link.why})
    return {"traceId": link.trace_id, "spanId": link.span_id, "attributes": attributes, "flags": LOCAL}


def _otlp_attributes(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _otlp_value(value)} for key, value in attributes.items()]


def _otlp_value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": value}


# --- Jaeger -----------------------------------------------------------------------------------------------------------


def jaeger(spans: Iterable[Span]) -> dict[str, Any]:
    """A trace as Jaeger's page downloads and opens it (`model/json` in Jaeger's sources), in microseconds."""
    return {"data": [_jaeger_trace(list(spans))], "total": 0, "limit": 0, "offset": 0, "errors": None}


def _jaeger_trace(spans: list[Span]) -> dict[str, Any]:
    services = {service: f"p{number}" for number, service in enumerate(sorted({span.service for span in spans}), 1)}
    namespace = _jaeger_tags({"service.namespace": NAMESPACE})
    return {
        "traceID": spans[0].trace_id if spans else "",
        "spans": [_jaeger_span(span, services[span.service]) for span in spans],
        "processes": {process: {"serviceName": name, "tags": namespace} for name, process in services.items()},
        "warnings": None,
    }


def _jaeger_span(span: Span, process: str) -> dict[str, Any]:
    start = span.start_ns // 1000
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "flags": 1,
        "operationName": span.name,
        "references": _references(span),
        "startTime": start,
        "duration": span.end_ns // 1000 - start,
        "tags": _jaeger_tags({**span.attributes, **_kind_and_status(span)}),
        "logs": [_log(event) for event in span.events],
        "processID": process,
        "warnings": None,
    }


def _references(span: Span) -> list[dict[str, str]]:
    parent = [{"refType": "CHILD_OF", "traceID": span.trace_id, "spanID": span.parent_id}] if span.parent_id else []
    links = [{"refType": "FOLLOWS_FROM", "traceID": link.trace_id, "spanID": link.span_id} for link in span.links]
    return parent + links


def _kind_and_status(span: Span) -> dict[str, Value]:
    tags: dict[str, Value] = {"span.kind": span.kind, "otel.scope.name": SCOPE, "otel.scope.version": PROJECTION}
    if span.status != "unset":
        tags["otel.status_code"] = span.status.upper()
    if span.status == "error":
        tags |= {"error": True, "otel.status_description": span.message}
    return tags


def _log(event: SpanEvent) -> dict[str, Any]:
    return {"timestamp": event.at_ns // 1000, "fields": _jaeger_tags({"event": event.name, **event.attributes})}


def _jaeger_tags(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "type": _jaeger_type(value), "value": value} for key, value in attributes.items()]


def _jaeger_type(value: Value) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "int64"
        case float():
            return "float64"
        case _:
            return "string"
