"""A PostgreSQL for tests, from the system's packages: on a free port, in a folder that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

REQUIRED: Final = "ANTIPHON_REQUIRE_POSTGRES"
"""Set to 1 where a missing PostgreSQL fails tests instead of skipping them, as in CI."""
START_SECONDS: Final = 120.0
# Nothing here has to survive a power failure, some tests open many connections, and others deadlock on purpose.
SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "deadlock_timeout": "100ms",
    "listen_addresses": "127.0.0.1",
}


NO_SETTINGS: Final[Mapping[str, str]] = {}
DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "max_connections": "800", "deadlock_timeout": "1s"}
"""What a benchmark sets otherwise: PostgreSQL as it is in production, with room for every worker's connections."""


class Postgres:
    """A running server.

    Args:
        programs: where they are.
        folder: where its files go.
        settings: of the server.
        environment: variables beside those of this process.
    """

    def __init__(
        self, programs: Path, folder: Path, settings: Mapping[str, str], environment: Mapping[str, str]
    ) -> None:
        self._programs, self._folder, self.port = programs, folder, _free_port()
        self._settings, self._environment = settings, {**os.environ, **environment}
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = [text for pair in self._settings.items() for text in ("-c", "=".join(pair))]
        place = ["-D", str(self._folder / "data"), "-k", str(self._folder), "-p", str(self.port)]
        with (self._folder / "log").open("ab") as log:
            command = [*_as_nobody(), str(self._programs / "postgres"), *place, *settings]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env=self._environment)
        deadline = time.monotonic() + START_SECONDS
        while self._run("pg_isready", "-q").returncode != 0:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL does not start: {(self._folder / 'log').read_text()}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The process that was started, which all of the server's hang below."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it at once. By pg_ctl, because runuser answers a SIGTERM with two seconds of patience."""
        if self._process is None:
            return
        how = ["-D", str(self._folder / "data"), "-m", "immediate", "stop"]
        done = subprocess.run([*_as_nobody(), str(self._programs / "pg_ctl"), *how], capture_output=True, check=False)
        if done.returncode != 0:
            self._process.terminate()
        self._process.wait(START_SECONDS)

    @property
    def answers(self) -> bool:
        """Whether it takes connections."""
        return self._run("pg_isready", "-q").returncode == 0

    @property
    def postmaster(self) -> int:
        """The process id of the server, which is no child of ours where it runs as another user; 0 without it."""
        try:
            return int((self._folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return 0

    def kill(self) -> None:
        """SIGKILL. What it had begun is rolled back when it is started again."""
        if pid := self.postmaster:
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(START_SECONDS)

    def start_again(self) -> None:
        """Start it after it was killed: its processes may still hold its memory for a moment.

        Raises:
            RuntimeError: it does not start; with its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.start()
                return
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._count += 1
        name = f"test_{self._count}"
        done = self._run("psql", "-d", "postgres", "-c", f"CREATE DATABASE {name}")
        if done.returncode != 0:
            raise RuntimeError(f"no database could be created: {done.stderr.decode()}")
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        return subprocess.run([str(self._programs / program), *where, *arguments], capture_output=True, check=False)


@contextmanager
def postgres(
    settings: Mapping[str, str] = NO_SETTINGS, environment: Mapping[str, str] = NO_SETTINGS
) -> Generator[Postgres]:
    """A server for the duration of the block.

    Args:
        settings: what is set otherwise than for tests.
        environment: variables of the server's beside those of this process.

    Raises:
        LookupError: PostgreSQL is not installed, or cannot be started by this user; says which.
    """
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="antiphon-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _USER)
        options = ["-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        made = subprocess.run([*_as_nobody(), str(programs / "initdb"), *options], capture_output=True, cwd="/")
        if made.returncode != 0:
            raise LookupError(f"initdb failed: {made.stderr.decode().strip()}")
        server = Postgres(programs, folder, {**SETTINGS, **settings}, environment)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_USER: Final = "nobody"


def _as_nobody() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None:
        raise LookupError("this is root, and there is no runuser to become somebody else with")
    return ["runuser", "-u", _USER, "--"]


def _programs() -> Path:
    """The folder with initdb and postgres; Debian keeps one for each version, outside PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    candidates = [*([Path(on_path)] if on_path else []), *found]
    if not candidates:
        raise LookupError("PostgreSQL is not installed; on Debian and Ubuntu, apt install postgresql brings it")
    return candidates[-1].parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
