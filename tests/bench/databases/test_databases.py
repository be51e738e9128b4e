"""The rows with databases are measured as they say, on loads too small to say anything about speed."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console

from antiphon.deploy.local.postgres import REQUIRED
from tests.bench.load import Driver, Load, Seen
from tests.bench.measure import Measured
from tests.bench.report import last_line

from .compare import KEPT, OURS, PEER, PEER_NORMAL, Effort, in_flight, on_postgres, on_slow_sqlite, on_sqlite
from .report import Beside, best_load, figures, p50, quotients, rate
from .slow_disk import DELAY_MS, delayed, slow_disk
from .systems import WORKERS, is_peer_there

SECONDS: Final = 0.1
PEER_REQUIRED: Final = "ANTIPHON_REQUIRE_PEER"
"""Set to 1 where a missing peer is a failure, as in CI."""


def require_peer() -> None:
    """Skip a test where the peer is not installed and need not be."""
    if not is_peer_there():
        assert os.environ.get(PEER_REQUIRED) != "1"
        pytest.skip("the peer is not installed; make bench does that")


# --- loads that last a time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [Load("some", 0, seconds=0.02, in_flight=3), Load("few", 0, sagas=7, in_flight=3)])
async def test_a_load_counts_every_saga_that_it_began(load: Load) -> None:
    began: list[str] = []

    def begin(saga_id: str) -> None:
        began.append(saga_id)
        asyncio.get_running_loop().call_later(len(began) % 4 / 1000, driver.ended, saga_id)  # in another order

    driver = Driver(load, begin)
    seen = await driver.run()
    assert seen.sagas == len(began) == len(set(began)) >= load.in_flight
    assert load.sagas in (0, seen.sagas)


# --- what is measured -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sqlite() -> list[Measured]:
    """All systems on SQLite, once."""
    require_peer()
    return on_sqlite(Effort(1, SECONDS, most=64))


def test_sagas_on_sqlite_stand_beside_the_last_release(sqlite: list[Measured]) -> None:
    loads = [(each.system, each.load.name) for each in sqlite]
    assert [load for system, load in loads if system == OURS] == [in_flight(number) for number in (1, 64)]
    assert [load for system, load in loads if system == KEPT] == [in_flight(64)]


def test_the_peer_runs_with_both_settings_of_sqlite(sqlite: list[Measured]) -> None:
    require_peer()
    for name in (PEER, PEER_NORMAL):
        loads = [each.load.name for each in sqlite if each.system == name]
        assert loads == [in_flight(number) for number in (1, 16, 64)]


def test_every_process_with_a_database_is_accounted_for(sqlite: list[Measured]) -> None:
    for each in sqlite:
        coordinator = {"coordinator"} if each.system in (OURS, KEPT) else set[str]()
        assert set(each.cpu_us) == {"server", "client", *WORKERS, *coordinator}


def test_the_last_line_names_both_on_sqlite(sqlite: list[Measured]) -> None:
    require_peer()
    assert re.fullmatch(r"bench: sqlite=\d+ sqlite_peer=\d+", last_line([], sqlite))


def test_without_the_peer_the_last_line_names_ours_alone(sqlite: list[Measured]) -> None:
    assert re.fullmatch(r"bench: sqlite=\d+", last_line([], [each for each in sqlite if each.system == OURS]))


def test_both_run_on_one_postgres_whose_cpu_counts() -> None:
    require_peer()
    try:
        found = on_postgres(Effort(1, SECONDS, most=1), {})
    except LookupError as error:
        assert os.environ.get(REQUIRED) != "1"
        pytest.skip(str(error))
    assert {each.system for each in found} == {OURS, PEER} if is_peer_there() else {OURS}
    assert all("database" in each.cpu_us for each in found)


# --- a slow disk ------------------------------------------------------------------------------------------------------


def test_only_what_lies_below_the_folder_is_synced_slowly(tmp_path: Path) -> None:
    with slow_disk() as disk:
        inside, outside = tmp_path / "inside", tmp_path / "outside"
        inside.mkdir()
        outside.mkdir()
        assert delayed(sys.executable, inside, disk.below(inside, 1)) > 0
        assert delayed(sys.executable, outside, disk.below(inside, 1)) == 0


def test_sagas_and_the_peer_wait_for_a_slow_disk() -> None:
    """A lower bound, whatever the machine: three steps one after the other, each with an fsync at least."""
    require_peer()
    with slow_disk() as disk:
        found = on_slow_sqlite(disk, Effort(1, SECONDS, most=1))
    assert {each.system for each in found} == {OURS, PEER} if is_peer_there() else {OURS}
    assert all(each.seen.p50_ms > len(WORKERS) * DELAY_MS for each in found)


def test_without_a_compiler_the_slow_rows_are_left_out_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LookupError, match="there is no C compiler"), slow_disk():
        pass


# --- what is printed --------------------------------------------------------------------------------------------------


def measured(system: str, load: int, turn: int, per_second: float, p50_ms: float = 1.0) -> Measured:
    """What was measured, without measuring it."""
    seen = Seen(sagas=1, sagas_per_second=per_second, p50_ms=p50_ms, p99_ms=p50_ms, cpu_seconds=0)
    cpu_us = {"server": 1000.0, "client": 1000.0, **dict.fromkeys(WORKERS, 500.0)}
    return Measured(system, Load(in_flight(load), turn, sagas=1, in_flight=load), seen, cpu_us, {})


FOUND: Final = [
    *(measured(PEER, 1, turn, 100, p50_ms=10) for turn in range(3)),
    *(measured(PEER, 16, turn, each) for turn, each in enumerate((500, 400, 900))),
    *(measured(PEER, 64, turn, each) for turn, each in enumerate((450, 460, 470))),
    *(measured(OURS, 64, turn, each) for turn, each in enumerate((1000, 1200, 900))),
    *(measured(OURS, 1, turn, 100, p50_ms=15) for turn in range(3)),
]


def text_of(*printed: object) -> str:
    console = Console(file=StringIO(), record=True, width=100)
    console.print(*printed)
    return console.export_text()


def test_the_peer_is_taken_at_its_best() -> None:
    assert best_load(FOUND, PEER) == in_flight(16)


def test_a_quotient_is_that_of_the_medians_with_the_spread_of_the_rounds() -> None:
    rows = (
        Beside("sagas/s", rate, in_flight(64), PEER, aim="≥ 1.2"),
        Beside("p50", p50, in_flight(1), PEER, in_flight(1)),
        Beside("sagas/s", rate, in_flight(64), KEPT),
    )
    table = quotients("", rows, FOUND)
    assert [list(column.cells) for column in table.columns] == [
        ["sagas/s", "p50"],
        ["64", "1"],
        [PEER, PEER],
        ["16", "1"],
        ["2.00", "1.50"],
        ["1.00–3.00", "1.50–1.50"],
        ["≥ 1.2", ""],
    ]


def test_the_figures_are_medians() -> None:
    (row,) = (line for line in text_of(figures("SQLite", FOUND)).splitlines() if OURS in line and " 64 " in line)
    assert [word for word in re.split(r"[│\s]+", row) if word] == [
        *(OURS, "64", "1000", "900–1200", "1.0", "1.0", "3.50", "0.50")
    ]
