"""A server that is left is not the next one, what a silent one has accepted is closed, and a failure does not grow."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest

from antiphon.contracts.errors import PlatformError
from antiphon.coordinator.client.store_once import raise_if_failed
from antiphon.link import Link
from tests.support.server import Platform, platform, until


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Platform]]:
    with ExitStack() as held:
        yield [held.enter_context(platform(tmp_path_factory.mktemp("server"))) for _ in range(3)]


async def test_a_server_that_is_left_is_not_the_next_one(servers: list[Platform]) -> None:
    link = await Link.connect([each.server.url for each in servers], name="mover")
    seen = list[object]()
    for _ in range(9):
        seen.append(link.nc.connected_url)
        assert await link.leave()
        await until(lambda: link.is_connected, what="another server")
    await link.close()
    assert all(here != there for here, there in pairwise(seen))
    assert set(seen[:3]) == set(seen), "each of the others is tried before one comes again"


async def test_what_a_silent_server_has_accepted_is_closed(servers: list[Platform]) -> None:
    closed = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    link = await Link.connect([f"nats://127.0.0.1:{port}", servers[0].server.url], name="mover")
    for _ in range(3):
        closed.clear()
        while not closed.is_set():
            await until(lambda: link.is_connected, what="the server that speaks")
            await link.leave()
            await asyncio.sleep(0.1)
    await until(lambda: link.is_connected, what="the server that speaks")
    await link.close()
    gc.collect()  # warns of a connection that was forgotten while it was open
    silent.close()
    await silent.wait_closed()


async def test_who_is_cancelled_while_it_connects_leaves_no_connection_open() -> None:
    greeted, closed = asyncio.Event(), asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version": "2.12.8", "max_payload": 1048576}\r\n')
        await reader.readline()
        greeted.set()
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    connecting = asyncio.create_task(Link.connect(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", name="one"))
    await greeted.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await until(closed.is_set, what="a connection that is closed")
    server.close()
    await server.wait_closed()


async def test_a_failure_that_is_told_often_does_not_grow(servers: list[Platform]) -> None:
    link = await Link.connect(servers[0].server.url, name="failed")
    link.failure.set_result(PlatformError("the connection was lost"))
    lengths = list[int]()
    for _ in range(3):
        with pytest.raises(PlatformError) as waited:
            await link.until(asyncio.Event(), 0.0)
        lengths.append(len(traceback.extract_tb(waited.value.__traceback__)))
        with pytest.raises(PlatformError) as asked:
            raise_if_failed(link)
        lengths.append(len(traceback.extract_tb(asked.value.__traceback__)))
    await link.close()
    assert lengths[:2] == lengths[-2:]
