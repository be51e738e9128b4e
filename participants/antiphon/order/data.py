"""The example's data: what is on the shelves, who buys, and what they order."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal, TypeVar

import msgspec

from .messages import Cents, OrderPlaced


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the catalogue: `stock` pieces are on the shelf before the first order."""

    item_id: str
    name: str
    price: Cents
    stock: int


class Customer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer, the state of their card, and how much may be charged to it in all."""

    customer_id: str
    name: str
    card: Literal["valid", "expired", "reported stolen"]
    limit: Cents


def load_orders() -> list[OrderPlaced]:
    """Three hundred orders. Some want more than is left, some have a card that is declined, some live out of reach.

    Which of two orders gets the last piece depends on which is handled first, so the file does not say how each ends.

    Raises:
        msgspec.ValidationError: the file is not as the contract says.
    """
    return _records("orders.jsonl", OrderPlaced)


def load_catalogue() -> list[Item]:
    """All items."""
    return _records("catalogue.jsonl", Item)


def load_customers() -> list[Customer]:
    """All customers."""
    return _records("customers.jsonl", Customer)


T = TypeVar("T")


def _records(file_name: str, shape: type[T]) -> list[T]:
    return msgspec.json.Decoder(shape).decode_lines(files(__name__.rpartition(".")[0]).joinpath(file_name).read_bytes())
