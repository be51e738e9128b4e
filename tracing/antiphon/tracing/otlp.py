"""The way to the backend: the OpenTelemetry SDK's OTLP exporter, set up by the standard OTEL_* variables.

For a saga's spans never with a span processor between: one that gathers spans loses them with its process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from antiphon.contracts.errors import PlatformError

from .spans import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


class Backend:
    """An OTLP endpoint; `address` is where it is, for people."""

    def __init__(self) -> None:
        self.address = address(os.environ)
        self._exporter = span_exporter(os.environ)
        from opentelemetry.sdk.trace.export import SpanExportResult

        from .sdk import readable

        self._readable, self._success = readable, SpanExportResult.SUCCESS

    async def send(self, spans: Sequence[Span]) -> bool:
        """Hand spans over, in a thread of their own, since that waits; true once the backend has them."""
        return await asyncio.to_thread(self._export, spans)

    def close(self) -> None:
        """Give up what is being sent, and send no more."""
        self._exporter.shutdown()

    def _export(self, spans: Sequence[Span]) -> bool:
        return self._exporter.export([self._readable(span) for span in spans]) is self._success


def address(environment: Mapping[str, str]) -> str:
    """Where traces are sent, as the standard has it."""
    if endpoint := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return endpoint
    endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if _protocol(environment) == "grpc":
        return endpoint or "http://localhost:4317"
    return f"{(endpoint or 'http://localhost:4318').rstrip('/')}/v1/traces"


def _protocol(environment: Mapping[str, str]) -> str:
    general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    return environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)


def span_exporter(environment: Mapping[str, str]) -> SpanExporter:
    """The SDK's exporter for the protocol that the environment names.

    Raises:
        PlatformError: it names none that there is, or its package is not installed.
    """
    protocol = _protocol(environment)
    try:
        match protocol:
            case "http/protobuf":
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                return OTLPSpanExporter()
            case "grpc":
                from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

                return GrpcExporter()
            case _:
                raise PlatformError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: give http/protobuf or grpc.")
    except ImportError:
        extra = "otlp-grpc" if protocol == "grpc" else "otlp"
        raise PlatformError(f"traces cannot be exported without antiphon[{extra}]; install it.") from None
