"""`python -m tests.bench`: Antiphon and the floor by turns, on this machine, now."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from . import profiling
from .load import Load
from .measure import Measured, Profiled, measure
from .report import AT_A_RATE, IN_FLIGHT, ONE_AT_A_TIME, last_line, tables
from .systems import ANTIPHON, FLOOR

SYNCS = {"default": "2m", "always": "always"}
"""The server's own default, and what survives a power cut."""


def loads(sync: str, share: float) -> list[Load]:
    """What is put on both systems; a server that syncs every write is given less of it."""
    many, some = (8_000, 400) if sync == "default" else (1_200, 150)
    return [
        Load(IN_FLIGHT, sagas=int(many * share), in_flight=300),
        Load(ONE_AT_A_TIME, sagas=int(some * share), in_flight=1),
        Load(AT_A_RATE, sagas=int(800 * share), per_second=200),
    ]


def compare(sync: str, rounds: int, share: float) -> list[Measured]:
    """Both systems by turns, so that neither has the machine's better minute."""
    found: list[Measured] = []
    for number in range(rounds):
        order = (FLOOR, ANTIPHON) if number % 2 == 0 else (ANTIPHON, FLOOR)
        for system in order:
            found += measure(system, loads(sync, share), SYNCS[sync])
    return found


def profile(role: str, lines: int, console: Console) -> None:
    """Print where one of Antiphon's processes spends its time while 300 sagas are in flight."""
    load = Load(IN_FLIGHT, sagas=20_000, in_flight=300)
    with TemporaryDirectory(prefix="antiphon-bench-") as folder:
        file = Path(folder) / "profile"
        (measured,) = measure(ANTIPHON, [load], SYNCS["default"], Profiled(role, file))
        for table in profiling.tables(file, measured.cpu_us[role], lines):
            console.print(table, "")


def main() -> None:
    """Measure, and print tables or a profile."""
    options = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    options.add_argument("--quick", action="store_true", help="one short round of each, in half a minute")
    options.add_argument("--rounds", type=int, default=5, help="turns of each system (default %(default)s)")
    options.add_argument("--profile", choices=["coordinator", "worker", "client"], help="where its time goes")
    options.add_argument("--lines", type=int, default=30, help="how much of the profile (default %(default)s lines)")
    arguments = options.parse_args()
    console = Console()
    if arguments.profile:
        role = ANTIPHON.workers[0] if arguments.profile == "worker" else arguments.profile
        profile(role, arguments.lines, console)
        return
    rounds, share = (1, 0.25) if arguments.quick else (arguments.rounds, 1.0)
    found = {sync: compare(sync, rounds if sync == "default" else (rounds + 1) // 2, share) for sync in SYNCS}
    for sync, measured in found.items():
        for table in tables(sync, measured):
            console.print(table)
    print(last_line(found["default"]))


if __name__ == "__main__":
    main()
