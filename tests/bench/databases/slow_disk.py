"""A slow disk for databases: a small library, compiled when it is needed, that delays each of their fsyncs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.programs import Program

DELAY_MS: Final = 5
"""What an fsync takes more: about what a disk in a cloud takes, where the one of a laptop takes a tenth."""
SOURCE: Final = Path(__file__).with_name("slow_fsync.c")

# Whether fsyncs are delayed in this very process: those of SQLite, which the interpreter may be linked with statically.
PROBE: Final = """
import ctypes, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("CREATE TABLE probe (id INTEGER)")
database.close()
print(ctypes.c_long.in_dll(ctypes.CDLL(None), "antiphon_bench_delayed").value)
"""


@dataclass(frozen=True)
class SlowDisk:
    """The library that makes it one."""

    library: Path

    def below(self, folder: Path, delay_ms: int = DELAY_MS) -> dict[str, str]:
        """The variables with which a program's fsyncs of the files below a folder take so many milliseconds more."""
        return {
            "LD_PRELOAD": str(self.library),
            "ANTIPHON_BENCH_SLOW_FOLDER": str(folder.resolve()),
            "ANTIPHON_BENCH_SLOW_MS": str(delay_ms),
        }


@contextmanager
def slow_disk(python: str = sys.executable) -> Iterator[SlowDisk]:
    """Make one for the length of a block.

    Args:
        python: whose SQLite is tried.

    Raises:
        LookupError: it cannot be had on this machine; says why.
    """
    with TemporaryDirectory(prefix="antiphon-bench-slow-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as somebody else
        disk = SlowDisk(_compiled(folder))
        if delayed(python, folder, disk.below(folder)) == 0:
            raise LookupError("SQLite of this Python calls fsync past a preloaded library")
        yield disk


def delayed(python: str, folder: Path, variables: dict[str, str]) -> int:
    """How many fsyncs are delayed when a Python makes a table in a database in a folder."""
    probe = folder / "probe.db"
    printed = Program([python, "-c", PROBE], variables).run(str(probe))
    probe.unlink()
    return int(printed)


def _compiled(folder: Path) -> Path:
    if sys.platform != "linux":
        raise LookupError("libraries are preloaded on Linux only")
    compiler = shutil.which("cc")
    if compiler is None:
        raise LookupError("there is no C compiler; on Debian and Ubuntu, apt install gcc libc6-dev brings it")
    library = folder / "slow_fsync.so"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"], capture_output=True, check=False
    )
    if made.returncode:
        raise LookupError(f"{compiler} failed: {made.stderr.decode().strip()}")
    return library
