"""Sagas of all styles and three services, which every release can import: nothing but the public names.

What a step does is asked for with the saga's start, by the step's name: `fail` and `hang` until the gate is opened,
`refuse`, or `refuse later`, which fails until then. So sagas stand where a test wants them, for as long as it wants.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, insert

from antiphon.contracts import Command, Compensation, Event, Refused, Retry, Unavailable
from antiphon.coordinator import Choreography, Saga, State
from antiphon.participants import Participant, Transaction

GATE: Final = "ANTIPHON_TEST_GATE"
"""The file whose being there opens the gate."""
RELEASE: Final = "ANTIPHON_TEST_RELEASE"
"""The folder that every module of Antiphon in this process must come from, where one is named."""

PATIENT: Final = Retry(attempts=1_000_000, first_seconds=0.2, factor=1, cap_seconds=0.2)
ONCE: Final = Retry(attempts=1)
SETTINGS: Final[dict[str, Any]] = {
    "version": 1,
    "compensation_retry": ONCE,
    "backoff": Retry(attempts=2, first_seconds=0.5, factor=1, cap_seconds=0.5),
}
LONG: Final = timedelta(hours=1)


def require_release() -> None:
    """End this process if it runs anything of another release than it should."""
    wanted = os.environ.get(RELEASE, "")
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None)
        if wanted and name.startswith("antiphon.") and file and not Path(file).is_relative_to(wanted):
            raise SystemExit(f"{name} is {file}, and not of the release in {wanted}")


require_release()


def is_open() -> bool:
    """Whether the gate is."""
    return Path(os.environ[GATE]).exists()


# --- what travels -----------------------------------------------------------------------------------------------------


class Asked(Event, name="upgrade.asked"):
    """How each step goes is in `how`, by its name; of what undoes it, after `undo `."""

    traveller: str = ""
    items: tuple[str, ...] = ()
    how: dict[str, str] = {}  # noqa: RUF012 - msgspec gives each its own


class Approved(Event, name="upgrade.approved"):
    by: str


class Taken(Event, name="stock.taken", owner="stock"):
    item: str


class Take(Command[Taken], name="stock.take"):
    item: str
    how: str


class PutBack(Compensation[Take], name="stock.put.back"):
    item: str
    how: str


class Charged(Event, name="bank.charged", owner="bank"):
    slip: str
    then: str
    """How whoever hears of it fares."""


class Charge(Command[Charged], name="bank.charge"):
    how: str
    then: str = ""


class Refund(Compensation[Charge], name="bank.refund"):
    how: str


class Stamped(Event, name="bank.stamped", owner="bank"):
    item: str


class Stamp(Command[Stamped], name="bank.stamp"):
    item: str
    how: str


class Shipped(Event, name="post.shipped", owner="post"):
    parcel: str


class Ship(Command[Shipped], name="post.ship"):
    how: str


class Delivered(Event, name="post.delivered", owner="post"):
    parcel: str


class Lost(Event, name="post.lost", owner="post"):
    reason: str


class RelayAsked(Event, name="relay.asked"):
    how: str


class Laid(Event, name="stock.laid", owner="stock"):
    how: str


class Settled(Event, name="bank.settled", owner="bank"):
    slip: str


class Unsettled(Event, name="bank.unsettled", owner="bank"):
    reason: str


class PickedUp(Event, name="stock.picked.up", owner="stock"):
    item: str


# --- the services -----------------------------------------------------------------------------------------------------


def ledger_of(tables: MetaData) -> Table:
    """A line for each effect; nothing keeps two of a kind out."""
    return Table(
        "ledger",
        tables,
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("saga", String, nullable=False),
        Column("step", String, nullable=False),
        Column("what", String, nullable=False),
        Column("marker", String, nullable=False),
    )


async def effect(tx: Transaction, ledger: Table, how: str, what: str, marker: str, step: str = "") -> None:
    """Fare as asked for, and if it goes well write it down."""
    match how:
        case "refuse":
            raise Refused("as it was asked for")
        case "fail" | "refuse later" if not is_open():
            raise Unavailable("the gate is closed")
        case "refuse later":
            raise Refused("as it was asked for, later")
        case "hang":
            while not is_open():
                await asyncio.sleep(0.02)
        case _:
            pass
    saga = f"{tx.saga_type}/{tx.saga_id}"
    await tx.execute(insert(ledger).values(saga=saga, step=step or tx.step, what=what, marker=marker))


stock_tables, bank_tables, post_tables = MetaData(), MetaData(), MetaData()
stock_ledger, bank_ledger, post_ledger = ledger_of(stock_tables), ledger_of(bank_tables), ledger_of(post_tables)
stock = Participant("stock", tables=stock_tables)
bank = Participant("bank", tables=bank_tables)
post = Participant("post", tables=post_tables)
PARTICIPANTS: Final = {each.name: each for each in (stock, bank, post)}


@stock.handles(Take)
async def take(command: Take, tx: Transaction) -> Taken:
    await effect(tx, stock_ledger, command.how, "do", command.item)
    return Taken(item=command.item)


@stock.compensates(Take)
async def put_back(command: PutBack, taken: Taken, tx: Transaction) -> None:
    await effect(tx, stock_ledger, command.how, "undo", command.item)


@bank.handles(Charge)
async def charge(command: Charge, tx: Transaction) -> Charged:
    await effect(tx, bank_ledger, command.how, "do", "")
    return Charged(slip=tx.saga_id, then=command.then)


@bank.compensates(Charge)
async def refund(command: Refund, charged: Charged, tx: Transaction) -> None:
    await effect(tx, bank_ledger, command.how, "undo", charged.slip)


@bank.handles(Stamp)
async def stamp(command: Stamp, tx: Transaction) -> Stamped:
    await effect(tx, bank_ledger, command.how, "do", command.item)
    return Stamped(item=command.item)


@post.handles(Ship)
async def ship(command: Ship, tx: Transaction) -> Shipped:
    """The only one that hangs, since it keeps the database's one writer."""
    await effect(tx, post_ledger, command.how, "do", "")
    return Shipped(parcel=tx.saga_id)


@post.reacts_to(Charged, saga_type="train", refused=Lost)
async def deliver(charged: Charged, tx: Transaction) -> Delivered:
    await effect(tx, post_ledger, charged.then, "do", "", "deliver")
    return Delivered(parcel=tx.saga_id)


@stock.reacts_to(RelayAsked, saga_type="relay")
async def lay(asked: RelayAsked, tx: Transaction) -> Laid:
    await effect(tx, stock_ledger, "", "do", "", "lay")
    return Laid(how=asked.how)


@bank.reacts_to(Laid, saga_type="relay", refused=Unsettled, needs_no_compensation=True)
async def settle(laid: Laid, tx: Transaction) -> Settled:
    await effect(tx, bank_ledger, laid.how, "do", "", "settle")
    return Settled(slip=tx.saga_id)


@stock.reacts_to(Unsettled, saga_type="relay", undoes=lay)
async def pick_up(unsettled: Unsettled, laid: Laid, tx: Transaction) -> PickedUp:
    await effect(tx, stock_ledger, "", "undo", "", "lay")
    return PickedUp(item=tx.saga_id)


# --- the sagas --------------------------------------------------------------------------------------------------------


def how(s: State[Asked], step: str) -> str:
    """How a step shall fare."""
    return s.start.how.get(step, "")


def begun(name: str, deadline: timedelta = LONG, **settings: Any) -> tuple[Saga[Asked], Any]:
    """A saga whose first step takes something from the stock."""
    saga = Saga(Asked, name=name, deadline=deadline, **SETTINGS, **settings)

    @saga.step(retry=PATIENT)
    def take_item(s: State[Asked]) -> Take:
        return Take(item="item", how=how(s, "take_item"))

    @take_item.compensation
    def put_item_back(s: State[Asked]) -> PutBack:
        return PutBack(item="item", how=how(s, "undo take_item"))

    return saga, take_item


def charged_after(saga: Saga[Asked], before: Any, retry: Retry = ONCE) -> Any:
    """A step that charges, with its refund."""

    @saga.step(after=before, retry=retry)
    def charge_card(s: State[Asked]) -> Charge:
        return Charge(how=how(s, "charge_card"))

    @charge_card.compensation
    def refund_card(s: State[Asked]) -> Refund:
        return Refund(how=how(s, "undo charge_card"))

    return charge_card


def make_trip(name: str = "trip") -> Saga[Asked]:
    """Take, charge, ship past which nothing turns, stamp."""
    saga, take_item = begun(name)
    charge_card = charged_after(saga, take_item)

    @saga.step(after=charge_card, pivot=True, retry=PATIENT)
    def ship_parcel(s: State[Asked]) -> Ship:
        return Ship(how=how(s, "ship_parcel"))

    @saga.step(after=ship_parcel, retry=ONCE)
    def stamp_slip(s: State[Asked]) -> Stamp:
        return Stamp(item="slip", how=how(s, "stamp_slip"))

    assert saga.steps[-1] is stamp_slip
    return saga


def make_hurried() -> Saga[Asked]:
    """A parcel that must be on its way soon, or it is asked what became of it."""
    saga, take_item = begun("hurried")

    @saga.step(after=take_item, pivot=True, timeout=timedelta(seconds=0.5), retry=PATIENT)
    def ship_parcel(s: State[Asked]) -> Ship:
        return Ship(how=how(s, "ship_parcel"))

    assert saga.steps[-1] is ship_parcel
    return saga


def make_basket() -> Saga[Asked]:
    """Two lists, one before the point of no return and one after it."""
    saga = Saga(Asked, name="basket", deadline=LONG, **SETTINGS)

    @saga.each(at_most=10, retry=PATIENT)
    def take_items(s: State[Asked]) -> list[Take]:
        return [Take(item=item, how=how(s, item)) for item in s.start.items]

    @take_items.compensation
    def put_items_back(s: State[Asked], taken: Take) -> PutBack:
        return PutBack(item=taken.item, how=how(s, f"undo {taken.item}"))

    charge_card = charged_after(saga, take_items)

    @saga.step(after=charge_card, pivot=True, retry=PATIENT)
    def ship_parcel(s: State[Asked]) -> Ship:
        return Ship(how=how(s, "ship_parcel"))

    @saga.each(after=ship_parcel, at_most=10, retry=ONCE)
    def stamp_items(s: State[Asked]) -> list[Stamp]:
        return [Stamp(item=item, how=how(s, f"stamp {item}")) for item in s.start.items]

    assert saga.steps[-1] is stamp_items
    return saga


def make_approval(name: str = "approval", deadline: timedelta = LONG) -> Saga[Asked]:
    """A person's word between goods and money."""
    saga, take_item = begun(name, deadline)
    charged_after(saga, saga.signal(Approved, after=take_item))
    return saga


def make_rest() -> Saga[Asked]:
    """Some time between goods and money: more than it takes to fill a store and to stop those who did."""
    saga, take_item = begun("rest")
    charged_after(saga, saga.wait("rested", REST, after=take_item))
    return saga


def make_broken() -> Saga[Asked]:
    """A step whose function raises while the gate is closed."""
    saga, take_item = begun("broken")

    @saga.step(after=take_item, needs_no_compensation=True)
    def stamp_slip(s: State[Asked]) -> Stamp:
        if not is_open():
            raise ZeroDivisionError("the gate is closed")
        return Stamp(item="slip", how="")

    assert saga.steps[-1] is stamp_slip
    return saga


def make_package() -> Saga[Asked]:
    """A saga of its own between goods and money."""
    saga, take_item = begun("package")

    @saga.child(seat, after=take_item)
    def fly(s: State[Asked]) -> Asked:
        return Asked(how={step.removeprefix("fly "): fares for step, fares in s.start.how.items() if "fly " in step})

    charged_after(saga, fly, PATIENT)
    return saga


def by_traveller(start: Asked) -> Iterable[str]:
    """One saga of a traveller at a time."""
    return [start.traveller]


def make_exclusive() -> Saga[Asked]:
    """A person's word, for one saga of a traveller at a time."""
    saga, take_item = begun("exclusive", locks=by_traveller)
    saga.signal(Approved, after=take_item)
    return saga


def make_train() -> Saga[Asked]:
    """Charge, past which nobody turns, and wait for what the post does by itself."""
    saga, take_item = begun("train")

    @saga.step(after=take_item, pivot=True, retry=PATIENT)
    def charge_card(s: State[Asked]) -> Charge:
        return Charge(how="", then=how(s, "deliver"))

    @charge_card.compensation
    def refund_card(s: State[Asked]) -> Refund:
        return Refund(how="")

    saga.awaits(Delivered, after=charge_card, unless=Lost)
    return saga


REST: Final = timedelta(seconds=12)
HASTE: Final = timedelta(seconds=12)

seat, _ = begun("seat")
trip, quiet, hurried, basket, broken = make_trip(), make_trip("quiet"), make_hurried(), make_basket(), make_broken()
approval, hasty, rest = make_approval(), make_approval("hasty", HASTE), make_rest()
package, exclusive, train = make_package(), make_exclusive(), make_train()
relay = Choreography(
    RelayAsked,
    name="relay",
    version=1,
    deadline=timedelta(seconds=2),
    flow={RelayAsked: "stock", Laid: "bank", Unsettled: "stock"},
    completes=Settled,
    compensates=PickedUp,
    turns=Unsettled,
)

SAGAS: Final[dict[str, Saga[Any] | Choreography[Any]]] = {
    each.name: each
    for each in (
        trip,
        quiet,
        hurried,
        basket,
        broken,
        approval,
        hasty,
        rest,
        seat,
        package,
        exclusive,
        train,
        relay,
    )
}
