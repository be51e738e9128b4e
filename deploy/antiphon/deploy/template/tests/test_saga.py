"""What the saga asks of whom, in sentences: no server, no database, no clock."""

from __future__ import annotations

from datetime import timedelta

import pytest
from antiphon.contracts import WrongShape
from antiphon.coordinator.testing import given

from shop.messages import (
    ChargeCustomer,
    CustomerCharged,
    GoodsReserved,
    OrderPlaced,
    RefundCustomer,
    ReleaseGoods,
    ReserveGoods,
)
from shop.saga import charge_customer, order, reserve_goods

PLACED = OrderPlaced(item="kettle", quantity=2, customer="ada", amount=9_900)
RESERVED = GoodsReserved(item="kettle", quantity=2)


def test_an_order_is_reserved_and_charged() -> None:
    (
        given(order, PLACED)
        .sends(reserve_goods, ReserveGoods(item="kettle", quantity=2))
        .when(reserve_goods, RESERVED)
        .sends(charge_customer, ChargeCustomer(customer="ada", amount=9_900))
        .when(charge_customer, CustomerCharged(charge_id="c-1"))
        .is_completed()
    )


def test_when_the_charge_is_refused_the_goods_are_put_back() -> None:
    (
        given(order, PLACED)
        .when(reserve_goods, RESERVED)
        .when_refused(charge_customer, "too much")
        .compensates(reserve_goods, ReleaseGoods(reason="charge_customer was refused: too much"))
        .when_undone(reserve_goods)
        .is_compensated("too much")
    )


def test_when_nobody_answers_for_a_day_everything_is_taken_back() -> None:
    (
        given(order, PLACED)
        .when(reserve_goods, RESERVED)
        .after(timedelta(hours=24))
        .compensates(charge_customer, RefundCustomer(reason="its deadline passed"))
        .when_all_undone()
        .has_compensated(charge_customer, reserve_goods)
        .is_compensated("its deadline passed")
    )


@pytest.mark.parametrize(("quantity", "amount"), [(0, 9_900), (-3, 9_900), (2, 0), (2, -1)])
def test_an_order_of_nothing_is_refused_before_anything_is_asked(quantity: int, amount: int) -> None:
    with pytest.raises(WrongShape, match=r"`int` >= 1"):
        given(order, OrderPlaced(item="kettle", quantity=quantity, customer="ada", amount=amount))
