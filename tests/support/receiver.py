"""A backend for traces: takes OTLP over HTTP as Jaeger does, and remembers every span with its bytes."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from antiphon.tracing.sdk import readable
from antiphon.tracing.spans import Span

Stored = dict[tuple[str, str], set[bytes]]
"""The spans of a backend by trace and span id, each with all the bytes it came in: more than one is a contradiction."""


class Receiver:
    """What has arrived so far; with `away` it answers 503 and stores nothing."""

    def __init__(self) -> None:
        self.spans: Stored = defaultdict(set)
        self.came: dict[tuple[str, str], int] = {}
        """With which request each span came for the first time."""
        self.away = False
        self.requests = 0
        self._lock = threading.Lock()

    def take(self, body: bytes) -> bool:
        """Store a request's spans, unless the backend is away."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.requests += 1
            if self.away:
                return False
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
            self.send_response(200 if state.take(body) else 503)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

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
