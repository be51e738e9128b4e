"""The tables and the last line of a benchmark: medians over its rounds."""

from __future__ import annotations

import platform
import statistics
import sysconfig
from collections.abc import Callable, Sequence
from typing import Final

from rich.table import Table

from .databases.report import last_words
from .measure import Measured
from .systems import ANTIPHON, FLOOR, System

IN_FLIGHT: Final = "300 in flight"
ONE_AT_A_TIME: Final = "one at a time"
AT_A_RATE: Final = "200 a second"
DIAMOND: Final = "300 diamonds in flight"
COMPENSATED: Final = "300 compensated in flight"
ALONE: Final = "without an exporter"
EXPORTED: Final = "with the exporter beside"

OPTIMISATIONS: Final = ("--enable-optimizations", "--with-lto")
"""What an interpreter is configured with that is fast; packages of distributions are, and pyenv's are not."""
UNOPTIMISED: Final = "built without optimisation: 8 to 20 % slower than with --enable-optimizations and --with-lto"


def interpreter(options: str | None = None) -> str:
    """Which Python measures, and how it was built: that alone may be a fifth of the time.

    Args:
        options: what it was configured with; those of this interpreter when left out.
    """
    said = str(sysconfig.get_config_var("CONFIG_ARGS") or "") if options is None else options
    found = [name for name in OPTIMISATIONS if name in said]
    built = f"built with {' and '.join(found)}" if found else UNOPTIMISED
    return f"{platform.python_implementation()} {platform.python_version()}, {built}"


def tables(sync: str, found: Sequence[Measured]) -> list[Table]:
    """What was measured with one sync_interval."""
    return [_speed(sync, found), _cost(sync, found)]


def export_table(found: Sequence[Measured]) -> Table:
    """What it costs that every trace is exported on the same cores."""
    table = _table(f"{IN_FLIGHT}, Antiphon", "", ALONE, EXPORTED, "÷ without")
    for label, value, digits in (("sagas/s", _rate, 0), ("p50 ms", _p50, 1)):
        alone, exported = (_median(found, ANTIPHON, load, value) for load in (ALONE, EXPORTED))
        table.add_row(label, f"{alone:.{digits}f}", f"{exported:.{digits}f}", _times(exported, alone))
    return table


def last_line(in_memory: Sequence[Measured], on_sqlite: Sequence[Measured]) -> str:
    """The result in one line, for machines. What was not measured is not in it."""
    return f"bench:{_words(in_memory) if in_memory else ''}{last_words(on_sqlite)}"


def _words(found: Sequence[Measured]) -> str:
    ours, floor = (_median(found, system, IN_FLIGHT, _rate) for system in (ANTIPHON, FLOOR))
    ours_p50, floor_p50 = (_median(found, system, ONE_AT_A_TIME, _p50) for system in (ANTIPHON, FLOOR))
    return (
        f" sagas_per_second={ours:.0f} floor={floor:.0f} ratio={ours / floor:.2f} "
        f"p50_ms={ours_p50:.2f} floor_p50_ms={floor_p50:.2f}"
    )


def _speed(sync: str, found: Sequence[Measured]) -> Table:
    table = _table(f"Speed, sync_interval {sync}", "load", "", "floor", "Antiphon", "÷ floor")
    for load, label, value, digits in (
        (IN_FLIGHT, "sagas/s", _rate, 0),
        (IN_FLIGHT, "p50 ms", _p50, 1),
        (IN_FLIGHT, "p99 ms", _p99, 1),
        (ONE_AT_A_TIME, "p50 ms", _p50, 2),
        (ONE_AT_A_TIME, "p99 ms", _p99, 2),
        (AT_A_RATE, "p50 ms", _p50, 2),
        (AT_A_RATE, "p99 ms", _p99, 2),
        (DIAMOND, "sagas/s", _rate, 0),
        (COMPENSATED, "sagas/s", _rate, 0),
    ):
        floor, ours = (_median(found, system, load, value) for system in (FLOOR, ANTIPHON))
        table.add_row(load, label, f"{floor:.{digits}f}", f"{ours:.{digits}f}", _times(ours, floor))
    return table


def _cost(sync: str, found: Sequence[Measured]) -> Table:
    heads = ("process", "floor µs CPU a saga", "Antiphon", "÷ floor", "floor MB", "Antiphon MB")
    table = _table(f"Cost at {IN_FLIGHT}, sync_interval {sync}", *heads)
    # Memory is that of the first round: an inbox in memory has a row for every saga, however long the benchmark is.
    first = [each for each in found if each.load.round == 0]
    for process in ("server", "coordinator", "worker", "client", "all"):
        floor, ours = (_median(found, system, IN_FLIGHT, _cpu(system, process)) for system in (FLOOR, ANTIPHON))
        memory = [_median(first, system, IN_FLIGHT, _rss(system, process)) for system in (FLOOR, ANTIPHON)]
        name = "each worker" if process == "worker" else process
        sizes = (f"{value:.0f}" if value else "" for value in memory)
        table.add_row(name, f"{floor:.0f}", f"{ours:.0f}", _times(ours, floor), *sizes)
    return table


def _times(ours: float, floor: float) -> str:
    """How many times the floor; nothing where a load was too small for the kernel's clock to have ticked."""
    return f"{ours / floor:.2f}" if floor else ""


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or not column else "right")
    return table


def _median(found: Sequence[Measured], system: System, load: str, value: Callable[[Measured], float]) -> float:
    return statistics.median(value(each) for each in found if each.system == system.name and each.load.name == load)


def _rate(measured: Measured) -> float:
    return measured.seen.sagas_per_second


def _p50(measured: Measured) -> float:
    return measured.seen.p50_ms


def _p99(measured: Measured) -> float:
    return measured.seen.p99_ms


def _cpu(system: System, process: str) -> Callable[[Measured], float]:
    if process == "all":
        return lambda measured: sum(measured.cpu_us.values())
    names = _names(system, process)
    return lambda measured: statistics.mean(measured.cpu_us[name] for name in names)


def _rss(system: System, process: str) -> Callable[[Measured], float]:
    """The memory of a process; 0 for the client, which is gone, and for all of them."""
    names = _names(system, process)
    return lambda measured: statistics.mean(measured.rss_mb.get(name, 0.0) for name in names)


def _names(system: System, process: str) -> tuple[str, ...]:
    return system.workers if process == "worker" else (process,)
