"""`python -m tests.integration.participants.holder SERVERS DATABASE`: a stock that takes commands and never answers."""

from __future__ import annotations

import asyncio
import sys

from antiphon.participants import Transaction, serve

from .stock import Stock


async def hang(tx: Transaction) -> None:
    """Have an effect, and never come to an end."""
    await asyncio.Event().wait()


if __name__ == "__main__":
    servers, database = sys.argv[1:]
    asyncio.run(serve(Stock(on_reserve=hang, on_release=hang).participant, servers, database))
