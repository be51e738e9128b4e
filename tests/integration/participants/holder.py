"""`python -m tests.integration.participants.holder SERVERS DATABASE GATE ACK_WAIT`: a stock that works when it may.

Its handlers have their effects, and wait for the file GATE.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from antiphon.participants import Transaction, serve

from .stock import Stock

GATE: Final = "gate"


async def wait(tx: Transaction) -> None:
    """Wait for the file."""
    while not await asyncio.to_thread(gate.exists):
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    servers, database, path, ack_wait = sys.argv[1:]
    gate = Path(path)
    stock = Stock(on_reserve=wait, on_release=wait)
    asyncio.run(serve(stock.participant, servers, database, ack_wait_seconds=float(ack_wait)))
