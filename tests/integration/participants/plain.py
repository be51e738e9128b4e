"""`python -m tests.integration.participants.plain SERVERS DATABASE`: a stock that does what it is told and dies of kill
points alone."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from antiphon.contracts import Refused
from antiphon.participants import Transaction, serve

from .stock import Stock

ACK_WAIT_SECONDS: Final = 0.5


def is_refused(saga: str) -> bool:
    """Every fifth is."""
    return saga.isdigit() and int(saga) % 5 == 0


async def refuse_some(tx: Transaction) -> None:
    if is_refused(tx.saga_id):
        raise Refused("out of stock")


if __name__ == "__main__":
    servers, database = sys.argv[1:]
    stock = Stock(on_reserve=refuse_some)
    asyncio.run(serve(stock.participant, servers, database, ack_wait_seconds=ACK_WAIT_SECONDS))
