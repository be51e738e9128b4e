"""A participant that hangs (SIGSTOP) delays the sagas that need it, and no other."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from antiphon.coordinator.client import Antiphon
from antiphon.order.data import load_customers, load_orders
from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import Ended, Outcome, reconcile
from antiphon.order.saga import order
from tests.support.processes import fleet
from tests.support.server import platform, until

ORDERS = 40


async def test_a_hung_participant_delays_only_sagas_that_need_it(tmp_path: Path) -> None:
    declined = {each.customer_id for each in load_customers() if each.card != "valid"}
    orders = {each.order_id: each for each in load_orders()[:ORDERS]}
    need_no_shipping = {order_id for order_id, each in orders.items() if each.customer_id in declined}
    assert 0 < len(need_no_shipping) < ORDERS
    outcomes: dict[str, Outcome] = {}
    reasons: set[str] = set()
    with platform(tmp_path) as up:
        await up.set_up(ack_wait_seconds=1.0)
        with fleet(up, tmp_path) as running:
            await until(running.is_writing, what="the participants' databases")
            running.children["shipping"].signal(signal.SIGSTOP)
            async with Antiphon.connect(up.servers, name="client") as antiphon:

                async def run(placed: OrderPlaced) -> None:
                    handle = await antiphon.start(order, placed, id=placed.order_id)
                    ended = await handle.result(timeout=50)
                    outcomes[placed.order_id] = ended.outcome
                    reasons.add(ended.reason)

                runs = asyncio.gather(*(run(placed) for placed in orders.values()))
                await until(lambda: need_no_shipping <= outcomes.keys(), what="sagas that need no shipping")
                await asyncio.sleep(2.5)  # more than two ack waits, each of which delivers what is held again
                assert "completed" not in outcomes.values()
                running.children["shipping"].signal(signal.SIGCONT)
                await runs
        ended = Ended(
            {f"order/{order_id}": outcome for order_id, outcome in outcomes.items()},
            {f"order/{order_id}": placed for order_id, placed in orders.items()},
        )
        report = await reconcile(running.databases, ended)
    assert not report.discrepancies
    assert report.completed > 0
    assert all(not reason or "was refused" in reason for reason in reasons), "the hang has cost an order"
