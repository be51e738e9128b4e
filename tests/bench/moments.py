"""How long single things take that people or healthy commands wait for: best and median of a few."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table
from structlog.testing import capture_logs

from antiphon.tracing.export.reading import read_projection
from tests.integration.participants.crowd import FAILING, HEALTHY, crowd
from tests.integration.tracing.caravan import CARAVAN, drawn, lived
from tests.integration.tracing.replay import play_back
from tests.support.server import platform


@dataclass(frozen=True)
class Moment:
    """Something that was timed again and again."""

    what: str
    seconds: list[float]


def moments(times: int, healthy: int = HEALTHY, failing: int = FAILING) -> list[Moment]:
    """Time them.

    Args:
        times: how often a journal is drawn.
        healthy: how many commands are sent among those that fail.
        failing: how many those are.
    """
    with capture_logs():  # of each compensation that fails
        among = [asyncio.run(_among_failing(kind, healthy, failing)) for kind in ("memory", "sqlite")]
    return [asyncio.run(_drawing(times)), *among]


def moments_table(found: list[Moment]) -> Table:
    """A line for each."""
    table = Table(title="Single moments", title_justify="left")
    for number, column in enumerate(("", "best ms", "p50 ms", "worst ms")):
        table.add_column(column, justify="right" if number else "left")
    for each in found:
        figures = (min(each.seconds), statistics.median(each.seconds), max(each.seconds))
        table.add_row(each.what, *(f"{seconds * 1000:.1f}" for seconds in figures))
    return table


async def _drawing(times: int) -> Moment:
    """What `antiphon trace` does with a journal of 700 entries between its connection and its last line."""
    with TemporaryDirectory(prefix="antiphon-bench-") as folder, platform(Path(folder), participants=()) as up:
        await up.set_up()
        link = await up.connect("administrator")
        await play_back(lived(), link)
        seconds = list[float]()
        for _ in range(times):
            began = time.perf_counter()
            drawn(await read_projection(link, CARAVAN))
            seconds.append(time.perf_counter() - began)
        await link.close()
    return Moment("a journal of 700 entries read and drawn", seconds)


async def _among_failing(kind: str, healthy: int, failing: int) -> Moment:
    """A command from being sent to its event, one after the other."""
    with TemporaryDirectory(prefix="antiphon-bench-") as folder:
        async with crowd(Path(folder), kind, failing) as waiting:
            seconds = [(await waiting.answered()).seconds for _ in range(healthy)]
    return Moment(f"a command beside {failing} that fail, {kind}", seconds)
