"""Antiphon as it is measured: sagas of several shapes, over participants whose effects are in memory.

The client is raw: it publishes the starts and hears of the ends as the client library does, without a handle for each.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from antiphon import link as links
from antiphon.contracts import Command, Compensation, Event, Refused
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import ENDS_FILTER, start_subject
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.serve import attach
from antiphon.link import Link
from antiphon.link.pairs import find_pairs
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
from antiphon.participants import Participant, Transaction
from antiphon.participants.memory import MemoryDatabase
from antiphon.participants.worker import Worker

from .load import Driver, Load, Seen, Shape

CONCURRENCY: Final = 200
"""As many commands as the floor's workers pull at once."""

inventory, billing, shipping = Participant("inventory"), Participant("billing"), Participant("shipping")
PARTICIPANTS: Final = {each.name: each for each in (inventory, billing, shipping)}
WORKERS: Final = tuple(PARTICIPANTS)

NOWHERE: Final = "XX"
"""A country that shipping refuses."""


def placed(country: str) -> OrderPlaced:
    """An order like any other."""
    return OrderPlaced(
        order_id="order-0042",
        customer_id="c-018",
        item_id="tea-sencha-200",
        quantity=3,
        amount=5670,
        recipient="Rosa Jiménez",
        address="Calle de Toledo 5, 28005 Madrid",
        country=country,
    )


class LabelPrinted(Event, name="label.printed", owner="shipping"):
    label_id: str


class PrintLabel(Command[LabelPrinted], name="label.print"):
    order_id: str
    recipient: str


class TearLabel(Compensation[PrintLabel], name="label.tear"):
    reason: str


# --- the sagas --------------------------------------------------------------------------------------------------------


def reserve_inventory(s: State[OrderPlaced]) -> ReserveInventory:
    return ReserveInventory(order_id=s.start.order_id, item_id=s.start.item_id, quantity=s.start.quantity)


def release_inventory(s: State[OrderPlaced]) -> ReleaseInventory:
    return ReleaseInventory(order_id=s.start.order_id, reason=s.reason)


def charge_customer(s: State[OrderPlaced]) -> ChargeCustomer:
    start = s.start
    return ChargeCustomer(
        order_id=start.order_id, customer_id=start.customer_id, amount=start.amount, reservation_id=start.order_id
    )


def refund_customer(s: State[OrderPlaced]) -> RefundCustomer:
    return RefundCustomer(order_id=s.start.order_id, reason=s.reason)


def print_label(s: State[OrderPlaced]) -> PrintLabel:
    return PrintLabel(order_id=s.start.order_id, recipient=s.start.recipient)


def tear_label(s: State[OrderPlaced]) -> TearLabel:
    return TearLabel(reason=s.reason)


def schedule_shipping(s: State[OrderPlaced]) -> ScheduleShipping:
    start = s.start
    return ScheduleShipping(
        order_id=start.order_id,
        reservation_id=start.order_id,
        recipient=start.recipient,
        address=start.address,
        country=start.country,
    )


def in_a_row() -> Saga[OrderPlaced]:
    """Reserve, charge, ship."""
    saga = Saga(OrderPlaced, name="plain", version=1, deadline=timedelta(hours=24))
    reserved = saga.step()(reserve_inventory)
    reserved.compensation(release_inventory)
    charged = saga.step(after=reserved)(charge_customer)
    charged.compensation(refund_customer)
    saga.step(after=charged, needs_no_compensation=True)(schedule_shipping)
    return saga


def in_a_diamond() -> Saga[OrderPlaced]:
    """Reserve; charge and print a label at once; ship."""
    saga = Saga(OrderPlaced, name="diamond", version=1, deadline=timedelta(hours=24))
    reserved = saga.step()(reserve_inventory)
    reserved.compensation(release_inventory)
    charged = saga.step(after=reserved)(charge_customer)
    charged.compensation(refund_customer)
    labelled = saga.step(after=reserved)(print_label)
    labelled.compensation(tear_label)
    saga.step(after=(charged, labelled), needs_no_compensation=True)(schedule_shipping)
    return saga


SAGAS: Final = {"plain": in_a_row(), "diamond": in_a_diamond()}


# --- the participants -------------------------------------------------------------------------------------------------

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


@shipping.handles(PrintLabel)
async def label(command: PrintLabel, tx: Transaction) -> LabelPrinted:
    effects[command.recipient] += 1
    return LabelPrinted(label_id=command.order_id)


@shipping.compensates(PrintLabel)
async def tear(command: TearLabel, printed: LabelPrinted, tx: Transaction) -> None:
    effects[printed.label_id] -= 1


@shipping.handles(ScheduleShipping)
async def schedule(command: ScheduleShipping, tx: Transaction) -> ShippingScheduled:
    if command.country == NOWHERE:
        raise Refused("no carrier goes there")
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
    driver = Driver(load, lambda saga_id: start(link, load.shape, saga_id))
    outcome = b'"compensated"' if load.shape == "compensated" else b'"completed"'

    def on_end(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        if outcome not in data:
            raise SystemExit(f"bench: a saga ended in another way: {data.decode()}")
        driver.ended(subject.split(".")[3])

    await link.subscribe(ENDS_FILTER, on_end)
    await link.nc.flush()
    seen = await driver.run()
    await link.close()
    return seen


def start(link: Link, shape: Shape, saga_id: str) -> None:
    """Store the start of a saga."""
    saga = SAGAS["diamond" if shape == "diamond" else "plain"]
    subject = start_subject(SagaKey.of(saga.name, saga_id))
    envelope = Envelope(
        id=subject,
        source="client",
        type=OrderPlaced.__contract__.type,
        time=datetime.now(UTC),
        data=pack(placed(NOWHERE if shape == "compensated" else "ES")),
    )
    link.publish(subject, encode(envelope), "", require_stored)


def require_stored(outcome: links.Outcome) -> None:
    """End the benchmark if a start was not stored."""
    if not isinstance(outcome, int):
        raise SystemExit(f"bench: a start was not stored: {outcome}")


async def serve(role: str, url: str, ready: Callable[[], None]) -> None:
    """Run the coordinator or one participant for ever."""
    link = await Link.connect(url, name=role)
    await find_pairs(link)
    if role == "coordinator":
        await attach(link, Coordinator(JetStreamStore(link), [saga.definition for saga in SAGAS.values()]))
    else:
        await Worker(PARTICIPANTS[role], link, MemoryDatabase(), concurrency=CONCURRENCY).start()
    links.settle_collector()
    ready()
    await asyncio.Event().wait()
