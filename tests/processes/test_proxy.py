"""The proxy of chaos tests: what passes arrives as it was, late where it is slow, and not at all where it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from antiphon.deploy.chaos.proxy import CHUNK_BYTES, Proxy
from antiphon.deploy.local.server import HOST

SECONDS_MAX = 120


class Echo:
    """A server that sends back what it gets, and keeps its connections."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.close()
        self.ended.set()


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            yield proxy, echo
    finally:
        await proxy.stop()
        server.close()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_what_passes_arrives_as_it_was() -> None:
    sent = bytes(range(256)) * 40 * 1024  # more than all buffers together
    async with echoing() as (proxy, _), connected(proxy) as (reader, writer):
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent


async def test_what_is_sent_while_it_is_cut_arrives_once_it_is_mended() -> None:
    async with echoing() as (proxy, _), connected(proxy) as (reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        proxy.cut()
        writer.write(b"meanwhile")
        async with connected(proxy) as (later, more):
            more.write(b"new")
            answers = [asyncio.ensure_future(reader.readexactly(9)), asyncio.ensure_future(later.readexactly(3))]
            assert not (await asyncio.wait(answers, timeout=0.2))[0]
            proxy.mend()
            assert await asyncio.gather(*answers) == [b"meanwhile", b"new"]


async def test_that_an_end_has_closed_arrives_unless_it_is_cut() -> None:
    async with echoing() as (proxy, echo):
        async with connected(proxy) as (reader, writer):
            writer.write(b"a")
            await reader.readexactly(1)
            proxy.cut()
        await asyncio.sleep(0.1)
        assert not echo.ended.is_set()
        proxy.mend()
        await echo.ended.wait()


async def test_what_goes_a_slow_way_is_overtaken() -> None:
    async with echoing() as (proxy, _), connected(proxy) as (slow, one), connected(proxy) as (quick, other):
        for reader, writer in ((slow, one), (quick, other)):
            writer.write(b"a")
            await reader.readexactly(1)
        proxy.delay_seconds = 0.3
        one.write(b"b")
        answer = asyncio.ensure_future(slow.readexactly(1))
        await asyncio.sleep(0.05)
        proxy.delay_seconds = 0.0
        other.write(b"b")
        await quick.readexactly(1)
        assert not answer.done()
        assert await answer == b"b"


async def test_where_nobody_listens_a_connection_ends_at_once() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, HOST, 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    server.close()
    await proxy.start()
    async with asyncio.timeout(SECONDS_MAX), connected(proxy) as (reader, _):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    await proxy.stop()
