"""A tracing backend for exporters: takes OTLP over HTTP, remembers every span with its bytes, and may refuse."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from antiphon.tracing.export.readable_spans import readable
from antiphon.tracing.projection.spans import Span

from ..local.server import HOST
from .evidence import StoredTrace

PATH: Final = "/v1/traces"
UNAVAILABLE: Final = 503
"""What a backend answers that will take the same spans later."""


class TracingBackend:
    """A port of this machine to which an exporter may send spans."""

    def __init__(self) -> None:
        self.refuses = False
        """Whether it takes nothing now."""
        self._lock = threading.Lock()
        self._traces: defaultdict[str, StoredTrace] = defaultdict(dict)
        self._server = ThreadingHTTPServer((HOST, 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="antiphon-backend", daemon=True)

    @property
    def variables(self) -> dict[str, str]:
        """What tells an exporter to send every span here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{self._server.server_address[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_TRACES_SAMPLER": "always_on",
        }

    @property
    def traces(self) -> dict[str, StoredTrace]:
        """What it has, by trace id."""
        with self._lock:
            return {trace: dict(spans) for trace, spans in self._traces.items()}

    @staticmethod
    def encode(spans: Iterable[Span]) -> StoredTrace:
        """What it has of spans that it was sent, once or more often."""
        return {span: frozenset({data}) for _, span, data in _flat(encode_spans([readable(each) for each in spans]))}

    def start(self) -> None:
        """Take spans from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Take nothing any more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def take(self, request: ExportTraceServiceRequest) -> bool:
        """Remember the spans of a request, unless it refuses now; whether it has taken them."""
        with self._lock:
            if self.refuses:
                return False
            for trace, span, data in _flat(request):
                found = self._traces[trace]
                found[span] = found.get(span, frozenset()) | {data}
        return True


def _flat(request: ExportTraceServiceRequest) -> Iterator[tuple[str, str, bytes]]:
    """Every span of a request by trace and span id, as bytes with its resource and scope."""
    for resource_spans in request.resource_spans:
        resource = resource_spans.resource.SerializeToString(deterministic=True)
        for scope_spans in resource_spans.scope_spans:
            around = resource + scope_spans.scope.SerializeToString(deterministic=True)
            for span in scope_spans.spans:
                yield span.trace_id.hex(), span.span_id.hex(), around + span.SerializeToString(deterministic=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection of an exporter."""

    def __init__(self, backend: TracingBackend, *arguments: Any) -> None:
        self._backend = backend
        super().__init__(*arguments)

    def do_POST(self) -> None:
        """Take what is sent."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        is_taken = self._backend.take(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if is_taken else UNAVAILABLE)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", f"{len(answer)}")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
