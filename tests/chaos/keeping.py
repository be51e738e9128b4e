"""The saga and the participants of the campaign about retention: orders whose effects are in memory."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from antiphon.contracts.payloads import Ending
from antiphon.order.messages import OrderPlaced
from tests.bench.ours import NOWHERE, billing, in_a_row, inventory, placed, shipping

__all__ = ["billing", "ending_of", "inventory", "order_of", "plain", "shipping"]

plain = in_a_row()
REFUSED_EVERY: Final = 5


def order_of(number: int, name: str) -> OrderPlaced:
    """The order of a saga; each fifth one is refused at its last step, and compensated."""
    return replace(placed(NOWHERE if ending_of(number) == "compensated" else "ES"), order_id=name)


def ending_of(number: int) -> Ending:
    """How that saga must end."""
    return "compensated" if number % REFUSED_EVERY == 0 else "completed"
