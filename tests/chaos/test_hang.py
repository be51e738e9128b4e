"""A participant that hangs (SIGSTOP) delays the sagas that need it, and no other."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from antiphon.contracts.topology import SAGA
from antiphon.coordinator.client.client import Antiphon
from antiphon.link.setup import api
from antiphon.order.data import load_customers, load_orders
from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import Ended, Outcome, reconcile
from antiphon.order.saga import order
from tests.support.processes import fleet
from tests.support.server import Platform, platform, until

ORDERS = 40


async def stuck(up: Platform) -> None:
    """Wait until the hung process has been sent commands."""
    link = await up.connect("administrator")
    try:
        async with asyncio.timeout(120):
            while (await api(link, f"CONSUMER.INFO.{SAGA}.shipping"))["num_ack_pending"] == 0:
                await asyncio.sleep(0.05)
    finally:
        await link.close()


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
            shipping = running.children["shipping"]
            await until(lambda: "participant.ready" in shipping.log.read_text(), what="shipping at work")
            shipping.signal(signal.SIGSTOP)
            async with Antiphon.connect(up.servers, name="client") as antiphon:

                async def run(placed: OrderPlaced) -> None:
                    handle = await antiphon.start(order, placed, id=placed.order_id)
                    ended = await handle.result(timeout=120)
                    outcomes[placed.order_id] = ended.outcome
                    reasons.add(ended.reason)

                runs = asyncio.gather(*(run(placed) for placed in orders.values()))
                await until(lambda: need_no_shipping <= outcomes.keys(), what="sagas that need no shipping")
                await stuck(up)
                assert "completed" not in outcomes.values()
                shipping.signal(signal.SIGCONT)
                await runs
        ended = Ended(
            {f"order/{order_id}": outcome for order_id, outcome in outcomes.items()},
            {f"order/{order_id}": placed for order_id, placed in orders.items()},
        )
        report = await reconcile(running.databases, ended)
    assert not report.discrepancies
    assert report.completed > 0
    assert all(not reason or "was refused" in reason for reason in reasons), "the hang has cost an order"
