"""`python -m tests.integration.participants.plain SERVERS DATABASE [OUTSIDE]`: a stock that does what it is told.

It dies of kill points alone. With a file OUTSIDE its effect is there first: a line for each call, which has the key.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from sqlalchemy import insert

from antiphon.contracts import Refused
from antiphon.participants import Outside, Participant, Transaction, serve

from .stock import RESERVED, Reserve, Reserved, Stock, effects, tables

ACK_WAIT_SECONDS: Final = 0.5


def is_refused(saga: str) -> bool:
    """Every fifth is."""
    return saga.isdigit() and int(saga) % 5 == 0


async def refuse_some(tx: Transaction) -> None:
    if is_refused(tx.saga_id):
        raise Refused("out of stock")


def with_outside(path: Path) -> Participant:
    """A stock that writes a line beyond its database, then commits."""
    stock = Participant("stock", tables=tables)

    @stock.handles(Reserve, outside=True)
    async def reserve(command: Reserve, outside: Outside) -> Reserved:
        with path.open("a") as file:
            file.write(f"{outside.idempotency_key}\n")
        await asyncio.sleep(0)
        tx = await outside.begin()
        await tx.execute(insert(effects).values(what="reserved", key=tx.idempotency_key))
        return RESERVED

    return stock


if __name__ == "__main__":
    servers, database, *path = sys.argv[1:]
    participant = with_outside(Path(path[0])) if path else Stock(on_reserve=refuse_some).participant
    asyncio.run(serve(participant, servers, database, ack_wait_seconds=ACK_WAIT_SECONDS))
