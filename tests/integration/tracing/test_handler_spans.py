"""Spans of a team's own, from a real participant to a real receiver, by nothing but the standard variables."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.topology import EVENTS
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.link import Link
from antiphon.tracing.projection.ids import span_id, trace_id, traceparent
from antiphon.tracing.telemetry.handler_spans import is_asked_for
from tests.integration.tracing.voyage import LoadBag
from tests.support.processes import Child
from tests.support.receiver import Receiver, receiver
from tests.support.server import platform, until

COUNT: Final = 40
"""More bags than are lifted at once, so that some are in hand and others wait when the process is told to end."""
ENDPOINT: Final = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318"}


@asynccontextmanager
async def porter_at_work(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[tuple[Child, Link]]:
    """`antiphon participant` with an environment, and commands for it."""
    with platform(folder, participants=("porter",)) as up:
        await up.set_up()
        link = await up.connect("administrator")
        porter = "tests.integration.tracing.porter:porter"
        arguments = ["antiphon.deploy", "participant", porter, "--database", "memory:"]
        child = Child("porter", arguments, {**up.environment("porter"), **environment}, folder / "porter.log")
        child.launch()
        try:
            await until(lambda: "participant.ready" in child.log.read_text(), what="a porter at work")
            for number in range(COUNT):
                await order_to_load(link, number)
            yield child, link
        finally:
            child.kill()
            child.wait()
            await link.close()


async def order_to_load(link: Link, number: int) -> None:
    """Every fourth in a saga that is not sampled."""
    key = SagaKey.of("voyage", f"v{number}")
    subject = subjects.command_subject(key, "porter", "load", "do", 1)
    parent = traceparent(key, "load", "do", 1)
    envelope = Envelope(
        id=subject,
        source="coordinator",
        type=LoadBag.__contract__.type,
        time=datetime.now(UTC),
        data=pack(LoadBag(bag=number)),
        traceparent=parent if number % 4 else f"{parent[:-2]}00",
    )
    stored: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    JetStreamStore(link).append(key, subject, encode(envelope), 0, False, stored.set_result)
    assert isinstance(await stored, int)


async def answered(link: Link) -> set[str]:
    """The sagas of all commands with an answer."""
    return {str(subjects.parse_fact(each.subject).saga) async for each in link.scan(EVENTS, "evt.>")}


def taken(backend: Receiver) -> Iterator[tuple[ResourceSpans, Span]]:
    for request in backend.taken:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                yield from ((resource, span) for span in scope.spans)


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
async def test_spans_of_handlers_hang_under_their_attempts_and_a_drain_loses_none(sampler: str, tmp_path: Path) -> None:
    """Those of the sagas that were sampled at their start, whatever the participant's own ratio."""
    with receiver() as (backend, environment):
        environment |= {"OTEL_TRACES_SAMPLER": sampler}
        # The batch would go out after an hour, so all that arrives was flushed.
        environment |= {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_METRICS_EXPORTER": "none"}
        async with porter_at_work(tmp_path, environment) as (child, link):
            async with asyncio.timeout(120):
                while not await answered(link):
                    await asyncio.sleep(0.01)
            assert child.process is not None
            child.signal(signal.SIGTERM)
            assert await asyncio.to_thread(child.process.wait, 20) == 0, child.log.read_text()
            done = [number for number in range(COUNT) if f"voyage/v{number}" in await answered(link)]
        found = list(taken(backend))
    assert done
    keys = [SagaKey.of("voyage", f"v{number}") for number in done if number % 4]
    wanted = [(trace_id(key), span_id(key, "load", "do", 1, "attempt")) for key in keys]
    assert sorted((span.trace_id.hex(), span.parent_span_id.hex()) for _, span in found) == sorted(wanted)
    assert {span.name for _, span in found} == {"lift"}
    about = [{each.key: each.value.string_value for each in resource.resource.attributes} for resource, _ in found]
    assert {(each["service.name"], each["service.namespace"]) for each in about} == {("porter", "antiphon")}


async def test_a_backend_that_never_answers_does_not_hold_the_end_of_a_process_for_ever(tmp_path: Path) -> None:
    with silence() as endpoint:
        environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        async with porter_at_work(tmp_path, environment) as (child, link):
            async with asyncio.timeout(120):
                while not await answered(link):
                    await asyncio.sleep(0.01)
            assert child.process is not None
            child.signal(signal.SIGTERM)
            assert await asyncio.to_thread(child.process.wait, 40) == 0, child.log.read_text()
        assert "spans.not_flushed" in child.log.read_text()


@contextmanager
def silence() -> Iterator[str]:
    """The address of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"


@pytest.mark.parametrize(
    ("environment", "is_wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://jaeger:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://prometheus:4318"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_say_whether_spans_are_sent(environment: dict[str, str], is_wanted: bool) -> None:
    assert is_asked_for(environment) is is_wanted


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Some lines in a process of their own that has an endpoint."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **ENDPOINT}, capture_output=True, text=True, check=True
    )


def test_an_sdk_that_the_team_has_set_up_is_left_alone() -> None:
    code = (
        "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider;"
        "own = TracerProvider(); trace.set_tracer_provider(own);"
        "from antiphon.tracing.telemetry import handler_spans; handler_spans.set_up('porter');"
        "print(trace.get_tracer_provider() is own)"
    )
    ran = run(code)
    assert (ran.stdout, ran.stderr) == ("True\n", "")  # OpenTelemetry would complain of a second one


def test_without_the_extra_a_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None;"
        "from antiphon.tracing.telemetry import handler_spans, logs;"
        "logs.configure(readable=False); handler_spans.set_up('porter')"
    )
    said = run(code).stderr
    assert "traces cannot be exported without antiphon[otlp]; install it. Or set OTEL_TRACES_EXPORTER=none" in said
