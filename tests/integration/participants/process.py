"""`python -m tests.integration.participants.process SERVERS DATABASE GRACE`: a stock whose handlers wait for a file.

The handler of a saga waits until the file `<saga>.go` is in the working folder, having made `<saga>.called`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from antiphon.participants import Transaction, serve

from .stock import Stock


async def wait_for_file(tx: Transaction) -> None:
    """Hold the transaction until the test has made the file."""
    touch(tx.saga_id)
    while not may_go(tx.saga_id):
        await asyncio.sleep(0.01)


def touch(saga: str) -> None:
    Path(f"{saga}.called").touch()


def may_go(saga: str) -> bool:
    return Path(f"{saga}.go").exists()


if __name__ == "__main__":
    servers, database, grace = sys.argv[1:]
    stock = Stock(on_reserve=wait_for_file)
    asyncio.run(serve(stock.participant, servers, database, grace_seconds=float(grace)))
