"""The peer: a choreography written by hand with FastStream, one process a service and one INSERT a step.

    python -m tests.bench.databases.choreography SERVICE URL DATABASE SYNCHRONOUS

It has none of our promises: no inbox, no journal, no deadline; an event that is delivered twice is performed twice.
So it is what a database allows where nothing but the work is done. It runs in an environment of its own
(`requirements.txt` beside it), which has FastStream and nothing of this project.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
import uvloop

# FastStream is in the environment that this runs in, and not in the one where types are checked.
from faststream import AckPolicy, FastStream  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
from faststream.nats import (  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
    JStream,
    NatsBroker,
)
from nats.js.api import ConsumerConfig

STREAM: Final = "ORDERS"
WORKERS_MAX: Final = 64
"""How many events a service handles at once."""
CONNECTIONS: Final = 16
ACK_WAIT_SECONDS: Final = 30
ACK_PENDING_MAX: Final = 1000


Order = dict[str, Any]
"""What travels: the order's `id`, and whether it shall `fail`."""

REACTIONS: Final = {
    "inventory": {"created": ("reserve", "reserved"), "refunded": ("release", "failed")},
    "payment": {"reserved": ("charge", "charged"), "shipping_failed": ("refund", "refunded")},
    "shipping": {"charged": ("schedule", "completed")},
}
"""Of each service: what it does on an event, and the event that it emits then."""

Write = Callable[[str, str], Awaitable[None]]
"""Called with an action and an order's id."""


def in_sqlite(path: str, synchronous: str) -> Write:
    """Effects in a file, on the loop's thread, each statement a transaction: the quickest that one can write."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {synchronous}")
    database.execute("CREATE TABLE IF NOT EXISTS effects (id INTEGER PRIMARY KEY, saga TEXT, action TEXT, at REAL)")

    async def write(action: str, saga: str) -> None:
        database.execute("INSERT INTO effects (saga, action, at) VALUES (?, ?, ?)", (saga, action, time.time()))

    return write


async def in_postgres(url: str) -> Write:
    """Effects in PostgreSQL, each statement a transaction."""
    pool: Any = await asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS)
    await pool.execute(
        "CREATE TABLE IF NOT EXISTS effects (id bigserial PRIMARY KEY, saga text, action text, at double precision)"
    )

    async def write(action: str, saga: str) -> None:
        await pool.execute("INSERT INTO effects (saga, action, at) VALUES ($1, $2, $3)", saga, action, time.time())

    return write


class Service:
    """One of the three, and what it reacts to."""

    def __init__(self, name: str, url: str, write: Write) -> None:
        self._name, self._write = name, write
        self._stream = JStream(STREAM, subjects=["order.>"])
        self._broker = NatsBroker(url, apply_types=False, logger=None)

    async def run(self) -> None:
        """Serve until SIGTERM."""
        for event, (action, then) in REACTIONS[self._name].items():
            self._react(event, action, then)
        app = FastStream(self._broker)
        app.after_startup(lambda: print("ready", flush=True))
        await app.run()

    def _react(self, event: str, action: str, then: str) -> None:
        async def react(order: Order) -> None:
            if action == "schedule" and order["fail"]:
                await self._emit(order, "shipping_failed")
                return
            await self._write(action, order["id"])
            await self._emit(order, then)

        durable = f"{event}_{self._name}"
        subscriber = self._broker.subscriber(
            f"order.{event}",
            durable=durable,
            queue=durable,
            stream=self._stream,
            config=ConsumerConfig(ack_wait=ACK_WAIT_SECONDS, max_ack_pending=ACK_PENDING_MAX),
            ack_policy=AckPolicy.NACK_ON_ERROR,
            max_workers=WORKERS_MAX,
        )
        subscriber(react)

    async def _emit(self, order: Order, event: str) -> None:
        once = {"Nats-Msg-Id": f"{order['id']}:{event}"}
        await self._broker.publish(order, f"order.{event}", stream=STREAM, headers=once)


async def serve(name: str, url: str, database: str, synchronous: str) -> None:
    """Run a service until SIGTERM."""
    path = database.removeprefix("sqlite:///")
    write = in_sqlite(path, synchronous) if path != database else await in_postgres(database)
    await Service(name, url, write).run()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
