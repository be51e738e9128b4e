"""What was measured over databases, and how the sagas stand beside the peer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from tests.bench.measure import Measured

from .compare import KEPT, OURS, PEER, PEER_IN_FLIGHT, PEER_NORMAL, in_flight
from .systems import WORKERS

Value = Callable[[Measured], float]


def rate(measured: Measured) -> float:
    """Sagas a second."""
    return measured.seen.sagas_per_second


def p50(measured: Measured) -> float:
    """Milliseconds from the start of a saga to its end, in the middle."""
    return measured.seen.p50_ms


def cpu(measured: Measured) -> float:
    """Milliseconds of CPU a saga, over all processes: server, workers, client, and the database if it is one."""
    return sum(measured.cpu_us.values()) / 1e3


def worker_cpu(measured: Measured) -> float:
    """Milliseconds of a worker's CPU a command: each of them performs one of a saga."""
    return statistics.mean(measured.cpu_us[worker] for worker in WORKERS) / 1e3


@dataclass(frozen=True)
class Beside:
    """One thing of ours divided by the same of another's.

    Args:
        what: what is compared.
        value: how it is read off.
        ours: the load on the sagas.
        other: the system beside.
        load: the load on that; where none is named, the one of the peer's under which it carries the most.
        aim: what the quotient shall be.
    """

    what: str
    value: Value
    ours: str
    other: str
    load: str = ""
    aim: str = ""


ALONE: Final = in_flight(1)
RATE: Final = "sagas/s"
SQLITE: Final = (
    Beside(RATE, rate, in_flight(64), PEER, aim="≥ 1.2"),
    Beside(RATE, rate, in_flight(256), PEER, aim="≥ 1.2"),
    Beside(RATE, rate, in_flight(64), PEER_NORMAL, aim="≥ 1"),
    Beside(RATE, rate, in_flight(256), PEER_NORMAL, aim="≥ 1"),
    Beside("p50", p50, ALONE, PEER, ALONE, aim="≤ 1.6"),
    Beside("CPU a saga", cpu, in_flight(64), PEER, aim="< 1"),
    Beside("worker's CPU a command", worker_cpu, in_flight(64), KEPT, in_flight(64), aim="≤ 1/7"),
)
SLOW_SQLITE: Final = (
    Beside(RATE, rate, in_flight(64), PEER, aim="≥ 2.5"),
    Beside(RATE, rate, in_flight(256), PEER, aim="≥ 2.5"),
    Beside("p50", p50, ALONE, PEER, ALONE),
)
POSTGRES: Final = (
    Beside(RATE, rate, in_flight(64), PEER, aim="≥ 1"),
    Beside(RATE, rate, in_flight(256), PEER, aim="≥ 1"),
    Beside("p50", p50, ALONE, PEER, ALONE),
    Beside("CPU a saga", cpu, in_flight(64), PEER),
    Beside("worker's CPU a command", worker_cpu, in_flight(64), PEER, aim="< 1"),
    Beside("worker's CPU a command", worker_cpu, in_flight(64), KEPT, in_flight(64), aim="≤ 1/2"),
)


def figures(title: str, found: Sequence[Measured]) -> Table:
    """A row for each system under each load: medians, and the least and the most of the rates."""
    heads = ("sagas/s", "least–most", "p50 ms", "p99 ms", "CPU ms a saga", "a worker's")
    table = _table(title, "", "in flight", *heads)
    for system, load in dict.fromkeys((each.system, each.load.name) for each in _in_order(found)):
        rounds = _rounds(found, system, load)
        rates = [rate(each) for each in rounds]
        times = [f"{_median(rounds, value):.1f}" for value in (p50, _p99)]
        costs = [f"{_median(rounds, value):.2f}" for value in (cpu, worker_cpu)]
        spread = f"{min(rates):.0f}–{max(rates):.0f}"
        table.add_row(system, load.split()[0], f"{statistics.median(rates):.0f}", spread, *times, *costs)
    return table


def quotients(title: str, comparisons: Sequence[Beside], found: Sequence[Measured]) -> Table:
    """Ours ÷ another's: the medians', and the least and the most of the rounds'. What was not measured is left out."""
    table = _table(title, "", "in flight", "beside", "in flight", "times", "least–most", "aim")
    for each in comparisons:
        if not _rounds(found, each.other):
            continue
        load = each.load or best_load(found, each.other)
        ours, other = _rounds(found, OURS, each.ours), _rounds(found, each.other, load)
        # Too small a load may end before the kernel's clock of CPU has ticked.
        times = [each.value(a) / each.value(b) for a, b in zip(ours, other, strict=True) if each.value(b)]
        if times:
            middle = _median(ours, each.value) / _median(other, each.value)
            spread = f"{min(times):.2f}–{max(times):.2f}"
            numbers = (each.ours.split()[0], each.other, load.split()[0])
            table.add_row(each.what, *numbers, f"{middle:.2f}", spread, each.aim)
    return table


def best_load(found: Sequence[Measured], system: str) -> str:
    """Under which load a system carries the most."""
    loads = [in_flight(number) for number in PEER_IN_FLIGHT if _rounds(found, system, in_flight(number))]
    return max(loads, key=lambda load: _median(_rounds(found, system, load), rate))


def last_words(found: Sequence[Measured]) -> str:
    """What the last line of the benchmark says of SQLite: sagas/s with FULL and 64 in flight, ours and the peer's."""
    named = {"sqlite": _rounds(found, OURS, in_flight(64)), "sqlite_peer": _rounds(found, PEER, in_flight(64))}
    return "".join(f" {name}={_median(rounds, rate):.0f}" for name, rounds in named.items() if rounds)


def _in_order(found: Sequence[Measured]) -> Iterator[Measured]:
    """System by system, each with the lightest load first."""
    systems = list(dict.fromkeys(each.system for each in found))
    return iter(sorted(found, key=lambda each: (systems.index(each.system), each.load.in_flight)))


def _rounds(found: Sequence[Measured], system: str, load: str = "") -> list[Measured]:
    """What was measured of a system, under one load or all, round after round."""
    chosen = [each for each in found if each.system == system and load in ("", each.load.name)]
    return sorted(chosen, key=lambda each: each.load.round)


def _median(rounds: Sequence[Measured], value: Value) -> float:
    return statistics.median(value(each) for each in rounds)


def _p99(measured: Measured) -> float:
    return measured.seen.p99_ms


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "beside") else "right")
    return table
