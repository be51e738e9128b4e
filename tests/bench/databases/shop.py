"""Antiphon's side: reserve, charge, schedule, each with one INSERT as its effect.

Nothing but public names, so that the release which is kept runs it, too.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, insert

from antiphon.contracts import Command, Compensation, Event, Refused
from antiphon.coordinator import Saga, State
from antiphon.participants import Participant, Transaction

# --- what travels -----------------------------------------------------------------------------------------------------


class OrderPlaced(Event, name="order.placed"):
    id: str
    fail: bool = False


class Reserved(Event, name="inventory.reserved", owner="inventory"):
    id: str


class Reserve(Command[Reserved], name="inventory.reserve"):
    id: str


class Release(Compensation[Reserve], name="inventory.release"):
    id: str


class Charged(Event, name="payment.charged", owner="payment"):
    id: str


class Charge(Command[Charged], name="payment.charge"):
    id: str


class Refund(Compensation[Charge], name="payment.refund"):
    id: str


class Scheduled(Event, name="shipping.scheduled", owner="shipping"):
    id: str


class Schedule(Command[Scheduled], name="shipping.schedule"):
    id: str
    fail: bool


# --- the saga ---------------------------------------------------------------------------------------------------------

order: Final = Saga(OrderPlaced, name="order", version=1, deadline=timedelta(hours=24))


@order.step()
def reserve(s: State[OrderPlaced]) -> Reserve:
    return Reserve(id=s.start.id)


@reserve.compensation
def release(s: State[OrderPlaced]) -> Release:
    return Release(id=s.start.id)


@order.step(after=reserve)
def charge(s: State[OrderPlaced]) -> Charge:
    return Charge(id=s.start.id)


@charge.compensation
def refund(s: State[OrderPlaced]) -> Refund:
    return Refund(id=s.start.id)


@order.step(after=charge, pivot=True)
def schedule(s: State[OrderPlaced]) -> Schedule:
    return Schedule(id=s.start.id, fail=s.start.fail)


# --- the participants -------------------------------------------------------------------------------------------------

tables: Final = MetaData()
effects: Final = Table(
    "effects",
    tables,
    Column("id", Integer, primary_key=True),
    Column("saga", String),
    Column("action", String),
    Column("at", Float),
)
INSERT: Final = insert(effects)
"""Made once, as SQLAlchemy advises where a statement runs often; its values come with each execution."""
inventory = Participant("inventory", tables=tables)
payment = Participant("payment", tables=tables)
shipping = Participant("shipping", tables=tables)
WORKERS: Final = (inventory.name, payment.name, shipping.name)


async def write(action: str, saga: str, tx: Transaction) -> None:
    """The effect of everything here."""
    await tx.execute(INSERT, {"saga": saga, "action": action, "at": time.time()})


@inventory.handles(Reserve)
async def on_reserve(command: Reserve, tx: Transaction) -> Reserved:
    await write("reserve", command.id, tx)
    return Reserved(id=command.id)


@inventory.compensates(Reserve)
async def on_release(command: Release, reserved: Reserved, tx: Transaction) -> None:
    await write("release", command.id, tx)


@payment.handles(Charge)
async def on_charge(command: Charge, tx: Transaction) -> Charged:
    await write("charge", command.id, tx)
    return Charged(id=command.id)


@payment.compensates(Charge)
async def on_refund(command: Refund, charged: Charged, tx: Transaction) -> None:
    await write("refund", command.id, tx)


@shipping.handles(Schedule)
async def on_schedule(command: Schedule, tx: Transaction) -> Scheduled:
    if command.fail:
        raise Refused("no carrier goes there")
    await write("schedule", command.id, tx)
    return Scheduled(id=command.id)
