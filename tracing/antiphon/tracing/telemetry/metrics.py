"""A process's numbers as OpenTelemetry metrics: for Prometheus to fetch, or sent by OTLP.

Imported by processes that are asked for metrics, so that others need no SDK.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import structlog

from antiphon.contracts.errors import Ambiguous
from antiphon.link.faults import say
from antiphon.link.probes import Page, Probes

from .counts import COUNTERS, SPANS, Counts, Instrument, Span, What

OTLP: Final = "opentelemetry.exporter.otlp.proto.http"
PROMETHEUS: Final = "opentelemetry.exporter.prometheus"
log = structlog.get_logger()

NOT_SENT: Final = (
    "metrics cannot be sent without antiphon[otlp]; install it. Or set OTEL_METRICS_EXPORTER=none for a process that "
    "sends none."
)
NOT_SHOWN: Final = "metrics need packages that are not installed. Run: pip install 'antiphon[metrics]'"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

BOUNDS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)
"""From a command answered at once to a saga that waits for a day."""

Gauges = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Numbers that somebody looks up now and then, by name and attributes."""

DIFFERENCES: Final = "antiphon.platform.differences"
WAITING: Final = "antiphon.retention.waiting"
EXPORT_WAITING: Final = "antiphon.export.waiting"
EXPORT_OLDEST: Final = "antiphon.export.oldest_seconds"
READMODEL_UNREAD: Final = "antiphon.readmodel.unread"
READMODEL_OLDEST: Final = "antiphon.readmodel.oldest_seconds"

READY: Final = Instrument("antiphon.process.ready", "", "Whether this process is ready, 0 or 1: what /readyz says.")
_CONSUMER: Final = ("messaging.consumer.group.name", "messaging.destination.name")

GAUGES: Final = (
    Instrument("antiphon.sagas.open", "", "Sagas that have not ended, as the sweeper has them: at most a minute late."),
    Instrument("antiphon.sagas.waiting", "", "Sagas that wait for a person."),
    Instrument("antiphon.consumer.pending", "", "Messages that a consumer has not delivered yet.", _CONSUMER),
    Instrument(
        "antiphon.consumer.unacked", "", "Messages that a consumer has delivered and nobody has acked yet.", _CONSUMER
    ),
    Instrument(
        "antiphon.consumer.pulls", "", "Requests for messages that wait at a consumer: of workers with room.", _CONSUMER
    ),
    Instrument("antiphon.events.filled", "", "The share of its room that EVENTS has taken, from 0 to 1."),
    Instrument("antiphon.parked.filled", "", "The share of its room that PARKED has taken, from 0 to 1."),
    Instrument(
        "antiphon.starts.waiting",
        "",
        "Starts that wait to be taken in, where many do, judged by the oldest.",
        ("saga.type",),
    ),
    Instrument("antiphon.requests.waiting", "", "Requests of one source that wait for an answer.", ("saga.source",)),
    Instrument(
        "antiphon.sagas.bounded",
        "",
        "Open sagas of a type that has a bound, as far as they were counted for it.",
        ("saga.type",),
    ),
    Instrument(
        WAITING,
        "",
        "Ended sagas that are old enough to be purged and stay, by who has not dealt with them yet.",
        ("saga.waits_for",),
    ),
    Instrument(EXPORT_WAITING, "", "Journal entries whose spans no backend has, as far as this exporter knows."),
    Instrument(EXPORT_OLDEST, "", "How long ago the oldest of them was stored, in seconds; 0 where there is none."),
    Instrument(
        READMODEL_UNREAD,
        "",
        "Messages stored behind those whose rows this read model has; deleted ones count.",
        ("messaging.destination.name",),
    ),
    Instrument(READMODEL_OLDEST, "", "How long ago the oldest of them was stored, in seconds; 0 where there is none."),
    Instrument(DIFFERENCES, "", "How many things of the platform are not as they must be, as this process sees it."),
)
"""What is looked up now and then."""


@contextmanager
def measuring(
    counts: Counts, gauges: Gauges, probes: Probes, service: str, *, shares_endpoint: bool = True
) -> Generator[None]:
    """Show the numbers for the length of the block.

    Args:
        counts: what the process counts.
        gauges: what it looks up; read whenever somebody asks.
        probes: where Prometheus may fetch them, if anybody asked for such pages.
        service: the name of the process's role, `service.name` of its resource.
        shares_endpoint: whether OTEL_EXPORTER_OTLP_ENDPOINT is meant for metrics as well. Of an exporter it says where
            traces go, which may take nothing else; there OTEL_METRICS_EXPORTER=otlp says that it does.

    Metrics also go out by OTLP where the environment names an endpoint for them (OTEL_EXPORTER_OTLP_ENDPOINT, or
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT), unless OTEL_METRICS_EXPORTER is `none`. Without the extra `otlp` a line in
    the log says what to install, without `metrics` the page.

    Without either nothing is imported and nothing is shown.
    """
    is_asked_for = _is_asked_for(shares_endpoint=shares_endpoint)
    if is_asked_for and not _is_installed(OTLP):
        log.warning("metrics.not_sent", reason=NOT_SENT)
    if not _is_installed(PROMETHEUS):
        probes.without_metrics = NOT_SHOWN
    if not wants_metrics(probes, shares_endpoint=shares_endpoint):
        yield
        return
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
    from opentelemetry.sdk.resources import Resource

    with _fetched(probes) as readers:
        provider = MeterProvider(
            metric_readers=[*readers, *_sent(shares_endpoint=shares_endpoint)],
            resource=Resource.create({"service.name": service}),
            views=[View(instrument_unit="s", aggregation=ExplicitBucketHistogramAggregation(BOUNDS_SECONDS))],
        )
        _instruments(provider.get_meter("antiphon"), counts, gauges, probes)
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


LOOK_SECONDS: Final = 2.0
"""How often what is looked up is looked up for metrics."""


@asynccontextmanager
async def looked_after(
    probes: Probes, look: Callable[[], Awaitable[None]], *, shares_endpoint: bool = True
) -> AsyncGenerator[None]:
    """Look numbers up now and then for the length of the block, if anybody wants to see them.

    Args:
        probes: those of the process.
        look: puts the numbers into the process's gauges; what it raises is logged, and it is called again.
        shares_endpoint: as of `measuring`.
    """

    async def keep_looking() -> None:
        while True:
            try:
                await look()
            except Ambiguous:  # the server is away, which is said elsewhere
                pass
            except Exception as error:  # the next look may find more
                say("gauges.faulty", error)
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.ensure_future(keep_looking()) if wants_metrics(probes, shares_endpoint=shares_endpoint) else None
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()


def wants_metrics(probes: Probes, *, shares_endpoint: bool = True) -> bool:
    """Whether anybody is to see this process's numbers, and it has the packages for that.

    The variables of OpenTelemetry may be meant for others on the machine, and the pages for whoever asks whether the
    process lives, so a process without the packages goes without, and says so where it is asked.
    """
    return (probes.is_asked_for and _is_installed(PROMETHEUS)) or _is_sent(shares_endpoint=shares_endpoint)


def _is_asked_for(*, shares_endpoint: bool) -> bool:
    chosen = os.environ.get("OTEL_METRICS_EXPORTER", "")
    names = ENDPOINTS if shares_endpoint or chosen == "otlp" else ENDPOINTS[:1]
    return (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and chosen in ("", "otlp")
        and any(map(os.environ.get, names))
    )


def _is_sent(*, shares_endpoint: bool) -> bool:
    return _is_asked_for(shares_endpoint=shares_endpoint) and _is_installed(OTLP)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what one of its parents is
        return False


def _sent(*, shares_endpoint: bool) -> list[Any]:
    if not _is_sent(shares_endpoint=shares_endpoint):
        return []
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return [PeriodicExportingMetricReader(OTLPMetricExporter())]


@contextmanager
def _fetched(probes: Probes) -> Generator[list[Any]]:
    """What collects for the page that Prometheus fetches; nothing where nobody asked for pages."""
    if not (probes.is_asked_for and _is_installed(PROMETHEUS)):
        yield []
        return
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import REGISTRY
    from prometheus_client.exposition import choose_encoder

    def page(accepted: str) -> Page:
        encode, content_type = choose_encoder(accepted)
        return Page(encode(REGISTRY), content_type)

    readers = [PrometheusMetricReader()]
    probes.metrics = page
    try:
        yield readers
    finally:
        probes.metrics = None


def _instruments(meter: Any, counts: Counts, gauges: Gauges, probes: Probes) -> None:
    from opentelemetry.metrics import Observation

    def totals(what: What, instrument: Instrument, options: object) -> Iterator[Observation]:
        for (name, labels), total in list(counts.totals.items()):
            if name == what:
                yield Observation(total, dict(zip(instrument.labels, labels, strict=True)))

    def looked_up(name: str, options: object) -> Iterator[Observation]:
        for (found, attributes), value in list(gauges.items()):
            if found == name:
                yield Observation(value, dict(attributes))

    def ready(options: object) -> Iterator[Observation]:
        yield Observation(0 if probes.obstacles() else 1)

    meter.create_observable_gauge(READY.name, [ready], unit=READY.unit, description=READY.help)
    for what, instrument in COUNTERS.items():
        call = partial(totals, what, instrument)
        meter.create_observable_counter(instrument.name, [call], unit=instrument.unit, description=instrument.help)
    for gauge in GAUGES:
        call = partial(looked_up, gauge.name)
        meter.create_observable_gauge(gauge.name, [call], unit=gauge.unit, description=gauge.help)
    counts.record = _recorder(meter)


def _recorder(meter: Any) -> Callable[[Span, tuple[str, ...], float], None]:
    histograms = {
        what: meter.create_histogram(instrument.name, unit=instrument.unit, description=instrument.help)
        for what, instrument in SPANS.items()
    }

    def record(what: Span, labels: tuple[str, ...], seconds: float) -> None:
        histograms[what].record(seconds, dict(zip(SPANS[what].labels, labels, strict=True)))

    return record
