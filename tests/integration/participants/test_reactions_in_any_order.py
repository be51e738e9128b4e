"""Events that come twice, late, or in another order change nothing, and neither does a process that dies in between."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.contracts import Event, Refused
from antiphon.contracts.subjects import reaction_step
from antiphon.participants import Participant, Transaction
from antiphon.participants.memory import MemoryDatabase, MemoryTransaction
from antiphon.participants.testing import Service


class Ordered(Event, name="shop.ordered"):
    pass


class Cancelled(Event, name="shop.cancelled"):
    """Comes from outside, at any time."""


class Reserved(Event, name="stock.reserved", owner="stock"):
    number: int = 7


class Short(Event, name="stock.short", owner="stock"):
    reason: str


class Released(Event, name="stock.released", owner="stock"):
    number: int


class Charged(Event, name="bank.charged", owner="bank"):
    cents: int = 100


class Declined(Event, name="bank.declined", owner="bank"):
    reason: str


class Refunded(Event, name="bank.refunded", owner="bank"):
    cents: int


class Sent(Event, name="post.sent", owner="post"):
    pass


class Undeliverable(Event, name="post.undeliverable", owner="post"):
    reason: str


def do(tx: Transaction, effect: str) -> None:
    assert isinstance(tx, MemoryTransaction)
    tx.effects.append(effect)


def shop(refuses: str) -> list[Participant]:
    """Three participants who react to each other; one of them may say no."""
    stock, bank, post = Participant("stock"), Participant("bank"), Participant("post")

    def may(name: str) -> None:
        if name == refuses:
            raise Refused("no")

    @stock.reacts_to(Ordered, saga_type="shop", refused=Short)
    async def reserve(ordered: Ordered, tx: Transaction) -> Reserved:
        do(tx, "reserved")
        may("stock")
        return Reserved()

    @bank.reacts_to(Reserved, saga_type="shop", refused=Declined)
    async def charge(reserved: Reserved, tx: Transaction) -> Charged:
        do(tx, "charged")
        may("bank")
        return Charged()

    @post.reacts_to(Charged, saga_type="shop", refused=Undeliverable)
    async def send(charged: Charged, tx: Transaction) -> Sent:
        do(tx, "sent")
        may("post")
        return Sent()

    @bank.reacts_to(Undeliverable, saga_type="shop", undoes=charge)
    async def refund(undeliverable: Undeliverable, charged: Charged, tx: Transaction) -> Refunded:
        do(tx, "refunded")
        return Refunded(cents=charged.cents)

    @stock.reacts_to(Declined, saga_type="shop", undoes=reserve)
    async def release_declined(declined: Declined, reserved: Reserved, tx: Transaction) -> Released:
        do(tx, "released")
        return Released(number=reserved.number)

    @stock.reacts_to(Refunded, saga_type="shop", undoes=reserve)
    async def release_refunded(refunded: Refunded, reserved: Reserved, tx: Transaction) -> Released:
        do(tx, "released")
        return Released(number=reserved.number)

    @stock.reacts_to(Cancelled, saga_type="shop", undoes=reserve)
    async def release_cancelled(cancelled: Cancelled, reserved: Reserved, tx: Transaction) -> Released:
        do(tx, "released")
        return Released(number=reserved.number)

    return [stock, bank, post]


@dataclass
class World:
    """The stream of one saga, as it grows, and whoever hears it."""

    services: list[Service]
    stream: dict[tuple[str, str, str], Event] = field(default_factory=dict)
    """By owner, event and step: a subject takes one message."""

    def store(self, event: Event, step: str) -> None:
        contract = event.__contract__
        self.stream.setdefault((contract.owner, contract.token, step), event)

    async def deliver(self, number: int, service: Service, dies: bool = False) -> None:
        """Let one participant hear one event. If it dies, what follows is not published."""
        (owner, token, step), event = list(self.stream.items())[number % len(self.stream)]
        if all(reaction.event is not type(event) for reaction in service.participant.reactions):
            return
        follows = await service.react(event, saga="shop/s1", step=step)
        if follows is not None and not dies:
            self.store(follows, reaction_step(token, "" if owner == "client" else step))

    async def settle(self) -> None:
        """Deliver everything to everybody, until nothing new is said."""
        before = 0
        while before < len(self.stream):
            before = len(self.stream)
            for number in range(before):
                for service in self.services:
                    await self.deliver(number, service)

    def effects(self) -> dict[str, list[object]]:
        return {service.name: service.effects for service in self.services}


def world(refuses: str, *begin: Event) -> World:
    found = World([Service(participant, MemoryDatabase()) for participant in shop(refuses)])
    for event in begin:
        found.store(event, "")
    return found


NOBODY = ""
ANYBODY = st.sampled_from([NOBODY, "stock", "bank", "post"])
DELIVERIES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.booleans()), max_size=40)

ENDS: dict[str, tuple[type[Event], dict[str, list[str]]]] = {
    NOBODY: (Sent, {"stock": ["reserved"], "bank": ["charged"], "post": ["sent"]}),
    "stock": (Short, {"stock": [], "bank": [], "post": []}),
    "bank": (Released, {"stock": ["reserved", "released"], "bank": [], "post": []}),
    "post": (Released, {"stock": ["reserved", "released"], "bank": ["charged", "refunded"], "post": []}),
}


@pytest.mark.parametrize("refuses", ENDS)
async def test_in_order_each_ends_as_it_should(refuses: str) -> None:
    there = world(refuses, Ordered())
    await there.settle()
    end, effects = ENDS[refuses]
    assert type(list(there.stream.values())[-1]) is end
    assert there.effects() == effects


@settings(max_examples=150, deadline=None, print_blob=True)
@given(refuses=ANYBODY, deliveries=DELIVERIES)
async def test_in_any_order_it_is_the_same(refuses: str, deliveries: list[tuple[int, int, bool]]) -> None:
    in_order, there = world(refuses, Ordered()), world(refuses, Ordered())
    await in_order.settle()
    for number, who, dies in deliveries:
        await there.deliver(number, there.services[who], dies)
    await there.settle()
    assert there.stream == in_order.stream
    assert there.effects() == in_order.effects()


@settings(max_examples=150, deadline=None, print_blob=True)
@given(refuses=ANYBODY, deliveries=DELIVERIES)
async def test_what_takes_back_may_come_at_any_time(refuses: str, deliveries: list[tuple[int, int, bool]]) -> None:
    """Even first: then what it would take back never happens."""
    there = world(refuses, Cancelled(), Ordered())
    for number, who, dies in deliveries:
        await there.deliver(number, there.services[who], dies)
    await there.settle()
    stock = there.effects()["stock"]
    assert stock in ([], ["reserved", "released"])
    assert sum(isinstance(event, Released) for event in there.stream.values()) == stock.count("released")
