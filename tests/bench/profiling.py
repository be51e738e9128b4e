"""Where the time of one process goes: samples of what it was doing, taken as its CPU time passes.

Samples cost next to nothing, where a profiler that counts calls makes every small function several times as dear. The
kernel gives a few hundred a second of CPU time, so shares are good to a percent or two. A sample falls on the Python
function that was running, or that ran next where the process was in the event loop.
"""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from pathlib import Path, PurePath
from types import FrameType
from typing import Final

import msgspec
from rich.table import Table

EVERY_SECONDS: Final = 0.001
"""Asked for; the kernel rounds it up to its own tick."""

LOOP: Final = "nats-py, event loop and sockets"


class Spot(msgspec.Struct, frozen=True):
    """A function, and in how many samples it was the one running."""

    path: str
    function: str
    samples: int


class Sampler:
    """Takes samples of this process while it is started."""

    def __init__(self) -> None:
        self._found = Counter[tuple[str, str]]()

    def start(self) -> None:
        """Begin."""
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, EVERY_SECONDS, EVERY_SECONDS)

    def stop(self, file: Path) -> None:
        """End, and write what was found."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        spots = [Spot(path, function, samples) for (path, function), samples in self._found.items()]
        file.write_bytes(msgspec.json.encode(spots))

    def _take(self, number: int, frame: FrameType | None) -> None:
        if frame is not None:
            self._found[frame.f_code.co_filename, frame.f_code.co_qualname] += 1


def tables(file: Path, microseconds: float, lines: int) -> list[Table]:
    """The samples in a file, as parts of the CPU time that a saga cost in that process."""
    spots = msgspec.json.decode(file.read_bytes(), type=list[Spot])
    total = sum(spot.samples for spot in spots)
    parts: defaultdict[str, int] = defaultdict(int)
    for spot in spots:
        parts[part_of(spot.path)] += spot.samples
    by_part, by_function = _table(f"part ({total} samples)"), _table("function")
    for part, samples in sorted(parts.items(), key=lambda item: -item[1]):
        _add(by_part, part, samples / total, microseconds)
    for spot in sorted(spots, key=lambda spot: -spot.samples)[:lines]:
        name = f"{'/'.join(PurePath(spot.path).parts[-2:])} {spot.function}"
        _add(by_function, name, spot.samples / total, microseconds)
    return [by_part, by_function]


def part_of(path: str) -> str:
    """Whose code a file is."""
    folders = PurePath(path).parts[:-1]
    if "antiphon" in folders:
        return f"antiphon.{folders[folders.index('antiphon') + 1]}"
    if {"nats", "asyncio", "uvloop"} & set(folders):
        return LOOP
    return "the benchmark" if "bench" in folders else "the rest of Python"


def _table(first: str) -> Table:
    table = Table(first, box=None, padding=(0, 2, 0, 0))
    for column in ("share", "µs a saga"):
        table.add_column(column, justify="right")
    return table


def _add(table: Table, name: str, share: float, microseconds: float) -> None:
    table.add_row(name, f"{share:.1%}", f"{share * microseconds:.1f}")
