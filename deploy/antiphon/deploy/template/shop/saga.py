"""What happens after what. The functions are pure: they make the next command of what is known, and do nothing else."""

from __future__ import annotations

from datetime import timedelta

from antiphon.coordinator import Saga, State

from .messages import ChargeCustomer, OrderPlaced, RefundCustomer, ReleaseGoods, ReserveGoods

order = Saga(OrderPlaced, name="order", version=1, deadline=timedelta(hours=24))


@order.step()
def reserve_goods(s: State[OrderPlaced]) -> ReserveGoods:
    """First the goods: putting them back costs nothing."""
    return ReserveGoods(item=s.start.item, quantity=s.start.quantity)


@reserve_goods.compensation
def release_goods(s: State[OrderPlaced]) -> ReleaseGoods:
    """Put the goods back."""
    return ReleaseGoods(reason=s.reason)


@order.step(after=reserve_goods)
def charge_customer(s: State[OrderPlaced]) -> ChargeCustomer:
    """Charge only for what is there."""
    return ChargeCustomer(customer=s.start.customer, amount=s.start.amount)


@charge_customer.compensation
def refund_customer(s: State[OrderPlaced]) -> RefundCustomer:
    """Give the money back."""
    return RefundCustomer(reason=s.reason)
