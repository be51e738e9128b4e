"""Traces as files: as they were reviewed, in the shape that Jaeger documents, and the same as what is exported."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from antiphon.contracts import SagaKey
from antiphon.tracing.export.formats import jaeger, otlp
from antiphon.tracing.export.readable_spans import readable
from antiphon.tracing.projection.project import Projection, project
from tests.integration.tracing.test_examples import Scripted
from tests.integration.tracing.voyage import KEY, Voyage

GOLDEN = Path(__file__).parent / "golden"
MEAL = SagaKey.of("meal", "v1-dine-1-957e2031c0bf")


def told() -> Projection:
    """A meal that is cooked at the second try, cleared away in vain at first, and in the end compensated."""
    voyage = Scripted({("charge_card", "do", 1): ["refused"], ("cook", "undo", 1): ["exhausted"]}).live()
    return project(MEAL, voyage.entries(MEAL), voyage.events(MEAL))


@pytest.mark.parametrize("form", ["jaeger", "otlp"])
def test_a_trace_as_a_file_is_as_it_was_reviewed(form: str) -> None:
    """ANTIPHON_REWRITE=1 writes the files anew, to be reviewed as a diff."""
    spans = told().spans
    made = msgspec.json.format(msgspec.json.encode(jaeger(spans) if form == "jaeger" else otlp(spans))) + b"\n"
    golden = GOLDEN / f"meal.{form}.json"
    if os.environ.get("ANTIPHON_REWRITE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_bytes(made)
    assert made == golden.read_bytes()


@pytest.mark.parametrize("seed", range(5))
def test_the_otlp_file_says_what_the_exporter_sends(seed: int) -> None:
    voyage = Voyage(seed, trouble=0.3).live()
    spans = project(KEY, voyage.entries(), voyage.events()).spans
    sent = encode_spans([readable(span) for span in spans])
    file = ExportTraceServiceRequest()
    json_format.ParseDict(with_base64_ids(otlp(spans)), file)
    assert sorted_by_service(file) == sorted_by_service(sent)


def sorted_by_service(request: Any) -> list[bytes]:
    return sorted(each.SerializeToString(deterministic=True) for each in request.resource_spans)


def with_base64_ids(found: Any) -> Any:
    """OTLP has ids in hexadecimal where protobuf's own JSON has them in base64."""
    match found:
        case dict():
            return {key: base64_of(value) if key in IDS else with_base64_ids(value) for key, value in found.items()}
        case list():
            return [with_base64_ids(each) for each in found]
        case _:
            return found


def base64_of(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


IDS = {"traceId", "spanId", "parentSpanId"}


class Tag(msgspec.Struct, forbid_unknown_fields=True):
    """A key and its value. Jaeger's page shows `value` by `type`."""

    key: str
    type: Literal["string", "bool", "int64", "float64", "binary"]
    value: str | bool | int | float


class Reference(msgspec.Struct, forbid_unknown_fields=True):
    refType: Literal["CHILD_OF", "FOLLOWS_FROM"]
    traceID: str
    spanID: str


class Log(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: int
    fields: list[Tag]


class JaegerSpan(msgspec.Struct, forbid_unknown_fields=True):
    traceID: str
    spanID: str
    flags: int
    operationName: str
    references: list[Reference]
    startTime: int
    duration: int
    tags: list[Tag]
    logs: list[Log]
    processID: str
    warnings: list[str] | None


class Process(msgspec.Struct, forbid_unknown_fields=True):
    serviceName: str
    tags: list[Tag]


class JaegerTrace(msgspec.Struct, forbid_unknown_fields=True):
    traceID: str
    spans: list[JaegerSpan]
    processes: dict[str, Process]
    warnings: list[str] | None


class JaegerFile(msgspec.Struct, forbid_unknown_fields=True):
    """`structuredResponse` of Jaeger's query service, with `model/json/model.go` inside."""

    data: list[JaegerTrace]
    total: int
    limit: int
    offset: int
    errors: list[Any] | None


@pytest.mark.parametrize("seed", range(20))
def test_a_jaeger_file_has_the_shape_that_jaeger_documents(seed: int) -> None:
    voyage = Voyage(seed, trouble=0.3).live()
    spans = project(KEY, voyage.entries(), voyage.events()).spans
    (trace,) = msgspec.convert(msgspec.to_builtins(jaeger(spans)), JaegerFile).data
    assert len(trace.spans) == len(spans)
    by_id = {span.spanID: span for span in trace.spans}
    for span in trace.spans:
        assert span.processID in trace.processes
        parents = [each.spanID for each in span.references if each.refType == "CHILD_OF"]
        for parent in parents:
            assert by_id[parent].startTime <= span.startTime
            assert span.startTime + span.duration <= by_id[parent].startTime + by_id[parent].duration
    assert [
        span.operationName for span in trace.spans if not any(r.refType == "CHILD_OF" for r in span.references)
    ] == ["saga voyage"]
