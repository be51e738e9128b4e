"""A store that the last release filled is run to its end by this one, alone and with both side by side."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from antiphon.contracts import StillRunning
from antiphon.coordinator import Antiphon, Handle
from antiphon.deploy.cli.main import app

from .sagas import SAGAS
from .scenarios import ALL, ENDED, OPEN, OPERATOR, PAUSED, PAUSED_PARTICIPANT, PAUSED_TYPE, Scenario, do
from .store import NEW, Release, Store, old_release, stores, wrongs

ENDED_SECONDS: Final = 120.0
KILLS: Final = 6
ACK_WAIT_SECONDS: Final = 2.0
"""In production it is thirty with workers of the last release."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return old_release(tmp_path_factory.mktemp("old"))


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from stores(tmp_path, request, ACK_WAIT_SECONDS)


async def test_what_runs_as_the_old_release_is_the_old_release(old: Release, store: Store) -> None:
    await store.run(old, "tests.upgrade.sagas")
    swapped = Release("swapped", NEW.python, old.modules)
    with pytest.raises(AssertionError, match="not of the release in"):
        await store.run(swapped, "tests.upgrade.sagas")


async def test_a_store_that_the_old_release_filled_is_run_to_its_end(old: Release, store: Store) -> None:
    await store.set_up(old)
    with store.running(old):
        await store.run(old, "tests.upgrade.fill", "store")
    await store.run(old, "tests.upgrade.fill", "unread")
    assert await store.inbox_states() == {"done", "refused", "undone", "void"}
    await everything_is_read(store, (*ENDED, *OPEN, *PAUSED))
    store.gate.touch()
    await store.set_up(NEW)
    with store.running(NEW):
        async with client(store) as antiphon:
            await store.ready()
            await finish(antiphon)
            await assert_right(store, await outcomes_of(antiphon))
    await everything_is_read(store, ALL)


async def test_two_releases_side_by_side_run_a_store_to_its_end(old: Release, store: Store) -> None:
    """Two coordinators of each and one of each participant, some of which die while what was begun goes on."""
    chance = random.Random(11)
    for release in (old, NEW):
        await store.set_up(release)
    with store.running(old, NEW):
        await store.ready()
        for part in ("store", "unread"):
            await store.run(old, "tests.upgrade.fill", part)
        store.gate.touch()
        async with client(store) as antiphon:
            await finish(antiphon)
            ending = asyncio.ensure_future(outcomes_of(antiphon))
            killed = chance.sample(sorted(store.children), KILLS)
            for role in killed:
                before = len(await store.effects())
                store.children[role].kill()
                await something_is_done(store, before, ending)
            await assert_right(store, await ending)
        assert {role.rpartition("-")[2] for role in killed} == {"old", "new"}
    await everything_is_read(store, OPEN)


# --- what the tests are made of ---------------------------------------------------------------------------------------


@asynccontextmanager
async def client(store: Store) -> AsyncIterator[Antiphon]:
    async with Antiphon.connect(store.up.servers, name="client") as antiphon:
        yield antiphon


def handles(antiphon: Antiphon, scenario: Scenario) -> list[Handle]:
    return [antiphon.handle(SAGAS[scenario.saga], id) for id in scenario.ids]


async def finish(antiphon: Antiphon) -> None:
    """Have go on what was paused, and do what sagas wait for."""
    operator = antiphon.operator(OPERATOR)
    assert (await operator.saga_type(PAUSED_TYPE).resume()).is_accepted
    assert (await operator.participant(PAUSED_PARTICIPANT).resume()).is_accepted
    await asyncio.gather(
        *(do(antiphon, handle, scenario.finish) for scenario in OPEN for handle in handles(antiphon, scenario))
    )


async def outcomes_of(antiphon: Antiphon) -> dict[str, str]:
    """How all sagas ended, by id."""

    async def one(handle: Handle) -> tuple[str, str]:
        try:
            return handle.id, (await handle.result(timeout=ENDED_SECONDS)).outcome
        except StillRunning:
            return handle.id, f"not at all: {await handle.status()}"

    every = [handle for scenario in ALL for handle in handles(antiphon, scenario)]
    return dict(await asyncio.gather(*(one(handle) for handle in every)))


async def assert_right(store: Store, outcomes: dict[str, str]) -> None:
    """Every saga ended as it must, and did what it must once."""
    found = wrongs(ALL, outcomes, await store.effects())
    assert not found, "\n".join([*found, store.logs()])


async def something_is_done(store: Store, before: int, ending: asyncio.Future[dict[str, str]]) -> None:
    """Wait until the processes that are left have done something, or nothing is left to do."""
    async with asyncio.timeout(120):
        while len(await store.effects()) == before and not ending.done():
            await asyncio.sleep(0.02)


async def everything_is_read(store: Store, scenarios: Iterable[Scenario]) -> None:
    """All commands that look at sagas can look at these."""
    await asyncio.to_thread(read_everything, store.up.servers, [*scenarios])


def read_everything(server: str, scenarios: list[Scenario]) -> None:
    listed = json.loads(command(server, "list", "--limit", "1000", "--json"))
    states = {f"{each['type']}/{each['id']}": each["state"] for each in listed}
    command(server, "parked")
    for scenario in scenarios:
        key = f"{scenario.saga}/{scenario.ids[0]}"
        assert states[key] in command(server, "show", key)
        assert f"{key}  {states[key]}" in command(server, "trace", key)


def command(server: str, *arguments: str) -> str:
    """What a command of this release prints."""
    ran = CliRunner().invoke(app, [*arguments, "--server", server], env={"COLUMNS": "200"})
    assert ran.exit_code == 0, f"{arguments}: {ran.output}"
    return ran.stdout
