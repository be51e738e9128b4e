"""An order through real processes on a real server, one of which dies at the worst moment, twice."""

from __future__ import annotations

from antiphon.deploy.chaos import ChaosPlatform

from shop.messages import OrderPlaced
from shop.saga import order

CHARGES = "SELECT 'order/' || substr(charge_id, 8), 'charge_customer', 'do', charge_id FROM charges"
"""What billing has done, for which saga and step."""


async def test_nobody_is_charged_twice_when_billing_dies_after_its_commit(chaos: ChaosPlatform) -> None:
    chaos.ledger("billing", CHARGES)
    chaos.at("billing", "after_commit", times=2)
    placed = OrderPlaced(item="grinder", quantity=2, customer="ada", amount=9_900)
    async with chaos.client() as antiphon:
        saga = await antiphon.start(order, placed, id="order-1")
        assert (await saga.result(timeout=60)).outcome == "completed"
    assert chaos.deaths("billing") == 2
    await chaos.assert_invariants()
