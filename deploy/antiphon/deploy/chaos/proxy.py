"""A TCP proxy that can cut and slow what passes, without either end noticing more than it would of a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Final

from ..local.server import HOST

CHUNK_BYTES: Final = 65_536
CHUNKS_MAX: Final = 64
"""How much may be on its way in one direction of one connection. Then nothing more is taken, as with a full buffer."""

_END: Final = b""


class Proxy:
    """A port of its own before another one of this machine.

    Args:
        target_port: where all connections are handed on to.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        """How much later everything arrives, in both directions."""
        self._target_port = target_port
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._is_over = False
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Listen on a port that is free."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and drop all connections."""
        if self._server is None:
            return
        self._is_over = True
        self._server.close()
        connections = dict(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in connections.values():
            writer.transport.abort()  # also of one whose task had not begun

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes."""
        return not self._open.is_set()

    def cut(self) -> None:
        """Let nothing pass any more: connections stay open, and nothing arrives, not even that an end has closed."""
        self._open.clear()

    def mend(self) -> None:
        """Let everything pass again, also what was sent meanwhile."""
        self._open.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:  # taken a moment before
            writer.transport.abort()
            return
        connection = asyncio.ensure_future(self._serve(reader, writer))
        self._connections[connection] = writer
        connection.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._connect(reader, writer)
        except OSError:
            pass  # the target listens no more
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        target_reader, target_writer = await asyncio.open_connection(HOST, self._target_port)
        ways = [
            asyncio.ensure_future(way)
            for source, target in ((reader, target_writer), (target_reader, writer))
            for way in self._way(source, target)
        ]
        try:
            # Neither NATS nor its routes go on with half a connection.
            await asyncio.wait(ways[1::2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            target_writer.transport.abort()  # first: whoever waits may be cancelled
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _way(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> tuple[Coroutine[None, None, None], Coroutine[None, None, None]]:
        chunks = asyncio.Queue[tuple[float, bytes]](CHUNKS_MAX)
        return self._take(source, chunks), self._deliver(chunks, target)

    async def _take(self, source: asyncio.StreamReader, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                chunk = await source.read(CHUNK_BYTES)
            except OSError:
                chunk = _END
            await chunks.put((loop.time() + self.delay_seconds, chunk))
            if chunk == _END:
                return

    async def _deliver(self, chunks: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await chunks.get()
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            await self._open.wait()
            if chunk == _END or target.is_closing():
                return
            target.write(chunk)
            await target.drain()
