"""The trace goes along: in commands and answers, in a handler's own spans, in every line of the log."""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span

from antiphon.contracts import Retry, SagaKey, headers, subjects
from antiphon.contracts.envelope import Envelope, decode, encode, pack
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.link import Link
from antiphon.participants import Participant, Transaction
from antiphon.participants.memory import MemoryDatabase
from antiphon.participants.worker import Worker
from antiphon.tracing.projection.ids import span_id, trace_id, traceparent
from antiphon.tracing.telemetry import context
from antiphon.tracing.telemetry.logs import configure
from tests.integration.tracing.voyage import BagLoaded, LoadBag
from tests.support.logs import plain_logs
from tests.support.server import platform

KEY = SagaKey.of("voyage", "v1")
ADDRESS = CommandAddress(KEY, "porter", "load", "do", 1)
PARENT = traceparent(KEY, "load", "do", 1)


def command() -> tuple[str, bytes]:
    subject = subjects.command_subject(KEY, "porter", "load", "do", 1)
    envelope = Envelope(
        id=subject,
        source="coordinator",
        type=LoadBag.__contract__.type,
        time=datetime.now(UTC),
        data=pack(LoadBag(bag=1)),
        retry=Retry(attempts=3, first_seconds=0.01).encode(),
        traceparent=PARENT,
    )
    return subject, encode(envelope)


async def headers_of(link: Link, stream: str, subject: str) -> dict[str, str]:
    message = await link.nc.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
    return dict(message.headers or {})


async def test_a_handlers_own_spans_hang_under_its_attempt_and_the_answer_carries_the_trace_on(tmp_path: Path) -> None:
    tracer = TracerProvider().get_tracer("team")
    parents: list[tuple[int, int, bool]] = []
    porter = Participant("porter")

    @porter.handles(LoadBag)
    async def load(command: LoadBag, tx: Transaction) -> BagLoaded:
        with tracer.start_as_current_span("lift") as span:
            parent = span.parent  # type: ignore[attr-defined]
            parents.append((parent.trace_id, parent.span_id, parent.is_remote))
        if len(parents) == 1:
            raise ConnectionError("the strap broke")
        return BagLoaded(bag=1)

    with platform(tmp_path, participants=("porter",)) as up:
        await up.set_up()
        link = await up.connect("administrator")
        subject, data = command()
        outcomes: list[object] = []
        JetStreamStore(link).append(KEY, subject, data, 0, False, outcomes.append)
        worker = Worker(porter, link, MemoryDatabase())
        await worker.start()
        answer = subjects.event_subject(KEY.path, "porter", "porter-loaded", "load", 1)
        async with asyncio.timeout(120):
            while (stored := await link.get_last(EVENTS, answer)) is None:
                await asyncio.sleep(0.01)
        assert (await headers_of(link, SAGA, subject))["traceparent"] == PARENT
        assert (await headers_of(link, EVENTS, answer))["traceparent"] == PARENT
        await worker.drain()
        await link.close()
    envelope = decode(stored.data, answer)
    assert (envelope.traceparent, envelope.tries) == (PARENT, 2)
    attempt = (int(trace_id(KEY), 16), int(span_id(KEY, "load", "do", 1, "attempt"), 16), True)
    assert parents == [attempt, attempt]


def test_a_trace_stands_in_a_header_only_where_the_envelope_says_so_itself() -> None:
    _, data = command()
    assert headers.traceparent_header(data) == f"traceparent: {PARENT}\r\n"
    assert headers.traceparent_header(b'{"data":{"traceparent":"' + PARENT.encode() + b'"}}') == ""
    assert headers.traceparent_header(b"{}") == ""


async def test_a_traceparent_that_is_none_costs_nothing_but_itself() -> None:
    async def one(text: str) -> int:
        context.enter(ADDRESS, text)
        return get_current_span(get_current()).get_span_context().span_id

    for text in ("", "none of that", "00-xyz-1-01", "00-1-2-3-4"):
        assert await asyncio.create_task(one(text)) == 0
    assert await asyncio.create_task(one(PARENT)) == int(PARENT[36:52], 16)
    assert context.current.get() is None, "a task's command stays within the task"


def test_who_does_not_trace_loads_no_opentelemetry() -> None:
    code = (
        "import asyncio, sys, antiphon.coordinator.runtime.serve, antiphon.participants;"
        "import antiphon.tracing.telemetry.logs;"
        "from antiphon.tracing.telemetry import handler_spans as spans;"
        "spans.set_up('team'); asyncio.run(spans.flush());"
        "print([name for name in ('opentelemetry', 'google', 'requests') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def line(event: str, **fields: object) -> dict[str, object]:
    """What one call writes in a process that is set up for JSON."""
    out = io.StringIO()
    configure(readable=False)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(out), cache_logger_on_first_use=False)
    try:
        structlog.get_logger().info(event, **fields)
    finally:
        plain_logs()
    return json.loads(out.getvalue())  # type: ignore[no-any-return]


def test_a_line_about_a_saga_says_where_its_trace_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_JAEGER_URL", "http://jaeger:16686")
    written = line("saga.parked", saga="voyage/v1")
    assert written["trace_id"] == trace_id(KEY)
    assert written["trace"] == f"http://jaeger:16686/trace/{trace_id(KEY)}"


def test_a_line_about_a_message_names_its_saga_step_and_attempt() -> None:
    written = line("attempt.failed", subject=subjects.command_subject(KEY, "porter", "load", "undo", 3))
    assert about(written) == ("voyage/v1", "load", 3, trace_id(KEY))


def about(written: dict[str, object]) -> tuple[object, ...]:
    return tuple(written[name] for name in ("saga", "step", "attempt", "trace_id"))


async def test_a_line_of_a_handlers_own_is_about_its_command() -> None:
    async def handle() -> dict[str, object]:
        context.enter(ADDRESS, PARENT)
        return line("bag.weighed", kilograms=12)

    assert about(await asyncio.create_task(handle())) == ("voyage/v1", "load", 1, trace_id(KEY))


FOREIGN = """
import asyncio, logging, warnings
from antiphon.contracts.subjects import parse_command
from antiphon.tracing.telemetry import context
from antiphon.tracing.telemetry.logs import configure

configure(readable=False)

async def handle():
    context.enter(parse_command(SUBJECT), "")
    log = logging.getLogger("team.load")
    log.debug("not written")
    log.warning("the bag weighs %s kg, says %s", 12, "nats://me:hush@host", extra={"password": "hush"})
    try:
        raise ValueError("torn")
    except ValueError:
        log.exception("a strap")
    await asyncio.to_thread(log.info, "lifted")

asyncio.run(handle())
warnings.warn("old")
"""


def test_what_is_logged_by_the_standard_library_has_the_same_form_and_says_as_much() -> None:
    code = FOREIGN.replace("SUBJECT", repr(subjects.command_subject(KEY, "porter", "load", "do", 1)))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    weighed, torn, lifted, warned = map(json.loads, ran.stderr.splitlines())
    for written in (weighed, torn, lifted):
        assert about(written) == ("voyage/v1", "load", 1, trace_id(KEY))
    assert (weighed["event"], weighed["level"]) == ("the bag weighs 12 kg, says nats://me:…@host", "warning")
    assert (weighed["logger"], weighed["password"]) == ("team.load", "…")
    assert "ValueError: torn" in torn["exception"]
    assert "UserWarning: old" in warned["event"]


@pytest.mark.parametrize("how", ["configure()", "settle_tracebacks()"])
def test_a_line_that_nobody_can_read_any_more_harms_nobody(how: str) -> None:
    program = f"""
import logging, os, sys, structlog
from antiphon.link.faults import settle_tracebacks
from antiphon.tracing.telemetry.logs import configure
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, sys.{"stderr" if how == "configure()" else "stdout"}.fileno())
{how}
for _ in range(1_000):
    structlog.get_logger().info("saga.started", text="x" * 100)
    logging.getLogger("theirs").warning("seen")
os._exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 7


def test_a_team_that_has_set_logging_up_keeps_it() -> None:
    code = (
        "import logging; logging.basicConfig(format='mine: %(message)s');"
        "from antiphon.tracing.telemetry.logs import configure; configure(readable=False); logging.warning('heavy')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "mine: heavy\n"


@pytest.mark.parametrize(
    "fields", [{}, {"saga": "no such thing"}, {"subject": "saga.x"}, {"subject": "evt.1.a.b!.c"}, {"saga": 7}]
)
def test_a_line_is_written_whatever_stands_in_it(fields: dict[str, object]) -> None:
    written = line("something", **fields)
    assert "trace_id" not in written
    assert written["event"] == "something"


SAYS = re.compile(r'\b_?log(?:\.(?:debug|info|warning|error|exception))?\(\s*"([^"]+)"')


def test_every_event_of_ours_is_named_in_one_style() -> None:
    """By what it is about and what became of that, with a dot between."""
    roots = (
        Path(__file__).parents[3] / name for name in ("contracts", "tracing", "coordinator", "participants", "deploy")
    )
    said = {name for root in roots for file in root.rglob("*.py") for name in SAYS.findall(file.read_text())}
    assert {"coordinator.ready", "attempt.failed", "saga.parked"} <= said
    assert [name for name in said if not re.fullmatch(r"[a-z_]+\.[a-z_]+", name)] == []
