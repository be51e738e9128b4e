"""A process's numbers as OpenTelemetry metrics: for Prometheus to fetch, or sent by OTLP.

Imported by processes that are asked for metrics, so that others need no SDK.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import structlog

from antiphon.contracts.errors import PlatformError

from .counts import COUNTERS, SPANS, Counts, Instrument, Span, What

OTLP: Final = "opentelemetry.exporter.otlp.proto.http"
log = structlog.get_logger()

PORT_MAX: Final = 65_535
NOT_SENT: Final = (
    "metrics cannot be sent without antiphon[otlp]; install it. Or set OTEL_METRICS_EXPORTER=none for a process that "
    "sends none."
)
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

BOUNDS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)
"""From a command answered at once to a saga that waits for a day."""

Gauges = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Numbers that somebody looks up now and then, by name and attributes."""

DIFFERENCES: Final = "antiphon.platform.differences"

GAUGES: Final = {
    "antiphon.sagas.open": "Sagas that have not ended, as the sweeper has them: at most a minute late.",
    "antiphon.sagas.waiting": "Sagas that wait for a person.",
    "antiphon.consumer.pending": "Messages that a consumer has not delivered yet.",
    "antiphon.consumer.unacked": "Messages that a consumer has delivered and nobody has acked yet.",
    "antiphon.events.filled": "The share of its room that EVENTS has taken, from 0 to 1.",
    "antiphon.parked.filled": "The share of its room that PARKED has taken, from 0 to 1.",
    "antiphon.starts.waiting": "Starts that wait to be taken in, where many do, judged by the oldest.",
    "antiphon.requests.waiting": "Requests of one source that wait for an answer.",
    "antiphon.sagas.bounded": "Open sagas of a type that has a bound, as far as they were counted for it.",
    DIFFERENCES: "How many things of the platform are not as they must be, as this process sees it.",
}


@contextmanager
def measuring(counts: Counts, gauges: Gauges, address: str, service: str) -> Generator[None]:
    """Show the numbers for the length of the block.

    Args:
        counts: what the process counts.
        gauges: what it looks up; read whenever somebody asks.
        address: `host:port` on which Prometheus may fetch them; empty for none.
        service: the name of the process's role, `service.name` of its resource.

    Metrics also go out by OTLP where the environment names an endpoint for them (OTEL_EXPORTER_OTLP_ENDPOINT, or
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT), unless OTEL_METRICS_EXPORTER is `none`. Without the extra `otlp` a line in
    the log says what to install.

    Without either nothing is imported and nothing is shown.

    Raises:
        PlatformError: the SDK is not installed, or nobody can listen there.
    """
    if _is_asked_for() and not _is_installed(OTLP):
        log.warning("metrics.not_sent", reason=NOT_SENT)
    if not wants_metrics(address):
        yield
        return
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
        from opentelemetry.sdk.resources import Resource
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    with _prometheus(address) as fetched:
        provider = MeterProvider(
            metric_readers=[*fetched, *_sent()],
            resource=Resource.create({"service.name": service}),
            views=[View(instrument_unit="s", aggregation=ExplicitBucketHistogramAggregation(BOUNDS_SECONDS))],
        )
        _instruments(provider.get_meter("antiphon"), counts, gauges)
        try:
            yield
        finally:
            counts.record = None
            provider.shutdown()


def differing(gauges: Gauges) -> Callable[[int], None]:
    """What keeps the number of things that are not as they must be."""

    def put(count: int) -> None:
        gauges[DIFFERENCES, ()] = count

    return put


def wants_metrics(address: str) -> bool:
    """Whether anybody is to see this process's numbers.

    The variables of OpenTelemetry may be meant for others on the machine, so a process without its packages goes
    without; an address is meant for this one, which then must have them.
    """
    return bool(address) or _is_sent()


def address_of(text: str) -> tuple[str, int]:
    """A host and a port out of `host:port`.

    Raises:
        PlatformError: it is not that; no host would be every interface of the machine, which must be said.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise PlatformError(f"--metrics {text}: give a host and a port, such as 127.0.0.1:9464.")
    if not host:
        raise PlatformError(
            f"--metrics {text} names no host. Give 127.0.0.1{text} for this machine alone, or 0.0.0.0{text} for "
            "whoever gets there."
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_asked_for() -> bool:
    return (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and os.environ.get("OTEL_METRICS_EXPORTER", "otlp") == "otlp"
        and any(map(os.environ.get, ENDPOINTS))
    )


def _is_sent() -> bool:
    return _is_asked_for() and _is_installed(OTLP)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what one of its parents is
        return False


def _sent() -> list[Any]:
    if not _is_sent():
        return []
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return [PeriodicExportingMetricReader(OTLPMetricExporter())]


@contextmanager
def _prometheus(address: str) -> Generator[list[Any]]:
    """A page for Prometheus on an address; nothing without one."""
    if not address:
        yield []
        return
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import start_http_server
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    host, port = address_of(address)
    try:
        server, thread = start_http_server(port, addr=host)
    except OSError as error:
        raise PlatformError(f"no metrics can be shown at {address!r} ({error}). Give a free host:port.") from None
    try:
        yield [PrometheusMetricReader()]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _missing(error: ModuleNotFoundError) -> PlatformError:
    return PlatformError(
        f"metrics need the package {error.name!r}, which is not installed. Run: pip install 'antiphon[metrics]'"
    )


def _instruments(meter: Any, counts: Counts, gauges: Gauges) -> None:
    from opentelemetry.metrics import Observation

    def totals(what: What, instrument: Instrument, options: object) -> Iterator[Observation]:
        for (name, labels), total in list(counts.totals.items()):
            if name == what:
                yield Observation(total, dict(zip(instrument.labels, labels, strict=True)))

    def looked_up(name: str, options: object) -> Iterator[Observation]:
        for (found, attributes), value in list(gauges.items()):
            if found == name:
                yield Observation(value, dict(attributes))

    for what, instrument in COUNTERS.items():
        call = partial(totals, what, instrument)
        meter.create_observable_counter(instrument.name, [call], unit=instrument.unit, description=instrument.help)
    for name, help in GAUGES.items():
        meter.create_observable_gauge(name, [partial(looked_up, name)], description=help)
    counts.record = _recorder(meter)


def _recorder(meter: Any) -> Callable[[Span, tuple[str, ...], float], None]:
    histograms = {
        what: meter.create_histogram(instrument.name, unit=instrument.unit, description=instrument.help)
        for what, instrument in SPANS.items()
    }

    def record(what: Span, labels: tuple[str, ...], seconds: float) -> None:
        histograms[what].record(seconds, dict(zip(SPANS[what].labels, labels, strict=True)))

    return record
