"""The loads on systems with databases, by turns, and where those databases are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psutil

from antiphon.deploy.local.postgres import DURABLE, Postgres, postgres
from tests.bench.load import Load
from tests.bench.measure import Measured, running
from tests.bench.systems import System
from tests.support.wheel import install
from tests.upgrade.store import WHEEL

from .slow_disk import SlowDisk
from .systems import WORKERS, Choreography, Sagas, is_peer_there

OURS: Final = "Antiphon"
PEER: Final = "peer"
PEER_NORMAL: Final = "peer, NORMAL"
KEPT: Final = "last release"

OURS_IN_FLIGHT: Final = (1, 64, 256)
PEER_IN_FLIGHT: Final = (1, 16, 64)
"""The peer is compared at its best of these."""
KEPT_IN_FLIGHT: Final = (64,)


def in_flight(number: int) -> str:
    """The name of a load."""
    return f"{number} in flight"


@dataclass(frozen=True)
class Entrant:
    """A system, and the numbers of sagas in flight that it is measured with."""

    system: System
    in_flight: tuple[int, ...]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        rounds: how often.
        seconds: how long sagas start under each load.
        most: the most sagas in flight; heavier loads are left out.
    """

    rounds: int
    seconds: float
    most: int = 256


def by_turns(entrants: Sequence[Entrant], effort: Effort, database: psutil.Process | None = None) -> list[Measured]:
    """All systems load for load, in the other order every second round: none has the machine's better minute.

    Args:
        entrants: what is compared.
        effort: how much is measured.
        database: the server that all of them have their databases on.
    """
    found: list[Measured] = []
    numbers = sorted({number for each in entrants for number in each.in_flight if number <= effort.most})
    with ExitStack() as stack:
        # The heaviest, so that nobody connects to a database while it is measured.
        warm_up = Load("warm-up", 0, seconds=effort.seconds, in_flight=numbers[-1])
        up = [
            (stack.enter_context(running(each.system, database=database, warm_up=warm_up)), each.in_flight)
            for each in entrants
        ]
        for turn in range(effort.rounds):
            for number in numbers:
                load = Load(in_flight(number), turn, seconds=effort.seconds, in_flight=number)
                ready = [system for system, wanted in up if number in wanted]
                found += [system.measure(load) for system in (ready if turn % 2 == 0 else reversed(ready))]
    return found


def on_sqlite(effort: Effort) -> list[Measured]:
    """Sagas, and the peer with both settings of `synchronous`, and the last release for what has become of it."""
    with _folder() as folder, _folder() as environment:
        old = str(install(WHEEL, environment) / "python")
        kept = Sagas(KEPT, _files(folder, "kept"), {}, old)
        entrants = [
            Entrant(Sagas(OURS, _files(folder, "ours"), {}), OURS_IN_FLIGHT),
            *_peer(Choreography(PEER, _files(folder, "full"), {})),
            *_peer(Choreography(PEER_NORMAL, _files(folder, "normal"), {}, "NORMAL")),
            Entrant(kept, KEPT_IN_FLIGHT),
        ]
        return by_turns(entrants, effort)


def on_slow_sqlite(disk: SlowDisk, effort: Effort) -> list[Measured]:
    """Sagas and the peer, where an fsync is slow."""
    with _folder() as folder:
        entrants = [
            Entrant(Sagas(OURS, _files(folder, "ours"), disk.below(folder)), OURS_IN_FLIGHT),
            *_peer(Choreography(PEER, _files(folder, "peer"), disk.below(folder))),
        ]
        return by_turns(entrants, effort)


def on_postgres(effort: Effort, environment: Mapping[str, str]) -> list[Measured]:
    """Sagas, the peer and the last release on one PostgreSQL, each worker with a database of its own.

    Raises:
        LookupError: there is no PostgreSQL on this machine; says how to get one.
    """
    with postgres(DURABLE, environment) as server, _folder() as kept:
        old = str(install(WHEEL, kept) / "python")
        entrants = [
            Entrant(Sagas(OURS, _databases(server), {}), OURS_IN_FLIGHT),
            *_peer(Choreography(PEER, _databases(server), {})),
            Entrant(Sagas(KEPT, _databases(server), {}, old), KEPT_IN_FLIGHT),
        ]
        return by_turns(entrants, effort, psutil.Process(server.pid))


def slow_postgres(disk: SlowDisk) -> dict[str, str]:
    """The variables with which every fsync of a PostgreSQL is slow: all of its files are the database's."""
    return disk.below(Path("/"))


def _peer(system: Choreography) -> list[Entrant]:
    return [Entrant(system, PEER_IN_FLIGHT)] if is_peer_there() else []


def _files(folder: Path, name: str) -> dict[str, str]:
    return {worker: f"sqlite:///{folder / f'{name}-{worker}.db'}" for worker in WORKERS}


def _databases(server: Postgres) -> dict[str, str]:
    return {worker: server.new_database() for worker in WORKERS}


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="antiphon-bench-") as name:
        yield Path(name)
