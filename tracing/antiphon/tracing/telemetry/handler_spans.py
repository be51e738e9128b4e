"""Spans that a process makes itself while it works: by the SDK that its team set up, or by one set up as OTEL_* say.

Nothing of OpenTelemetry is imported in a process that nobody asked for spans.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from threading import Thread
from typing import Any, Final

import structlog

from antiphon.contracts.errors import PlatformError

from ..export.otlp import span_exporter
from ..projection.sampling import ratio_of
from ..projection.spans import NAMESPACE

log = structlog.get_logger()

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

FLUSH_SECONDS: Final = 3.0
"""How long a process that ends waits for its backend at most: after a worker's grace of ten seconds and five more for
what is cancelled then, that is still less than the twenty after which it is killed in `compose.yaml`."""


def set_up(service: str) -> None:
    """Have this process's own spans sent by OTLP, if the environment asks for it and no SDK is set up yet.

    A span within a command's attempt is sampled as its saga is, and any other by the same share and hash. That nothing
    can be sent is a line in the log: the variables may be meant for others on the machine, so nobody ends for them.

    Args:
        service: what the spans' resource is called, unless OTEL_SERVICE_NAME says otherwise.

    Raises:
        PlatformError: OTEL_TRACES_SAMPLER or OTEL_TRACES_SAMPLER_ARG says nothing that makes sense here.
    """
    if not is_asked_for(os.environ) or _is_set_up():
        return
    ratio = ratio_of(os.environ)
    try:
        exporter = span_exporter(os.environ)
    except PlatformError as error:
        log.warning("spans.not_sent", reason=f"{error} Or set OTEL_TRACES_EXPORTER=none for a process without.")
        return
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(
        resource=Resource.create({"service.name": name, "service.namespace": NAMESPACE}),
        sampler=ParentBased(TraceIdRatioBased(ratio)),
        shutdown_on_exit=False,  # it waits for half a minute; `flush` comes first, and waits for less
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


async def flush() -> None:
    """Have what is left sent before the process ends, if it makes spans, and wait for that no longer than the bound."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    force: Any = getattr(trace.get_tracer_provider(), "force_flush", None) if trace is not None else None
    if force is None:
        return
    # The SDK disregards the time that it is given, and the end of a process waits for every thread but a daemon.
    flushing = Thread(target=force, args=(round(FLUSH_SECONDS * 1000),), daemon=True)
    flushing.start()
    await asyncio.to_thread(flushing.join, FLUSH_SECONDS)
    if flushing.is_alive():
        log.warning("spans.not_flushed", seconds=FLUSH_SECONDS, reason="their backend took too long, so some are lost.")


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables want spans sent by OTLP."""
    return (
        environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
        and any(map(environment.get, ENDPOINTS))
    )


def _is_set_up() -> bool:
    """Whether the team's module, or whoever started it, has chosen a tracer provider."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
