"""A TCP proxy that can let connections become half-open: both ends stay connected, and nothing arrives any more.

with proxy(server_port) as through:
    link = await Link.connect(through.url, name="stock")
    through.swallow()
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

CHUNK_BYTES = 65536


@dataclass
class Proxy:
    """A port of its own before a server's."""

    port: int
    server_port: int
    connections: int = 0
    """How many were made."""
    half_open: int = 0
    """From the first connection on, how many hand on nothing."""

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def swallow(self) -> None:
        """Hand on nothing any more on the connections there are, in either direction. New ones live."""
        self.half_open = self.connections


@contextmanager
def proxy(server_port: int) -> Iterator[Proxy]:
    """Listen on a free port, and hand everything on to a server's port of this machine."""
    sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        through = Proxy(listening.getsockname()[1], server_port)

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                server = socket.create_connection(("127.0.0.1", server_port))
                sockets.extend((client, server))
                number, through.connections = through.connections, through.connections + 1
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_hand_on, args=(through, number, source, target), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield through
        finally:
            for each in (listening, *sockets):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()


def _hand_on(through: Proxy, number: int, source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            if number >= through.half_open:
                target.sendall(data)
            else:
                threading.Event().wait()  # nor is anything taken, so that a sender's buffer runs full
        if number >= through.half_open:
            target.shutdown(socket.SHUT_WR)
