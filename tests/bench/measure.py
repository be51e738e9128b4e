"""Runs a system as separate processes on a server of its own, and measures what they and their client do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import psutil

from antiphon.deploy.local.server import Server

from .load import Load, Seen
from .process import PROFILE_VARIABLE
from .systems import System

WARM_UP: Final = Load("warm-up", 0, sagas=300, in_flight=50)
STOP_SECONDS: Final = 10.0
ROOT: Final = Path(__file__).parents[2]
"""Where `python -m tests.…` finds its module, from wherever this was called."""


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

    def __init__(self, system: System, url: str, watched: dict[str, psutil.Process], profiled: Profiled | None) -> None:
        self.system, self._url, self._watched, self._profiled = system, url, watched, profiled

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
        before = {name: _cpu_seconds(process) for name, process in self._watched.items()}
        seen = _drive(self.system, self._url, load, self._profiled)
        spent = {name: _cpu_seconds(process) - before[name] for name, process in self._watched.items()}
        spent["client"] = seen.cpu_seconds
        return Measured(
            system=self.system.name,
            load=load,
            seen=seen,
            cpu_us={name: seconds / load.sagas * 1e6 for name, seconds in spent.items()},
            rss_mb={name: process.memory_info().rss / 1e6 for name, process in self._watched.items()},
        )


@contextmanager
def running(
    system: System, sync: str, profiled: Profiled | None = None, *, exporting: bool = False
) -> Iterator[Running]:
    """Start a system on a fresh server, warm it up, and end both after the block.

    Args:
        system: what to run.
        sync: the server's sync_interval.
        profiled: which process writes a profile of itself, if any.
        exporting: whether every saga's trace is exported meanwhile, to a backend that takes what it gets.
    """
    with TemporaryDirectory(prefix="antiphon-bench-") as folder, Server(Path(folder), sync_interval=sync) as server:
        asyncio.run(_set_up(system, server.url))
        with _roles(system, server.url, profiled) as processes, _exporter(server.url, exporting) as exporter:
            _drive(system, server.url, WARM_UP, None)
            yield Running(system, server.url, {"server": _process_of(server), **processes, **exporter}, profiled)


@contextmanager
def _exporter(url: str, is_wanted: bool) -> Iterator[dict[str, psutil.Process]]:
    """The exporter and its backend as processes of their own, on the same cores."""
    if not is_wanted:
        yield {}
        return
    with ExitStack() as stack:
        sink = subprocess.Popen([sys.executable, "-m", "tests.bench.sink"], cwd=ROOT, stdout=subprocess.PIPE)
        stack.callback(_stop, sink)
        assert sink.stdout is not None
        endpoint = sink.stdout.readline().decode().strip()
        command = [sys.executable, "-m", "antiphon.deploy", "exporter", "--server", url]
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "ANTIPHON_LOG": "json"}
        exporter = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        stack.callback(_stop, exporter)
        assert exporter.stderr is not None
        if b"exporter.ready" not in exporter.stderr.readline():
            raise SystemExit("bench: the exporter did not start.")
        yield {"exporter": psutil.Process(exporter.pid)}


async def _set_up(system: System, url: str) -> None:
    await system.set_up(url)


@contextmanager
def _roles(system: System, url: str, profiled: Profiled | None) -> Iterator[dict[str, psutil.Process]]:
    """The system's processes, ready to work."""
    with ExitStack() as stack:
        started = {role: _start(system, role, url, profiled) for role in system.roles}
        for process in started.values():
            stack.callback(_stop, process)
        for role, process in started.items():
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise SystemExit(f"bench: the {role} of {system.name} did not start.")
        yield {role: psutil.Process(process.pid) for role, process in started.items()}


def _start(system: System, role: str, url: str, profiled: Profiled | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _command(system, role, url),
        cwd=ROOT,
        env=_environment(role, profiled),
        stdout=subprocess.PIPE,
        process_group=0,
    )


def _drive(system: System, url: str, load: Load, profiled: Profiled | None) -> Seen:
    command = [*_command(system, "client", url), msgspec.json.encode(load).decode()]
    environment = _environment("client", profiled)
    ran = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=False)
    if ran.returncode:
        raise SystemExit(f"bench: the client of {system.name} failed under load {load.name}.")
    return msgspec.json.decode(ran.stdout, type=Seen)


def _command(system: System, role: str, url: str) -> list[str]:
    return [sys.executable, "-m", "tests.bench.process", system.name, role, url]


def _environment(role: str, profiled: Profiled | None) -> dict[str, str]:
    if profiled is None or profiled.role != role:
        return dict(os.environ)
    return {**os.environ, PROFILE_VARIABLE: str(profiled.file)}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _process_of(server: Server) -> psutil.Process:
    assert server.process is not None
    return psutil.Process(server.process.pid)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
