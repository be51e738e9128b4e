"""A leader that is cut off from its cluster: what it has only proposed is not taken for stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from antiphon.contracts import SagaKey
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.subjects import start_subject
from antiphon.contracts.topology import EVENTS
from antiphon.coordinator.client.store_once import store_once
from antiphon.deploy.chaos.network import CLIENT, Network
from antiphon.link import AlreadyStored, Link, set_up
from antiphon.link.setup import info_of
from tests.support.server import until

ADMINISTRATOR = "administrator"
SUBJECT, START = start_subject(SagaKey.of("order", "o-1")), b"{}"


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Network]:
    """Three servers, with a way from a client and from an administrator to each."""
    network = Network(folder, folder, 3)
    await network.start([ADMINISTRATOR])
    try:
        for server in network.servers.values():
            server.launch()
        for server in network.servers.values():
            await asyncio.to_thread(server.wait_ready)
        yield network
    finally:
        for server in network.servers.values():
            server.kill()
        await network.stop()


async def leader_of_events(link: Link, network: Network) -> str:
    info = await info_of(link, f"STREAM.INFO.{EVENTS}")
    assert info is not None
    (name,) = (name for name, server in network.servers.items() if server.name == info["cluster"]["leader"])
    return name


async def is_there(link: Link) -> bool:
    """Whether the stream holds the start. The former leader says that it does not until it hears of the new one."""
    with suppress(Ambiguous):
        info = await info_of(link, f"STREAM.INFO.{EVENTS}")
        return info is not None and bool(info["state"]["messages"] == 1)
    return False


async def test_what_a_leader_has_only_proposed_is_not_taken_for_stored(tmp_path: Path) -> None:
    async with cluster(tmp_path) as network, AsyncExitStack() as links:
        administrator = await Link.connect(network.urls(ADMINISTRATOR), name=ADMINISTRATOR)
        links.push_async_callback(administrator.close)
        await set_up(administrator, ["inventory"], 3)
        leader = await leader_of_events(administrator, network)
        others = set(network.servers) - {leader}
        client = await Link.connect(f"nats://127.0.0.1:{network.ways[CLIENT, leader].port}", name=CLIENT)
        links.push_async_callback(client.close)
        ways = network.between([leader], others)
        for way in ways.values():
            way.cut()
        with pytest.raises(Ambiguous):
            await client.store(SUBJECT, START)  # proposed, and nobody agrees
        with pytest.raises(Ambiguous, match="may never be stored"):
            await client.store(SUBJECT, START)
        for way in ways.values():
            way.mend()
        await store_once(client, SUBJECT, START, 120)
        with pytest.raises(AlreadyStored):
            await client.store(SUBJECT, START)
        await until(lambda: is_there(administrator), what="the start, as the leader of now sees it")
