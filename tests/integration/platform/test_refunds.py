"""Refunds that are stuck, resolved by a person while the machine tries on: what is resolved it does not pay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import pytest

from antiphon.contracts import Command, Compensation, Event, Refused, Retry, Unavailable
from antiphon.contracts.payloads import Request
from antiphon.coordinator import Saga, State
from antiphon.coordinator.client.client import Handle
from antiphon.coordinator.client.operator import SagaVerbs
from antiphon.participants import Outside, Participant, Transaction, Worker, open_database
from tests.integration.platform.test_coordinator import Company, company

SAGAS = 60
NEVER = Retry(attempts=1, first_seconds=100_000, factor=1, cap_seconds=100_000)
"""Nothing is tried again by itself while the test lasts."""
ONCE = Retry(attempts=1)


class Ordered(Event, name="shop.ordered"):
    number: int


class Charged(Event, name="till.charged", owner="till"):
    number: int


class Charge(Command[Charged], name="till.charge"):
    number: int


class Refund(Compensation[Charge], name="till.refund"):
    number: int


class Shipped(Event, name="till.shipped", owner="till"):
    pass


class Ship(Command[Shipped], name="till.ship"):
    pass


def shop(backoff: Retry) -> Saga[Ordered]:
    """Orders that are charged, cannot be shipped, and so are refunded; with the pauses between refunds that fail."""
    saga = Saga(Ordered, name="shop", version=1, deadline=timedelta(days=1), backoff=backoff, compensation_retry=ONCE)

    @saga.step()
    def charge(s: State[Ordered]) -> Charge:
        return Charge(number=s.start.number)

    @charge.compensation
    def refund(s: State[Ordered]) -> Refund:
        return Refund(number=s.start.number)

    @saga.step(after=charge, needs_no_compensation=True)
    def ship(s: State[Ordered]) -> Ship:
        return Ship()

    return saga


SHOP = shop(NEVER)


class Gateway:
    """What pays refunds: away at first, then back, and as slow as such things are."""

    def __init__(self) -> None:
        self.is_there = False
        self.paid: Counter[int] = Counter()
        self._keys = set[str]()
        self._chance = Random(5)

    async def refund(self, number: int, key: str) -> None:
        """Pay once for a key."""
        if not self.is_there:
            raise Unavailable("the gateway is away")
        await asyncio.sleep(self._chance.random() * 0.03)
        if key not in self._keys:
            self._keys.add(key)
            self.paid[number] += 1


def till(gateway: Gateway, is_outside: bool) -> Participant:
    participant = Participant("till")

    @participant.handles(Charge)
    async def charge_card(command: Charge, tx: Transaction) -> Charged:
        return Charged(number=command.number)

    @participant.handles(Ship)
    async def send_parcel(command: Ship, tx: Transaction) -> Shipped:
        raise Refused("nothing is left")

    if is_outside:

        @participant.compensates(Charge, outside=True)
        async def pay_outside(command: Refund, charged: Charged, out: Outside) -> None:
            await gateway.refund(command.number, out.idempotency_key)

    else:

        @participant.compensates(Charge)
        async def pay(command: Refund, charged: Charged, tx: Transaction) -> None:
            await gateway.refund(command.number, tx.idempotency_key)

    return participant


async def works(there: Company, stack: AsyncExitStack, participant: Participant, file: Path) -> Worker:
    """A process of the participant, with this file as its database."""
    database = open_database(f"sqlite:///{file}")
    await database.open(participant.tables)
    stack.push_async_callback(database.close)
    worker = Worker(participant, await there.link(participant.name), database)
    await worker.start()
    stack.push_async_callback(worker.drain, 5.0)
    return worker


class Clerk:
    """A person who has refunded by hand and says so, having looked at the gateway where that was asked for."""

    def __init__(self, asks: SagaVerbs, gateway: Gateway, number: int) -> None:
        self._asks, self._gateway, self._number = asks, gateway, number

    async def resolve(self) -> Request:
        """Resolve the refund, as often as it takes to know whose it is."""
        request = await self._asks.resolve("charge", "refunded by hand")
        while "naming claim" in request.rejected and not self._gateway.paid[self._number]:
            claim = int(request.rejected.rpartition(" ")[2])
            request = await self._asks.resolve("charge", "looked, and refunded by hand", claim=claim)
        return request


@pytest.mark.parametrize("is_outside", [False, True], ids=["in the transaction", "outside"])
async def test_of_sixty_stuck_refunds_none_that_is_resolved_is_paid_by_the_machine(
    tmp_path: Path, is_outside: bool
) -> None:
    gateway = Gateway()
    async with company(tmp_path, "plain", ("till",)) as there, AsyncExitStack() as stack:
        await there.coordinate(sagas=[SHOP])
        await there.coordinate(sagas=[SHOP])
        await works(there, stack, till(gateway, is_outside), tmp_path / "till.db")
        client, ada = await there.client(), await there.client("operator")
        handles = [await client.start(SHOP, Ordered(number=n), id=f"order-{n}") for n in range(SAGAS)]
        await asyncio.gather(*(stuck(handle) for handle in handles))
        gateway.is_there = True
        operator = ada.operator("ada", timeout=120)
        asks = [operator.saga(SHOP, handle.id) for handle in handles]
        chance = Random(7)
        clerks = [Clerk(each, gateway, number) for number, each in enumerate(asks)]
        retries = [later(4 * chance.random(), partial(each.retry, "charge")) for each in asks]
        resolves = [later(chance.random(), each.resolve) for each in clerks]
        _, requests = await asyncio.gather(asyncio.gather(*retries), asyncio.gather(*resolves))
        for handle in handles:
            assert (await handle.result(timeout=120)).outcome == "compensated"
    by_hand = {number for number, request in enumerate(requests) if request.is_accepted}
    assert 0 < len(by_hand) < SAGAS
    assert {number: gateway.paid[number] for number in range(SAGAS)} == {
        number: 0 if number in by_hand else 1 for number in range(SAGAS)
    }


async def later(seconds: float, ask: Callable[[], Awaitable[Request]]) -> Request:
    """Ask a moment later, so that now the retry is first and now the resolve."""
    await asyncio.sleep(seconds)
    return await ask()


async def stuck(handle: Handle) -> None:
    """Wait until a saga waits for a person."""
    async with asyncio.timeout(120):
        while True:
            try:
                if (await handle.status()).parked:
                    return
            except Exception as error:
                if "no journal yet" not in str(error) and "there is no saga" not in str(error):
                    raise
            await asyncio.sleep(0.05)
