"""Orders that nobody leads, beside orders that a coordinator leads, in the same services, which die at every point."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from antiphon.contracts import Event, SagaKey
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.subjects import parse_fact, start_subject
from antiphon.contracts.topology import EVENTS
from antiphon.coordinator import Antiphon
from antiphon.link import Link
from antiphon.order.choreographed import billing, inventory, shipping
from antiphon.order.choreographed.messages import CHOREOGRAPHED, OrderCreated
from antiphon.order.choreographed.saga import choreographed_order
from antiphon.order.data import load_orders
from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import Ended, Outcome, reconcile
from antiphon.order.saga import order
from antiphon.participants import Participant
from tests.support.processes import Child, supervised
from tests.support.server import Platform, platform
from tests.support.traced import traced

from .test_kills import WORKER_POINTS

SERVICES: Final[dict[str, Participant]] = {
    "inventory": inventory.inventory,
    "billing": billing.billing,
    "shipping": shipping.shipping,
}
ORDERS: Final = 30
"""Of each style."""
ACK_WAIT_SECONDS: Final = 1.0
EVERYWHERE: Final = " ".join(f"{point}:4" for point in WORKER_POINTS)


class Run:
    """The three services as processes over one platform, and what became of the orders."""

    def __init__(self, up: Platform, folder: Path) -> None:
        self.up = up
        self.databases = {name: f"sqlite:///{folder}/{name}.db" for name in SERVICES}
        self.children = {name: self._participant(name, folder) for name in SERVICES}
        arguments = ["tests.support.processes", "coordinator", "order"]
        environment = up.environment("coordinator")
        self.children["coordinator"] = Child("coordinator", arguments, environment, folder / "coordinator.log")

    def _participant(self, name: str, folder: Path) -> Child:
        path = f"antiphon.order.choreographed.{name}:{name}"
        arguments = ["antiphon.deploy", "participant", path, "--database", self.databases[name], "--name", name]
        return Child(name, arguments, self.up.environment(name), folder / f"{name}.log", EVERYWHERE)

    async def let_happen(self, link: Link, orders: list[OrderCreated]) -> dict[str, Outcome]:
        """Publish that orders were created, and wait until an event of each says that it is over."""
        for created in orders:
            await link.store(*started(created))
        ends: dict[str, Outcome] = {each.__contract__.token: is_completed(each) for each in choreographed_order.ends}
        found: dict[str, Outcome] = {}
        while len(found) < len(orders):
            await asyncio.sleep(0.1)
            async for message in link.scan(EVENTS, f"evt.*.{CHOREOGRAPHED}.>"):
                fact = parse_fact(message.subject)
                if fact.event in ends:
                    found[str(fact.saga)] = ends[fact.event]
        return found

    async def lead(self, orders: list[OrderPlaced]) -> dict[str, Outcome]:
        """Have a coordinator lead orders, and wait for them."""
        async with Antiphon.connect(self.up.servers) as antiphon:

            async def one(placed: OrderPlaced) -> Outcome:
                handle = await antiphon.start(order, placed, id=placed.order_id)
                return (await handle.result(timeout=120)).outcome

            outcomes = await asyncio.gather(*map(one, orders))
        return {f"order/{placed.order_id}": outcome for placed, outcome in zip(orders, outcomes, strict=True)}


def is_completed(event: type[Event]) -> Outcome:
    return "completed" if event in choreographed_order.completes else "compensated"


def started(created: OrderCreated) -> tuple[str, bytes]:
    subject = start_subject(SagaKey.of(CHOREOGRAPHED, created.order_id))
    contract = OrderCreated.__contract__
    envelope = Envelope(id=subject, source="client", type=contract.type, time=datetime.now(UTC), data=pack(created))
    return subject, encode(envelope)


def created(placed: OrderPlaced, number: int) -> OrderCreated:
    """Every fifth cannot be delivered, so that there is something to take back in each service."""
    address = {"address": "PO Box 7"} if number % 5 == 0 else {}
    return msgspec.convert({**msgspec.to_builtins(placed), **address}, OrderCreated)


async def test_services_killed_at_every_point_lose_no_effect_and_double_none_in_either_style(tmp_path: Path) -> None:
    placed = load_orders()
    leaderless = [created(each, number) for number, each in enumerate(placed[:ORDERS])]
    led = placed[ORDERS : 2 * ORDERS]
    with platform(tmp_path) as up:
        await up.set_up(ACK_WAIT_SECONDS, [each.listener for each in SERVICES.values()])
        run = Run(up, tmp_path)
        link = await up.connect("administrator")
        async with traced(up, tmp_path):
            with supervised(run.children):
                async with asyncio.timeout(120):
                    found = await asyncio.gather(run.let_happen(link, leaderless), run.lead(led))
                deaths = {name: run.children[name].exits for name in SERVICES}
        await link.close()
        outcomes: dict[str, Outcome] = {**found[0], **found[1]}
        orders = {f"{CHOREOGRAPHED}/{each.order_id}": each for each in leaderless}
        report = await reconcile(run.databases, Ended(outcomes, {**orders, **{f"order/{p.order_id}": p for p in led}}))
    assert report.is_balanced, report.discrepancies
    assert set(found[0].values()) == {"completed", "compensated"}
    assert deaths == dict.fromkeys(SERVICES, [-9] * len(WORKER_POINTS))
