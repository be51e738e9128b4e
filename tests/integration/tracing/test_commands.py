"""`antiphon trace` on a real server: pictures, files, comparisons, and a journal about as long as any."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.clock import nanoseconds
from antiphon.deploy.cli.main import app
from antiphon.deploy.cli.trace import draw, moment_of
from antiphon.deploy.modules import CannotLoad
from antiphon.deploy.render.waterfall import duration
from antiphon.link import Link
from antiphon.tracing.export.otlp import endpoint
from antiphon.tracing.export.reading import read_projection
from antiphon.tracing.projection.project import project
from tests.integration.tracing.caravan import CARAVAN, drawn, lived
from tests.integration.tracing.replay import play_back
from tests.integration.tracing.voyage import KEY
from tests.support.commands import run_antiphon
from tests.support.server import Platform, platform

ANTIPHON = str(Path(sys.executable).with_name("antiphon"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One server for all tests here, which only read."""
    with platform(tmp_path_factory.mktemp("trace"), participants=()) as running:
        asyncio.run(fill(running))
        yield running


async def fill(up: Platform) -> None:
    await up.set_up()
    link = await up.connect("administrator")
    await play_back(lived(), link)
    await link.close()


@pytest.fixture
async def link(up: Platform) -> AsyncIterator[Link]:
    link = await up.connect("operator")
    yield link
    await link.close()


async def run(up: Platform, *arguments: str, exit_code: int = 0, **environment: str) -> str:
    return (await ran(up, arguments, exit_code, environment))[0]


async def complaint(up: Platform, *arguments: str, **environment: str) -> str:
    return (await ran(up, arguments, 1, environment))[1]


async def ran(
    up: Platform, arguments: Sequence[str], exit_code: int, environment: Mapping[str, str]
) -> tuple[str, str]:
    whole = {**os.environ, **up.environment("operator"), **environment}
    done = await asyncio.to_thread(run_antiphon, ("trace", *arguments), whole)
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


async def test_what_is_read_from_the_streams_is_the_projection(link: Link) -> None:
    voyage = lived()
    found = await read_projection(link, KEY)
    assert found.outcome == "compensated"
    told = project(KEY, voyage.entries(), voyage.events())
    assert [span.span_id for span in found.spans] == [span.span_id for span in told.spans]


async def test_a_saga_is_drawn_without_naming_the_command(up: Platform) -> None:
    lines = (await run(up, "v1", "--jaeger", "http://jaeger:16686")).splitlines()
    assert lines[0].startswith("voyage/v1  compensated: charge_card was refused: refused it was")
    assert any(line.startswith("  undo book_room") for line in lines)
    assert lines[-1].startswith("http://jaeger:16686/trace/717f099a0d2ccaf4a76cf31f4a4e8fed")


async def test_a_link_to_nowhere_is_refused_before_anything_is_drawn(up: Platform) -> None:
    for arguments, environment in ((("v1", "--jaeger", "foo"), {}), (("v1",), {"ANTIPHON_JAEGER_URL": "foo"})):
        drawn, complained = await ran(up, arguments, 1, environment)
        assert drawn == ""
        assert complained.startswith("antiphon: 'foo' is no address of Jaeger. Give its page")


async def test_an_ended_saga_is_followed_to_its_end_at_once(up: Platform) -> None:
    assert "voyage/v1  compensated" in await run(up, "voyage/v1", "--follow")


async def test_a_saga_becomes_a_file_that_others_open(up: Platform, tmp_path: Path) -> None:
    await run(up, "show", "v1", "--format", "jaeger", "--output", str(tmp_path / "trace.json"))
    (trace,) = json.loads((tmp_path / "trace.json").read_text())["data"]
    assert trace["traceID"] == "717f099a0d2ccaf4a76cf31f4a4e8fed"
    otlp = json.loads(await run(up, "v1", "--format", "otlp"))
    assert {each["resource"]["attributes"][0]["value"]["stringValue"] for each in otlp["resourceSpans"]} == {
        "airline", "antiphon", "bank", "hotel", "porter",
    }  # fmt: skip


async def test_two_sagas_are_compared(up: Platform) -> None:
    both = ("voyage/v1", "meal/v1-dine-1-957e2031c0bf")
    found = json.loads(await run(up, "diff", *both, "--json", exit_code=1))
    by_name = {each["name"]: each for each in found}
    assert by_name["cook"]["one"] is None
    assert by_name["saga"]["one"]["outcome"] == "compensated"
    assert by_name["book_room: process hotel.book"]["one"]["outcome"] == "done"
    drawn = await run(up, "diff", *both, exit_code=1, COLUMNS="60")
    assert "not there" in drawn
    assert drawn.startswith("one    voyage/v1  compensated\nother  meal/v1-dine-1-957e2031c0bf")
    assert max(map(len, drawn.splitlines())) <= 60


async def test_a_saga_that_went_the_same_way_has_exit_code_0(up: Platform) -> None:
    await run(up, "diff", "voyage/v1", "voyage/v1")


async def test_a_saga_that_runs_has_lasted_until_now(link: Link) -> None:
    voyage = lived()
    long_ago = voyage.entries()[:8]
    told = project(KEY, long_ago, voyage.events())
    out = Console(file=io.StringIO(), width=120)
    times = [time.time_ns()]
    draw(out, told, with_sends=False, jaeger_url="")
    times.append(time.time_ns())
    assert isinstance(out.file, io.StringIO)
    head, root = out.file.getvalue().splitlines()[:2]
    lasted = [duration(now - told.open[0].start_ns) for now in times]  # a minute may have ended in between
    for line, said in ((head, "running  in "), (root, "")):
        assert any(f"{said}{each[:-6]}" in line for each in lasted)


async def test_a_picture_becomes_a_file_too(up: Platform, tmp_path: Path) -> None:
    assert await run(up, "v1", "--output", str(tmp_path / "trace.txt")) == ""
    assert (tmp_path / "trace.txt").read_text() == await run(up, "v1")


NOW_NS = nanoseconds(datetime(2026, 11, 25, 9, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "at"),
    [("1w", "2026-11-18T09:00Z"), ("90m", "2026-11-25T07:30Z"), ("2026-11-24T09:00+02:00", "2026-11-24T07:00Z")],
)
def test_a_time_is_given_or_how_long_ago_it_was(text: str, at: str) -> None:
    assert moment_of(text, NOW_NS) == nanoseconds(datetime.fromisoformat(at))


@pytest.mark.parametrize("text", ["0s", "2026-11-25T09:00Z", "2027-01-01", "1y", "yesterday", "0001-01-01", "-1h"])
def test_since_when_there_is_nothing_to_export_is_a_sentence(text: str) -> None:
    with pytest.raises(CannotLoad, match=r"not in the past|is neither a time"):
        moment_of(text, NOW_NS)


@pytest.mark.parametrize("slow", ["inf", "nan", "-1", "1e300"])
def test_how_slow_is_slow_is_a_number_of_seconds(slow: str) -> None:
    for command in (["exporter"], ["trace", "reexport", "--since", "1h"]):
        ran = CliRunner().invoke(app, [*command, "--slow", slow])
        assert ran.exit_code == 2
        assert "give a number of seconds" in ran.output or "is not a number from 0 to 1e+09" in ran.output


async def test_a_backend_that_is_away_is_named(up: Platform) -> None:
    complained = await complaint(
        up,
        "reexport",
        "--since",
        "1h",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert "antiphon: the backend at http://127.0.0.1:9/v1/traces did not take the trace of saga " in complained
    assert "Connection refused. 0 of " in complained
    assert "the server gave no answer" not in complained


def test_the_backend_is_where_the_standard_variables_say() -> None:
    assert endpoint({}) == "http://localhost:4318/v1/traces"
    assert endpoint({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) == "http://localhost:4317"
    assert endpoint({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://j:1/"}) == "http://j:1/v1/traces"
    assert endpoint({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://j:1/x"}) == "http://j:1/x"


async def test_a_pipe_is_as_wide_as_columns_say_and_ascii_is_enough(up: Platform) -> None:
    drawn = await run(up, "v1", COLUMNS="60", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert drawn.isascii()
    assert "#" in drawn
    assert max(map(len, drawn.splitlines())) <= 60


@pytest.mark.parametrize("arguments", [("v1",), ("v1", "--format", "otlp"), ("diff", "v1", "v1", "--json")])
def test_a_full_disk_is_a_sentence(up: Platform, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        environment = {**os.environ, **up.environment("operator")}
        command = [ANTIPHON, "trace", *arguments]
        ran = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "antiphon: the output could not be written: No space left on device.\n")


async def test_a_saga_that_never_was_is_a_sentence(up: Platform) -> None:
    with pytest.raises(AssertionError, match="there is no saga voyage/v9"):
        await run(up, "voyage/v9")


async def test_a_saga_that_no_coordinator_has_taken_in_is_another_sentence(up: Platform, link: Link) -> None:
    await link.store(subjects.start_subject(SagaKey.of("meal", "m-new")), b"{}")
    for id in ("m-new", "meal/m-new"):
        with pytest.raises(AssertionError, match="no coordinator has begun saga meal/m-new yet"):
            await run(up, id)


async def test_a_journal_of_700_entries_is_read_projected_and_drawn(link: Link) -> None:
    voyage = lived()
    found = await read_projection(link, CARAVAN)
    told = project(CARAVAN, voyage.entries(CARAVAN), voyage.events(CARAVAN))
    assert int(found.spans[-1].attributes["saga.entries"]) > 700
    assert [(span.span_id, span.name) for span in found.spans] == [(span.span_id, span.name) for span in told.spans]
    picture = drawn(found)
    assert len(set(re.findall(r"undo load_all\[\d+\]", picture))) == 190
