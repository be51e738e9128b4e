"""Do the books balance? Three ledgers, the state they explain, and how each saga ended must tell one story.

Which of two competing orders got the last piece is nobody's business here. Whoever got it must have paid for it and be
sent it, whoever did not must have nothing, and the sums must add up to what left the shelves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from antiphon.participants.engines import open_engine

from .billing import cards
from .billing import ledger as billing_ledger
from .inventory import ledger as inventory_ledger
from .inventory import stock
from .messages import OrderPlaced
from .shipping import ledger as shipping_ledger
from .shipping import routes

Outcome = Literal["completed", "compensated"]


@dataclass(frozen=True)
class Service:
    """Where one service writes things down, how it words them, and what it should hold for a completed order.

    Args:
        undone: its word for taking an effect back; None where nothing ever is, because it comes at the point of no
            return.
        ledger: its ledger.
        holdings: selects, from its state, what each account holds.
        owed: the account and the amount that a completed order stands for.
    """

    name: str
    done: str
    undone: str | None
    unit: str
    ledger: Table
    holdings: Select[Any, Any]
    owed: Callable[[OrderPlaced], tuple[str, int]]

    def tell(self, lines: Sequence[Line]) -> str:
        """Some lines in words."""
        return ", ".join(f"{abs(line.amount)} {self.unit} of {line.account} ({line.reference})" for line in lines)


INVENTORY: Final = Service(
    name="inventory",
    done="reserved",
    undone="released",
    unit="pieces",
    ledger=inventory_ledger,
    holdings=select(stock.c.item_id, stock.c.initial - stock.c.available),
    owed=lambda order: (order.item_id, order.quantity),
)
BILLING: Final = Service(
    name="billing",
    done="charged",
    undone="refunded",
    unit="cents",
    ledger=billing_ledger,
    holdings=select(cards.c.customer_id, cards.c.charged),
    owed=lambda order: (order.customer_id, order.amount),
)
SHIPPING: Final = Service(
    name="shipping",
    done="scheduled",
    undone=None,
    unit="parcels",
    ledger=shipping_ledger,
    holdings=select(routes.c.country, routes.c.parcels),
    owed=lambda order: (order.country, 1),
)
SERVICES: Final = (INVENTORY, BILLING, SHIPPING)


@dataclass(frozen=True)
class Line:
    """One line of a ledger. `saga` is type and id as in `order/order-0042`; what is undone has a negative amount."""

    saga: str
    entry: str
    account: str
    amount: int
    reference: str


@dataclass(frozen=True)
class Books:
    """All that one service has written down: its ledger, and what its own state says each account holds."""

    service: Service
    lines: Sequence[Line]
    holds: Mapping[str, int]


@dataclass(frozen=True)
class Ended:
    """Every saga that has ended, by its type and id: how, and what order it began with."""

    outcomes: Mapping[str, Outcome]
    orders: Mapping[str, OrderPlaced]

    def count(self, outcome: Outcome) -> int:
        """How many ended like this."""
        return sum(each == outcome for each in self.outcomes.values())

    def completed(self) -> Iterator[OrderPlaced]:
        """The orders of the completed sagas, as far as they are known."""
        completed = (saga for saga, outcome in self.outcomes.items() if outcome == "completed")
        return (self.orders[saga] for saga in completed if saga in self.orders)


@dataclass(frozen=True)
class Total:
    """One service's sums over all sagas; in balance, `done - undone` is what the completed sagas account for."""

    service: Service
    done: int
    undone: int
    expected: int


@dataclass(frozen=True)
class Report:
    """What the comparison found: the sums to show, and a sentence for everything that is wrong."""

    completed: int
    compensated: int
    totals: tuple[Total, ...]
    discrepancies: tuple[str, ...]

    @property
    def is_balanced(self) -> bool:
        """Nothing is lost, doubled or unaccounted for."""
        return not self.discrepancies


async def reconcile(databases: Mapping[str, str], ended: Ended) -> Report:
    """Read the books of all three services and compare them. Call it when no saga is under way.

    Args:
        databases: the URL of each service's database (`sqlite:///…` or `postgresql://…`), by the service's name.
        ended: how every saga ended.
    """
    return compare([await read_books(service, databases[service.name]) for service in SERVICES], ended)


async def read_books(service: Service, url: str) -> Books:
    """What a service has written down in the database at a URL."""
    engine = open_engine(url, writes=False)
    try:
        async with engine.connect() as connection:
            rows: Any = await connection.execute(service.holdings)
            holds: dict[str, int] = dict(rows.all())
            return Books(service, await _read_lines(connection, service.ledger), holds)
    finally:
        await engine.dispose()


async def _read_lines(connection: AsyncConnection, ledger: Table) -> list[Line]:
    columns = [ledger.c[name] for name in Line.__dataclass_fields__]
    return [Line(*row) for row in await connection.execute(select(*columns).order_by(ledger.c.number))]


def compare(books: Sequence[Books], ended: Ended) -> Report:
    """Hold the books of all services against what became of every saga."""
    return Report(
        completed=ended.count("completed"),
        compensated=ended.count("compensated"),
        totals=tuple(_total(book, ended) for book in books),
        discrepancies=tuple(
            f"{book.service.name}: {sentence}"
            for book in books
            for sentence in (*_of_sagas(book, ended), *_of_accounts(book, ended))
        ),
    )


def _total(book: Books, ended: Ended) -> Total:
    return Total(
        service=book.service,
        done=sum(line.amount for line in book.lines if line.amount > 0),
        undone=-sum(line.amount for line in book.lines if line.amount < 0),
        expected=sum(book.service.owed(order)[1] for order in ended.completed()),
    )


# --- each saga by itself ----------------------------------------------------------------------------------------------


def _of_sagas(book: Books, ended: Ended) -> Iterator[str]:
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    for line in book.lines:
        lines[line.saga].append(line)
    for saga in sorted({*lines, *ended.outcomes}):
        for complaint in _of_saga(book.service, lines[saga], ended.outcomes.get(saga), ended.orders.get(saga)):
            yield f"{saga} {complaint}"


def _of_saga(service: Service, lines: list[Line], outcome: Outcome | None, order: OrderPlaced | None) -> Iterator[str]:
    done = [line for line in lines if line.entry == service.done]
    undone = [line for line in lines if line.entry == service.undone]
    yield from _of_lines(service, lines, done, undone)
    match outcome:
        case "completed":
            yield from _of_completed(service, done, undone, order)
        case "compensated" if len(undone) < len(done):
            yield f"was compensated, but {service.tell(done)} is still {service.done}"
        case None:
            yield f"has not ended, or never was, but has lines: {service.tell(lines)}"
        case _:
            pass


def _of_lines(service: Service, lines: list[Line], done: list[Line], undone: list[Line]) -> Iterator[str]:
    """What no outcome excuses: an effect twice, an undoing twice, or one that undoes something else."""
    if strange := [line for line in lines if line.entry not in (service.done, service.undone)]:
        yield f"has lines of an unknown kind ({', '.join(line.entry for line in strange)}): {service.tell(strange)}"
    for entry, found in ((service.done, done), (service.undone, undone)):
        if len(found) > 1:
            yield f"has {len(found)} lines where something was {entry}: {service.tell(found)}"
    if undone and not done:
        yield f"has {service.tell(undone)} {service.undone}, but nothing was {service.done}"
    for effect, mirror in zip(done, undone, strict=False):
        if (effect.account, effect.amount, effect.reference) != (mirror.account, -mirror.amount, mirror.reference):
            yield f"has {service.tell([effect])} {service.done}, but {service.tell([mirror])} {service.undone}"


def _of_completed(service: Service, done: list[Line], undone: list[Line], order: OrderPlaced | None) -> Iterator[str]:
    if not done:
        yield f"completed, but nothing was {service.done}"
    if undone:
        yield f"completed, but {service.tell(undone)} was {service.undone}"
    if order is None:
        yield "completed, but nobody says what was ordered"
    elif any((line.account, line.amount) != service.owed(order) for line in done):
        account, amount = service.owed(order)
        yield f"asked for {amount} {service.unit} of {account}, but {service.tell(done)} was {service.done}"


# --- each account over all sagas --------------------------------------------------------------------------------------


def _of_accounts(book: Books, ended: Ended) -> Iterator[str]:
    """Conservation: what an account holds, what its ledger adds up to, and what completed sagas owe are one number."""
    written, owed = Counter[str](), Counter[str]()
    for line in book.lines:
        written[line.account] += line.amount
    for order in ended.completed():
        account, amount = book.service.owed(order)
        owed[account] += amount
    for account in sorted({*book.holds, *written, *owed}):
        held = book.holds.get(account, 0)
        if not held == written[account] == owed[account]:
            yield (
                f"account {account} holds {held} {book.service.unit}, its ledger adds up to {written[account]}, "
                f"and the completed sagas to {owed[account]}"
            )
