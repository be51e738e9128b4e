"""The benchmark measures what it says, on loads too small to say anything about speed."""

from __future__ import annotations

import asyncio
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from . import pairs, profiling
from .fed import Feeding, calls_a_saga
from .load import Load
from .measure import Measured, Profiled, running
from .moments import moments, moments_table
from .report import (
    ALONE,
    AT_A_RATE,
    COMPENSATED,
    DIAMOND,
    EXPORTED,
    IN_FLIGHT,
    ONE_AT_A_TIME,
    export_table,
    interpreter,
    last_line,
    tables,
)
from .systems import ANTIPHON, FLOOR, System

LOADS = [
    Load(IN_FLIGHT, 0, sagas=40, in_flight=10),
    Load(ONE_AT_A_TIME, 0, sagas=5, in_flight=1),
    Load(AT_A_RATE, 0, sagas=20, per_second=200),
    Load(DIAMOND, 0, sagas=20, in_flight=10, shape="diamond"),
    Load(COMPENSATED, 0, sagas=20, in_flight=10, shape="compensated"),
]


@pytest.fixture(scope="module")
def found() -> list[Measured]:
    """Both systems, once."""
    with running(FLOOR, "2m") as floor, running(ANTIPHON, "2m") as antiphon:
        return [system.measure(load) for load in LOADS for system in (floor, antiphon)]


def test_both_systems_carry_every_saga_of_every_load(found: list[Measured]) -> None:
    assert [(each.system, each.load.name) for each in found] == [
        (system.name, load.name) for load in LOADS for system in (FLOOR, ANTIPHON)
    ]
    assert all(0 < each.seen.p50_ms <= each.seen.p99_ms for each in found)


def test_every_process_is_accounted_for(found: list[Measured]) -> None:
    systems: dict[str, System] = {system.name: system for system in (FLOOR, ANTIPHON)}
    for each in found:
        assert set(each.cpu_us) == {"server", "client", *systems[each.system].roles}
        assert set(each.rss_mb) == {"server", *systems[each.system].roles}


def test_a_coordinator_and_a_worker_stay_below_sixty_megabytes(found: list[Measured]) -> None:
    for each in found:
        if each.system == ANTIPHON.name:
            assert {name: rss for name, rss in each.rss_mb.items() if name != "server" and rss >= 60} == {}


def test_the_last_line_is_for_machines(found: list[Measured]) -> None:
    assert re.fullmatch(
        r"bench: sagas_per_second=\d+ floor=\d+ ratio=\d+\.\d\d p50_ms=\d+\.\d\d floor_p50_ms=\d+\.\d\d",
        last_line(found, []),
    )


def test_the_tables_can_be_printed(found: list[Measured]) -> None:
    console = Console(file=StringIO(), record=True, width=120)
    for table in tables("default", found):
        console.print(table)
    text = console.export_text()
    assert "300 in flight" in text
    assert "coordinator" in text


def test_a_profile_says_whose_code_took_the_time(tmp_path: Path) -> None:
    file = tmp_path / "profile"
    with running(ANTIPHON, "2m", Profiled("coordinator", file)) as antiphon:
        antiphon.measure(Load(IN_FLIGHT, 0, sagas=300, in_flight=50))
    by_part, by_function = profiling.tables(file, microseconds=150.0, lines=5)
    assert by_part.row_count >= 2
    assert 1 <= by_function.row_count <= 5


def test_the_exporter_runs_beside_a_load_and_its_cost_is_told() -> None:
    with running(ANTIPHON, "2m", exporting=True) as exported:
        found = [exported.measure(Load(name, 0, sagas=20, in_flight=10)) for name in (ALONE, EXPORTED)]
    assert all("exporter" in each.cpu_us for each in found)
    assert export_table(found).row_count == 2


@pytest.mark.parametrize("servers", [1, 3])
def test_platforms_of_several_pairs_of_streams_run_by_turns_and_come_back_after_a_restart(servers: int) -> None:
    found = pairs.compare([1, 2], servers, rounds=1, sagas=40)
    assert [(each.streams, each.sagas) for each in found] == [(1, 40), (2, 40)]
    assert all(each.restart_seconds > 0 and each.rss_mb > 0 for each in found)
    assert {*found[1].cpu_us} == {"servers", "coordinator", "worker"}
    assert pairs.table(found).row_count == 2


def test_single_moments_are_timed_one_by_one() -> None:
    found = moments(times=2, healthy=3, failing=20)
    assert [len(each.seconds) for each in found] == [2, 3, 3]
    assert moments_table(found).row_count == 3


def test_a_coordinator_that_is_fed_leads_every_saga_to_its_end_with_no_more_calls_than_it_used_to() -> None:
    """How long that takes is the machine's; how many functions are called is ours, and hardly moves from run to run."""

    async def feed() -> tuple[float, float]:
        feeding = await Feeding.begin()
        fed = await feeding.run(200)
        assert fed.sagas == feeding.ended == 200
        assert fed.cpu_us > 0
        return await calls_a_saga(feeding, 100)

    python, _ = asyncio.run(feed())
    assert python < CALLS_MAX


CALLS_MAX = 540
"""Calls of Python's functions for a saga of three steps: 505, and a few for the ticks of timers on a slow machine."""


def test_the_bench_says_how_its_interpreter_was_built() -> None:
    assert "with --enable-optimizations and --with-lto" in interpreter("'--enable-optimizations' '--with-lto=full'")
    assert interpreter("'--enable-shared'").endswith("slower than with --enable-optimizations and --with-lto")
    assert "Python" in interpreter()
