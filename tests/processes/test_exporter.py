"""The exporter as a process, killed with SIGKILL where it hurts: the backend has every span once, and no other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.stored import Delivered
from antiphon.deploy.local.server import free_port
from antiphon.link import Link
from antiphon.link.killpoints import POINTS, VARIABLE
from antiphon.tracing.export.exporter import Exporter as InProcess
from antiphon.tracing.export.otlp import Backend, endpoint
from antiphon.tracing.projection.ids import trace_id
from antiphon.tracing.projection.project import Projection, project
from antiphon.tracing.projection.sampling import is_sampled
from antiphon.tracing.projection.spans import Span
from tests.integration.tracing.replay import play_back
from tests.integration.tracing.voyage import MealAsked, Voyage
from tests.support.receiver import Receiver, Stored, expected, grpc_receiver, over_grpc, receiver
from tests.support.server import Platform, platform, until
from tests.support.traced import all_projections, assert_equal, hasten, until_nothing_is_pending

ANTIPHON = str(Path(sys.executable).with_name("antiphon"))
EXPORTER_POINTS = sorted(point for point in POINTS if point.startswith("exporter."))


class Exporter:
    """The process, started again when it dies of a kill point."""

    def __init__(self, up: Platform, environment: Mapping[str, str], log: Path) -> None:
        self._environment = {**os.environ, **up.environment("administrator"), **environment}
        self._log, self.exits = log, list[int]()
        self.process = self._launch()

    def _launch(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen([ANTIPHON, "exporter"], env=self._environment, stdout=log, stderr=log)

    def keep(self) -> None:
        """Start it again if it has died."""
        if (code := self.process.poll()) is not None:
            self.exits.append(code)
            self._environment.pop(VARIABLE, None)
            self.process = self._launch()

    async def has_died(self) -> None:
        """Wait until the kill point has killed it, and start it again."""

        def is_dead() -> bool:
            self.keep()
            return bool(self.exits)

        await until(is_dead, what="the exporter's death")
        assert self.exits == [-signal.SIGKILL]

    def end(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(120)


@contextmanager
def exporter(up: Platform, environment: Mapping[str, str], folder: Path) -> Iterator[Exporter]:
    running = Exporter(up, environment, folder / "exporter.log")
    try:
        yield running
    finally:
        is_over, log = running.end() == 0, (folder / "exporter.log").read_text()
        assert is_over, log[-2000:]
        assert all(line.startswith("{") for line in log.splitlines()), log[-2000:]


@asynccontextmanager
async def with_backend(
    folder: Path, backend_over: Callable[[], AbstractContextManager[tuple[Receiver, dict[str, str]]]] = receiver
) -> AsyncIterator[tuple[Platform, Link, Receiver, dict[str, str]]]:
    """A platform, a link to it, a backend, and the environment that points an exporter there."""
    with platform(folder, participants=()) as up, backend_over() as (backend, environment):
        await up.set_up()
        link = await up.connect("administrator")
        try:
            await hasten(link)
            yield up, link, backend, environment
        finally:
            await link.close()


def troubled(more: int = 12, ratio: float = 1.0) -> Voyage:
    """A voyage with every kind of trouble, and some meals beside it; so large a share is sampled."""
    voyage = Voyage(4, trouble=0.3, ratio=ratio)
    for number in range(more):
        start = subjects.start_subject(SagaKey.of("meal", f"m{number}"))
        voyage.put(start, "client", MealAsked.__contract__.type, MealAsked(guest=str(number)))
    return voyage.live()


def projections(voyage: Voyage) -> list[Projection]:
    return [project(key, voyage.entries(key), voyage.events(key)) for key in voyage.sagas()]


def wanted(found: list[Projection]) -> Stored:
    return expected(span for projection in found for span in projection.spans)


@pytest.mark.parametrize("point", EXPORTER_POINTS)
async def test_an_exporter_killed_anywhere_costs_no_span_and_doubles_none(point: str, tmp_path: Path) -> None:
    voyage = troubled()
    async with with_backend(tmp_path) as (up, link, backend, environment):
        await play_back(voyage, link)
        every = wanted(await all_projections(link))
        with exporter(up, {**environment, VARIABLE: f"{point}:1"}, tmp_path) as running:
            await running.has_died()
            await has_all(backend, every, running)
            await until_nothing_is_pending(link)
        assert backend.spans == every
        roots_come_last(backend, await all_projections(link))


async def has_all(backend: Receiver, every: Stored, running: Exporter | None = None) -> None:
    def holds() -> bool:
        if running is not None:
            running.keep()
        return backend.spans.keys() >= every.keys()

    await until(holds, what="every span in the backend")


def roots_come_last(backend: Receiver, found: list[Projection]) -> None:
    """No request after the one with a root brings anything of its trace."""
    for projection in found:
        root = projection.spans[-1]
        came = [backend.came[span.trace_id, span.span_id] for span in projection.spans]
        assert backend.came[root.trace_id, root.span_id] == max(came)


async def test_a_backend_that_is_away_loses_nothing_and_catches_up(tmp_path: Path) -> None:
    voyage = troubled(2)
    async with with_backend(tmp_path) as (up, link, backend, environment):
        backend.away = True
        with exporter(up, environment, tmp_path):
            await play_back(voyage, link)
            await until(lambda: backend.requests >= 2, what="two attempts in vain")
            assert not backend.spans
            backend.away = False
            every = wanted(await all_projections(link))
            await has_all(backend, every)
            await until_nothing_is_pending(link)
        assert backend.spans == every


def said(folder: Path, event: str) -> list[dict[str, Any]]:
    """The lines with an event in the exporter's log."""
    lines = (
        json.loads(line)
        for line in (folder / "exporter.log").read_text().splitlines(keepends=True)
        if line.endswith("\n")
    )
    return [line for line in lines if line["event"] == event]


async def test_a_trace_that_the_backend_rejects_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    voyage = troubled(3)
    async with with_backend(tmp_path) as (up, link, backend, environment):
        await play_back(voyage, link)
        every, bad = wanted(await all_projections(link)), SagaKey.of("meal", "m1")
        backend.rejects = {trace_id(bad)}
        with exporter(up, environment, tmp_path):
            await has_all(backend, {ident: data for ident, data in every.items() if ident[0] not in backend.rejects})
            rejected = said(tmp_path, "backend.rejects")[0]
            assert (rejected["status"], rejected["body"]) == ("400", "what a trace")
            await until(lambda: said(tmp_path, "trace.rejected"), what="which one it was")
            assert {line["saga"] for line in said(tmp_path, "trace.rejected")} == {str(bad)}
            backend.rejects = set()
            await has_all(backend, every)
            await until_nothing_is_pending(link)
        assert backend.spans == every


@pytest.mark.parametrize(("path", "status", "body"), [("/elsewhere", "404", "nothing here"), ("/moved", "301", None)])
async def test_an_endpoint_that_is_no_backend_is_named_with_what_it_answers_and_nothing_is_lost(
    path: str, status: str, body: str | None, tmp_path: Path
) -> None:
    voyage = troubled(1)
    async with with_backend(tmp_path) as (up, link, backend, environment):
        await play_back(voyage, link)
        wrong = environment["OTEL_EXPORTER_OTLP_ENDPOINT"] + path
        with exporter(up, {**environment, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": wrong}, tmp_path):
            await until(lambda: said(tmp_path, "backend.rejects"), what="what it answers")
        assert said(tmp_path, "exporter.ready")[0]["endpoint"] == wrong
        rejected = said(tmp_path, "backend.rejects")[0]
        assert (rejected["endpoint"], rejected["status"], rejected.get("body")) == (wrong, status, body)
        with exporter(up, environment, tmp_path):
            await has_all(backend, wanted(await all_projections(link)))


async def test_a_backend_that_is_not_there_is_told_of_with_the_reason_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.tracing.export.exporter.TELL_SECONDS", 0.0)
    nowhere = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nowhere)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")  # for so long the SDK tries by itself
    backend = Backend()
    async with with_backend(tmp_path) as (_, link, _, _):
        await play_back(troubled(1), link)
        exporting = InProcess(link, backend.send, why=lambda: backend.failure, endpoint=backend.endpoint)
        with capture_logs() as lines:
            running = asyncio.create_task(exporting.run(await exporting.start()))
            await until(lambda: len(lines) >= 2, what="the second line")
            exporting.stop()
            backend.close()
            await running
    for line in lines[:2]:
        assert (line["event"], line["endpoint"]) == ("backend.away", f"{nowhere}/v1/traces")
        assert "Connection refused" in line["reason"]


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "foo"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "jaeger:4318"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:port"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "foo", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
    ids=str,
)
def test_what_cannot_be_an_endpoint_is_refused_at_the_start(variables: dict[str, str]) -> None:
    with pytest.raises(PlatformError, match=r"is no endpoint of OTLP\. Give a URL with http:// or https://"):
        endpoint(variables)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4318/x/"}, "https://c:4318/x/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/my"}, "http://c/my"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://localhost:4317"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}, "c:4317"),
    ],
    ids=str,
)
def test_where_spans_go(variables: dict[str, str], wanted: str) -> None:
    assert endpoint(variables) == wanted


async def test_over_grpc_a_backend_that_is_down_and_comes_back_in_two_steps_has_every_span(tmp_path: Path) -> None:
    """First nobody listens, then somebody does who takes nothing yet."""
    voyage, port = troubled(2), free_port()
    async with with_backend(tmp_path) as (up, link, unused, _):
        with exporter(up, over_grpc(port), tmp_path):
            await play_back(voyage, link)
            log = tmp_path / "exporter.log"
            await until(lambda: "backend.away" in log.read_text(), what="an attempt in vain")
            with grpc_receiver(port) as (backend, _):
                backend.away = True
                await until(lambda: backend.requests, what="another one")
                assert not backend.spans
                backend.away = False
                await until_nothing_is_pending(link)
                assert_equal(backend.spans, await all_projections(link))
        assert not unused.requests


class Held:
    """An entry in the exporter's hands, and what was said of it."""

    stream, subject, data = "SAGA", subjects.end_subject(SagaKey.of("trip", "t1")), b""
    sequence = deliveries = 1
    stored_ns = 0
    reply = "$JS.ACK.SAGA.exporter.1.1.1.0.0"

    def __init__(self) -> None:
        self.verdicts: list[str] = []

    def ack(self) -> None:
        self.verdicts.append("ack")

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        self.verdicts.append("back")

    def in_progress(self) -> None:
        self.verdicts.append("kept")


class OneSpan(InProcess):
    """Whatever it is delivered makes one span."""

    async def _read(self, key: SagaKey, entries: list[Delivered]) -> list[Span] | None:
        span: Any = SimpleNamespace(closed_by=1)
        return [span]


class Silent:
    """A pull that brings nothing more."""

    async def drain(self) -> None:
        """Nothing is under way."""


@pytest.mark.parametrize(("is_taken", "verdict"), [(True, "ack"), (False, "back")])
async def test_who_is_told_to_end_acks_only_what_the_backend_has_taken(is_taken: bool, verdict: str) -> None:
    async def send(spans: Sequence[Span]) -> bool:
        running.stop()
        return is_taken

    link, pull, held = Any, Silent(), Held()
    running = OneSpan(link, send)  # type: ignore[arg-type]
    running._take(held)  # type: ignore[arg-type]
    await running.run([pull])  # type: ignore[list-item]
    assert held.verdicts == [verdict]


@pytest.mark.parametrize("backend_over", [receiver, grpc_receiver])
async def test_an_exporter_that_is_told_to_end_while_its_backend_is_away_ends(
    backend_over: Callable[[], AbstractContextManager[tuple[Receiver, dict[str, str]]]], tmp_path: Path
) -> None:
    voyage = troubled(1)
    async with with_backend(tmp_path, backend_over) as (up, link, backend, environment):
        backend.away = True
        await play_back(voyage, link)
        with exporter(up, {**environment, "OTEL_EXPORTER_OTLP_TIMEOUT": "30"}, tmp_path) as running:
            await until(lambda: backend.requests >= 1, what="an attempt in vain")
            assert running.end() == 0
        backend.away = False
        with exporter(up, environment, tmp_path):
            await has_all(backend, wanted(await all_projections(link)))


@pytest.mark.parametrize("ratio", ["0.3", "0", "1"])
async def test_what_is_not_sampled_is_exported_whole_at_its_end_if_it_is_worth_a_look(
    ratio: str, tmp_path: Path
) -> None:
    """The journals say what is sampled, whatever the exporter's own ratio."""
    voyage = troubled(12, ratio=0.3)
    async with with_backend(tmp_path) as (up, link, backend, environment):
        await play_back(voyage, link)
        found = await all_projections(link)
        environment |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
        with exporter(up, environment, tmp_path):
            await until_nothing_is_pending(link)
        chosen = {p.key for p in found if is_sampled(bytes.fromhex(trace_id(p.key)), 0.3)}
        remarkable = {p.key for p in found if p.outcome == "compensated" or p.retries or p.was_parked}
        assert chosen - remarkable
        assert remarkable - chosen
        assert {p.key for p in found} - chosen - remarkable
        assert backend.spans == wanted([p for p in found if p.key in chosen | remarkable])
        whole = {**os.environ, **up.environment("operator"), **environment}
        command = [ANTIPHON, "trace", "reexport", "--since", "1h"]
        run = await asyncio.to_thread(subprocess.run, command, env=whole, capture_output=True, text=True, check=True)
        again = f"exported {len(chosen | remarkable)} of {len(found)} sagas again"
        assert run.stdout == f"{again}; the others were not sampled.\n"
        assert backend.spans == wanted([p for p in found if p.key in chosen | remarkable])


async def test_traces_are_exported_again_with_the_same_bytes(tmp_path: Path) -> None:
    voyage = troubled(2)
    async with with_backend(tmp_path) as (up, link, backend, environment):
        await play_back(voyage, link)
        every = wanted(await all_projections(link))
        with exporter(up, environment, tmp_path):
            await has_all(backend, every)
        environment = {**os.environ, **up.environment("operator"), **environment}
        command = [ANTIPHON, "trace", "reexport", "--since", "1h"]
        before = backend.requests
        run = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=True
        )
        count = len(voyage.sagas())
        assert run.stdout == f"exported {count} of {count} sagas again; the others were not sampled.\n"
        assert backend.requests > before
        assert backend.spans == every


async def test_a_root_goes_out_after_everything_else_of_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Span by span, so that the order within a request is seen."""
    monkeypatch.setattr("antiphon.tracing.export.exporter.SPANS_MAX", 1)
    voyage, sent = troubled(3), list[Span]()
    async with with_backend(tmp_path) as (_, link, _, _):
        await play_back(voyage, link)

        async def take(spans: Sequence[Span]) -> bool:
            sent.extend(spans)
            return True

        exporting = InProcess(link, take)
        running = asyncio.create_task(exporting.run(await exporting.start()))
        await until_nothing_is_pending(link)
        exporting.stop()
        await running
        found = await all_projections(link)
    for projection in found:
        mine = [span.span_id for span in sent if span.trace_id == projection.spans[-1].trace_id]
        assert mine == [span.span_id for span in projection.spans]
