"""A cluster that chooses a leader takes nothing for some seconds: who asks then waits, or is told to try again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from antiphon.contracts import Event, PlatformError, StreamMissing, Unanswered
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.coordinator.definition.saga import Saga
from antiphon.deploy.local.server import Server
from antiphon.link import Link, require_platform
from antiphon.link.setup import api
from tests.support.server import Platform, platform, until
from tests.support.trip import ASKED, TRIP, TripAsked

ELECTION_SECONDS = 120.0
"""Longer than any election was seen to take."""


class Cleared(Event, name="trip.cleared"):
    by: str


WAITING = Saga(TripAsked, name="waiting", version=1, deadline=timedelta(hours=1))
CLEARED = WAITING.signal(Cleared, within=timedelta(minutes=30))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("cluster"), participants=(), nodes=3) as up:
        asyncio.run(up.set_up())
        yield up


async def leader_of(up: Platform, stream: str) -> Server:
    """The server that leads a stream, once there is one."""
    link = await up.connect("administrator")
    try:
        async with asyncio.timeout(120):
            while not (name := (await _info(link, stream)).get("leader", "")):
                await asyncio.sleep(0.1)
    finally:
        await link.close()
    return next(node for node in up.nodes if node.name == name)


async def _info(link: Link, stream: str) -> dict[str, str]:
    with suppress(Ambiguous):
        found: dict[str, str] = (await api(link, f"STREAM.INFO.{stream}")).get("cluster", {})
        return found
    return {}


async def client_beside(up: Platform, away: Server, stack: list[Link]) -> Antiphon:
    """A client of the servers that stay."""
    link = await Link.connect([node.url for node in up.nodes if node is not away], name="client")
    stack.append(link)
    return Antiphon(link)


Ask = Callable[[Antiphon, str, float], Awaitable[object]]


async def start(antiphon: Antiphon, id: str, timeout: float) -> Handle:
    return await antiphon.start(TRIP, ASKED, id=id, timeout=timeout)


async def cancel(antiphon: Antiphon, id: str, timeout: float) -> None:
    key = antiphon.handle(TRIP, id).key
    await antiphon.ask_to_cancel(key, "changed my mind", timeout, is_started=True)  # as a handle that `start` gave


async def signal(antiphon: Antiphon, id: str, timeout: float) -> None:
    await antiphon.handle(WAITING, id).signal(CLEARED, Cleared(by="Ada"), timeout=timeout, wait_for_start=True)


async def pause(antiphon: Antiphon, id: str, timeout: float) -> None:
    await antiphon.operator("ada", timeout=timeout).participant(id).pause("stocktaking")


async def there(link: Link, wanted: str) -> list[StoredMessage]:
    """What EVENTS holds, once it holds anything: a replica may answer that lags behind."""
    async with asyncio.timeout(ELECTION_SECONDS):
        while not (found := await link.read_all(EVENTS, [wanted])):
            await asyncio.sleep(0.05)
    return found


ASKS: dict[str, Ask] = {"start": start, "cancel": cancel, "signal": signal}


@pytest.mark.parametrize("what", ASKS)
async def test_what_is_asked_while_a_leader_is_chosen_is_stored_once_there_is_one(cluster: Platform, what: str) -> None:
    away, links = await leader_of(cluster, EVENTS), list[Link]()
    antiphon = await client_beside(cluster, away, links)
    away.kill()
    try:
        await ASKS[what](antiphon, f"{what}-1", ELECTION_SECONDS)
        stored = await there(links[0], f"evt.*.*.{what}-1.>")
        assert len(stored) == 1
    finally:
        away.start()
        for link in links:
            await link.close()


@pytest.mark.parametrize("what", [*ASKS, "pause"])
async def test_whoever_waits_no_longer_is_told_to_try_again(cluster: Platform, what: str) -> None:
    away, links = await leader_of(cluster, EVENTS), list[Link]()
    antiphon = await client_beside(cluster, away, links)
    other = next(node for node in cluster.nodes if node is not away)
    away.kill()
    other.kill()  # one of three chooses nobody
    try:
        async with asyncio.timeout(ELECTION_SECONDS):
            with pytest.raises(
                Unanswered, match=r"nobody knows whether evt\.\S+ is stored: within 0\.5 s .* Try again"
            ):
                await {**ASKS, "pause": pause}[what](antiphon, f"{what}-2", 0.5)
    finally:
        away.start()
        other.start()
        for link in links:
            await link.close()


async def test_a_process_that_starts_while_a_leader_is_chosen_waits_for_it(cluster: Platform) -> None:
    away, links = await leader_of(cluster, SAGA), list[Link]()
    await client_beside(cluster, away, links)
    away.kill()
    try:
        await require_platform(links[0])
    finally:
        away.start()
        await links[0].close()


async def test_a_server_alone_has_no_leader_to_choose(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        async with Antiphon.connect(up.servers) as antiphon:
            with pytest.raises(StreamMissing, match="Create the streams once, as administrator: antiphon setup"):
                await antiphon.start(TRIP, ASKED, id="t1")


async def test_a_server_that_is_away_is_waited_for_as_long_as_asked(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        await up.set_up()
        async with Antiphon.connect(up.servers) as antiphon:
            up.server.kill()
            await until(lambda: not antiphon._link.is_connected, what="a lost connection")
            with pytest.raises(Unanswered, match="the server did not answer"):
                await antiphon.start(TRIP, ASKED, id="t1", timeout=0.3)
            again = asyncio.ensure_future(antiphon.start(TRIP, ASKED, id="t1", timeout=ELECTION_SECONDS))
            up.server.start()
            assert (await again).id == "t1"


async def test_a_stream_without_room_is_told_in_a_sentence(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        await up.set_up(events_bytes=2_000)
        async with Antiphon.connect(up.servers) as antiphon:
            with pytest.raises(PlatformError, match=r"no room for evt\.\S+, so nothing has changed: maximum bytes"):
                await asyncio.gather(*(antiphon.start(TRIP, ASKED, id=f"t{number}") for number in range(20)))
            with pytest.raises(PlatformError, match="trip/t0 is stored already"):
                await antiphon.start(TRIP, ASKED, id="t0", timeout=3)
