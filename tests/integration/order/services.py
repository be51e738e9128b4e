"""The three services over databases of their own, and orders that pass through them without a saga."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from antiphon.contracts import Command, Refused
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
from antiphon.participants.testing import Service

PARTICIPANTS: Final = (inventory, billing, shipping)
WHY: Final = "the test says so"

# What the saga's definition leads to, written down once more by hand.
UNDO: Final[Mapping[str, type[ReleaseInventory] | type[RefundCustomer]]] = {
    "inventory": ReleaseInventory,
    "billing": RefundCustomer,
}


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
            try:
                await service.do(command, saga=f"order/{order.order_id}")
            except Refused as refusal:
                self.refusals.append(refusal.reason)
                await self.take_back(order, done)
                return "compensated"
            done.append(service)
        return "completed"

    async def take_back(self, order: OrderPlaced, done: list[Service]) -> None:
        """Undo what was done, last first."""
        for service in reversed(done):
            compensation = UNDO[service.participant.name]
            await service.undo(compensation(order_id=order.order_id, reason=WHY), saga=f"order/{order.order_id}")

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
        opened = {
            each.name: await stack.enter_async_context(Service.open(each, urls[each.name])) for each in PARTICIPANTS
        }
        yield Services(opened["inventory"], opened["billing"], opened["shipping"], urls)
