"""`flow check` finds each kind of mistake that is planted, says what to do, and finds nothing where all is well."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import Command, Compensation, Event
from antiphon.contracts.topology import RECOVERY_SECONDS
from antiphon.coordinator import Saga, State
from antiphon.flow.check import check
from antiphon.flow.graph import build
from antiphon.flow.haste import hasty
from antiphon.order.choreographed import billing, inventory, shipping
from antiphon.order.choreographed.saga import choreographed_order
from antiphon.order.hybrid import billing as hybrid_billing
from antiphon.order.hybrid import shipping as hybrid_shipping
from antiphon.order.hybrid.saga import hybrid_order
from antiphon.order.loyalty import loyalty
from antiphon.order.saga import order
from antiphon.participants import Participant, Transaction
from tests.unit.flow.shop import (
    FLOW,
    SHOP,
    Ordered,
    Paid,
    Release,
    Released,
    Reserve,
    Reserved,
    Shop,
    Short,
    Unpaid,
    choreographed,
    found,
    only,
    orchestrated,
    pay,
    reserve,
    stock_with_handlers,
)

STYLES = (order, choreographed_order, hybrid_order)
SERVICES = (inventory.inventory, hybrid_billing.billing, hybrid_shipping.shipping, loyalty)
ORDER_SYSTEM = (*STYLES, *SERVICES)
"""In all three styles; the services are the same, and importing a style gives them its handlers."""
assert SERVICES[1:3] == (billing.billing, shipping.shipping)


class Delivered(Event, name="mail.delivered", owner="mail"):
    pass


class Read(Event, name="mail.read", owner="mail"):
    pass


class Bounced(Event, name="mail.bounced", owner="mail"):
    reason: str


class Hurry(Event, name="shop.hurry"):
    """Said by a client to a saga that is under way."""


class Never(Event, name="mail.never", owner="mail"):
    pass


class TheirReserved(Event, name="depot.reserved", owner="depot"):
    pass


class TheirReserve(Command[TheirReserved], name="stock.reserve"):
    pass


class TheirRelease(Compensation[TheirReserve], name="depot.release"):
    pass


def test_nothing_is_amiss_in_the_order_system_in_any_style() -> None:
    assert check(build(ORDER_SYSTEM)) == []


def test_nothing_is_amiss_in_the_shops_that_the_tests_below_spoil() -> None:
    assert check(choreographed().flow) == []
    assert found(orchestrated(), stock_with_handlers()) == []


@pytest.mark.parametrize(("seconds", "is_hasty"), [(RECOVERY_SECONDS - 1, True), (RECOVERY_SECONDS, False), (0, False)])
def test_a_step_that_gives_up_before_a_dead_worker_is_replaced_is_found(seconds: float, is_hasty: bool) -> None:
    saga = Saga(Ordered, name="hurried", version=1, deadline=timedelta(hours=1))

    @saga.step(pivot=True, timeout=timedelta(seconds=seconds) if seconds else None)
    def reserve(s: State[Ordered]) -> Reserve:
        return Reserve(pieces=s.start.pieces)

    findings = list(hasty([saga.definition, choreographed().saga.definition]))
    assert [each.about for each in findings] == (["hurried.reserve"] if is_hasty else [])


def test_a_saga_and_a_step_that_awaits_an_event_are_found_too() -> None:
    saga = Saga(Ordered, name="hurried", version=1, deadline=timedelta(seconds=RECOVERY_SECONDS - 1))

    @saga.step(pivot=True)
    def reserve(s: State[Ordered]) -> Reserve:
        return Reserve(pieces=s.start.pieces)

    saga.awaits(Paid, after=reserve, within=timedelta(seconds=1))
    findings = list(hasty([saga.definition]))
    assert [each.about for each in findings] == ["hurried", "hurried.billing-paid"]
    assert all(f"within {RECOVERY_SECONDS:g} s" in each.sentence for each in findings)


# --- events -----------------------------------------------------------------------------------------------------------


def test_an_event_that_nobody_handles_is_found() -> None:
    shop = choreographed()
    mail = Participant("mail")

    @mail.reacts_to(Paid, saga_type=SHOP)
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    finding = only(check(build([shop.stock, shop.billing, shop.saga, mail])))
    assert (finding.mistake, finding.about) == ("unheard", "mail.delivered")
    assert (
        "is emitted by mail.deliver() in shop and handled by nobody. Let a participant react to it" in finding.sentence
    )


def test_an_event_that_is_heard_in_other_sagas_only_is_found() -> None:
    stock, billing_ = Participant("stock"), Participant("billing")
    stock.reacts_to(Ordered, saga_type=SHOP, refused=Short)(reserve)
    billing_.reacts_to(Reserved, saga_type="order")(pay)
    shop = choreographed(flow={Ordered: "stock"}, completes=Paid)
    mistakes = found(stock, billing_, shop.saga, orchestrated(), stock_with_handlers())
    assert ("unheard", "stock.reserved") in mistakes


def test_a_declared_end_needs_nobody_who_hears_it() -> None:
    assert ("unheard", "stock.released") not in found(*parts(choreographed()))
    assert ("unheard", "stock.released") in found(*parts(choreographed(compensates=(Short,))))


def test_an_event_that_is_awaited_and_that_nobody_emits_is_found() -> None:
    shop = choreographed()

    @shop.billing.reacts_to(Never, saga_type=SHOP)
    async def wait_for_ever(event: Never, tx: Transaction) -> None: ...

    finding = only(check(shop.flow))
    assert (finding.mistake, finding.about) == ("unsaid", "mail.never")
    assert "is awaited by billing.wait_for_ever() in shop and is emitted by nobody there. Let mail publish it" in (
        finding.sentence
    )


@pytest.mark.parametrize("is_signal", [False, True])
def test_a_reaction_to_a_signal_has_to_say_that_it_is_one(is_signal: bool) -> None:
    saga = Saga(Ordered, name="hurried", version=1, deadline=timedelta(hours=1))
    saga.signal(Hurry)
    mail = Participant("mail")

    @mail.reacts_to(Hurry, saga_type="hurried", signal=is_signal)
    async def hurry(event: Hurry, tx: Transaction) -> None: ...

    @mail.reacts_to(Ordered, saga_type="hurried", signal=not is_signal)
    async def order(event: Ordered, tx: Transaction) -> None: ...

    told = [each.sentence for each in check(build([saga, mail])) if each.mistake == "unsaid"]
    assert [each.rpartition(". ")[2] for each in told] == (
        [] if is_signal else ["Add signal=True.", "Drop signal=True."]
    )


def test_an_end_that_nobody_emits_is_found() -> None:
    assert found(*parts(choreographed(completes=(Paid, Never)))) == [("unsaid", "mail.never")]


def test_a_reaction_in_sagas_that_nobody_defines_is_found() -> None:
    shop = choreographed()

    @shop.billing.reacts_to(Paid, saga_type="shpo")
    async def misspelt(event: Paid, tx: Transaction) -> None: ...

    finding = only(check(shop.flow))
    assert (finding.mistake, finding.about) == ("unknown saga", "billing.misspelt()")
    assert "in sagas of type 'shpo', which nobody defines here. Correct its saga_type" in finding.sentence


def test_an_event_of_a_led_saga_may_be_heard_by_a_reaction_as_well() -> None:
    billing_ = Participant("billing")

    @billing_.reacts_to(Reserved, needs_no_compensation=True)
    async def grant_points(event: Reserved, tx: Transaction) -> None: ...

    assert found(orchestrated(), stock_with_handlers(), billing_) == []


# --- commands ---------------------------------------------------------------------------------------------------------


def test_a_command_and_a_compensation_without_a_handler_are_found() -> None:
    findings = check(build([orchestrated()]))
    assert [(each.mistake, each.about) for each in findings] == [
        ("unhandled", "stock.reserve"),
        ("unhandled", "stock.release"),
    ]
    assert "Let stock declare one with @stock.handles(...)" in findings[0].sentence
    assert "@stock.compensates(...)" in findings[1].sentence


def test_a_command_that_two_handle_is_found() -> None:
    other = Participant("stock")

    @other.handles(Reserve)
    async def reserve_too(command: Reserve, tx: Transaction) -> Reserved: ...  # type: ignore[empty-body]

    finding = only(check(build([orchestrated(), stock_with_handlers(), other])))
    assert (finding.mistake, finding.about) == ("two handlers", "stock.reserve")
    assert "is handled by stock.do_reserve() and stock.reserve_too(), and which of them gets it is chance" in (
        finding.sentence
    )


def test_a_command_with_two_owners_is_found() -> None:
    depot = Participant("depot")

    @depot.handles(TheirReserve)
    async def reserve_there(command: TheirReserve, tx: Transaction) -> TheirReserved: ...  # type: ignore[empty-body]

    mistakes = check(build([orchestrated(), stock_with_handlers(), depot]))
    assert [each.sentence for each in mistakes if each.mistake == "two owners"] == [
        "stock.reserve.v1 is declared with the owners stock and depot. Only one participant can answer for it: keep "
        "one declaration and import it, or give the other message a name of its own."
    ]


# --- the course of a choreography -------------------------------------------------------------------------------------


def test_a_cycle_without_an_end_is_found() -> None:
    shop = choreographed()
    mail = Participant("mail")

    @mail.reacts_to(Paid, saga_type=SHOP)
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    @mail.reacts_to(Delivered, saga_type=SHOP)
    async def read(event: Delivered, tx: Transaction) -> Read: ...  # type: ignore[empty-body]

    @mail.reacts_to(Read, saga_type=SHOP)
    async def deliver_again(event: Read, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    finding = only(check(build([*parts(shop), mail])))
    assert finding.mistake == "cycle"
    assert (
        "in shop: mail.delivered → mail.read → mail.delivered. Let one of the reactions return None" in finding.sentence
    )


def test_a_cycle_that_an_end_leaves_is_none() -> None:
    shop = choreographed(completes=(Paid, Read))
    mail = Participant("mail")

    @mail.reacts_to(Paid, saga_type=SHOP)
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    @mail.reacts_to(Delivered, saga_type=SHOP)
    async def read(event: Delivered, tx: Transaction) -> Read | Never: ...  # type: ignore[empty-body]

    @mail.reacts_to(Never, saga_type=SHOP)
    async def deliver_again(event: Never, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    assert check(build([shop.stock, shop.billing, shop.saga, mail])) == []


def test_a_failure_after_which_an_effect_stays_is_found() -> None:
    shop = choreographed(undoes=False)

    @shop.stock.reacts_to(Unpaid, saga_type=SHOP)
    async def give_up(event: Unpaid, tx: Transaction) -> Released: ...  # type: ignore[empty-body]

    finding = only(check(shop.flow))
    assert (finding.mistake, finding.about) == ("not compensated", "billing.unpaid")
    assert "stock.reserve() may have had its effect, and nobody takes it back" in finding.sentence
    assert (
        "Let stock react to billing.unpaid, or to what follows from it, with undoes=reserve, or say" in finding.sentence
    )


def test_a_failure_after_what_runs_beside_it_is_found_too() -> None:
    shop = choreographed()
    mail = Participant("mail")

    @mail.reacts_to(Ordered, saga_type=SHOP)
    async def deliver(event: Ordered, tx: Transaction) -> None: ...

    assert found(*parts(shop), mail) == [("not compensated", "stock.short"), ("not compensated", "billing.unpaid")]


def test_what_says_that_it_needs_no_compensation_is_not_asked_for_one() -> None:
    shop = choreographed()
    mail = Participant("mail")

    @mail.reacts_to(Ordered, saga_type=SHOP, needs_no_compensation=True)
    async def deliver(event: Ordered, tx: Transaction) -> None: ...

    assert found(*parts(shop), mail) == []


def test_what_happens_only_after_a_success_is_not_undone_by_its_failure() -> None:
    shop = choreographed(flow={**FLOW, Paid: "mail"}, completes=Delivered)
    mail = Participant("mail")

    @mail.reacts_to(Paid, saga_type=SHOP)
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    assert found(*parts(shop), mail) == []


def test_what_refused_itself_had_no_effect_that_a_later_failure_would_undo() -> None:
    shop = choreographed(flow={**FLOW, Short: "mail"}, compensates=(Bounced, Released))
    mail = Participant("mail")

    @mail.reacts_to(Short, saga_type=SHOP, refused=Bounced)
    async def say_sorry(event: Short, tx: Transaction) -> None: ...

    assert found(*parts(shop), mail) == []


def test_what_a_second_way_reaches_only_through_the_refusing_reaction_has_not_happened() -> None:
    shop = choreographed(completes=Delivered)
    mail = Participant("mail")

    @mail.reacts_to(Ordered, saga_type=SHOP, needs_no_compensation=True)
    async def read(event: Ordered, tx: Transaction) -> Read: ...  # type: ignore[empty-body]

    @shop.stock.reacts_to(Read, saga_type=SHOP, needs_no_compensation=True)
    async def reserve_late(event: Read, tx: Transaction) -> Reserved: ...  # type: ignore[empty-body]

    @mail.reacts_to(Paid, saga_type=SHOP)
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    assert ("not compensated", "billing.unpaid") not in found(*parts(shop), mail)


def test_an_event_after_which_nothing_comes_and_that_is_no_end_is_found() -> None:
    shop = choreographed(completes=Never)
    mail = Participant("mail")

    @mail.reacts_to(Paid, saga_type=SHOP)
    async def note(event: Paid, tx: Transaction) -> None: ...

    assert ("endless", "billing.paid") in found(*parts(shop), mail)


# --- what is done beside a saga that coordinators lead ----------------------------------------------------------------


class Granted(Event, name="mail.granted", owner="mail"):
    pass


class Pay(Command[Paid], name="billing.pay"):
    pass


class Repay(Compensation[Pay], name="billing.repay"):
    pass


def hybrid(*, unless: bool = True) -> tuple[Any, ...]:
    """Reserved and paid by command; the pivot is the payment, and delivery decides where `unless` says so."""
    saga = Saga(Ordered, name="order", version=1, deadline=timedelta(hours=1))
    stock, billing_ = stock_with_handlers(), Participant("billing")

    @saga.step()
    def reserve_it(s: State[Ordered]) -> Reserve:
        return Reserve(pieces=1)

    @reserve_it.compensation
    def release_it(s: State[Ordered]) -> Release:
        return Release(reason=s.reason)

    @saga.step(after=reserve_it, pivot=True, timeout=timedelta(minutes=1))
    def pay_it(s: State[Ordered]) -> Pay:
        return Pay()

    @billing_.handles(Pay)
    async def do_pay(command: Pay, tx: Transaction) -> Paid: ...  # type: ignore[empty-body]

    if unless:

        @pay_it.compensation
        def repay_it(s: State[Ordered]) -> Repay:
            return Repay()

        @billing_.compensates(Pay)
        async def do_repay(command: Repay, paid: Paid, tx: Transaction) -> None: ...

    saga.awaits(Delivered, after=pay_it, unless=Bounced if unless else ())
    saga.records(Granted)
    return saga, stock, billing_


def mail_that_delivers() -> Participant:
    mail = Participant("mail")

    @mail.reacts_to(Paid, saga_type="order", refused=Bounced)
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    return mail


async def grant(event: Reserved, tx: Transaction) -> Granted:
    return Granted()


async def grant_paid(event: Paid, tx: Transaction) -> Granted:
    return Granted()


def test_what_was_done_on_an_event_before_the_pivot_is_not_left_when_the_saga_turns() -> None:
    mail = mail_that_delivers()
    mail.reacts_to(Reserved, saga_type="order")(grant)
    finding = only(check(build([*hybrid(), mail])))
    assert (finding.mistake, finding.about) == ("not compensated", "stock.reserved")
    assert finding.sentence == (
        "when order is turned after stock.reserved was said in it, mail.grant() may have had its effect, and nobody "
        "takes it back. Let mail react to an event that tells of the turn with undoes=grant, or do it on a command "
        "that has a compensation, or say needs_no_compensation=True there."
    )


def test_what_was_done_on_the_pivot_s_event_is_not_left_when_an_awaited_failure_turns_the_saga() -> None:
    mail, points = mail_that_delivers(), Participant("mail")
    points.reacts_to(Paid, saga_type="order")(grant_paid)
    finding = only(check(build([*hybrid(), mail, points])))
    assert (finding.mistake, finding.about) == ("not compensated", "billing.paid")
    assert "when order is turned by mail.bounced after billing.paid was said in it, mail.grant_paid() may" in (
        finding.sentence
    )


def test_what_is_done_on_what_was_done_is_not_left_either() -> None:
    mail, loyalty_ = mail_that_delivers(), Participant("loyalty")
    mail.reacts_to(Reserved, saga_type="order", needs_no_compensation=True)(grant)

    @loyalty_.reacts_to(Granted)
    async def count(event: Granted, tx: Transaction) -> None: ...

    assert found(*hybrid(), mail, loyalty_) == [("not compensated", "stock.reserved")]


def test_nothing_is_left_where_the_saga_cannot_turn_any_more_or_it_is_taken_back_or_stays() -> None:
    mail, points = mail_that_delivers(), Participant("mail")
    points.reacts_to(Paid, saga_type="order")(grant_paid)
    saga, stock, billing_ = hybrid(unless=False)
    delivering = Participant("mail")

    @delivering.reacts_to(Paid, saga_type="order")
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    assert found(saga, stock, billing_, delivering, points) == []

    @points.reacts_to(Bounced, saga_type="order", undoes=grant_paid)
    async def take_back(event: Bounced, granted: Granted, tx: Transaction) -> None: ...

    assert found(*hybrid(), mail, points) == []
    kept = Participant("mail")
    kept.reacts_to(Paid, saga_type="order", needs_no_compensation=True)(grant_paid)
    assert found(*hybrid(), mail, kept) == []


# --- what a choreography declares, and what participants do -----------------------------------------------------------


def test_a_declared_reaction_that_nobody_registered_is_found() -> None:
    shop = choreographed(flow={**FLOW, Ordered: ("stock", "mail")})
    finding = only(check(shop.flow))
    assert (finding.mistake, finding.about) == ("no reaction", "shop.ordered")
    assert finding.sentence == (
        "the flow of shop says that mail reacts to shop.ordered, and no reaction there hears it. Let mail declare one "
        "with @mail.reacts_to(..., saga_type='shop'), or name the module that does with --app, or correct flow=."
    )


def test_a_reaction_in_sagas_of_another_type_is_not_the_declared_one() -> None:
    shop = choreographed(flow={**FLOW, Ordered: ("stock", "mail")})
    mail = Participant("mail")

    @mail.reacts_to(Ordered, saga_type="order")
    async def deliver(event: Ordered, tx: Transaction) -> None: ...

    assert ("no reaction", "shop.ordered") in found(*parts(shop), orchestrated(), stock_with_handlers(), mail)


def test_a_reaction_that_the_declared_flow_leaves_out_is_found() -> None:
    shop = choreographed(completes=(Paid, Delivered))
    mail = Participant("mail")

    @mail.reacts_to(Reserved, saga_type=SHOP, needs_no_compensation=True)
    async def deliver(event: Reserved, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    finding = only(check(build([*parts(shop), mail])))
    assert (finding.mistake, finding.about) == ("left out", "stock.reserved")
    assert finding.sentence == (
        "mail.deliver() reacts to stock.reserved in shop, whose flow leaves mail out: a saga that waits for it would "
        "not say so. Name mail beside stock.reserved in flow=."
    )


def test_an_event_that_the_declared_flow_leaves_out_is_found() -> None:
    shop = choreographed(flow={Ordered: "stock", Unpaid: "stock"})
    finding = only(check(shop.flow))
    assert (finding.mistake, finding.about) == ("left out", "stock.reserved")
    assert finding.sentence == (
        "billing reacts to stock.reserved in shop, whose flow leaves the event out: it would be parked, and the saga "
        "said to wait for somebody else. Add it to flow=, with billing."
    )


def test_nobody_waits_for_a_reaction_that_publishes_nothing_or_comes_after_the_end() -> None:
    mail = Participant("mail")

    @mail.reacts_to(Reserved, saga_type=SHOP, needs_no_compensation=True)
    async def note(event: Reserved, tx: Transaction) -> None: ...

    @mail.reacts_to(Paid, saga_type=SHOP)
    async def deliver(event: Paid, tx: Transaction) -> Delivered: ...  # type: ignore[empty-body]

    assert found(*parts(choreographed()), mail) == [("unheard", "mail.delivered")]


def parts(shop: Shop) -> tuple[Any, ...]:
    return shop.stock, shop.billing, shop.saga


class Hold(Command[Delivered], name="mail.hold"):
    pass


class HoldRefused(Event, name="mail.hold.refused", owner="mail"):
    code: int


class HoldClosed(Event, name="mail.hold.closed", owner="mail"):
    code: int


@pytest.mark.parametrize(("event", "kind"), [(HoldRefused, "refused"), (HoldClosed, "closed")])
def test_an_event_that_is_called_like_an_answer_to_a_command_has_two_meanings(event: Any, kind: str) -> None:
    mail, reader = Participant("mail"), Participant("reader")

    @mail.handles(Hold)
    async def hold(command: Hold, tx: Transaction) -> Delivered:
        return Delivered()

    async def read(said: Any, tx: Transaction) -> None:
        return None

    read.__annotations__["said"] = event
    reader.reacts_to(event)(read)

    (finding,) = [each for each in check(build([mail, reader])) if each.mistake == "two meanings"]
    assert finding.about == f"mail.hold.{kind}.v1"
    assert f"what Antiphon says when command mail.hold is {kind}" in finding.sentence
