"""Both worlds: memory, and one real server for the whole folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conformance.world import MemoryWorld, ServerWorld, World
from tests.support.server import Platform, platform
from tests.support.trip import PARTICIPANTS


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("conformance"), participants=PARTICIPANTS) as up:
        yield up


@pytest.fixture(params=["memory", "jetstream"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    up: Platform = request.getfixturevalue("server")
    await up.set_up()
    link = await up.connect("coordinator")
    try:
        yield ServerWorld(link)
    finally:
        await link.close()
