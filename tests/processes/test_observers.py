"""What exporter and read model tell of themselves: how much waits, since when, what they have done, what has failed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

import pytest

from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.deploy.local.server import free_port
from antiphon.deploy.readmodel import lag
from antiphon.link import Delivery, Link
from antiphon.link.probes import Probes
from antiphon.tracing.export.backlog import Backlog
from antiphon.tracing.export.exporter import Exporter
from antiphon.tracing.export.otlp import Failure
from antiphon.tracing.projection.spans import Span
from antiphon.tracing.telemetry.counts import Counts
from antiphon.tracing.telemetry.metrics import READMODEL_OLDEST, READMODEL_UNREAD, Gauges, measuring
from tests.integration.platform.test_coordinator import Company, company
from tests.processes.test_metrics import Page, fetch, receiver, total
from tests.support.trip import ASKED, TRIP


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Company]:
    async with company(tmp_path, "plain") as everybody:
        await everybody.coordinate()
        await everybody.work()
        yield everybody


async def a_saga(there: Company) -> None:
    await (await (await there.client()).start(TRIP, ASKED, id="t1")).result(timeout=120)


@dataclass
class Backend:
    """A backend that is away until it is told to take what it is sent."""

    takes: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, spans: Sequence[Span]) -> bool:
        self.asked.set()
        return self.takes


async def test_an_exporter_tells_what_waits_for_its_backend_and_then_what_it_has_sent(there: Company) -> None:
    await a_saga(there)
    backend, counts = Backend(), Counts()
    link = await there.link("coordinator")
    exporter = Exporter(link, backend.send, why=lambda: Failure("it is away"), counts=counts)
    running = asyncio.create_task(exporter.run(await exporter.start()))
    try:
        async with asyncio.timeout(120):
            while not counts.totals["export_failures", ("away",)]:
                await asyncio.sleep(0.01)
            waiting = exporter.backlog.entries()
            assert waiting == len(await journal(link))
            assert exporter.backlog.oldest_seconds() > 0
            assert counts.totals["entries_exported", ()] == counts.totals["spans_exported", ()] == 0
            backend.takes = True
            while exporter.backlog.entries():
                await asyncio.sleep(0.01)
        assert exporter.backlog.oldest_seconds() == 0
        assert counts.totals["entries_exported", ()] == waiting
        assert counts.totals["spans_exported", ()] > waiting
    finally:
        exporter.stop()
        await running


async def journal(link: Link) -> list[str]:
    """The entries of all sagas, which are what an exporter is delivered."""
    return [each.subject async for each in link.scan(SAGA, "saga.*.*.*.c.>")]


def entry(sequence: int, stored_ns: int) -> Delivery:
    """An entry as the server delivers it, with five more behind it."""
    reply = f"$JS.ACK.SAGA.exporter.1.{sequence}.{sequence}.{stored_ns}.5"
    return Delivery(None, "saga.1.trip.t1.c.end", reply, b"")  # type: ignore[arg-type] # nobody is told anything


def test_what_is_put_off_counts_until_somebody_else_must_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("antiphon.tracing.export.backlog.time.time", lambda: now)
    backlog = Backlog()
    first, second = entry(1, 400 * 10**9), entry(2, 900 * 10**9)
    for each in (first, second):
        backlog.came(each, pending=5)
    assert (backlog.entries(), backlog.oldest_seconds()) == (7, 600)
    backlog.put_off(first, 30)
    assert (backlog.entries(), backlog.oldest_seconds()) == (7, 600)
    now = 1_091.0  # it was due sixty seconds ago, and did not come back
    assert (backlog.entries(), backlog.oldest_seconds()) == (6, 191)
    backlog.came(first, pending=0)
    backlog.done(first)
    backlog.done(second)
    assert (backlog.entries(), backlog.oldest_seconds()) == (0, 0)


async def test_a_read_model_tells_how_much_it_has_not_read_and_since_when(there: Company) -> None:
    await a_saga(there)
    link = await there.link("coordinator")
    gauges: Gauges = {}
    await lag.look(link, dict, gauges)
    last = {stream: await link.get_latest(stream, ">") for stream in (SAGA, EVENTS)}
    sequences = {stream: message.sequence for stream, message in last.items() if message is not None}
    unread = {stream: gauges[READMODEL_UNREAD, (("messaging.destination.name", stream),)] for stream in sequences}
    assert unread == sequences
    assert gauges[READMODEL_OLDEST, ()] > 0
    await lag.look(link, lambda: sequences, gauges)
    assert {gauges[READMODEL_UNREAD, (("messaging.destination.name", stream),)] for stream in sequences} == {0}
    assert gauges[READMODEL_OLDEST, ()] == 0


@asynccontextmanager
async def running(environment: dict[str, str], *command: str) -> AsyncIterator[str]:
    """A process as the command line starts it, and the address of its pages."""
    address = f"127.0.0.1:{free_port()}"
    program = (sys.executable, "-m", "antiphon.deploy", *command, "--http", address)
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*program, env=environment, stderr=quiet, stdout=quiet)
    try:
        yield address
    finally:
        process.kill()
        await process.wait()


async def until_shown(address: str, name: str, least: float) -> Page:
    """The page of a process once a number on it is large enough."""
    async with asyncio.timeout(120):
        while True:
            try:
                page = await asyncio.to_thread(fetch, address)
            except URLError:  # it has not begun to listen
                page = {}
            if total([page], name) >= least:
                return page
            await asyncio.sleep(0.05)


async def test_both_processes_show_their_numbers(there: Company, tmp_path: Path) -> None:
    await a_saga(there)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "ANTIPHON_", "OTEL_"))}
    environment = kept | there.up.environment("coordinator")
    async with running(environment, "readmodel", "--database", f"sqlite:///{tmp_path}/sagas.db") as address:
        page = await until_shown(address, "antiphon_readmodel_messages_total", 8)
        assert total([page], "antiphon_process_ready") == 1
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    async with running(environment | nowhere, "exporter") as address:
        page = await until_shown(address, "antiphon_export_failures_total", 1)
        assert total([page], "antiphon_export_waiting") == len(await journal(await there.link("coordinator")))


@pytest.mark.parametrize("chosen", ["", "otlp"])
def test_an_exporter_sends_metrics_only_where_it_is_told_that_its_backend_takes_them(
    chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", chosen)
        with measuring(Counts(), {}, Probes(), "test", shares_endpoint=False):
            pass
    assert bool(received) is (chosen == "otlp")
