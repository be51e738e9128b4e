"""`python -m tests.bench`: Antiphon by turns with the floor and with a peer, on this machine, now."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace
from rich.console import Console

from . import pairs, profiling
from .databases.compare import Effort
from .databases.rows import print_postgres, print_sqlite
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
from .systems import ANTIPHON, FLOOR

SYNCS = {"default": "2m", "always": "always"}
"""The server's own default, and what survives a power cut."""
PARTS = ("memory", "sqlite", "postgres")
"""Where the effects are."""
DATABASE_SECONDS = 2.0
"""For how long sagas start that have a database: a slow one is not measured for longer than a quick one."""


def loads(sync: str, number: int, share: float) -> list[Load]:
    """What is put on each system in its turn: bursts of about a second, less where every write waits for the disk."""
    many, some, more = (5_000, 200, 400) if sync == "default" else (600, 100, 300)
    return [
        Load(IN_FLIGHT, number, sagas=int(many * share), in_flight=300),
        Load(ONE_AT_A_TIME, number, sagas=int(some * share), in_flight=1),
        Load(AT_A_RATE, number, sagas=int(more * share), per_second=200),
        Load(DIAMOND, number, sagas=int(many * share / 2), in_flight=300, shape="diamond"),
        Load(COMPENSATED, number, sagas=int(many * share / 2), in_flight=300, shape="compensated"),
    ]


def compare(sync: str, rounds: int, share: float) -> list[Measured]:
    """Both systems by turns, burst for burst, so that neither has the machine's better minute."""
    with running(FLOOR, SYNCS[sync]) as floor, running(ANTIPHON, SYNCS[sync]) as antiphon:
        return [
            system.measure(load)
            for number in range(rounds)
            for load in loads(sync, number, share)
            for system in (floor, antiphon)
        ]


def with_exporter(rounds: int, share: float) -> list[Measured]:
    """Antiphon alone and with the exporter beside it, by turns: whoever looks shall not slow down who works."""
    load = Load(IN_FLIGHT, 0, sagas=int(5_000 * share), in_flight=300)
    found: list[Measured] = []
    with running(ANTIPHON, SYNCS["default"]) as alone, running(ANTIPHON, SYNCS["default"], exporting=True) as exported:
        for number in range(rounds):
            with exported.with_exporter_at_rest():
                found.append(alone.measure(replace(load, name=ALONE, round=number)))
            found.append(exported.measure(replace(load, name=EXPORTED, round=number)))
    return found


def profile(role: str, lines: int, console: Console) -> None:
    """Print where one of Antiphon's processes spends its time while 300 sagas are in flight."""
    with TemporaryDirectory(prefix="antiphon-bench-") as folder:
        file = Path(folder) / "profile"
        with running(ANTIPHON, SYNCS["default"], Profiled(role, file)) as antiphon:
            measured = antiphon.measure(Load(IN_FLIGHT, 0, sagas=20_000, in_flight=300))
        for table in profiling.tables(file, measured.cpu_us[role], lines):
            console.print(table, "")


def print_memory(console: Console, rounds: int, share: float) -> list[Measured]:
    """What the engine costs by itself; that by the server's default is returned."""
    found = {sync: compare(sync, rounds if sync == "default" else (rounds + 1) // 2, share) for sync in SYNCS}
    for sync, measured in found.items():
        for table in tables(sync, measured):
            console.print(table)
    console.print(export_table(with_exporter(rounds, share)))
    console.print(moments_table(moments(times=rounds)))
    return found["default"]


def main() -> None:
    """Measure, and print tables or a profile."""
    options = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    options.add_argument("--quick", action="store_true", help="two short rounds, in three minutes")
    options.add_argument("--rounds", type=int, default=9, help="turns of each system (default %(default)s)")
    options.add_argument("--only", choices=PARTS, help="where the effects are")
    options.add_argument("--streams", type=int, nargs="+", help="with so many pairs of streams, by turns: 1 2 4")
    options.add_argument(
        "--servers", type=int, nargs="+", choices=[1, 3], default=[1, 3], help="with --streams: how many servers"
    )
    options.add_argument("--profile", choices=["coordinator", "worker", "client"], help="where its time goes")
    options.add_argument("--lines", type=int, default=30, help="how much of the profile (default %(default)s lines)")
    arguments = options.parse_args()
    console = Console()
    console.print(interpreter(), highlight=False)
    if arguments.profile:
        role = ANTIPHON.workers[0] if arguments.profile == "worker" else arguments.profile
        profile(role, arguments.lines, console)
        return
    if arguments.streams:
        rounds, sagas = (2, 2_000) if arguments.quick else (arguments.rounds, 5_000)
        for servers in arguments.servers:
            console.print(pairs.table(pairs.compare(arguments.streams, servers, rounds, sagas)))
        return
    rounds, share = (2, 0.4) if arguments.quick else (arguments.rounds, 1.0)
    parts = [arguments.only] if arguments.only else PARTS
    # With databases as often as where the server syncs always: five times, if nobody says otherwise.
    effort = Effort(rounds if arguments.quick else (rounds + 1) // 2, DATABASE_SECONDS * share)
    in_memory = print_memory(console, rounds, share) if "memory" in parts else []
    on_sqlite = print_sqlite(console, effort) if "sqlite" in parts else []
    if "postgres" in parts:
        print_postgres(console, effort)
    print(last_line(in_memory, on_sqlite))


if __name__ == "__main__":
    main()
