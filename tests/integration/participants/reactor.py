"""A small participant that reacts to events and does what a test tells it to, over any of the databases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from antiphon.contracts import Event, Retry
from antiphon.participants import Participant, Transaction
from antiphon.participants.reaction import REACTION_RETRY

from .stock import nothing, tables, write


class Ordered(Event, name="shop.ordered"):
    pieces: int = 1


class Browsed(Event, name="shop.browsed"):
    """Starts sagas of the same type, and nobody reacts to it."""


class Hurry(Event, name="shop.hurry"):
    """A client sends it to a saga of the shop that is under way."""


class Paid(Event, name="billing.paid", owner="billing"):
    amount: int = 7


class PaidInCoins(Event, name="billing.paid", version=2, owner="billing"):
    coins: int = 7


class Unpaid(Event, name="billing.unpaid", owner="billing"):
    reason: str = "declined"


class Returned(Event, name="shipping.returned", owner="shipping"):
    pass


class SetAside(Event, name="stock.set-aside", owner="stock"):
    reservation_id: str


class Short(Event, name="stock.short", owner="stock"):
    reason: str


class PutBack(Event, name="stock.put-back", owner="stock"):
    reservation_id: str


class Thanked(Event, name="stock.thanked", owner="stock"):
    amount: int


Then = Callable[[Transaction], Awaitable[None]]


@dataclass
class Reactor:
    """The participant, and what it was asked to do while it does it."""

    on_ordered: Then = nothing
    on_unpaid: Then = nothing
    on_paid: Then = nothing
    retry: Retry = REACTION_RETRY
    is_grateful: bool = True
    calls: list[str] = field(default_factory=list[str])
    reservation_id: str = "r-1"

    def __post_init__(self) -> None:
        self.participant = stock = Participant("stock", tables=tables)

        @stock.reacts_to(Ordered, saga_type="shop", refused=Short, retry=self.retry)
        async def set_aside(ordered: Ordered, tx: Transaction) -> SetAside:
            self.calls.append("set aside")
            await write(tx, "set aside")
            await self.on_ordered(tx)
            return SetAside(reservation_id=self.reservation_id)

        @stock.reacts_to(Unpaid, saga_type="shop", undoes=set_aside, retry=self.retry)
        async def put_back_unpaid(unpaid: Unpaid, there: SetAside, tx: Transaction) -> PutBack:
            self.calls.append("put back")
            await write(tx, "put back")
            await self.on_unpaid(tx)
            return PutBack(reservation_id=there.reservation_id)

        @stock.reacts_to(Returned, saga_type="shop", undoes=set_aside, retry=self.retry)
        async def put_back_returned(returned: Returned, there: SetAside, tx: Transaction) -> None:
            self.calls.append("put back")
            await write(tx, "put back")

        @stock.reacts_to(Paid, retry=self.retry)
        async def thank(paid: Paid, tx: Transaction) -> Thanked | None:
            self.calls.append("thank")
            await write(tx, "thanked")
            await self.on_paid(tx)
            return Thanked(amount=paid.amount) if self.is_grateful else None

        @stock.reacts_to(Hurry, saga_type="shop", signal=True, needs_no_compensation=True)
        async def hurry(event: Hurry, tx: Transaction) -> Thanked:
            self.calls.append("hurry")
            await write(tx, "hurried")
            return Thanked(amount=0)
