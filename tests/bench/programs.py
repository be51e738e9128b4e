"""Processes that are measured: started, awaited until they serve, and ended."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from antiphon.deploy.local.children import end_with_parent

ROOT: Final = Path(__file__).parents[2]
"""Where `python -m tests.…` finds its module, from wherever this was called."""
READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Program:
    """How a process is started, and how one sees that it serves.

    Args:
        command: the program and its arguments.
        environment: variables beside those of the benchmark.
        ready: what its output holds once it serves; a program that runs to its end says nothing of the kind.
    """

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    ready: str = "ready"

    def run(self, *arguments: str) -> bytes:
        """Run it to its end, and return what it prints.

        Raises:
            SystemExit: it failed; why stands on stderr.
        """
        command = [*self.command, *arguments]
        ran = subprocess.run(command, cwd=ROOT, env=self.variables, stdout=subprocess.PIPE, check=False)
        if ran.returncode:
            raise SystemExit(f"bench: this failed: {' '.join(command)}")
        return ran.stdout

    @property
    def variables(self) -> dict[str, str]:
        """All variables of its process."""
        return {**os.environ, **self.environment}


@contextmanager
def serving(programs: Mapping[str, Program], folder: Path) -> Iterator[dict[str, psutil.Process]]:
    """Start programs, wait until all of them serve, and end them after the block.

    Args:
        programs: by name.
        folder: where what they print goes, to `<name>.log`.

    Raises:
        SystemExit: one of them does not come to serve; with what it printed.
    """
    with ExitStack() as stack:
        started = {name: _start(program, folder / f"{name}.log") for name, program in programs.items()}
        for process in started.values():
            stack.callback(_stop, process)
        for name, process in started.items():
            _await_ready(process, programs[name], folder / f"{name}.log")
        yield {name: psutil.Process(process.pid) for name, process in started.items()}


def _start(program: Program, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            program.command,
            cwd=ROOT,
            env=program.variables,
            stdout=out,
            stderr=out,
            process_group=0,
            preexec_fn=end_with_parent,
        )


def _await_ready(process: subprocess.Popen[bytes], program: Program, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while program.ready.encode() not in (said := log.read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"bench: {log.stem} does not serve:\n{said.decode(errors='replace')[-2000:]}")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
