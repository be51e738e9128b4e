"""Do the books balance? Four ledgers, the state that they explain, what two other companies remember, and how each trip
ended must tell one story."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import Executable, Table, select

from antiphon.participants.engines import open_engine

from .airline import flights
from .airline import ledger as airline_ledger
from .cars import fleet
from .cars import ledger as cars_ledger
from .hotel import ledger as hotel_ledger
from .hotel import rooms
from .messages import TRIP, TripRequested
from .partners import read_requests
from .payments import accounts
from .payments import ledger as payments_ledger

Outcome = Literal["completed", "compensated"]


@dataclass(frozen=True)
class Service:
    """Where one service writes things down.

    Args:
        name: the participant's.
        ledger: its ledger.
        state: selects the account's key, and a column for each kind of account.
        kinds: what the accounts of these columns are called before the key; empty where the key alone is the account.
    """

    name: str
    ledger: Table
    state: Executable
    kinds: tuple[str, ...]


SERVICES: Final = (
    Service(
        "airline",
        airline_ledger,
        select(flights.c.destination, flights.c.seats, flights.c.bags, flights.c.tickets),
        ("seats ", "bags ", "tickets "),
    ),
    Service(
        "hotel", hotel_ledger, select(rooms.c.destination, rooms.c.held, rooms.c.confirmed), ("held ", "confirmed ")
    ),
    Service(
        "cars",
        cars_ledger,
        select(fleet.c.destination, fleet.c.cars_initial - fleet.c.cars, fleet.c.drivers_initial - fleet.c.drivers),
        ("cars ", "drivers "),
    ),
    Service("payments", payments_ledger, select(accounts.c.customer_id, accounts.c.charged), ("",)),
)

COMPANIES: Final = {"hotels": ("hotel", "held "), "gateway": ("payments", "")}
"""Of each company outside, the service that asks it, and what that calls its accounts."""


@dataclass(frozen=True)
class Line:
    """One line of a ledger."""

    saga: str
    step: str
    trip_id: str
    account: str
    amount: int


@dataclass(frozen=True)
class Books:
    """All that one service has written down: its ledger, and what its own state says each account holds."""

    service: str
    lines: Sequence[Line]
    holds: Mapping[str, int]


@dataclass(frozen=True)
class Ended:
    """How trips ended.

    Args:
        outcomes: of every trip that has ended, by its id.
        trips: all that were asked for. One that has not ended waits for a person, and may hold anything.
    """

    outcomes: Mapping[str, Outcome]
    trips: Mapping[str, TripRequested]

    def is_open(self, trip_id: str) -> bool:
        """Whether a trip was asked for, and has not ended."""
        return trip_id in self.trips and trip_id not in self.outcomes


async def reconcile(databases: Mapping[str, str], partners: Path, ended: Ended) -> list[str]:
    """Compare the books of all services, and say what is wrong, a sentence for each. Call it when no saga is under way.

    Args:
        databases: the URL of each service's database (`sqlite:///…` or `postgresql://…`), by the service's name.
        partners: the file in which the other companies remember what they did.
        ended: how every trip ended.
    """
    books = [await read_books(service, databases[service.name]) for service in SERVICES]
    return [*compare(books, ended), *compare_partners(books, read_requests(partners), ended)]


async def read_books(service: Service, url: str) -> Books:
    """What a service has written down in the database at a URL."""
    engine = open_engine(url, writes=False)
    columns = [service.ledger.c[name] for name in Line.__dataclass_fields__]
    try:
        async with engine.connect() as connection:
            lines = [Line(*row) for row in await connection.execute(select(*columns).order_by(service.ledger.c.number))]
            rows = (await connection.execute(service.state)).all()
    finally:
        await engine.dispose()
    holds = {f"{kind}{row[0]}": row[place] for row in rows for place, kind in enumerate(service.kinds, 1)}
    return Books(service.name, lines, holds)


def owed(trip: TripRequested) -> dict[str, Counter[str]]:
    """What a completed trip stands for: by service, how much on which account."""
    place, travellers = trip.destination, len(trip.travellers)
    airline = {f"seats {place}": travellers, f"bags {place}": trip.bags, f"tickets {place}": travellers}
    return {
        "airline": Counter({account: amount for account, amount in airline.items() if amount}),
        "hotel": Counter({f"held {place}": trip.nights, f"confirmed {place}": trip.nights}),
        "cars": Counter({f"cars {place}": 1, f"drivers {place}": 1}),
        "payments": Counter({trip.customer_id: trip.amount}),
    }


def compare(books: Sequence[Books], ended: Ended) -> Iterator[str]:
    """Hold the books of all services against what became of every trip."""
    for each in books:
        yield from (f"{each.service}: {sentence}" for sentence in (*_of_trips(each, ended), *_of_accounts(each)))


def compare_partners(
    books: Sequence[Books], requests: Sequence[tuple[str, str, str, int]], ended: Ended
) -> Iterator[str]:
    """Hold what the other companies did against the ledgers of the services that asked them."""
    by_service = {each.service: each for each in books}
    for company, (service, kind) in COMPANIES.items():
        told, did = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for line in by_service[service].lines:
            if not kind or line.account.startswith(kind):
                told[line.trip_id, line.account] += line.amount
        for key, whose, account, amount in requests:
            if whose == company:
                did[key.split("/")[1], f"{kind}{account}"] += amount
        for trip_id, account in sorted({*told, *did}):
            here, there = told[trip_id, account], did[trip_id, account]
            if here != there and not ended.is_open(trip_id):
                yield f"{company}: trip {trip_id} has {there} on {account}, and {service} has written down {here}"


def _of_trips(books: Books, ended: Ended) -> Iterator[str]:
    """Each trip by itself: what its lines add up to, and that none is there twice."""
    sums = defaultdict[str, Counter[str]](Counter[str])
    lines = Counter[tuple[str, str, bool]]()
    for line in books.lines:
        sums[line.trip_id][line.account] += line.amount
        lines[line.saga, line.step, line.amount < 0] += 1
    for (saga, step, is_undone), count in lines.items():
        if count > 1:
            yield f"{saga} has {count} lines of step {step} {'undone' if is_undone else 'done'}"
    for trip_id in sorted({*sums, *ended.outcomes}):
        found = {account: amount for account, amount in sums[trip_id].items() if amount}
        outcome, trip = ended.outcomes.get(trip_id), ended.trips.get(trip_id)
        if trip is None:
            yield f"{TRIP} {trip_id} was never asked for, and has {found}"
        elif outcome is not None:
            wanted: Mapping[str, int] = owed(trip)[books.service] if outcome == "completed" else {}
            if found != wanted:
                yield f"{TRIP} {trip_id} is {outcome} and should have {dict(wanted)}, and has {found}"


def _of_accounts(books: Books) -> Iterator[str]:
    """Each account over all trips: what the state holds is what the ledger adds up to."""
    written = Counter[str]()
    for line in books.lines:
        written[line.account] += line.amount
    for account in sorted({*books.holds, *written}):
        if (held := books.holds.get(account, 0)) != written[account]:
            yield f"account {account!r} holds {held}, and its ledger adds up to {written[account]}"
