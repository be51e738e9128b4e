"""Child processes that are kept running: started again when they die, with their lines in one place."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from antiphon.contracts.foreign_text import harmless

from .. import exit_codes

FIRST_PAUSE_SECONDS: Final = 0.25
PAUSE_SECONDS_MAX: Final = 10.0
HEALTHY_SECONDS: Final = 10.0
"""A process that lived for so long starts again after the first pause."""
STOP_SECONDS: Final = 20.0
"""Longer than a worker's grace, so that a drain is never cut short by us."""
LINE_BYTES_MAX: Final = 64 * 1024
REASON_CHARS_MAX: Final = 500
"""So much is repeated of the line that a process wrote last."""

Say = Callable[[str, str], None]
"""Called with the name of a process and a line from it, or one about it."""

PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """Have the system end this process when its parent is gone, however that came. Runs between fork and exec.

    Only Linux has it; elsewhere a parent that is killed leaves its children behind.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Pauses:
    """How long to wait before each next life of a process: longer and longer while it dies young."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE_SECONDS

    def after(self, lived_seconds: float) -> float:
        """The seconds to wait after a life of so many seconds."""
        pause = FIRST_PAUSE_SECONDS if lived_seconds > HEALTHY_SECONDS else self._next
        self._next = min(PAUSE_SECONDS_MAX, pause * 2)
        return pause


class Child:
    """One process and its later lives.

    Args:
        name: what it is called in the terminal, and its log `<name>.log`.
        command: the program and its arguments.
        environment: all of its variables.
        folder: where its log goes.
        echo: told every line it writes.
        note: told of every death.
    """

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], folder: Path, echo: Say, note: Say
    ) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._command, self._environment = command, environment
        self._echo, self._note = echo, note
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._present = asyncio.Event()
        self._present.set()
        self.lives = 0
        self.exits: list[int] = []
        """How each of its lives ended, by exit codes."""
        self.last_line = ""
        """What it wrote last."""
        self._told = ""
        """The reason that was said last."""
        self.is_unsound = False
        """Whether it ended because of what its author must mend: started again, it would end again."""

    @property
    def pid(self) -> int:
        """The process id of its present life, or of its last one.

        Raises:
            AssertionError: it was never started.
        """
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and keep it running."""
        self._process = await self._spawn()
        self._keeper = asyncio.create_task(self._keep(self._process))

    def ask_to_end(self) -> None:
        """Ask it to drain."""
        self._stopping.set()
        self._present.set()
        self.send_signal(signal.SIGTERM)

    async def wait_ended(self) -> None:
        """Wait until it is gone; kill it if that takes too long."""
        if self._keeper is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.shield(self._keeper)
        except TimeoutError:
            self._note(self.name, f"did not end within {STOP_SECONDS:g} s and is killed")
            self.kill()
            await self._keeper

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    @property
    def is_away(self) -> bool:
        """Whether it is not started again when it is dead."""
        return not self._present.is_set()

    def stay_away(self) -> None:
        """Not start it again when it dies next, before it is to come back."""
        self._present.clear()

    def come_back(self) -> None:
        """Start it again, if it stayed away."""
        self._present.set()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _keep(self, process: Process) -> None:
        """Follow one life after the other until it is stopped."""
        pauses = Pauses()
        while True:
            born = time.monotonic()
            await self._follow(process)
            code = await process.wait()
            self.exits.append(code)
            if self._stopping.is_set():
                return
            if code == exit_codes.UNSOUND:
                self.is_unsound = True
                self._note(self.name, f"{how_it_ended(code)}; it is not started again before that is mended")
                return
            pause = pauses.after(time.monotonic() - born)
            if not self._present.is_set():
                self._note(self.name, f"{how_it_ended(code)}; it stays away")
                await self._present.wait()
                if self._stopping.is_set():
                    return
            else:
                self._note(self.name, f"{how_it_ended(code)}{self._why(code)}; starting it again in {pause:g} s")
                if await self._is_stopped_within(pause):
                    return
            process = self._process = await self._spawn()
            self._note(self.name, f"runs again, as process {process.pid}")
            if self._stopping.is_set():  # while it was being started
                self.send_signal(signal.SIGTERM)

    def _why(self, code: int) -> str:
        """What it wrote last before it ended by an error, once: the next life may end for the same reason."""
        reason = self.last_line[:REASON_CHARS_MAX].rstrip(".") if code > 0 else ""
        if reason in ("", self._told):
            return ""
        self._told = reason
        return f": {reason}"

    async def _spawn(self) -> Process:
        self.lives += 1
        self.last_line = ""
        # In a group of its own, so that Ctrl-C in the terminal reaches only us, and we decide the order of the drain.
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=dict(self._environment),
            process_group=0,
            limit=LINE_BYTES_MAX,
            preexec_fn=end_with_parent,
        )

    async def _follow(self, process: Process) -> None:
        """Copy its lines into the log and say them."""
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            while line := await _line(process.stdout):
                self.last_line = harmless(line.decode("utf-8", "backslashreplace").rstrip())
                log.write(self.last_line.encode() + (b"\n" if line.endswith(b"\n") else b""))
                self._echo(self.name, self.last_line)

    async def _is_stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line; one that is too long comes in pieces."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


def how_it_ended(code: int) -> str:
    """What an exit code says of the end of a process."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "ended by itself" if code == 0 else f"ended with exit code {code}"
