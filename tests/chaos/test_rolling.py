"""Planned restarts under load on a cluster as in production: three servers, each write synced, mutual TLS, and rights.
Nothing is lost, and no command loses an attempt to them.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import pytest

from antiphon.contracts.envelope import decode
from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.identity import CLIENT, COORDINATOR, SagaKey
from antiphon.contracts.payloads import Ending
from antiphon.contracts.subjects import command_subject, parse_fact
from antiphon.contracts.topology import ADMINISTRATOR, EVENTS, REGISTRATIONS, SAGA, STREAMS
from antiphon.coordinator import Antiphon
from antiphon.deploy.admin.logins import Logins, by_creds, by_password
from antiphon.deploy.admin.rights import Grant, Rights
from antiphon.deploy.local.children import Child
from antiphon.deploy.local.platform import LocalPlatform
from antiphon.deploy.local.server import Server, seats
from antiphon.deploy.local.styles import Style
from antiphon.deploy.modules import load_saga
from antiphon.link import Delivery, Link
from antiphon.link.setup import api
from antiphon.order.data import load_orders
from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import Ended, reconcile
from tests.support.certificates import MutualTLS
from tests.support.server import RIGHTS_FORMS, Form, platform, until

STYLE: Final = Style.ORCHESTRATED
TYPE: Final = load_saga(STYLE.saga).name
IN_FLIGHT: Final = 24
WORKERS: Final = 2
PATIENCE_SECONDS: Final = 240.0

Restart = Literal["servers", "coordinators", "participants"]


@dataclass
class Load:
    """Orders that are started one after the other, so many at once, until it is over."""

    platform: LocalPlatform
    placed: dict[str, OrderPlaced] = field(default_factory=dict[str, OrderPlaced])
    outcomes: dict[str, Ending] = field(default_factory=dict[str, Ending])
    is_over: bool = False

    async def run(self) -> None:
        saga = load_saga(STYLE.saga)
        orders = enumerate(itertools.cycle(load_orders()))
        login = self.platform.credentials(CLIENT)
        async with Antiphon.connect(self.platform.url, credentials=login) as antiphon:

            async def place() -> None:
                while not self.is_over:
                    number, order = next(orders)
                    mine = msgspec.structs.replace(order, order_id=f"{order.order_id}-{number}")
                    self.placed[f"{TYPE}/{mine.order_id}"] = mine
                    start = msgspec.convert(msgspec.to_builtins(mine), saga.start)
                    handle = await antiphon.start(saga, start, id=mine.order_id, timeout=PATIENCE_SECONDS)
                    ended = await handle.result(timeout=PATIENCE_SECONDS)
                    self.outcomes[f"{TYPE}/{mine.order_id}"] = ended.outcome

            async with asyncio.TaskGroup() as places:
                for _ in range(IN_FLIGHT):
                    places.create_task(place())

    async def goes_on(self, running: asyncio.Task[None]) -> None:
        """Wait until more sagas have ended than were under way."""
        wanted = len(self.outcomes) + 2 * IN_FLIGHT
        await until(lambda: len(self.outcomes) >= wanted or running.done(), what="the load", seconds=PATIENCE_SECONDS)
        if running.done():
            await running


@asynccontextmanager
async def cluster(folder: Path, logins: Callable[[Rights, Path], Logins]) -> AsyncIterator[LocalPlatform]:
    """The order system on three servers as in production."""
    encryption = MutualTLS(folder)
    given = encryption.of(logins(Rights(tuple(STYLE.participants), {CLIENT: [Grant(TYPE, ("start", "read"))]}), folder))
    servers = [
        Server(
            folder / f"nats-{number}",
            seat=replace(seat, tls=encryption.config),
            sync_interval="always",
            accounts=given.config,
            environment=dict(given.server),
        )
        for number, seat in enumerate(seats(3), 1)
    ]
    told = list[str]()
    platform = LocalPlatform(
        folder,
        [STYLE.saga],
        STYLE.participants,
        lambda name, line: None,
        lambda name, line: told.append(f"{name}: {line}"),
        logins=given,
        servers=servers,
        workers=dict.fromkeys(STYLE.participants, WORKERS),
    )
    try:
        await platform.start()
        yield platform
    finally:
        await platform.stop()
    assert not [line for line in told if "killed" in line]


@pytest.mark.parametrize(
    ("logins", "what"),
    [(by_creds, ("servers",)), (lambda rights, folder: by_password(rights), ("coordinators", "participants"))],
    ids=["servers-jwt", "processes-passwords"],
)
async def test_planned_restarts_lose_nothing_and_cost_no_attempt(
    logins: Callable[[Rights, Path], Logins], what: Sequence[Restart], tmp_path: Path
) -> None:
    async with cluster(tmp_path, logins) as platform:
        link = await Link.connect(platform.url, name="test", credentials=platform.credentials(ADMINISTRATOR))
        load = Load(platform)
        running = asyncio.create_task(load.run())
        try:
            await load.goes_on(running)
            for each in what:
                await restart(each, platform, link)
                await load.goes_on(running)
        finally:
            load.is_over = True
            await running
        await healthy(link)
        tries = await tries_of(link)
        outcomes = load.outcomes
        await link.close()
    assert outcomes.keys() == load.placed.keys()
    books = await reconcile(platform.databases, Ended(outcomes, load.placed))
    assert not books.discrepancies
    assert len(tries) >= len(outcomes)
    assert {"completed", "compensated"} <= set(outcomes.values())
    assert {subject: found for subject, found in tries.items() if found[0] != 1} == {}, "nothing was sent again"
    if "servers" not in what:  # one that ends takes deliveries with it that are on their way
        assert {subject: found for subject, found in tries.items() if found[1] != 1} == {}


@pytest.mark.parametrize("form", RIGHTS_FORMS)
async def test_a_pull_that_drains_leaves_nothing_that_a_cluster_delivers_to_nobody(form: Form, tmp_path: Path) -> None:
    """Each such delivery would count as an attempt. Where the consumer's leader is another server than the one that the
    pull is connected to, that one cannot see whether anybody listens in another account."""
    with platform(tmp_path, form, participants=("inventory",), nodes=3) as up:
        await up.set_up()
        administrator, coordinator = [await up.connect(user) for user in ("administrator", COORDINATOR)]
        await healthy(administrator)
        leader = (await api(administrator, f"CONSUMER.INFO.{SAGA}.inventory"))["cluster"]["leader"]
        elsewhere = next(node for node in up.nodes if node.name != leader)
        link = await Link.connect(elsewhere.url, name="inventory", credentials=up.credentials("inventory"))
        taken = list[Delivery]()
        pull = await link.pull(SAGA, "inventory", 16, taken.append, 3.0)
        assert await pull.is_accepted()
        draining = asyncio.create_task(pull.drain())
        await send_commands(coordinator, "during", 8)
        await draining
        await send_commands(coordinator, "after", 8)
        for delivery in taken:
            delivery.ack()
        await link.flushed()
        delivered = (await api(administrator, f"CONSUMER.INFO.{SAGA}.inventory"))["delivered"]["consumer_seq"]
        for each in (link, coordinator, administrator):
            await each.close()
    assert delivered == len(taken)


async def send_commands(link: Link, name: str, count: int) -> None:
    for number in range(count):
        saga = SagaKey.of(TYPE, f"{name}-{number}")
        await link.store(command_subject(saga, "inventory", "reserve", "do", 1), b"{}")


# --- restarts ---------------------------------------------------------------------------------------------------------


async def restart(what: Restart, platform: LocalPlatform, link: Link) -> None:
    """Restart all of a kind as an operator would: one after the other, each only once all is well again."""
    if what == "servers":
        for server in platform.servers:
            await restart_server(server)
            await healthy(link)
        return
    kept = {name for each in STYLE.participants for name in platform.processes_of(each)}
    for name, child in platform.children.items():
        if (name in kept) is (what == "participants"):
            await restart_process(child)
            await platform.wait_serving(link)


async def restart_server(server: Server) -> None:
    before = server.process
    server.send_signal(signal.SIGTERM)
    await until(lambda: server.process is not before and server.answers, what=f"{server.name} to be back")


async def restart_process(child: Child) -> None:
    lives = child.lives
    child.send_signal(signal.SIGTERM)
    await until(lambda: child.lives > lives and child.is_running, what=f"{child.name} to be back")
    assert child.exits[-1] == 0, f"{child.name} did not drain: {child.last_line}"


async def healthy(link: Link) -> None:
    """Wait until each stream and consumer has a leader and two replicas that have all it has."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        for stream in (*(each.name for each in STREAMS), REGISTRATIONS.name):
            await current(link, f"STREAM.INFO.{stream}")
            while not isinstance(names := await asked(link, f"CONSUMER.NAMES.{stream}"), dict):
                await asyncio.sleep(0.1)
            for name in names.get("consumers") or ():
                await current(link, f"CONSUMER.INFO.{stream}.{name}")


async def current(link: Link, request: str) -> None:
    while not _is_current((await asked(link, request) or {}).get("cluster", {})):
        await asyncio.sleep(0.1)


async def asked(link: Link, request: str) -> dict[str, Any] | None:
    try:
        return await api(link, request)
    except (PlatformError, Ambiguous):
        return None


def _is_current(info: dict[str, Any]) -> bool:
    replicas = info.get("replicas") or []
    return bool(info.get("leader")) and len(replicas) == 2 and all(each.get("current") for each in replicas)


# --- what the journals say --------------------------------------------------------------------------------------------


async def tries_of(link: Link) -> dict[str, tuple[int, int]]:
    """Of each answer to a command the number of the sending that it answers, and how often the handler was called."""
    found = dict[str, tuple[int, int]]()
    async for message in link.scan(EVENTS, ">"):
        fact = parse_fact(message.subject)
        if fact.source in STYLE.participants:
            found[message.subject] = (fact.attempt, decode(message.data, message.subject).tries or 1)
    return found
