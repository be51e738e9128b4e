"""Where nobody has set up logging a traceback tells frames, and no value of a variable, which may be private."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
from datetime import timedelta
from antiphon.coordinator.testing.rehearsal import rehearse
from antiphon.order.data import load_orders
from antiphon.order.billing import billing
from antiphon.order.inventory import inventory
from antiphon.order.saga import order
from antiphon.order.shipping import shipping
from antiphon.participants.testing import Service

async def main():
    async with Service.open(inventory) as stock, Service.open(billing) as cards, Service.open(shipping) as parcels:
        def begin(*arguments, **options):
            hidden = "hunter" + str(2)
            raise ZeroDivisionError("what went wrong")
        stock.database.begin = begin
        async with rehearse([order], [stock, cards, parcels]) as rehearsal:
            await rehearsal.start(order, load_orders()[0], id="one")
            await rehearsal.run(timedelta(seconds=1))

asyncio.run(main())
"""


def test_tracebacks_of_a_rehearsal_have_no_values() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    told = ran.stdout + ran.stderr
    assert "ZeroDivisionError: what went wrong" in told, told[-2000:]
    assert "hunter2" not in told
