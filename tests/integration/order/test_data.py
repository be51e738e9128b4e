"""The order file is what it says: decodable, consistent with the catalogue, and worth running."""

from collections import Counter
from importlib.resources import files

import msgspec
import pytest

from antiphon.order.data import load_catalogue, load_customers, load_orders


def test_there_are_three_hundred_orders_with_ids_of_their_own() -> None:
    assert len({order.order_id for order in load_orders()}) == 300


def test_every_order_names_a_known_customer_and_costs_what_its_items_cost() -> None:
    prices = {item.item_id: item.price for item in load_catalogue()}
    customers = {customer.customer_id for customer in load_customers()}
    for order in load_orders():
        assert order.amount == order.quantity * prices[order.item_id], order
        assert order.customer_id in customers, order


def test_more_is_ordered_of_some_items_than_there_is() -> None:
    ordered = Counter[str]()
    for order in load_orders():
        ordered[order.item_id] += order.quantity
    scarce = [item for item in load_catalogue() if ordered[item.item_id] > item.stock]
    assert len(scarce) >= 3


def test_some_cards_are_declined() -> None:
    declined = {customer.customer_id for customer in load_customers() if customer.card != "valid"}
    assert sum(order.customer_id in declined for order in load_orders()) >= 10


@pytest.mark.parametrize("file_name", ["orders.jsonl", "catalogue.jsonl", "customers.jsonl"])
def test_no_line_holds_more_than_its_type_does(file_name: str) -> None:
    loaded: list[msgspec.Struct] = {
        "orders.jsonl": load_orders,
        "catalogue.jsonl": load_catalogue,
        "customers.jsonl": load_customers,
    }[file_name]()  # type: ignore[assignment]  # three lists of structs
    lines = files("antiphon.order").joinpath(file_name).read_bytes().splitlines()
    assert [msgspec.json.encode(record) for record in loaded] == lines
