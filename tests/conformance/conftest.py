"""The worlds: memory, and for the whole folder one real server with one pair of streams, and one with three."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from tests.conformance.world import MemoryWorld, ServerWorld, World
from tests.support.server import Platform, platform
from tests.support.trip import PARTICIPANTS


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("conformance"), participants=PARTICIPANTS) as up:
        yield up


@pytest.fixture(scope="package")
def spread_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("spread"), participants=PARTICIPANTS, pairs=3) as up:
        yield up


SERVERS: Final = {"jetstream": "server", "pairs": "spread_server"}


@pytest.fixture(params=["memory", *SERVERS])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    up: Platform = request.getfixturevalue(SERVERS[request.param])
    await up.set_up()
    link = await up.connect("coordinator")
    try:
        yield ServerWorld(link)
    finally:
        await link.close()
