"""A saga of which no trace can be made, or whose spans cannot be handed over, keeps no other trace back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from antiphon.contracts import SagaKey
from antiphon.tracing.export import exporter as exporting
from antiphon.tracing.export import reading
from antiphon.tracing.export.exporter import Exporter
from antiphon.tracing.projection.ids import trace_id
from antiphon.tracing.projection.spans import Span
from tests.integration.platform.test_coordinator import Company, company
from tests.support.poison import RAISED, SECRET, explode
from tests.support.server import until
from tests.support.trip import ASKED, TRIP

BAD = SagaKey.of("trip", "bad")
NOW = 2_000_000_000.0
HEALTHY = [SagaKey.of("trip", f"t{number}") for number in range(20)]


@pytest.fixture(autouse=True)
def _looks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LATE_SECONDS_MAX", 0.05)


class Backend:
    """What takes spans, and raises at those of the bad saga if it is told to."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.traces = set[str]()

    async def send(self, spans: Sequence[Span]) -> bool:
        await asyncio.sleep(0)
        traces = {span.trace_id for span in spans}
        if trace_id(BAD) in traces:
            explode(self.name)
        self.traces |= traces
        return True


@asynccontextmanager
async def exported(folder: Path, backend: Backend) -> AsyncIterator[Company]:
    """Twenty-one sagas that have ended, and an exporter that has just begun."""
    async with company(folder, "plain") as there:
        await there.coordinate()
        await there.work()
        client = await there.client()
        handles = [await client.start(TRIP, ASKED, id=key.id) for key in (*HEALTHY[:10], BAD, *HEALTHY[10:])]
        await asyncio.gather(*(handle.result(timeout=120) for handle in handles))
        exporter = Exporter(await there.link("coordinator"), backend.send, ratio=1.0)
        pull = await exporter.start()
        running = asyncio.create_task(exporter.run(pull))
        try:
            yield there
            assert not running.done()
        finally:
            exporter.stop()
            await running


@pytest.mark.parametrize("name", RAISED)
async def test_a_saga_whose_trace_cannot_be_made_is_tried_again_and_keeps_no_other_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project: Callable[..., Any] = reading.__dict__["project"]
    tries = list[str]()

    def projecting(key: SagaKey, *given: Any) -> Any:
        if key == BAD:
            tries.append(name)
            explode(name if len(tries) < 3 else "")
        return project(key, *given)

    monkeypatch.setattr(reading, "project", projecting)
    backend = Backend()
    with structlog.testing.capture_logs() as lines:
        async with exported(tmp_path, backend):
            await until(lambda: {trace_id(key) for key in (*HEALTHY, BAD)} <= backend.traces)
    assert "trace.faulty" in {line["event"] for line in lines}


async def test_an_entry_of_which_no_trace_can_be_made_is_given_up_in_the_end() -> None:
    class Held:
        stream, subject, data, sequence, stored_ns = "SAGA", "saga.1.trip.bad.c.end", b"", 1, 0

        def __init__(self, deliveries: int) -> None:
            self.deliveries, self.verdicts = deliveries, list[str]()

        def ack(self) -> None:
            self.verdicts.append("ack")

        def hand_back(self, delay_seconds: float = 0.0) -> None:
            self.verdicts.append("back")

        def in_progress(self) -> None:
            """Nothing waits for it."""

    async def none(spans: Sequence[Span]) -> bool:
        await asyncio.sleep(0)
        return True

    link: Any = None
    exporter, held = Exporter(link, none), [Held(1), Held(exporting.FAULTY_DELIVERIES_MAX)]
    with structlog.testing.capture_logs() as lines:
        exporter._look_later(BAD, list(held), ZeroDivisionError(SECRET))
    assert [each.verdicts for each in held] == [["back"], ["ack"]]
    assert [(line["event"], line["reason"]) for line in lines] == [("trace.given_up", "ZeroDivisionError")]


def test_how_late_an_entry_comes_again_goes_by_its_age_and_not_by_lost_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bad weather an entry is delivered again and again, and read in vain only once."""

    class Held:
        stream, subject, data, sequence = "SAGA", "saga.1.trip.bad.c.end", b"", 1

        def __init__(self, deliveries: int, age_seconds: float) -> None:
            self.deliveries, self.stored_ns = deliveries, round((NOW - age_seconds) * 1e9)

        def ack(self) -> None: ...

        def hand_back(self, delay_seconds: float = 0.0) -> None: ...

        def in_progress(self) -> None: ...

    monkeypatch.setattr(exporting, "LATE_SECONDS_MAX", 600.0)
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert [exporting._later(Held(deliveries, 5.0)) for deliveries in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert exporting._later(Held(12, 10.0)) <= 32.0
    assert exporting._later(Held(12, 1000.0)) == 250.0
    assert exporting._later(Held(12, 1e6)) == 600.0


@pytest.mark.parametrize("name", RAISED)
async def test_spans_that_cannot_be_handed_over_keep_no_others_back(name: str, tmp_path: Path) -> None:
    backend = Backend(name)
    async with exported(tmp_path, backend):
        await until(lambda: {trace_id(key) for key in HEALTHY} <= backend.traces)
        backend.name = ""  # it was mended
        await until(lambda: trace_id(BAD) in backend.traces)
