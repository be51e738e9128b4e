"""Two companies outside of the agency: a chain of hotels and a payment gateway. What they do no transaction undoes.

They stand here for web services, so that the example needs none. Both keep what they were asked for under the key that
came with it: one key, one effect, however often they are asked. Where they say no to a key they never act on it, and so
their refusals say `nothing_outside`. Their memory is a SQLite file, which no service of the agency shares a transaction
with; ANTIPHON_TRIPS_PARTNERS names it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from antiphon.contracts import Refused

from .data import load_customers, load_places

PLACE: Final = "ANTIPHON_TRIPS_PARTNERS"
"""The variable that names the file."""
DEFAULT: Final = ".antiphon/trips-partners.db"
LOCKED_SECONDS: Final = 30.0
HOTELS: Final = {each.destination: each for each in load_places()}
CARDS: Final = {each.customer_id: each.card for each in load_customers()}

REQUESTS: Final = """
CREATE TABLE IF NOT EXISTS requests
(key TEXT PRIMARY KEY, company TEXT NOT NULL, account TEXT NOT NULL, amount INTEGER NOT NULL)
"""


async def hold_room(key: str, destination: str, nights: int) -> str:
    """Have the chain hold a room, and return the number of the booking.

    Args:
        key: by which the chain knows this request again.
        destination: where.
        nights: how many; negative where the room is given up.

    Raises:
        Refused: it has no hotel there, or that is closed.
    """
    place = HOTELS.get(destination)
    if place is None:
        raise Refused(f"the chain has no hotel in {destination}", nothing_outside=True)
    if not place.is_open:
        raise Refused(f"the {place.hotel} in {place.city} is closed this season", nothing_outside=True)
    return await _ask(key, "hotels", destination, nights)


async def move_money(key: str, customer_id: str, amount: int) -> str:
    """Have the gateway charge a customer's card, and return the number of the charge.

    Args:
        key: by which the gateway knows this request again.
        customer_id: whose card.
        amount: in cents; negative where the customer gets money back.

    Raises:
        Refused: the card is declined.
    """
    card = CARDS.get(customer_id, "unknown")
    if card != "valid":
        raise Refused(f"card declined: the card of {customer_id} is {card}", nothing_outside=True)
    return await _ask(key, "gateway", customer_id, amount)


def read_requests(path: Path) -> list[tuple[str, str, str, int]]:
    """All requests that had an effect: the key, the company, what it was about, and how much."""
    with _opened(path) as database:
        return database.execute("SELECT key, company, account, amount FROM requests ORDER BY rowid").fetchall()


async def _ask(key: str, company: str, account: str, amount: int) -> str:
    # On a thread, as a request to a web service would leave the event loop free.
    return await asyncio.to_thread(partial(_remember, key, company, account, amount))


def _remember(key: str, company: str, account: str, amount: int) -> str:
    with _opened(Path(os.environ.get(PLACE, DEFAULT))) as database:
        row = (key, company, account, amount)
        database.execute("INSERT INTO requests VALUES (?, ?, ?, ?) ON CONFLICT (key) DO NOTHING", row)
        (number,) = database.execute("SELECT rowid FROM requests WHERE key = ?", (key,)).fetchone()
    return f"{company}-{number}"


@contextmanager
def _opened(path: Path) -> Generator[sqlite3.Connection]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=LOCKED_SECONDS)) as database, database:
        database.execute(REQUESTS)
        yield database
