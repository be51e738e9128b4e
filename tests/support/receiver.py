"""A backend for traces: takes OTLP over HTTP or gRPC as Jaeger does, and remembers every span with its bytes."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from antiphon.tracing.export.readable_spans import readable
from antiphon.tracing.projection.spans import Span

Stored = dict[tuple[str, str], set[bytes]]
"""The spans of a backend by trace and span id, each with all the bytes it came in: more than one is a contradiction."""


class Receiver:
    """What has arrived so far; with `away` it says that it is not there (503, UNAVAILABLE) and stores nothing."""

    def __init__(self) -> None:
        self.spans: Stored = defaultdict(set)
        self.came: dict[tuple[str, str], int] = {}
        """With which request each span came for the first time."""
        self.away = False
        self.rejects: set[str] = set()
        """Traces of which it takes nothing (400)."""
        self.requests = 0
        self.taken: list[ExportTraceServiceRequest] = []
        self._lock = threading.Lock()

    def has_rejected(self, request: ExportTraceServiceRequest) -> bool:
        """Whether there is something in it that the backend does not take."""
        return any(trace in self.rejects for (trace, _), _ in flat(request))

    def take(self, request: ExportTraceServiceRequest) -> bool:
        """Store a request's spans, unless the backend is away."""
        with self._lock:
            self.requests += 1
            if self.away:
                return False
            self.taken.append(request)
            for ident, data in flat(request):
                self.came.setdefault(ident, self.requests)
                self.spans[ident].add(data)
        return True


def flat(request: ExportTraceServiceRequest) -> Iterator[tuple[tuple[str, str], bytes]]:
    """Every span of a request with its resource and scope, as bytes."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            around = resource_spans.resource.SerializeToString(deterministic=True)
            around += scope_spans.scope.SerializeToString(deterministic=True)
            for span in scope_spans.spans:
                yield (span.trace_id.hex(), span.span_id.hex()), around + span.SerializeToString(deterministic=True)


def expected(spans: Iterable[Span]) -> Stored:
    """What a backend holds of these spans if it has each once."""
    encoded = encode_spans([readable(span) for span in spans])
    return {ident: {data} for ident, data in flat(encoded)}


@contextmanager
def receiver() -> Iterator[tuple[Receiver, dict[str, str]]]:
    """Run a backend for the length of a block; it comes with the environment that points an exporter there."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            if self.path == "/moved":
                self.answer(301, b"")
            elif self.path != "/v1/traces":
                self.answer(404, b"nothing here")
            elif state.has_rejected(request):
                self.answer(400, b"what a trace")
            else:
                self.answer(200 if state.take(request) else 503, ExportTraceServiceResponse().SerializeToString())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def grpc_receiver(port: int = 0) -> Iterator[tuple[Receiver, dict[str, str]]]:
    """The same over gRPC, on a free port unless one is given."""
    state = Receiver()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(
            self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
        ) -> ExportTraceServiceResponse:
            if not state.take(request):
                context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]  # made by a tool
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield state, over_grpc(bound)
    finally:
        server.stop(None).wait()


def over_grpc(port: int) -> dict[str, str]:
    """The environment that points an exporter to gRPC on a port."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
