"""An order whose shipping does not answer in time: completed if it was scheduled, compensated if not, never guessed.

With SIGKILL at each named point of the settlement, of the participant and of the coordinator. Who is killed is a
process of its own, started again when it dies; all others live in the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from antiphon.contracts import Event, SagaKey, topology
from antiphon.contracts.envelope import decode, unpack_raw
from antiphon.contracts.messages import Settled
from antiphon.contracts.subjects import events_filter, journal_filter
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.serve import attach
from antiphon.link import Link, preview
from antiphon.order.billing import billing
from antiphon.order.data import load_orders
from antiphon.order.inventory import inventory
from antiphon.order.messages import ShippingScheduled
from antiphon.order.reconciliation import Ended, reconcile
from antiphon.participants import Participant, Worker, open_database
from tests.support.orders import hurried
from tests.support.processes import Child, supervised
from tests.support.server import Platform, platform, until
from tests.support.traced import traced

from .settling import ACK_WAIT_SECONDS, PARTICIPANTS, MuteLink, What

IDLE_SECONDS: Final = 600.0
PLACED: Final = load_orders()[1]
KEY: Final = SagaKey.of("order", PLACED.order_id)
OUTCOMES: Final[dict[What, str]] = {"scheduled": "completed", "not scheduled": "compensated"}

# The command passes each point first if it is carried out, and its answer, which gets lost, is never stored.
OF_THE_PARTICIPANT: Final[list[tuple[What, str]]] = [
    ("scheduled", "worker.pulled:2"),
    ("scheduled", "worker.in_transaction:2"),
    ("scheduled", "worker.committed:2"),
    ("scheduled", "worker.event_stored:1"),
    ("not scheduled", "worker.pulled:2"),
    ("not scheduled", "worker.in_transaction:1"),
    ("not scheduled", "worker.committed:1"),
    ("not scheduled", "worker.event_stored:1"),
]
# Facts: start, goods, money, the timeout (which is not pulled from EVENTS), the settlement. Only the start and a
# settlement that turns the saga make two appends.
OF_THE_COORDINATOR: Final[list[tuple[What, str]]] = [
    ("scheduled", "coordinator.appended:4"),
    ("scheduled", "coordinator.pulled:4"),
    ("scheduled", "coordinator.appended:5"),
    ("not scheduled", "coordinator.appended:4"),
    ("not scheduled", "coordinator.pulled:4"),
    ("not scheduled", "coordinator.between_appends:2"),
    ("not scheduled", "coordinator.appended:5"),
]


@dataclass
class Shop:
    """One server, the services' databases, and whoever was started so far."""

    up: Platform
    folder: Path
    stack: AsyncExitStack

    def database(self, name: str) -> str:
        """Where a service's database is."""
        return f"sqlite:///{self.folder / name}.db"

    async def work(self, participant: Participant, *, is_mute: bool = False) -> None:
        """Run a participant in this process; a mute one's answers to commands are lost."""
        link = await (MuteLink if is_mute else Link).connect(self.up.servers, name=participant.name)
        self.stack.push_async_callback(link.close)
        database = open_database(self.database(participant.name))
        self.stack.push_async_callback(database.close)
        await database.open(participant.tables)
        worker = Worker(participant, link, database, ack_wait_seconds=ACK_WAIT_SECONDS)
        await worker.start()
        self.stack.push_async_callback(worker.drain, 0.0)

    async def coordinate(self) -> None:
        """Run a coordinator in this process."""
        link = await self.up.connect("coordinator")
        self.stack.push_async_callback(link.close)
        await attach(link, Coordinator(JetStreamStore(link), [hurried.definition], IDLE_SECONDS))

    async def supervise(self, role: str, ready: str, *arguments: str, kill_at: str) -> Child:
        """Run a process that dies at a point once, and wait until it is at work."""
        log = self.folder / f"{role}.log"
        child = Child(role, list(arguments), self.up.environment(role), log, kill_at)
        self.stack.enter_context(supervised({role: child}))
        await until(lambda: log.exists() and ready in log.read_text(), what=f"a {role} at work")
        return child

    async def is_settled(self, what: What) -> None:
        """Run one order, and see that it ended by what the inbox said, with books that balance."""
        async with Antiphon.connect(self.up.servers, name="client") as antiphon:
            handle = await antiphon.start(hurried, PLACED, id=PLACED.order_id)
            found = await handle.result(timeout=120)
            outcome = found.outcome
        assert outcome == OUTCOMES[what], found.reason
        settled = await self.settled()
        assert settled.happened is (what == "scheduled")
        if settled.happened:
            reply: Event = unpack_raw(settled.reply, ShippingScheduled)
            assert settled.type == reply.__contract__.type
        databases = {name: self.database(name) for name in ("inventory", "billing", "shipping")}
        report = await reconcile(databases, Ended({str(KEY): outcome}, {str(KEY): PLACED}))
        assert report.discrepancies == ()

    async def settled(self) -> Settled:
        """What the one answer to the one question said; the command itself has none."""
        link = await self.up.connect("administrator")
        try:
            answers = await link.read_all(EVENTS, [events_filter(KEY, "shipping")])
            journal = await link.read_all(SAGA, [journal_filter(KEY)])
        finally:
            await link.close()
        questions = [entry for entry in journal if ".shipping.schedule_shipping.undo." in entry.subject]
        assert len(questions) == 1
        (answer,) = answers
        assert ".shipping-schedule-settled." in answer.subject
        return unpack_raw(decode(answer.data, answer.subject).data, Settled)


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    for name in ("PLATFORM_CONSUMERS", "FACT_CONSUMERS"):
        hasty = tuple(replace(consumer, ack_wait_seconds=ACK_WAIT_SECONDS) for consumer in getattr(topology, name))
        monkeypatch.setattr(preview, name, hasty)
    monkeypatch.setattr(
        preview,
        "answers_consumer",
        lambda name: replace(topology.answers_consumer(name), ack_wait_seconds=ACK_WAIT_SECONDS),
    )
    async with running(tmp_path) as found:
        yield found


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Shop]:
    """Goods and money can be had; shipping and the coordinator are up to the test."""
    with platform(folder) as up:
        await up.set_up(ack_wait_seconds=ACK_WAIT_SECONDS)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(traced(up, folder))
            shop = Shop(up, folder, stack)
            await shop.work(inventory)
            await shop.work(billing)
            yield shop


@pytest.mark.parametrize(("what", "point"), OF_THE_PARTICIPANT)
async def test_a_participant_killed_while_it_settles_says_the_same_afterwards(
    what: What, point: str, shop: Shop
) -> None:
    await shop.coordinate()
    arguments = ("tests.chaos.settling", what, shop.up.servers, shop.database("shipping"))
    child = await shop.supervise("shipping", "participant.ready", *arguments, kill_at=point)
    await shop.is_settled(what)
    await until(lambda: child.was_killed, what=f"its death at {point}")


@pytest.mark.parametrize(("what", "point"), OF_THE_COORDINATOR)
async def test_a_coordinator_killed_while_it_settles_decides_the_same_afterwards(
    what: What, point: str, shop: Shop
) -> None:
    await shop.work(PARTICIPANTS[what], is_mute=True)
    arguments = ("tests.support.processes", "coordinator", "hurried", str(IDLE_SECONDS))
    child = await shop.supervise("coordinator", "coordinator.ready", *arguments, kill_at=point)
    await shop.is_settled(what)
    await until(lambda: child.was_killed, what=f"its death at {point}")
