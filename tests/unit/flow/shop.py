"""A small shop in both styles, made anew for each test, so that a test may plant a mistake in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator import Choreography, Saga, State
from antiphon.flow.check import Finding, check
from antiphon.flow.graph import Flow, build
from antiphon.participants import Participant, Transaction


class Ordered(Event, name="shop.ordered"):
    pieces: int


class Reserved(Event, name="stock.reserved", owner="stock"):
    pieces: int


class Short(Event, name="stock.short", owner="stock"):
    reason: str


class Released(Event, name="stock.released", owner="stock"):
    pass


class Paid(Event, name="billing.paid", owner="billing"):
    pass


class Unpaid(Event, name="billing.unpaid", owner="billing"):
    reason: str


class Reserve(Command[Reserved], name="stock.reserve"):
    pieces: int


class Release(Compensation[Reserve], name="stock.release"):
    reason: str


SHOP = "shop"


@dataclass
class Shop:
    """The parts of a choreographed shop: an order is reserved and paid, and released if nobody pays."""

    stock: Participant
    billing: Participant
    saga: Choreography[Ordered]

    @property
    def flow(self) -> Flow:
        """What they make together."""
        return build([self.stock, self.billing, self.saga])


async def reserve(event: Ordered, tx: Transaction) -> Reserved:
    return Reserved(pieces=event.pieces)


async def pay(event: Reserved, tx: Transaction) -> Paid:
    return Paid()


async def release(event: Unpaid, reserved: Reserved, tx: Transaction) -> Released:
    return Released()


FLOW: Mapping[type[Event], str | Sequence[str]] = {Ordered: "stock", Reserved: "billing", Unpaid: "stock"}


def choreographed(
    *,
    undoes: bool = True,
    flow: Mapping[type[Event], str | Sequence[str]] = FLOW,
    completes: Any = Paid,
    compensates: Sequence[type[Event]] = (Short, Released),
) -> Shop:
    """A shop without a mistake, unless a test asks for one."""
    stock, billing = Participant("stock"), Participant("billing")
    stock.reacts_to(Ordered, saga_type=SHOP, refused=Short)(reserve)
    billing.reacts_to(Reserved, saga_type=SHOP, refused=Unpaid)(pay)
    if undoes:
        stock.reacts_to(Unpaid, saga_type=SHOP, undoes=reserve)(release)
    saga = Choreography(
        Ordered,
        name=SHOP,
        version=1,
        deadline=timedelta(hours=1),
        flow=flow,
        completes=completes,
        compensates=compensates,
    )
    return Shop(stock, billing, saga)


def orchestrated() -> Saga[Ordered]:
    """A saga of one step."""
    saga = Saga(Ordered, name="order", version=1, deadline=timedelta(hours=1))

    @saga.step()
    def reserve_it(s: State[Ordered]) -> Reserve:
        return Reserve(pieces=s.start.pieces)

    @reserve_it.compensation
    def release_it(s: State[Ordered]) -> Release:
        return Release(reason=s.reason)

    return saga


def stock_with_handlers() -> Participant:
    """The participant that the saga of one step needs."""
    stock = Participant("stock")

    @stock.handles(Reserve)
    async def do_reserve(command: Reserve, tx: Transaction) -> Reserved:
        return Reserved(pieces=command.pieces)

    @stock.compensates(Reserve)
    async def do_release(command: Release, reserved: Reserved, tx: Transaction) -> None: ...

    return stock


def found(*parts: Any) -> list[tuple[str, str]]:
    """The mistakes in a flow, and what they are about."""
    return [(each.mistake, each.about) for each in check(build(parts))]


def only(findings: list[Finding]) -> Finding:
    """The one finding there should be."""
    assert len(findings) == 1, findings
    return findings[0]
