"""Antiphon as it is measured: the shipped order saga, over participants whose effects are in memory.

The client is raw: it publishes the starts and hears of the ends as the client library does, without a handle for each.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from antiphon import link as links
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.wire import ENDS_FILTER, SagaKey, start_subject
from antiphon.coordinator.jetstream import JetStreamStore
from antiphon.coordinator.run import Coordinator
from antiphon.coordinator.serve import attach
from antiphon.link import Link
from antiphon.order.messages import (
    ChargeCustomer,
    InventoryReserved,
    OrderPlaced,
    PaymentCharged,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
    ShippingScheduled,
)
from antiphon.order.saga import order
from antiphon.participants import Participant, Transaction
from antiphon.participants.memory import MemoryDatabase
from antiphon.participants.worker import Worker

from .load import Driver, Load, Seen

CONCURRENCY: Final = 200
"""As many commands as the floor's workers pull at once."""

inventory, billing, shipping = Participant("inventory"), Participant("billing"), Participant("shipping")
PARTICIPANTS: Final = {each.name: each for each in (inventory, billing, shipping)}
WORKERS: Final = tuple(PARTICIPANTS)

PLACED: Final = OrderPlaced(
    order_id="order-0042",
    customer_id="c-018",
    item_id="tea-sencha-200",
    quantity=3,
    amount=5670,
    recipient="Rosa Jiménez",
    address="Calle de Toledo 5, 28005 Madrid",
    country="ES",
)

effects: Final = Counter[str]()


@inventory.handles(ReserveInventory)
async def reserve(command: ReserveInventory, tx: Transaction) -> InventoryReserved:
    effects[command.item_id] += command.quantity
    return InventoryReserved(reservation_id=command.order_id, item_id=command.item_id, quantity=command.quantity)


@inventory.compensates(ReserveInventory)
async def release(command: ReleaseInventory, reserved: InventoryReserved, tx: Transaction) -> None:
    effects[reserved.item_id] -= reserved.quantity


@billing.handles(ChargeCustomer)
async def charge(command: ChargeCustomer, tx: Transaction) -> PaymentCharged:
    effects[command.customer_id] += command.amount
    return PaymentCharged(charge_id=command.order_id, customer_id=command.customer_id, amount=command.amount)


@billing.compensates(ChargeCustomer)
async def refund(command: RefundCustomer, charged: PaymentCharged, tx: Transaction) -> None:
    effects[charged.customer_id] -= charged.amount


@shipping.handles(ScheduleShipping)
async def schedule(command: ScheduleShipping, tx: Transaction) -> ShippingScheduled:
    effects[command.country] += 1
    return ShippingScheduled(shipment_id=command.order_id, country=command.country, carrier="Quai Express")


async def set_up(url: str) -> None:
    """Create streams and consumers."""
    link = await Link.connect(url, name="bench-setup")
    await links.set_up(link, WORKERS)
    await link.close()


async def client(url: str, load: Load) -> Seen:
    """Start sagas and see them end."""
    link = await Link.connect(url, name="bench-client")
    driver = Driver(load, lambda saga_id: start(link, saga_id))
    await link.subscribe(ENDS_FILTER, lambda subject, *_: driver.ended(subject.split(".")[3]))
    await link.nc.flush()
    seen = await driver.run()
    await link.close()
    return seen


def start(link: Link, saga_id: str) -> None:
    """Store the start of a saga."""
    subject = start_subject(SagaKey.of(order.name, saga_id))
    envelope = Envelope(
        id=subject,
        source="client",
        type=OrderPlaced.__contract__.type,
        time=datetime.now(UTC),
        data=pack(PLACED),
    )
    link.publish(subject, encode(envelope), "", require_stored)


def require_stored(outcome: links.Outcome) -> None:
    """End the benchmark if a start was not stored."""
    if not isinstance(outcome, int):
        raise SystemExit(f"bench: a start was not stored: {outcome}")


async def serve(role: str, url: str, ready: Callable[[], None]) -> None:
    """Run the coordinator or one participant for ever."""
    link = await Link.connect(url, name=role)
    if role == "coordinator":
        await attach(link, Coordinator(JetStreamStore(link), [order.definition]))
    else:
        await Worker(PARTICIPANTS[role], link, MemoryDatabase(), concurrency=CONCURRENCY).start()
    links.settle_collector()
    ready()
    await asyncio.Event().wait()
