"""Orders that nobody leads, or that are led in part, over real processes that are killed: every order ends, no effect
twice, none lost, and the journals are complete once a coordinator is back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from antiphon.contracts import identity, subjects
from antiphon.contracts.envelope import decode
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.store_once import message
from antiphon.link import Link, StoredMessage
from antiphon.order.choreographed.messages import OrderCreated
from antiphon.order.choreographed.saga import choreographed_order
from antiphon.order.data import load_orders
from antiphon.order.messages import OrderPlaced
from tests.support.processes import fleet, listeners, run_orders
from tests.support.server import Platform, platform
from tests.support.traced import traced

ORDERS = 20
ACK_WAIT_SECONDS = 3.0


def orders() -> list[OrderPlaced]:
    """Orders of every kind: some cannot be paid, and some nobody delivers."""
    placed = load_orders()[:ORDERS]
    return [
        msgspec.structs.replace(each, address="PO Box 7") if number % 4 == 0 else each
        for number, each in enumerate(placed)
    ]


@pytest.mark.parametrize(
    ("saga", "kill_at"),
    [
        (
            "choreographed",
            {
                "inventory": "worker.in_transaction:4",
                "billing": "worker.committed:5",
                "shipping": "worker.event_stored:3",
                "coordinator-2": "coordinator.appended:11",
            },
        ),
        ("hybrid", {"shipping": "worker.committed:4", "coordinator-1": "coordinator.appended:9"}),
    ],
)
async def test_killed_anywhere_no_effect_is_lost_or_doubled(saga: str, kill_at: dict[str, str], tmp_path: Path) -> None:
    with platform(tmp_path) as up:
        await up.set_up(ACK_WAIT_SECONDS, listeners(saga))
        async with traced(up, tmp_path):
            with fleet(up, tmp_path, kill_at, saga=saga) as running:
                report = await run_orders(up, running, orders())
                assert all(running.children[role].was_killed for role in kill_at), running.logs()
                await assert_journals_are_complete(up)
    assert not report.discrepancies
    assert report.completed + report.compensated == ORDERS
    assert report.compensated >= ORDERS // 4


async def test_with_all_coordinators_dead_orders_go_on_and_are_recorded_once_one_is_back(tmp_path: Path) -> None:
    placed = orders()
    with platform(tmp_path) as up:
        await up.set_up(ACK_WAIT_SECONDS, listeners("choreographed"))
        with fleet(up, tmp_path, saga="choreographed") as running:
            coordinators = [running.children[f"coordinator-{number}"] for number in (1, 2)]
            for child in coordinators:
                child.stay_away()
            link = await up.connect("administrator")
            for each in placed:
                await link.store(*start_of(each))
            await all_said(link)
            assert await read(link, SAGA, subjects.JOURNALS_FILTER) == []
            await link.close()
            coordinators[0].come_back()
            report = await run_orders(up, running, placed)  # the same orders again are the same sagas
            await assert_journals_are_complete(up)
    assert not report.discrepancies
    assert report.completed + report.compensated == ORDERS


async def all_said(link: Link) -> None:
    """Wait until every order has an event that ends it."""
    ends = {event.__contract__.type for event in choreographed_order.ends}
    async with asyncio.timeout(120):
        while (
            sum(decode(event.data, event.subject).type in ends for event in await read(link, EVENTS, "evt.>")) < ORDERS
        ):
            await asyncio.sleep(0.05)


def start_of(placed: OrderPlaced) -> tuple[str, bytes]:
    """What a client stores to begin an order."""
    created = msgspec.convert(msgspec.to_builtins(placed), OrderCreated)
    subject = subjects.start_subject(SagaKey.of(choreographed_order.name, placed.order_id))
    return subject, message(subject, identity.CLIENT, OrderCreated.__contract__.type, created)


async def assert_journals_are_complete(up: Platform) -> None:
    """Every journal has an end, and names all that was said before it, each once."""
    link = await up.connect("administrator")
    facts: defaultdict[SagaKey, set[str]] = defaultdict(set)
    for event in await read(link, EVENTS, "evt.>"):
        facts[subjects.parse_fact(event.subject).saga].add(f"e{event.sequence}")
    entries: defaultdict[SagaKey, list[str]] = defaultdict(list)
    for entry in await read(link, SAGA, subjects.JOURNALS_FILTER):
        entries[subjects.parse_entry(entry.subject).saga].append(decode(entry.data, entry.subject).cause)
    ended = {subjects.parse_entry(entry.subject).saga for entry in await read(link, SAGA, subjects.ENDS_FILTER)}
    await link.close()
    assert facts.keys() == entries.keys() == ended
    for saga, named in entries.items():
        assert {cause for cause in named if cause.startswith("e")} == facts[saga], saga


async def read(link: Link, stream: str, subject_filter: str) -> list[StoredMessage]:
    return [message async for message in link.scan(stream, subject_filter)]
