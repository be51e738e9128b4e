"""`python -m tests.integration.participants.wild SERVERS DATABASE GRACE`: a stock whose handlers behave badly.

What the handler of a saga does is the saga's id, once it has made `<saga>.called`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

from antiphon.participants import Transaction, serve

from .process import touch
from .stock import Stock

FOREVER = 1_000.0


async def misbehave(tx: Transaction) -> None:
    """Do what the saga is called after."""
    touch(tx.saga_id)
    match tx.saga_id:
        case "exits":
            raise SystemExit(0)
        case "interrupts":
            raise KeyboardInterrupt
        case "deaf":
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(FOREVER)
        case "threads":
            await asyncio.to_thread(time.sleep, FOREVER)
        case "blocks":
            time.sleep(FOREVER)  # noqa: ASYNC251
        case _:
            pass


if __name__ == "__main__":
    servers, database, grace = sys.argv[1:]
    stock = Stock(on_reserve=misbehave)
    asyncio.run(serve(stock.participant, servers, database, grace_seconds=float(grace)))
