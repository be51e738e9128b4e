"""`python -m tests.integration.participants.killer SERVERS DATABASE`: a stock whose process one saga's commands kill.

With `reacting` behind it, it is the events of that saga.

It stands for what an author cannot catch: a segmentation fault, or memory that runs out.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Final

from antiphon.contracts import Retry
from antiphon.participants import Transaction, serve

from .reactor import Reactor
from .stock import Stock

KILLER: Final = "killer"
EXITS: Final = "KILLER_EXITS"
"""Set where the killer ends its event loop instead of its process."""
EXIT_CODE: Final = 3
CONCURRENCY: Final = 8
ACK_WAIT_SECONDS: Final = 0.5
TWICE: Final = Retry(attempts=2, first_seconds=0.01, factor=1.0, cap_seconds=60.0)
"""A reaction that killed twice rests for as long as the cap, or it would kill what the others are performed by."""


async def die_or_take_a_while(tx: Transaction) -> None:
    """Die at once, or be in the middle of it when somebody else does."""
    if tx.saga_id == KILLER and EXITS in os.environ:
        asyncio.get_running_loop().call_soon(sys.exit, EXIT_CODE)
        await asyncio.sleep(60)
    if tx.saga_id == KILLER:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.02)


if __name__ == "__main__":
    servers, database, *reacting = sys.argv[1:]
    commanded = Stock(on_reserve=die_or_take_a_while, on_release=die_or_take_a_while)
    stock = Reactor(on_ordered=die_or_take_a_while, retry=TWICE) if reacting else commanded
    asyncio.run(serve(stock.participant, servers, database, concurrency=CONCURRENCY, ack_wait_seconds=ACK_WAIT_SECONDS))
