"""Orders for a storm: a quarter of them cannot be fulfilled."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from antiphon.participants.engines import open_engine

from ..local.styles import Style
from ..modules import load_saga
from .loads import Load, Planned
from .platform import ChaosPlatform

FAILING_SHARE: Final = 0.25
PLENTY: Final = 1_000_000_000
"""What is put on every shelf, and on every card's limit, so that orders fail only where they are meant to."""
STEPS: Final = {"inventory": "reserve_inventory", "billing": "charge_customer", "shipping": "schedule_shipping"}
UNDONE: Final = {"inventory": "released", "billing": "refunded"}


class Orders(Load):
    """Orders of the order system, of which a quarter cannot be fulfilled: there is no such item, the card is declined,
    or nobody delivers.

    Args:
        style: who decides what comes next.
        seed: of all choices.
        ids: what the orders' ids begin with; a number follows.
    """

    def __init__(self, style: Style, seed: int, ids: str = "storm") -> None:
        from antiphon.order.data import load_customers, load_orders

        self._style, self._saga, self._ids = style, load_saga(style.saga), ids
        self._choose, self._numbers = random.Random(seed), count(1)
        cards = {each.customer_id: each.card for each in load_customers()}
        self._good = [each for each in load_orders() if cards.get(each.customer_id) == "valid" and _is_reached(each)]
        self._declined = next(each for each, card in cards.items() if card != "valid")
        self._placed: dict[str, Any] = {}

    def next(self) -> Planned:
        """The next order."""
        placed = replace(self._choose.choice(self._good), order_id=f"{self._ids}-{next(self._numbers):06}")
        if self._choose.random() < FAILING_SHARE:
            placed = self._choose.choice(
                [
                    replace(placed, item_id="nobody-has-it"),
                    replace(placed, customer_id=self._declined),
                    replace(placed, address="PO Box 7"),
                ]
            )
        self._placed[f"{self._saga.name}/{placed.order_id}"] = placed
        start = msgspec.convert(msgspec.to_builtins(placed), self._saga.start)
        return Planned(self._saga, start, placed.order_id)

    async def prepare(self, chaos: ChaosPlatform) -> None:
        """Fill the shelves and raise the limits, and have the ledgers checked line by line and as a whole. Where others
        have started the platform nothing is filled, so that orders may lack what they need, and only lines are checked.
        """
        from antiphon.order.billing import cards
        from antiphon.order.inventory import stock

        for participant in STEPS:
            chaos.ledger(participant, self._query(participant))
        if not chaos.is_own:
            return
        shelves = stock.update().values(initial=stock.c.initial + PLENTY, available=stock.c.available + PLENTY)
        limits = cards.update().values(credit_limit=cards.c.credit_limit + PLENTY)
        for participant, statement in (("inventory", shelves), ("billing", limits)):
            engine = open_engine(chaos.databases[participant])
            async with engine.begin() as connection:
                await connection.execute(statement)
            await engine.dispose()

        async def balanced(databases: Mapping[str, str]) -> Sequence[str]:
            from antiphon.order.reconciliation import Ended, reconcile

            outcomes: dict[str, Any] = {
                str(key): next(iter(told)) for key, told in chaos.told.outcomes.items() if len(told) == 1
            }
            return (await reconcile(databases, Ended(outcomes, self._placed))).discrepancies

        chaos.audit(balanced)

    def _query(self, participant: str) -> str:
        """The ledger as `ChaosPlatform.ledger` takes it; where nobody commands, a line is of no step."""
        step = STEPS[participant] if self._style == Style.ORCHESTRATED else participant
        undone = f"CASE entry WHEN '{UNDONE.get(participant, '')}' THEN 'undo' ELSE 'do' END"
        return f"SELECT saga, '{step}', {undone}, reference, account, amount FROM ledger ORDER BY number"


def _is_reached(placed: Any) -> bool:
    from antiphon.order.shipping import CARRIERS, POST_OFFICE_BOX

    reached = {country for countries in CARRIERS.values() for country in countries}
    return placed.country in reached and not placed.address.startswith(POST_OFFICE_BOX)
