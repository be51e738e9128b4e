"""The three services over databases of their own. Commands pass the inbox as in a worker, but without a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from antiphon.contracts import Command, Compensation, Event, Retry, SagaKey
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.messages import Refusal
from antiphon.contracts.wire import CommandAddress
from antiphon.order.billing import billing
from antiphon.order.inventory import inventory
from antiphon.order.messages import (
    ChargeCustomer,
    OrderPlaced,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
)
from antiphon.order.reconciliation import Outcome
from antiphon.order.shipping import shipping
from antiphon.participants import Database, Participant, open_database
from antiphon.participants.perform import Asked, carry_out, take_back

PARTICIPANTS: Final = (inventory, billing, shipping)
WHY: Final = "the test says so"

# What the saga's definition leads to, written down once more by hand.
UNDO: Final[Mapping[str, type[Compensation[Any]]]] = {
    "inventory": ReleaseInventory,
    "billing": RefundCustomer,
}


@dataclass
class Service:
    """One service, its database open."""

    participant: Participant
    database: Database

    async def do(self, command: Command[Any], saga_id: str, attempt: int = 1) -> Event | Refusal:
        """Deliver a command, and read the answer."""
        handler = self.participant.handlers[command.__contract__.type]
        asked = Asked(self._address(saga_id, "do", attempt), command, Retry(), sequence=1, deliveries=1)
        answer = await carry_out(handler, asked, self.database, seal=lambda _: None)
        if answer.type == handler.reply.__contract__.type:
            return unpack_raw(answer.data, handler.reply)
        return unpack_raw(answer.data, Refusal)

    async def undo(self, compensation: Compensation[Any], saga_id: str, attempt: int = 1) -> None:
        """Deliver a compensation."""
        handler = self.participant.compensations[compensation.__contract__.type]
        asked = Asked(self._address(saga_id, "undo", attempt), compensation, Retry(), sequence=2, deliveries=1)
        await take_back(handler, asked, self.database, seal=lambda _: None)

    def _address(self, saga_id: str, direction: Any, attempt: int) -> CommandAddress:
        return CommandAddress(SagaKey.of("order", saga_id), self.participant.name, "step", direction, attempt)


@dataclass
class Services:
    """All three, and where their databases are."""

    inventory: Service
    billing: Service
    shipping: Service
    urls: dict[str, str]
    refusals: list[str] = field(default_factory=list)

    async def handle(self, order: OrderPlaced) -> Outcome:
        """Take an order as far as it goes, and back if it does not go through."""
        done: list[Service] = []
        for service, command in self._commands(order):
            answer = await service.do(command, order.order_id)
            if isinstance(answer, Refusal):
                self.refusals.append(answer.reason)
                await self.take_back(order, done)
                return "compensated"
            done.append(service)
        return "completed"

    async def take_back(self, order: OrderPlaced, done: list[Service]) -> None:
        """Undo what was done, last first."""
        for service in reversed(done):
            compensation = UNDO[service.participant.name]
            await service.undo(compensation(order_id=order.order_id, reason=WHY), order.order_id)

    def _commands(self, order: OrderPlaced) -> list[tuple[Service, Command[Any]]]:
        return [(self.inventory, reserve(order)), (self.billing, charge(order)), (self.shipping, schedule(order))]


def reserve(order: OrderPlaced) -> ReserveInventory:
    return ReserveInventory(order_id=order.order_id, item_id=order.item_id, quantity=order.quantity)


def charge(order: OrderPlaced) -> ChargeCustomer:
    return ChargeCustomer(
        order_id=order.order_id, customer_id=order.customer_id, amount=order.amount, reservation_id="any"
    )


def schedule(order: OrderPlaced) -> ScheduleShipping:
    return ScheduleShipping(
        order_id=order.order_id,
        reservation_id="any",
        recipient=order.recipient,
        address=order.address,
        country=order.country,
    )


@asynccontextmanager
async def services(urls: dict[str, str]) -> AsyncIterator[Services]:
    """Open the databases at these URLs, by the services' names, and close them after the block."""
    async with AsyncExitStack() as stack:
        opened: dict[str, Service] = {}
        for participant in PARTICIPANTS:
            database = open_database(urls[participant.name])
            stack.push_async_callback(database.close)
            await database.open(participant.tables)
            opened[participant.name] = Service(participant, database)
        yield Services(opened["inventory"], opened["billing"], opened["shipping"], urls)
