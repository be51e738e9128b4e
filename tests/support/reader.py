"""A reader of a page, who does what it says: types its commands into a terminal, and puts its code where it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from antiphon.deploy.local.server import free_port
from tests.unit.packaging.readme import Block

SECONDS_MAX: Final = 120
PLACE: Final = re.compile(r"<!-- (?P<file>[\w./]+), (?:at the end|below: (?P<line>.+)) -->")
EXIT_CODE: Final = re.compile(r"# exit code (\d+)$")


def environment(programs: Path) -> dict[str, str]:
    """Variables as in a new terminal, in which an environment is active.

    Args:
        programs: the folder of the environment's programs.
    """
    without = ("PYTHON", "NATS_", "MAKE", "MFLAGS", "ANTIPHON_", "PYTEST_", "VIRTUAL_ENV")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    ours |= {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "160", "NO_COLOR": "1"}
    lent = Path(sys.executable).parent  # brings the nats-server
    return ours | {"PATH": os.pathsep.join(map(str, (programs, os.environ["PATH"], lent)))}


class Running:
    """What stays in a terminal of its own."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def said(self) -> str:
        """All it has printed so far."""
        return self._out.read_text()


class Reader:
    """Whoever follows a page.

    Args:
        folder: where they are.
        programs: of the environment that is active.
        variables: of the environment beside the usual ones.
    """

    def __init__(self, folder: Path, programs: Path, **variables: str) -> None:
        self.folder, self._programs = folder, programs
        # A port of its own, so that tests do not meet at the one that `antiphon up` listens on by default.
        self._port = free_port()
        self.url = f"nats://127.0.0.1:{self._port}"
        self._variables = {"NATS_URL": self.url, **variables}

    def edits(self, page: str, block: Block) -> None:
        """Put a block of code where the comment above it in the page says."""
        place = PLACE.fullmatch(page.splitlines()[block.first_line - 3])
        assert place is not None, f"line {block.first_line - 2} of the page does not say where this goes"
        file, added = self.folder / place["file"], "\n".join(block.lines) + "\n"
        if place["line"] is None:
            file.write_text(f"{file.read_text()}\n\n{added}")
            return
        before, found, after = file.read_text().partition(f"    {place['line']}\n")
        assert found, f"{place['file']} has no line {place['line']}"
        file.write_text(before + found + added + after)

    def types(self, script: str) -> str:
        """What is printed by what is typed. It must succeed, or end with the exit code that it says at its end."""
        expected = EXIT_CODE.search(script)
        ran = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert ran.returncode == int(expected[1] if expected else 0), f"{script}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    @contextmanager
    def leaves_running(self, block: Block) -> Iterator[Running]:
        """Type what stays in a terminal of its own, and Ctrl-C at the end."""
        (line,) = block.lines
        out = self.folder.parent / "out.txt"
        with out.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-ec", f"exec {line} ARGS='--port {self._port}'"],
                cwd=self.folder,
                env=self._environment(),
                stdout=file,
                stderr=file,
                process_group=0,
            )
        try:
            yield Running(out)
        finally:
            for each in psutil.Process(process.pid).children():  # Ctrl-C goes to all in the terminal
                each.send_signal(signal.SIGINT)
            process.wait(SECONDS_MAX)

    def _environment(self) -> dict[str, str]:
        return environment(self._programs) | self._variables
