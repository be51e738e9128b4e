"""Sagas over lists without an order, as several deploys make them, and services that keep a ledger of what they did.

`python -m tests.chaos.baskets` is a coordinator for all of them; DEPLOY says which deploy it is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, get_args
from uuid import uuid4

import msgspec
import uvloop

from antiphon.contracts import Command, Compensation, Event, Refused, Retry, Unavailable
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.runtime.serve import serve
from antiphon.participants import Participant, Transaction
from tests.support.logs import plain_logs

Deploy = Literal["as they come", "sorted", "one left out"]
"""How the author's functions make lists of sets: without an order, then with one, then without an element of it. The
shape of the definitions is the same."""
DEPLOYS: Final[tuple[Deploy, ...]] = get_args(Deploy)

DEADLINE: Final = timedelta(hours=1)
SOON: Final = Retry(attempts=1000, first_seconds=3.0, factor=1.0, cap_seconds=3.0, jitter=0)
AT_A_PERSONS_WORD: Final = Retry(attempts=1, first_seconds=3600.0, factor=1.0, cap_seconds=3600.0, jitter=0)
ONCE: Final = Retry(attempts=1)
IDLE_SECONDS: Final = 600.0
DEPLOY: Final = "DEPLOY"


# --- what travels -----------------------------------------------------------------------------------------------------


class BasketFilled(Event, name="basket.filled"):
    """The same items twice, as a set and as a list."""

    items: frozenset[str]
    listed: list[str]
    is_refused: bool = False


class BasketConfirmed(Event, name="basket.confirmed"):
    by: str


class ItemReserved(Event, name="item.reserved", owner="shelf"):
    item: str


class ReserveItem(Command[ItemReserved], name="item.reserve"):
    item: str


class ReleaseItem(Compensation[ReserveItem], name="item.release"):
    item: str


class BasketPaid(Event, name="basket.paid", owner="till"):
    receipt: str


class PayBasket(Command[BasketPaid], name="basket.pay"):
    is_refused: bool


class NoteBasket(Command[BasketPaid], name="basket.note"):
    note: str
    at_ns: int


class StrikeNote(Compensation[NoteBasket], name="basket.strike"):
    note: str
    at_ns: int


class PostCard(Command[BasketPaid], name="basket.post"):
    note: str
    at_ns: int


class ThanksSaid(Event, name="thanks.said"):
    note: str
    at_ns: int


class SayThanks(Command[BasketPaid], name="thanks.say"):
    note: str


# --- the services -----------------------------------------------------------------------------------------------------


@dataclass
class Shop:
    """The two services, with what they did in the order they did it.

    Both are in the test's process, which is never killed: who dies in these tests are coordinators.
    """

    reserved: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Saga and item of each effect."""
    released: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Saga, the item that the compensation names, and the item that was reserved there."""
    notes: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    """Step, what it noted and when, of each effect."""
    is_stuck: bool = False
    """While it is, half of the items cannot be reserved, and nothing can be noted or taken back."""
    failed: int = 0
    """How many commands failed because of that."""

    def participants(self) -> list[Participant]:
        """The services' handlers."""
        return [self._shelf(), self._till()]

    def fail_if_stuck(self) -> None:
        """Be unavailable."""
        if self.is_stuck:
            self.failed += 1
            raise Unavailable("stuck")

    def _shelf(self) -> Participant:
        shelf = Participant("shelf")

        @shelf.handles(ReserveItem)
        async def reserve(command: ReserveItem, tx: Transaction) -> ItemReserved:
            if is_odd(command.item):
                self.fail_if_stuck()
            self.reserved.append((f"{tx.saga_type}/{tx.saga_id}", command.item))
            return ItemReserved(item=command.item)

        @shelf.compensates(ReserveItem)
        async def release(command: ReleaseItem, reserved: ItemReserved, tx: Transaction) -> None:
            self.released.append((f"{tx.saga_type}/{tx.saga_id}", command.item, reserved.item))

        return shelf

    def _till(self) -> Participant:
        till = Participant("till")

        @till.handles(PayBasket)
        async def pay(command: PayBasket, tx: Transaction) -> BasketPaid:
            if command.is_refused:
                raise Refused("declined")
            return BasketPaid(receipt=tx.saga_id)

        @till.handles(NoteBasket)
        async def note(command: NoteBasket, tx: Transaction) -> BasketPaid:
            self.notes.append((tx.step, command.note, command.at_ns))
            return BasketPaid(receipt=command.note)

        @till.compensates(NoteBasket)
        async def strike(command: StrikeNote, noted: BasketPaid, tx: Transaction) -> None:
            self.fail_if_stuck()
            self.notes.append((f"undo {tx.step}", command.note, command.at_ns))

        @till.handles(PostCard)
        async def post(command: PostCard, tx: Transaction) -> BasketPaid:
            self.fail_if_stuck()
            self.notes.append((tx.step, command.note, command.at_ns))
            return BasketPaid(receipt=command.note)

        @till.handles(SayThanks)
        async def say(command: SayThanks, tx: Transaction) -> BasketPaid:
            if self.is_stuck:
                self.failed += 1
                raise Refused("nobody is there")
            self.notes.append((tx.step, command.note, 0))
            return BasketPaid(receipt=command.note)

        return till


def is_odd(item: str) -> bool:
    """Whether an item is one of those that a shelf which is stuck does not give."""
    return int(item.rpartition("-")[2]) % 2 == 1


# --- the sagas --------------------------------------------------------------------------------------------------------


def lined_up(deploy: Deploy, items: Collection[str]) -> list[str]:
    """The items as the author's function of a deploy goes through them."""
    if deploy == "as they come":
        return list(items)
    return sorted(items)[1:] if deploy == "one left out" else sorted(items)


def frozen(deploy: Deploy) -> Saga[BasketFilled]:
    """Reserve what a set holds, then pay."""
    saga = Saga(BasketFilled, name="frozen", version=1, deadline=DEADLINE, backoff=SOON)

    @saga.each(at_most=30)
    def reserve_items(s: State[BasketFilled]) -> list[ReserveItem]:
        return [ReserveItem(item=item) for item in lined_up(deploy, s.start.items)]

    @reserve_items.compensation
    def release_items(s: State[BasketFilled], reserved: ReserveItem) -> ReleaseItem:
        return ReleaseItem(item=reserved.item)

    @saga.step(after=reserve_items, pivot=True)
    def pay_basket(s: State[BasketFilled]) -> PayBasket:
        return PayBasket(is_refused=s.start.is_refused)

    return saga


def listed(deploy: Deploy) -> Saga[BasketFilled]:
    """Reserve each of a list once, then pay."""
    saga = Saga(BasketFilled, name="listed", version=1, deadline=DEADLINE, backoff=SOON)

    @saga.each(at_most=30)
    def reserve_items(s: State[BasketFilled]) -> list[ReserveItem]:
        return [ReserveItem(item=item) for item in lined_up(deploy, set(s.start.listed))]

    @reserve_items.compensation
    def release_items(s: State[BasketFilled], reserved: ReserveItem) -> ReleaseItem:
        return ReleaseItem(item=reserved.item)

    @saga.step(after=reserve_items, pivot=True)
    def pay_basket(s: State[BasketFilled]) -> PayBasket:
        return PayBasket(is_refused=s.start.is_refused)

    return saga


def held(deploy: Deploy) -> Saga[BasketFilled]:
    """Reserve what a set holds, and wait for a word."""
    saga = Saga(BasketFilled, name="held", version=1, deadline=DEADLINE, backoff=SOON)

    @saga.each(at_most=30)
    def reserve_items(s: State[BasketFilled]) -> list[ReserveItem]:
        return [ReserveItem(item=item) for item in lined_up(deploy, s.start.items)]

    @reserve_items.compensation
    def release_items(s: State[BasketFilled], reserved: ReserveItem) -> ReleaseItem:
        return ReleaseItem(item=reserved.item)

    saga.signal(BasketConfirmed, after=reserve_items)
    return saga


def paid(deploy: Deploy) -> Saga[BasketFilled]:
    """Pay first: what a set holds is then reserved whatever it takes."""
    saga = Saga(BasketFilled, name="paid", version=1, deadline=DEADLINE, backoff=SOON)

    @saga.step(pivot=True)
    def pay_basket(s: State[BasketFilled]) -> PayBasket:
        return PayBasket(is_refused=s.start.is_refused)

    @saga.each(after=pay_basket, at_most=30, retry=ONCE)
    def reserve_items(s: State[BasketFilled]) -> list[ReserveItem]:
        return [ReserveItem(item=item) for item in lined_up(deploy, s.start.items)]

    return saga


def thanks() -> Saga[ThanksSaid]:
    """A child that says what it began with."""
    saga = Saga(ThanksSaid, name="thanks", version=1, deadline=DEADLINE)

    @saga.step(needs_no_compensation=True)
    def say_thanks(s: State[ThanksSaid]) -> SayThanks:
        return SayThanks(note=s.start.note)

    return saga


def chance(name: str, backoff: Retry) -> Saga[BasketFilled]:
    """Steps whose functions draw lots and look at the clock: each says something else whenever it is asked."""
    saga = Saga(
        BasketFilled,
        name=name,
        version=1,
        deadline=DEADLINE,
        backoff=backoff,
        compensation_retry=ONCE,
    )

    @saga.step()
    def note_basket(s: State[BasketFilled]) -> NoteBasket:
        return NoteBasket(note=uuid4().hex, at_ns=time.time_ns())

    @note_basket.compensation
    def strike_note(s: State[BasketFilled]) -> StrikeNote:
        return StrikeNote(note=uuid4().hex, at_ns=time.time_ns())

    @saga.step(after=note_basket, pivot=True)
    def pay_basket(s: State[BasketFilled]) -> PayBasket:
        return PayBasket(is_refused=s.start.is_refused)

    @saga.step(after=pay_basket, retry=ONCE)
    def post_card(s: State[BasketFilled]) -> PostCard:
        return PostCard(note=uuid4().hex, at_ns=time.time_ns())

    @saga.child(THANKS, after=pay_basket)
    def say_thanks(s: State[BasketFilled]) -> ThanksSaid:
        return ThanksSaid(note=uuid4().hex, at_ns=time.time_ns())

    return saga


THANKS: Final = thanks()
BY_ITSELF: Final = chance("by_itself", SOON)
BY_A_PERSON: Final = chance("by_a_person", AT_A_PERSONS_WORD)


def deployed(deploy: Deploy) -> dict[str, Saga[Any]]:
    """All sagas, as a deploy makes them."""
    made = (frozen(deploy), listed(deploy), held(deploy), paid(deploy), THANKS, BY_ITSELF, BY_A_PERSON)
    return {saga.name: saga for saga in made}


def main() -> None:
    """The entry point of a coordinator."""
    plain_logs(sys.stderr)
    deploy = msgspec.convert(os.environ[DEPLOY], Deploy)
    uvloop.run(serve(os.environ["NATS_URL"], deployed(deploy).values(), idle_seconds=IDLE_SECONDS))


if __name__ == "__main__":
    main()
