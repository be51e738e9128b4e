"""What the order saga asks of whom, and in which order. Facts in, messages out; no broker, no clock."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from antiphon.contracts import Compensation, Event, SagaKey
from antiphon.contracts.envelope import decode, unpack_raw
from antiphon.contracts.messages import AnswerKind, Settle
from antiphon.contracts.platform import End
from antiphon.coordinator.facts import Answer, Cancel, Fact, Finish, Send, Start
from antiphon.coordinator.history import begin
from antiphon.coordinator.plan import plan
from antiphon.order.data import load_orders
from antiphon.order.messages import (
    ChargeCustomer,
    InventoryReserved,
    PaymentCharged,
    RefundCustomer,
    ReleaseInventory,
    ReserveInventory,
    ScheduleShipping,
    ShippingScheduled,
)
from antiphon.order.saga import order

TIME = datetime(2026, 1, 2, tzinfo=UTC)
PLACED = load_orders()[0]
ID = PLACED.order_id

RESERVED = InventoryReserved(reservation_id="r-1", item_id=PLACED.item_id, quantity=PLACED.quantity)
CHARGED = PaymentCharged(charge_id="c-1", customer_id=PLACED.customer_id, amount=PLACED.amount)
SCHEDULED = ShippingScheduled(shipment_id="s-1", country=PLACED.country, carrier="Quai Express")

COMMANDS: dict[tuple[str, str], type[Any]] = {
    ("reserve_inventory", "do"): ReserveInventory,
    ("reserve_inventory", "undo"): ReleaseInventory,
    ("charge_customer", "do"): ChargeCustomer,
    ("charge_customer", "undo"): RefundCustomer,
    ("schedule_shipping", "do"): ScheduleShipping,
    ("schedule_shipping", "undo"): Settle,
}


class Conversation:
    """One order saga: each method says something to it, and returns the messages it answers with."""

    def __init__(self) -> None:
        self._history = begin(SagaKey.of(order.name, ID), order.definition)
        self._facts = 0

    def start(self) -> list[Any]:
        return self._tell(Start(self._next(), 1, PLACED))

    def done(self, step: str, event: Event) -> list[Any]:
        return self._tell(Answer(self._next(), 1, step, "do", 1, "done", self._history.sequence, event))

    def refused(self, step: str, reason: str, kind: AnswerKind = "refused") -> list[Any]:
        return self._tell(Answer(self._next(), 1, step, "do", 1, kind, self._history.sequence, None, reason))

    def settled(self, step: str, event: Event | None) -> list[Any]:
        return self._tell(Answer(self._next(), 1, step, "undo", 1, "settled", self._history.sequence, event))

    def undone(self, step: str) -> list[Any]:
        return self._tell(Answer(self._next(), 1, step, "undo", 1, "done", self._history.sequence))

    def cancel(self, reason: str) -> list[Any]:
        return self._tell(Cancel(self._next(), 1, reason))

    def _next(self) -> int:
        self._facts += 1
        return self._facts

    def _tell(self, fact: Fact) -> list[Any]:
        said: list[Any] = []
        for entry in plan(self._history, fact, TIME).entries:
            self._history = replace(entry.after, sequence=10 * self._facts)
            envelope = decode(entry.draft.data, entry.draft.subject)
            match entry.draft.what:
                case Send(step, direction, _):
                    said.append(unpack_raw(envelope.data, COMMANDS[step, direction]))
                case Finish(end):
                    said.append(end)
                case _:
                    pass
        return said


def at_shipping() -> Conversation:
    """A saga that has asked for shipping, and waits."""
    saga = Conversation()
    saga.start()
    saga.done("reserve_inventory", RESERVED)
    saga.done("charge_customer", CHARGED)
    return saga


def test_an_order_that_everybody_agrees_to_is_reserved_charged_and_sent() -> None:
    saga = Conversation()
    assert saga.start() == [
        ReserveInventory(order_id=ID, item_id=PLACED.item_id, quantity=PLACED.quantity),
    ]
    assert saga.done("reserve_inventory", RESERVED) == [
        ChargeCustomer(order_id=ID, customer_id=PLACED.customer_id, amount=PLACED.amount, reservation_id="r-1"),
    ]
    assert saga.done("charge_customer", CHARGED) == [
        ScheduleShipping(
            order_id=ID,
            reservation_id="r-1",
            recipient=PLACED.recipient,
            address=PLACED.address,
            country=PLACED.country,
        ),
    ]
    assert saga.done("schedule_shipping", SCHEDULED) == [End(outcome="completed")]


def test_what_is_out_of_stock_costs_nobody_anything() -> None:
    saga = Conversation()
    saga.start()
    (end,) = saga.refused("reserve_inventory", "out of stock")
    assert isinstance(end, End)
    assert end.outcome == "compensated"
    assert "out of stock" in end.reason


def test_a_declined_card_gives_the_stock_back() -> None:
    saga = Conversation()
    saga.start()
    saga.done("reserve_inventory", RESERVED)
    (release,) = saga.refused("charge_customer", "card declined")
    assert isinstance(release, ReleaseInventory)
    assert "card declined" in release.reason
    (end,) = saga.undone("reserve_inventory")
    assert end.outcome == "compensated"


def test_what_cannot_be_delivered_is_refunded_and_then_put_back() -> None:
    saga = at_shipping()
    assert [type(message) for message in saga.refused("schedule_shipping", "undeliverable")] == [RefundCustomer]
    assert [type(message) for message in saga.undone("charge_customer")] == [ReleaseInventory]
    (end,) = saga.undone("reserve_inventory")
    assert "undeliverable" in end.reason


def test_a_parcel_that_may_have_been_scheduled_is_asked_after_and_not_refunded() -> None:
    saga = at_shipping()
    assert saga.refused("schedule_shipping", "it hangs", "exhausted") == [Settle()]
    assert saga.settled("schedule_shipping", SCHEDULED) == [End(outcome="completed")]


def test_a_parcel_that_was_never_scheduled_is_refunded_and_put_back() -> None:
    saga = at_shipping()
    saga.refused("schedule_shipping", "it hangs", "exhausted")
    assert [type(message) for message in saga.settled("schedule_shipping", None)] == [RefundCustomer]
    assert [type(message) for message in saga.undone("charge_customer")] == [ReleaseInventory]
    (end,) = saga.undone("reserve_inventory")
    assert "schedule_shipping did not happen" in end.reason


def test_once_shipping_was_asked_for_a_customer_can_cancel_only_if_it_is_refused() -> None:
    saga = at_shipping()
    assert saga.cancel("changed my mind") == []
    assert saga.done("schedule_shipping", SCHEDULED) == [End(outcome="completed")]


def test_a_customer_who_cancels_gets_back_what_was_done() -> None:
    saga = Conversation()
    saga.start()
    saga.done("reserve_inventory", RESERVED)
    said = saga.cancel("changed my mind")
    assert [type(message) for message in said] == [RefundCustomer], "the charge is under way, so it may have happened"
    assert all("changed my mind" in message.reason for message in said)


def test_the_steps_follow_one_another_and_each_before_the_pivot_can_be_undone() -> None:
    assert [step.name for step in order.steps] == ["reserve_inventory", "charge_customer", "schedule_shipping"]
    assert all(later.after == (earlier,) for earlier, later in pairwise(order.steps))
    *earlier, pivot = order.steps
    assert pivot.is_pivot
    for step in earlier:
        assert step.undo_command is not None
        assert issubclass(step.undo_command, Compensation)
        assert step.undo_command.__undoes__ is step.command
