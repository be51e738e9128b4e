"""`flow who` answers before anything runs, however the message is named."""

from __future__ import annotations

from datetime import timedelta

import pytest

from antiphon.coordinator import Saga, State
from antiphon.flow.graph import Flow, build
from antiphon.flow.lookup import UnknownMessage, who
from antiphon.participants import Participant, Transaction
from tests.unit.flow.test_check import ORDER_SYSTEM, Delivered, Hold, HoldRefused, Read


@pytest.fixture(scope="module")
def flow() -> Flow:
    """The order system in all three styles."""
    return build(ORDER_SYSTEM)


def test_which_service_handles_a_failed_payment(flow: Flow) -> None:
    (about,) = who(flow, "payment.failed")
    assert (about.message, about.kind, about.owner) == ("payment.failed.v1", "a failure", "billing")
    assert about.emitted_by == (
        "billing.charge_for_items(), when it refuses inventory.reserved.v2 (choreographed-order)",
    )
    assert about.handled_by == ("inventory.release_unpaid() (choreographed-order)",)
    assert about.then == ("inventory.released, which goes to choreographed-order compensated",)


def test_which_service_handles_inventory_reserve_failed(flow: Flow) -> None:
    (about,) = who(flow, "inventory.reserve.failed")
    assert about.handled_by == ("the coordinator, which ends choreographed-order as compensated",)


def test_a_reply_goes_to_the_coordinator_and_on_to_the_next_step(flow: Flow) -> None:
    (about,) = who(flow, "payment.charged.v1")
    assert about.emitted_by == ("billing.charge(), when it has handled payment.charge",)
    assert about.handled_by == (
        "the coordinator, for step schedule_shipping of order",
        "loyalty.thank_for_payment() (order)",
    )
    assert about.then[0] == "shipping.schedule, which goes to shipping.schedule()"
    assert about.compensated_by == ("billing.refund(), on payment.refund",)


def test_a_reaction_s_event_is_compensated_by_what_undoes_it(flow: Flow) -> None:
    (about,) = who(flow, "inventory.reserved.v2")
    assert about.compensated_by == (
        "inventory.release_unpaid(), on payment.failed (choreographed-order)",
        "inventory.release_refunded(), on payment.refunded (choreographed-order)",
    )


def test_what_a_participant_says_to_a_close_is_known(flow: Flow) -> None:
    (about,) = who(flow, "shipping.schedule.closed")
    assert about.kind == "an answer to shipping.schedule"
    assert about.emitted_by == ("the inbox of shipping, when an operator resolves what became of shipping.schedule",)
    assert "the coordinator, at step schedule_shipping of order" in about.handled_by


def test_a_close_is_about_the_command_of_its_step(flow: Flow) -> None:
    subject = "saga.1.order.order-0001.c.cmd.shipping.schedule_shipping.close.1"
    assert who(flow, subject) == who(flow, subject.replace("close", "do"))


def test_a_refused_command_turns_the_saga(flow: Flow) -> None:
    (about,) = who(flow, "shipping.schedule.refused")
    assert about.emitted_by == ("shipping.schedule(), when it refuses shipping.schedule",)
    assert about.then == (
        "payment.refund, which undoes step charge_customer, which goes to billing.refund()",
        "inventory.release, which undoes step reserve_inventory, which goes to inventory.release()",
    )


def test_a_compensation_that_ran_out_of_attempts_is_tried_again(flow: Flow) -> None:
    (about,) = who(flow, "evt.1.order.o-1.billing.payment-refund-exhausted.charge_customer.1")
    assert about.then == ("payment.refund again later, for ever",)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("inventory.release", "inventory.release.v1"),
        ("inventory-release", "inventory.release.v1"),
        ("payment.refund.v1", "payment.refund.v1"),
        ("saga.1.order.order-0001.c.cmd.billing.charge_customer.undo.1", "payment.refund.v1"),
        ("saga.1.hybrid-order.order-0001.c.cmd.billing.charge_order.undo.1", "payment.refund.v2"),
        ("saga.*.order.*.c.cmd.billing.charge_customer.do.*", "payment.charge.v1"),
        ("evt.1.order.order-0001.inventory.inventory-reserved.reserve_inventory.1", "inventory.reserved.v1"),
        ("evt.*.choreographed-order.*.inventory.inventory-reserved.*.*", "inventory.reserved.v2"),
        ("evt.*.order.*.client.start", "order.placed.v1"),
        ("evt.*.choreographed-order.*.client.start", "order.created.v1"),
    ],
)
def test_a_message_may_be_named_in_many_ways(flow: Flow, asked: str, meant: str) -> None:
    assert [about.message for about in who(flow, asked)] == [meant]


def test_a_name_means_all_its_versions(flow: Flow) -> None:
    assert [about.message for about in who(flow, "payment.charged")] == ["payment.charged.v1", "payment.charged.v2"]


def test_for_a_message_that_nobody_knows_the_nearest_are_named(flow: Flow) -> None:
    with pytest.raises(
        UnknownMessage, match=r"nobody says or hears inventory.reserve.faild. There are inventory.reserve,"
    ):
        who(flow, "inventory.reserve.faild")


def test_an_event_and_an_answer_of_one_name_are_both_told() -> None:
    saga: Saga[Read] = Saga(Read, name="letter", version=1, deadline=timedelta(hours=1))
    mail, reader = Participant("mail"), Participant("reader")

    @saga.step(needs_no_compensation=True)
    def hold(s: State[Read]) -> Hold:
        return Hold()

    @mail.handles(Hold)
    async def keep(command: Hold, tx: Transaction) -> Delivered:
        return Delivered()

    @reader.reacts_to(HoldRefused)
    async def read(event: HoldRefused, tx: Transaction) -> None:
        return None

    found = who(build([saga, mail, reader]), "mail.hold.refused")
    assert [each.kind for each in found] == ["an event", "an answer to mail.hold"]
