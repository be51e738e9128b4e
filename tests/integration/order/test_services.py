"""What each service does and refuses, on its real tables."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from sqlalchemy import select, update

from antiphon.order import billing
from antiphon.order.data import load_catalogue, load_customers, load_orders
from antiphon.order.inventory import stock
from antiphon.order.messages import (
    ChargeCustomer,
    InventoryReserved,
    OrderPlaced,
    PaymentCharged,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
    ShippingScheduled,
)
from antiphon.order.reconciliation import BILLING, INVENTORY, SHIPPING, Ended, Outcome, read_books, reconcile
from antiphon.participants.worker import CONCURRENCY
from tests.integration.order.services import WHY, Services, services

ITEM = load_catalogue()[0]
VALID = next(each for each in load_customers() if each.card == "valid")
DECLINED = next(each for each in load_customers() if each.card != "valid")


def reserve(quantity: int, item_id: str = ITEM.item_id) -> ReserveInventory:
    return ReserveInventory(order_id="o-1", item_id=item_id, quantity=quantity)


def charge(amount: int, customer_id: str = VALID.customer_id) -> ChargeCustomer:
    return ChargeCustomer(order_id="o-1", customer_id=customer_id, amount=amount, reservation_id="r-1")


def schedule(country: str, address: str = "Nerudova 5, 11800 Praha") -> ScheduleShipping:
    return ScheduleShipping(order_id="o-1", reservation_id="r-1", recipient="Ada", address=address, country=country)


async def test_what_is_reserved_is_no_longer_available(shop: Services) -> None:
    assert await shop.inventory.do(reserve(3), saga="order/o-1") == InventoryReserved(
        reservation_id="reservation-o-1", item_id=ITEM.item_id, quantity=3
    )
    books = await read_books(INVENTORY, shop.urls["inventory"])
    assert books.holds[ITEM.item_id] == 3
    assert [(line.saga, line.entry, line.amount) for line in books.lines] == [("order/o-1", "reserved", 3)]


async def test_more_than_there_is_is_refused_with_both_numbers(shop: Services) -> None:
    refusal = await shop.inventory.refusal(reserve(ITEM.stock + 1))
    assert refusal == f"out of stock: {ITEM.stock + 1} of {ITEM.item_id} were asked for, and {ITEM.stock} are left"
    assert (await read_books(INVENTORY, shop.urls["inventory"])).lines == []


async def test_the_last_piece_goes_to_one_of_those_who_want_it(shop: Services) -> None:
    asked = (shop.inventory.do(reserve(ITEM.stock), saga=f"order/o-{n}") for n in range(5))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["InventoryReserved", *["Refused"] * 4]


async def test_what_nobody_sells_is_refused(shop: Services) -> None:
    assert await shop.inventory.refusal(reserve(1, "sold-nowhere")) == "there is no item sold-nowhere"


async def test_a_release_puts_back_what_the_answer_says(shop: Services) -> None:
    await shop.inventory.do(reserve(3), saga="order/o-1")
    await shop.inventory.undo(ReleaseInventory(order_id="o-1", reason=WHY), saga="order/o-1")
    books = await read_books(INVENTORY, shop.urls["inventory"])
    assert books.holds[ITEM.item_id] == 0
    assert [(line.entry, line.amount, line.reference) for line in books.lines] == [
        ("reserved", 3, "reservation-o-1"),
        ("released", -3, "reservation-o-1"),
    ]


async def test_a_card_is_charged_up_to_its_limit(shop: Services) -> None:
    assert await shop.billing.do(charge(VALID.limit - 1), saga="order/o-1") == PaymentCharged(
        charge_id="charge-o-1", customer_id=VALID.customer_id, amount=VALID.limit - 1
    )
    refusal = await shop.billing.refusal(charge(2), saga="order/o-2")
    assert refusal == "card declined: 2 cents were asked for, and 1 are left of the limit"
    assert (await read_books(BILLING, shop.urls["billing"])).holds[VALID.customer_id] == VALID.limit - 1


async def test_a_card_that_is_not_valid_is_declined(shop: Services) -> None:
    refusal = await shop.billing.refusal(charge(1, DECLINED.customer_id))
    assert refusal == f"card declined: the card of {DECLINED.customer_id} is {DECLINED.card}"


async def test_a_stranger_is_not_charged(shop: Services) -> None:
    assert await shop.billing.refusal(charge(1, "c-999")) == "there is no customer c-999"


async def test_a_refund_frees_the_limit_again(shop: Services) -> None:
    await shop.billing.do(charge(VALID.limit), saga="order/o-1")
    await shop.billing.undo(RefundCustomer(order_id="o-1", reason=WHY), saga="order/o-1")
    assert isinstance(await shop.billing.do(charge(VALID.limit), saga="order/o-2"), PaymentCharged)


async def test_the_ledger_keeps_the_key_that_a_payment_gateway_would_get(shop: Services) -> None:
    await shop.billing.do(charge(100), saga="order/o-1", attempt=2)
    await shop.billing.undo(RefundCustomer(order_id="o-1", reason=WHY), saga="order/o-1")
    keys = await shop.billing.execute(select(billing.ledger.c.idempotency_key))
    assert keys == [("order/o-1/payment-charge",), ("order/o-1/payment-charge/undo",)]


async def test_a_parcel_goes_to_the_carrier_of_its_country(shop: Services) -> None:
    assert await shop.shipping.do(schedule("CZ"), saga="order/o-1") == ShippingScheduled(
        shipment_id="shipment-o-1", country="CZ", carrier="Nordpaket"
    )
    assert (await read_books(SHIPPING, shop.urls["shipping"])).holds["CZ"] == 1


@pytest.mark.parametrize(
    ("country", "address", "reason"),
    [
        ("NZ", "Cuba Street 1, Wellington", "undeliverable: no carrier goes to NZ"),
        (
            "CZ",
            "PO Box 12, 11800 Praha",
            "undeliverable: Nordpaket hands parcels to people only, and the address is a post office box",
        ),
    ],
)
async def test_what_cannot_be_delivered_is_refused(shop: Services, country: str, address: str, reason: str) -> None:
    assert await shop.shipping.refusal(schedule(country, address)) == reason


async def test_a_service_that_starts_again_keeps_what_it_has(shop: Services) -> None:
    await shop.inventory.do(reserve(3), saga="order/o-1")
    async with services(shop.urls):
        books = await read_books(INVENTORY, shop.urls["inventory"])
    assert books.holds[ITEM.item_id] == 3


@pytest.mark.parametrize("seed", range(3))
async def test_the_books_balance_in_whatever_order_the_orders_come(shop: Services, seed: int) -> None:
    orders = load_orders()
    random.Random(seed).shuffle(orders)
    places = asyncio.Semaphore(CONCURRENCY)  # as a worker's; more at once would wait for connections, and give up

    async def handle(order: OrderPlaced) -> Outcome:
        async with places:
            return await shop.handle(order)

    outcomes = dict(
        zip(
            (f"order/{order.order_id}" for order in orders),
            await asyncio.gather(*map(handle, orders)),
            strict=True,
        )
    )
    report = await reconcile(shop.urls, Ended(outcomes, {f"order/{order.order_id}": order for order in orders}))
    assert report.discrepancies == ()
    assert report.completed >= 150
    assert report.compensated >= 60
    assert [total.done - total.undone for total in report.totals] == [total.expected for total in report.totals]
    assert [bool(total.undone) for total in report.totals] == [True, True, False], "a parcel cannot be called back"


async def test_all_three_kinds_of_refusal_occur(shop: Services) -> None:
    for order in load_orders():
        await shop.handle(order)
    kinds = Counter(reason.partition(":")[0] for reason in shop.refusals)
    assert set(kinds) == {"out of stock", "card declined", "undeliverable"}
    assert min(kinds.values()) >= 10


async def test_state_that_changed_without_its_ledger_is_found_out(shop: Services) -> None:
    await shop.inventory.do(reserve(3), saga="order/o-1")
    await shop.inventory.undo(ReleaseInventory(order_id="o-1", reason=WHY), saga="order/o-1")
    stolen = update(stock).where(stock.c.item_id == ITEM.item_id).values(available=stock.c.available - 1)
    await shop.inventory.execute(stolen)
    report = await reconcile(shop.urls, Ended({"order/o-1": "compensated"}, {}))
    assert report.discrepancies == (
        f"inventory: account {ITEM.item_id} holds 1 pieces, its ledger adds up to 0, and the completed sagas to 0",
    )
