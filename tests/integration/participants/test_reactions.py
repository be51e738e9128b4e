"""What a participant does by itself is declared beside its handlers, and refused on import where it cannot work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from antiphon.contracts import DefinitionError, Event, Retry
from antiphon.participants import Participant, Transaction


class Ordered(Event, name="shop.ordered"):
    pieces: int


class Paid(Event, name="billing.paid", owner="billing"):
    amount: int


class Unpaid(Event, name="billing.unpaid", owner="billing"):
    reason: str


class Reserved(Event, name="stock.reserved", owner="stock"):
    pieces: int


class BackOrdered(Event, name="stock.back-ordered", owner="stock"):
    pieces: int


class Short(Event, name="stock.short", owner="stock"):
    reason: str
    pieces: int = 0


class Released(Event, name="stock.released", owner="stock"):
    pieces: int


class LongName(Event, name="x" * 53, owner="billing"):
    pass


async def reserve(event: Ordered, tx: Transaction) -> Reserved:
    return Reserved(pieces=event.pieces)


async def release(event: Unpaid, reserved: Reserved, tx: Transaction) -> Released:
    return Released(pieces=reserved.pieces)


async def note(event: Paid, tx: Transaction) -> None: ...


def test_what_a_reaction_hears_and_what_comes_of_it_is_known_without_running_it() -> None:
    stock = Participant("stock")
    heard = stock.reacts_to(Ordered, saga_type="shop", refused=Short, retry=Retry(attempts=3))
    assert heard(reserve) is reserve
    assert stock.reacts_to(Unpaid, saga_type="shop", undoes=reserve)(release) is release
    assert stock.reacts_to(Paid)(note) is note
    first, second, third = stock.reactions
    assert (first.event, first.saga_type, first.emits, first.refused) == (Ordered, "shop", (Reserved,), Short)
    assert (first.outcomes, first.may_be_silent, first.retry.attempts) == ((Reserved, Short), False, 3)
    assert (second.undoes, second.emits, second.refused) == (first, (Released,), None)
    assert (third.saga_type, third.emits, third.may_be_silent) == ("", (), True)


def test_one_of_several_events_may_come_of_it_or_none() -> None:
    async def either(event: Paid, tx: Transaction) -> Reserved | BackOrdered | None: ...

    stock = Participant("stock")
    stock.reacts_to(Paid)(either)
    assert (stock.reactions[0].emits, stock.reactions[0].may_be_silent) == ((Reserved, BackOrdered), True)


def test_what_reactions_may_not_be() -> None:
    def plain(event: Paid, tx: Transaction) -> Reserved: ...  # type: ignore[empty-body]
    async def short(event: Paid) -> None: ...
    async def bare(event: Paid, tx: Transaction): ...  # type: ignore[no-untyped-def]
    async def other(event: Unpaid, tx: Transaction) -> None: ...
    async def text(event: Paid, tx: Transaction) -> str: ...  # type: ignore[empty-body]
    async def foreign(event: Paid, tx: Transaction) -> Unpaid: ...  # type: ignore[empty-body]
    async def says_no(event: Paid, tx: Transaction) -> Short: ...  # type: ignore[empty-body]

    refused(lambda stock: stock.reacts_to(str), "str is no Event; a participant reacts to events")
    refused(lambda stock: stock.reacts_to(Event), "Event is no Event")
    refused(lambda stock: stock.reacts_to(Ordered), "say of which sagas stock hears it, with saga_type=")
    refused(
        lambda stock: stock.reacts_to(Paid, saga_type="shop", signal=True),
        "Paid is owned by 'billing', and signals come from clients; leave signal= out",
    )
    refused(lambda stock: stock.reacts_to(Paid, saga_type="a.b"), "saga_type 'a.b' must be 1 to 64 characters")
    refused(lambda stock: stock.reacts_to(LongName), "its name may have 52 characters")
    refused(lambda stock: stock.reacts_to(Paid)(plain), "must be an `async def` function")
    refused(lambda stock: stock.reacts_to(Paid)(short), "must take event, tx; it takes 1 parameter")
    refused(lambda stock: stock.reacts_to(Paid)(bare), "must say which events come of it")
    refused(lambda stock: stock.reacts_to(Paid)(other), "reacts to Paid, but its first parameter is Unpaid")
    refused(lambda stock: stock.reacts_to(Paid)(text), r"returns str, and what comes of a reaction is an Event")
    refused(lambda stock: stock.reacts_to(Paid)(foreign), "publishes Unpaid, which is owned by 'billing'")
    refused(lambda stock: stock.reacts_to(Paid, refused=Short)(says_no), "raise Refused instead")


def test_an_event_is_heard_once_in_each_saga() -> None:
    async def another(event: Paid, tx: Transaction) -> None: ...

    def twice(stock: Any) -> None:
        stock.reacts_to(Paid)(note)
        stock.reacts_to(Paid, saga_type="shop")(another)

    refused(twice, r"Paid is heard by .*test_reactions.note and by .*another. Keep one of them, or give each")
    stock = Participant("stock")
    stock.reacts_to(Paid, saga_type="shop")(note)
    stock.reacts_to(Paid, saga_type="returns")(another)
    assert len(stock.reactions) == 2


class PaidElsewhere(Event, name="billing-paid", owner="till"):
    amount: int


def test_events_that_subjects_do_not_tell_apart_are_not_heard_both() -> None:
    async def elsewhere(event: PaidElsewhere, tx: Transaction) -> None: ...

    def both(stock: Any) -> None:
        stock.reacts_to(Paid)(note)
        stock.reacts_to(PaidElsewhere)(elsewhere)

    refused(both, "'billing.paid' of billing and 'billing-paid' of till, which subjects do not tell apart")


def test_a_refusal_is_an_event_that_the_reason_alone_makes() -> None:
    refused(lambda stock: stock.reacts_to(Paid, refused=Reserved), "is made of the reason alone")
    refused(lambda stock: stock.reacts_to(Paid, refused=Unpaid), "is owned by 'billing'. Only its owner may publish it")
    refused(lambda stock: stock.reacts_to(Paid, refused=str), "refuses Paid with str, which is no Event")


def test_what_takes_an_effect_back_fits_what_was_done() -> None:
    async def wrong_answer(event: Unpaid, reserved: BackOrdered, tx: Transaction) -> None: ...
    async def short(event: Unpaid, tx: Transaction) -> None: ...

    def after(declare: Callable[[Any], object]) -> Callable[[Any], object]:
        def declare_both(stock: Any) -> object:
            stock.reacts_to(Ordered, saga_type="shop")(reserve)
            stock.reacts_to(Paid, saga_type="shop")(note)
            return declare(stock)

        return declare_both

    def on_unpaid(stock: Any, **given: Any) -> Any:
        return stock.reacts_to(Unpaid, **{"saga_type": "shop", "undoes": reserve, **given})

    refused(lambda stock: on_unpaid(stock), "none of its reactions: decorate it with @stock.reacts_to first")
    refused(after(lambda stock: on_unpaid(stock, saga_type="")), "Make both the same")
    refused(after(lambda stock: on_unpaid(stock, undoes=note)), "which may publish nothing")
    refused(after(lambda stock: on_unpaid(stock)(wrong_answer)), "publishes Reserved, but its second .* BackOrdered")
    refused(after(lambda stock: on_unpaid(stock)(short)), "must take event, answer, tx")

    def undo_what_needs_none(stock: Any) -> None:
        stock.reacts_to(Ordered, saga_type="shop", needs_no_compensation=True)(reserve)
        on_unpaid(stock)

    refused(undo_what_needs_none, "says needs_no_compensation=True; drop one of the two")

    def undo_an_undoing(stock: Any) -> None:
        on_unpaid(stock)(release)
        stock.reacts_to(Paid, saga_type="other", undoes=release)

    refused(after(undo_an_undoing), "Make both the same")

    def undo_it_in_the_same_sagas(stock: Any) -> None:
        on_unpaid(stock)(release)
        stock.reacts_to(Short, saga_type="shop", undoes=release)

    refused(after(undo_it_in_the_same_sagas), "takes something back itself and stays")


def refused(declare: Callable[[Any], object], sentence: str) -> None:
    """Declaring it raises, with the sentence."""
    with pytest.raises(DefinitionError, match=sentence):
        declare(Participant("stock"))
