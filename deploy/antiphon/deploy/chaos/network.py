"""The ways between the processes of a platform and its servers, and between servers: each a proxy of its own."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Final

from ..local.server import ClusterSeat, Server, free_port, seats
from .proxy import Proxy

Way = tuple[str, str]
"""Who connects, and to which server."""

CLIENT: Final = "client"
"""What clients of a test are called, all of them."""
SERVER: Final = "nats-server"


def server_names(count: int) -> list[str]:
    """What the servers of a platform are called: one simply `nats-server`, and those of a cluster by number."""
    return [SERVER] if count == 1 else [f"{SERVER}-{number}" for number in range(1, count + 1)]


class Network:
    """The servers of a platform, and a proxy on each way to them.

    Args:
        folder: where the servers keep their files.
        logs: where their logs go.
        nodes: how many servers there are.
    """

    def __init__(self, folder: Path, logs: Path, nodes: int) -> None:
        self._names = server_names(nodes)
        self._folder, self._logs = folder, logs
        self.ways: dict[Way, Proxy] = {}
        self.servers: dict[str, Server] = {}

    async def start(self, processes: Iterable[str]) -> None:
        """Open all ways; the servers are not started yet.

        Args:
            processes: who connects to the servers.
        """
        places = seats(len(self._names)) if len(self._names) > 1 else [None]
        for name, seat in zip(self._names, places, strict=True):
            self.servers[name] = Server(
                self._folder / name,
                port=free_port(),
                seat=seat and await self._hidden(name, seat),
                log_file=self._logs / f"{name}.log",
                sync_interval="2m",  # a kill loses nothing with it, and a test cuts no power
            )
        for process, server in product((*processes, CLIENT), self._names):
            await self._add(process, server, self.servers[server].port)

    async def stop(self) -> None:
        """Close all ways."""
        for proxy in self.ways.values():
            await proxy.stop()

    def urls(self, process: str) -> str:
        """The servers' addresses for a process, by its own ways."""
        return ",".join(f"nats://127.0.0.1:{self.ways[process, server].port}" for server in self._names)

    def between(self, one: Iterable[str], other: Iterable[str]) -> dict[Way, Proxy]:
        """The ways between any of some processes and servers and any of others."""
        pairs = {pair for a, b in product(one, other) for pair in ((a, b), (b, a))}
        return {way: proxy for way, proxy in self.ways.items() if way in pairs}

    async def _hidden(self, name: str, seat: ClusterSeat) -> ClusterSeat:
        """A server's place in the cluster, from which each peer is reached by a way of its own."""
        peers = [
            await self._add(name, other, port)
            for other, port in zip(self._names, seat.peers, strict=True)
            if other != name
        ]
        return ClusterSeat(seat.name, seat.port, tuple(peers), is_told_nowhere=True)

    async def _add(self, source: str, target: str, port: int) -> int:
        proxy = self.ways[source, target] = Proxy(port)
        await proxy.start()
        return proxy.port
