"""Runs a system as separate processes on a server of its own, and measures what they and their client do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import psutil

from antiphon.deploy.local.server import Server

from .load import Load, Seen
from .process import PROFILE_VARIABLE
from .programs import ROOT, Program, serving
from .systems import CLIENT, System

WARM_UP: Final = Load("warm-up", 0, sagas=300, in_flight=50)


@dataclass(frozen=True)
class Measured:
    """What one load on one system cost."""

    system: str
    load: Load
    seen: Seen
    cpu_us: dict[str, float]
    """Microseconds of CPU a saga, by process."""
    rss_mb: dict[str, float]
    """Resident memory after the load, by process."""


@dataclass(frozen=True)
class Profiled:
    """Which process shall write its profile, and where."""

    role: str
    file: Path


class Running:
    """A system whose processes are up on a server of their own."""

    def __init__(self, system: System, client: Program, watched: dict[str, psutil.Process]) -> None:
        self.system, self._client, self._watched = system, client, watched

    @contextmanager
    def with_exporter_at_rest(self) -> Iterator[None]:
        """Let the exporter stand still for a while: it has more to do than the load lasts, and would slow others."""
        self._watched["exporter"].suspend()
        try:
            yield
        finally:
            self._watched["exporter"].resume()

    def measure(self, load: Load) -> Measured:
        """Put a load on it."""
        before = {name: cpu_seconds(process) for name, process in self._watched.items()}
        seen = drive(self._client, load)
        spent = {name: cpu_seconds(process) - before[name] for name, process in self._watched.items()}
        spent[CLIENT] = seen.cpu_seconds
        return Measured(
            system=self.system.name,
            load=load,
            seen=seen,
            cpu_us={name: seconds / seen.sagas * 1e6 for name, seconds in spent.items()},
            rss_mb={name: process.memory_info().rss / 1e6 for name, process in self._watched.items()},
        )


@contextmanager
def running(
    system: System,
    sync: str = "2m",
    profiled: Profiled | None = None,
    *,
    exporting: bool = False,
    database: psutil.Process | None = None,
    warm_up: Load = WARM_UP,
) -> Iterator[Running]:
    """Start a system on a fresh server, warm it up, and end both after the block.

    Args:
        system: what to run.
        sync: the server's sync_interval.
        profiled: which process writes a profile of itself, if any.
        exporting: whether every saga's trace is exported meanwhile, to a backend that takes what it gets.
        database: the server of the system's databases, whose CPU is the system's.
        warm_up: what is put on it before anything is measured.
    """
    with TemporaryDirectory(prefix="antiphon-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(Server(folder, sync_interval=sync))
        asyncio.run(_set_up(system, server.url))
        programs = {role: system.program(role, server.url) for role in (*system.roles, CLIENT)}
        if profiled is not None:
            programs[profiled.role] = _writing(profiled.file, programs[profiled.role])
        client = programs.pop(CLIENT)
        if exporting:
            programs["exporter"] = _exporter(server.url, stack.enter_context(sink()))
        watched = {"server": _process_of(server), **stack.enter_context(serving(programs, folder))}
        if database is not None:
            watched["database"] = database
        drive(client, warm_up)
        yield Running(system, client, watched)


async def _set_up(system: System, url: str) -> None:
    await system.set_up(url)


def _writing(file: Path, program: Program) -> Program:
    return replace(program, environment={**program.environment, PROFILE_VARIABLE: str(file)})


def _exporter(url: str, endpoint: str) -> Program:
    command = [sys.executable, "-m", "antiphon.deploy", "exporter", "--server", url]
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "ANTIPHON_LOG": "json"}
    return Program(command, environment, "exporter.ready")


@contextmanager
def sink() -> Iterator[str]:
    """A backend for traces as a process of its own, on the same cores: its address."""
    command = [sys.executable, "-m", "tests.bench.sink"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


def drive(client: Program, load: Load) -> Seen:
    """Have a client put a load on its system, and say what it saw."""
    return msgspec.json.decode(client.run(msgspec.json.encode(load).decode()), type=Seen)


def _process_of(server: Server) -> psutil.Process:
    assert server.process is not None
    return psutil.Process(server.process.pid)


def cpu_seconds(process: psutil.Process) -> float:
    """What a process and its children have used; a database has a process for each connection."""
    return sum(_own_cpu_seconds(each) for each in (process, *process.children(recursive=True)))


def _own_cpu_seconds(process: psutil.Process) -> float:
    """What a process has used, and those of its children that are gone; nothing of one that is gone itself."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
