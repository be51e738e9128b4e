"""The rows of the benchmark that have databases: measured, and printed with what is left out and why."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from tempfile import NamedTemporaryFile
from typing import Final

from rich.console import Console

from tests.bench.measure import Measured

from .compare import Effort, on_postgres, on_slow_sqlite, on_sqlite, slow_postgres
from .report import POSTGRES, SLOW_SQLITE, SQLITE, Beside, figures, quotients
from .slow_disk import DELAY_MS, slow_disk
from .systems import is_peer_there

FSYNCS: Final = 50


def print_sqlite(console: Console, effort: Effort) -> list[Measured]:
    """SQLite's rows, on this disk and on one that is slow; those on this one are returned."""
    if not is_peer_there():
        console.print("The peer is left out: it is not installed. `make bench` does that.")
    found = on_sqlite(effort)
    _print(console, f"SQLite, an fsync takes {fsync_ms():.1f} ms", SQLITE, found)
    try:
        with slow_disk() as disk:
            slow = on_slow_sqlite(disk, effort)
    except LookupError as error:
        console.print(f"SQLite where an fsync is slow is left out: {error}.")
    else:
        _print(console, f"SQLite, an fsync takes {DELAY_MS} ms more", SLOW_SQLITE, slow)
    return found


def print_postgres(console: Console, effort: Effort) -> None:
    """PostgreSQL's rows, on this disk and on one that is slow."""
    try:
        _print(console, "PostgreSQL", POSTGRES, on_postgres(effort, {}))
        with slow_disk() as disk:
            slow = on_postgres(effort, slow_postgres(disk))
        _print(console, f"PostgreSQL, an fsync takes {DELAY_MS} ms more", POSTGRES, slow)
    except LookupError as error:
        console.print(f"PostgreSQL is left out from here on: {error}.")


def fsync_ms() -> float:
    """What an fsync takes where the databases are, in the middle of some; next to nothing where files are in memory."""
    with NamedTemporaryFile(prefix="antiphon-bench-") as file:
        took = [_fsync_seconds(file.fileno()) for _ in range(FSYNCS)]
    return statistics.median(took) * 1e3


def _fsync_seconds(file: int) -> float:
    os.write(file, b"x" * 4096)
    began = time.perf_counter()
    os.fdatasync(file)
    return time.perf_counter() - began


def _print(console: Console, title: str, comparisons: Sequence[Beside], found: Sequence[Measured]) -> None:
    console.print(figures(title, found))
    beside = quotients(f"{title}: Antiphon beside", comparisons, found)
    if beside.row_count:
        console.print(beside)
