"""The numbers that processes show are those of what they did."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from structlog.testing import capture_logs

from antiphon.coordinator.runtime.gauges import keep_looking
from antiphon.deploy.local.server import free_port
from antiphon.link.probes import Probes, served
from antiphon.link.setup import api
from antiphon.order.data import load_orders
from antiphon.tracing.telemetry.counts import COUNTERS, SPANS, Counts
from antiphon.tracing.telemetry.metrics import ENDPOINTS, GAUGES, READY, Gauges, measuring
from tests.support.processes import Fleet, listeners, run_orders, supervised
from tests.support.server import platform, until

LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')

Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINTS, "OTEL_METRICS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


def fetch(address: str) -> Page:
    """What Prometheus would read."""
    with urlopen(f"http://{address}/metrics", timeout=120) as answer:
        text = answer.read().decode()
    return {(name, frozenset(LABEL.findall(labels))): float(value) for name, labels, value in LINE.findall(text)}


def total(pages: list[Page], name: str, **labels: str) -> float:
    """The sum of a metric over all pages, whatever other labels it has."""
    wanted = set(labels.items())
    return sum(value for page in pages for (found, theirs), value in page.items() if found == name and wanted <= theirs)


# --- one process ------------------------------------------------------------------------------------------------------


async def test_counts_and_durations_and_what_was_looked_up_are_on_the_page() -> None:
    counts, address = Counts(), f"127.0.0.1:{free_port()}"
    gauges: Gauges = {("antiphon.consumer.pending", (("messaging.consumer.group.name", "billing"),)): 7}
    with served(address) as probes, measuring(counts, gauges, probes, "test"):
        counts.add("sagas_ended", "order", "completed")
        counts.add("sagas_ended", "order", "completed")
        counts.took("saga_seconds", 0.3, "order", "completed")
        page = [fetch(address)]
    assert total(page, "antiphon_sagas_ended_total", saga_type="order", saga_outcome="completed") == 2
    assert total(page, "antiphon_saga_duration_seconds_bucket", le="0.25") == 0
    assert total(page, "antiphon_saga_duration_seconds_bucket", le="0.5") == 1
    assert total(page, "antiphon_consumer_pending", messaging_consumer_group_name="billing") == 7


def test_nothing_is_imported_and_nothing_recorded_for_nobody() -> None:
    counts = Counts()
    with measuring(counts, {}, Probes(), "test"):
        assert counts.record is None
        counts.took("saga_seconds", 0.3, "order", "completed")


def test_without_the_extra_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setattr("antiphon.tracing.telemetry.metrics.OTLP", "opentelemetry.exporter.otlp.proto.absent")
    with capture_logs() as lines, measuring(Counts(), {}, Probes(), "test"):
        pass
    assert [line["event"] for line in lines] == ["metrics.not_sent"]
    assert "install it. Or set OTEL_METRICS_EXPORTER=none" in lines[0]["reason"]


async def test_without_the_extra_the_page_says_what_to_install_and_the_process_goes_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("antiphon.tracing.telemetry.metrics.PROMETHEUS", "opentelemetry.exporter.absent")
    address = f"127.0.0.1:{free_port()}"
    with (
        served(address) as probes,
        measuring(Counts(), {}, probes, "test"),
        pytest.raises(HTTPError, match="501") as refused,
    ):
        fetch(address)
    with refused.value:
        assert b"pip install 'antiphon[metrics]'" in refused.value.read()


def test_every_instrument_is_described() -> None:
    described = (Path(__file__).parents[2] / "tracing" / "README.md").read_text()
    names = [each.name for each in (*COUNTERS.values(), *SPANS.values(), *GAUGES, READY)]
    assert [name for name in names if f"`{name}`" not in described] == []


def test_metrics_go_out_by_otlp_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        counts = Counts()
        with measuring(counts, {}, Probes(), "antiphon-coordinator"):
            counts.add("conflicts")
    (request,) = received
    (resource,) = request.resource_metrics
    assert ("service.name", "antiphon-coordinator") in [
        (each.key, each.value.string_value) for each in resource.resource.attributes
    ]
    found = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
    assert "antiphon.conflicts" in found


@contextmanager
def receiver() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """Somebody who takes OTLP over HTTP."""
    received: list[ExportMetricsServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                raise AssertionError("not asked for")
            received.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


# --- what a coordinator looks up --------------------------------------------------------------------------------------


async def test_how_far_behind_reactions_are_is_seen_and_nothing_of_consumers_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.coordinator.runtime.gauges.LOOK_SECONDS", 0.05)
    billing = next(each for each in listeners("choreographed") if each.name == "billing")
    gauges: Gauges = {}

    def pending() -> dict[str, float]:
        lags = {which: value for (name, which), value in gauges.items() if name == "antiphon.consumer.pending"}
        return {dict(which)["messaging.consumer.group.name"]: value for which, value in lags.items()}

    with platform(tmp_path, "accounts") as up:
        await up.set_up(listeners=[billing])
        administrator, link = await up.connect("administrator"), await up.connect("coordinator")
        for number in range(3):
            await administrator.store(billing.hears[0].replace("*", str(number)), b"{}")
        looking = asyncio.create_task(keep_looking(link, ["billing", "inventory"], gauges))
        await until(lambda: pending().get("billing-on") == 3, what="three events that nobody has pulled")
        await until(lambda: "inventory-undo" in pending(), what="a whole look")
        assert "inventory-on" not in pending()
        await api(administrator, "CONSUMER.DELETE.EVENTS.billing-on")
        await until(lambda: "billing-on" not in pending(), what="that it is gone")
        looking.cancel()
        await asyncio.gather(administrator.close(), link.close())


# --- real processes ---------------------------------------------------------------------------------------------------


async def test_the_pages_of_all_processes_add_up_to_what_happened(tmp_path: Path) -> None:
    orders = load_orders()[:40]
    with platform(tmp_path, "accounts") as up:
        await up.set_up()
        running = Fleet(up, tmp_path, {}, "order")
        addresses = {role: f"127.0.0.1:{free_port()}" for role in running.children}
        for role, child in running.children.items():
            child.environment["ANTIPHON_HTTP"] = addresses[role]
        with supervised(running.children):
            report = await run_orders(up, running, orders)
            ended = Counter(completed=report.completed, compensated=report.compensated)
            pages, page_of = list[Page](), dict[str, Page]()

            def are_in(condition: Callable[[list[Page]], bool]) -> bool:
                for role, address in addresses.items():
                    try:
                        page_of[role] = fetch(address)
                    except HTTPError as error:
                        raise AssertionError(f"{role}: {error.read().decode()}\n{running.logs()}") from None
                pages[:] = page_of.values()
                return condition(pages)

            await until(
                lambda: are_in(lambda found: total(found, "antiphon_sagas_ended_total") == len(orders)),
                what=f"all ends to be counted\n{running.logs()}",
            )
            for outcome, count in ended.items():
                assert total(pages, "antiphon_sagas_ended_total", saga_type="order", saga_outcome=outcome) == count
                assert total(pages, "antiphon_saga_duration_seconds_count", saga_outcome=outcome) == count
            assert total(pages, "antiphon_sagas_started_total", saga_type="order") == len(orders)
            reserved = {"saga_participant": "inventory", "saga_command": "inventory.reserve"}
            tried = total(pages, "antiphon_attempts_total", **reserved)
            refused = total(pages, "antiphon_attempts_total", saga_outcome="refused", **reserved)
            released = total(pages, "antiphon_attempts_total", saga_command="inventory.release")
            assert tried == len(orders)
            assert refused + released == ended["compensated"]
            steps = {"saga_step": "reserve_inventory", "saga_direction": "do"}
            assert total(pages, "antiphon_step_duration_seconds_count", **steps) == len(orders)
            assert total(pages, "antiphon_handler_duration_seconds_count", **reserved) == len(orders)
            consumers = {dict(labels).get("messaging_consumer_group_name") for page in pages for _, labels in page}
            assert {
                "coordinator-answers-inventory",
                "coordinator-starts",
                "sweeper",
                "exporter",
                "inventory",
                "billing-undo",
            } <= consumers
            inventory = {"messaging_consumer_group_name": "inventory"}
            await until(
                lambda: are_in(
                    lambda found: (
                        total(found, "antiphon_process_ready") == len(addresses)
                        and total(found, "antiphon_consumer_pulls", **inventory) > 0
                    )
                ),
                what="all to be ready, and the inventory's worker to be seen",
            )
            up.server.kill()
            away = "the processes to say that the server is away"
            await until(lambda: are_in(lambda found: total(found, "antiphon_process_ready") == 0), what=away)
            up.server.start()
