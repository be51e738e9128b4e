"""The chaos test that the README shows: a story of a process that dies at the worst moment, twice."""

import pytest

from antiphon.deploy.chaos import ChaosPlatform
from antiphon.order.data import load_orders
from antiphon.order.saga import order

CHARGES = """
SELECT saga, 'charge_customer', CASE entry WHEN 'charged' THEN 'do' ELSE 'undo' END, reference, account, amount
FROM ledger
"""


@pytest.mark.chaos(
    "antiphon.order.saga", "antiphon.order.inventory", "antiphon.order.billing", "antiphon.order.shipping"
)
async def test_nobody_is_charged_twice_when_billing_dies_after_its_commit(chaos: ChaosPlatform) -> None:
    chaos.ledger("billing", CHARGES)
    chaos.at("billing", "after_commit", times=2)  # on the first delivery of a charge, and on the second
    async with chaos.client() as antiphon:
        started = [await antiphon.start(order, placed, id=placed.order_id) for placed in load_orders()[:5]]
        outcomes = [(await each.result(timeout=60)).outcome for each in started]
    assert chaos.deaths("billing") == 2
    assert outcomes.count("completed") == 4
    await chaos.assert_invariants()
