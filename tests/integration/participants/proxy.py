"""A network between a worker and its PostgreSQL that can break at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes bytes on. The next commits, as many as asked for, reach the server, and their confirmation nobody."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.commits_to_lose = 0
        self.lost = 0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.create_task(self._copy(theirs, writer))
        try:
            while data := await reader.read(65536):
                ours.write(data)
                if b"COMMIT" in data and self.commits_to_lose:
                    self.commits_to_lose -= 1
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    await theirs.read(65536)  # the server has done it
                    self.lost += 1
                    break
        finally:
            answers.cancel()
            for each in (ours, writer):
                each.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[tuple[Proxy, int]]:
    """A proxy before a port, and its own port."""
    found = Proxy(port)
    server = await asyncio.start_server(found.connect, "127.0.0.1", 0)
    try:
        yield found, server.sockets[0].getsockname()[1]
    finally:
        server.close()
