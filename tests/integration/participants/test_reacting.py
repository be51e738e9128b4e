"""Reactions run: under the inbox's rules in every database, and over a real server in both its forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.contracts import Event, Refused, Retry, SagaKey, Unavailable, Unrecoverable
from antiphon.contracts.envelope import Envelope, encode, pack, unpack_raw
from antiphon.contracts.payloads import Parked
from antiphon.contracts.subjects import cancel_subject, event_subject, reaction_step, signal_subject, start_subject
from antiphon.contracts.topology import PARKED, Listener
from antiphon.coordinator.reading.parked import waiting
from antiphon.participants import Participant, Transaction
from antiphon.participants.inbox import Spent
from antiphon.participants.memory import MemoryDatabase
from antiphon.participants.procedures import AlreadyDone
from antiphon.participants.testing import Service
from tests.support.server import FORMS, Form, until

from .play import TRACEPARENT, Play, play, told_subject
from .reactor import (
    Browsed,
    Hurry,
    Ordered,
    Paid,
    PaidInCoins,
    PutBack,
    Reactor,
    Returned,
    SetAside,
    Short,
    Thanked,
    Unpaid,
)
from .stock import Gate, Store, effects_in

THREE = Retry(attempts=3, first_seconds=0.01, factor=1.0, cap_seconds=0.01)
SAGA = "shop/s1"
ORDERED, PAID = "on-shop-ordered", reaction_step("billing-paid", "said")
UNPAID = reaction_step("billing-unpaid", "said")
THERE = SetAside(reservation_id="r-1")


async def refuse(tx: Transaction) -> None:
    raise Refused("out of stock")


async def fail(tx: Transaction) -> None:
    raise Unavailable("the shelf is stuck")


# --- the inbox --------------------------------------------------------------------------------------------------------


async def service(store: Store, reactor: Reactor) -> Service:
    return Service(reactor.participant, await store.open())


async def test_an_event_that_comes_again_has_no_effect_again_and_the_same_follows(store: Store) -> None:
    reactor = Reactor()
    stock = await service(store, reactor)
    assert await stock.react(Ordered(), saga=SAGA) == THERE
    reactor.reservation_id = "r-2"
    assert await stock.react(Ordered(), saga=SAGA) == THERE
    assert await store.effects() == ["set aside"]


async def test_a_refusal_has_no_effect_and_stays(store: Store) -> None:
    reactor = Reactor(on_ordered=refuse)
    stock = await service(store, reactor)
    assert await stock.react(Ordered(), saga=SAGA) == Short(reason="out of stock")
    reactor.on_ordered = fail
    assert await stock.react(Ordered(), saga=SAGA) == Short(reason="out of stock")
    assert await stock.react(Unpaid(), saga=SAGA) is None
    assert await store.effects() == []


async def test_an_effect_is_taken_back_once_whoever_asks_and_never_comes_back(store: Store) -> None:
    reactor = Reactor()
    stock = await service(store, reactor)
    await stock.react(Ordered(), saga=SAGA)
    assert await stock.react(Unpaid(), saga=SAGA) == PutBack(reservation_id="r-1")
    assert await stock.react(Returned(), saga=SAGA) is None
    assert await stock.react(Unpaid(), saga=SAGA) == PutBack(reservation_id="r-1"), "it may not have been published yet"
    assert await stock.react(Ordered(), saga=SAGA) is None
    assert await store.effects() == ["set aside", "put back"]


async def test_what_is_undone_before_it_is_done_is_never_done(store: Store) -> None:
    stock = await service(store, Reactor())
    assert await stock.react(Unpaid(), saga=SAGA) is None
    assert await stock.react(Ordered(), saga=SAGA) is None
    assert await store.effects() == []
    assert await stock.react(Ordered(), saga="shop/s2") == THERE


async def test_nothing_may_follow_and_that_is_remembered(store: Store) -> None:
    reactor = Reactor(is_grateful=False)
    stock = await service(store, reactor)
    assert await stock.react(Paid(), saga=SAGA) is None
    reactor.is_grateful = True
    assert await stock.react(Paid(), saga=SAGA) is None
    assert await store.effects() == ["thanked"]


async def test_what_cannot_be_undone_follows_from_each_event_of_a_saga(store: Store) -> None:
    stock = await service(store, Reactor())
    for step in ("charge-1", "charge-2", "charge-1"):
        assert await stock.react(Paid(), saga=SAGA, step=step) == Thanked(amount=7)
    assert await store.effects() == ["thanked", "thanked"]


async def test_a_reaction_that_raises_leaves_nothing(store: Store) -> None:
    reactor = Reactor(on_ordered=fail)
    stock = await service(store, reactor)
    with pytest.raises(Unavailable):
        await stock.react(Ordered(), saga=SAGA)
    assert await store.effects() == []
    reactor.on_ordered = refuse
    assert await stock.react(Ordered(), saga=SAGA) == Short(reason="out of stock")


async def test_who_takes_back_waits_for_whoever_is_inside(store: Store) -> None:
    gate = Gate()
    stock, other = await service(store, Reactor(on_ordered=gate)), await service(store, Reactor())
    reacting = asyncio.create_task(stock.react(Ordered(), saga=SAGA))
    await gate.reached.wait()
    undoing = asyncio.create_task(other.react(Unpaid(), saga=SAGA))
    await asyncio.wait({undoing}, timeout=0.05)
    assert not undoing.done()
    gate.opened.set()
    assert (await reacting, await undoing) == (THERE, PutBack(reservation_id="r-1"))
    assert await store.effects() == ["set aside", "put back"]


async def test_what_a_reaction_returns_is_what_it_declared() -> None:
    stock = Participant("stock")

    @stock.reacts_to(Paid)
    async def thank(paid: Paid, tx: Transaction) -> Thanked:
        return None  # type: ignore[return-value]

    with pytest.raises(TypeError, match="the reaction thank returned None, not Thanked"):
        await Service(stock, MemoryDatabase()).react(Paid())


async def test_a_second_event_of_a_kind_whose_effect_can_be_undone_is_not_taken_for_the_first() -> None:
    """Nobody could say afterwards which of the two is to be undone."""
    stock, database = Participant("stock"), MemoryDatabase()

    @stock.reacts_to(Paid, saga_type="shop")
    async def thank(paid: Paid, tx: Transaction) -> Thanked:
        return Thanked(amount=paid.amount)

    @stock.reacts_to(Unpaid, saga_type="shop", undoes=thank)
    async def regret(unpaid: Unpaid, thanked: Thanked, tx: Transaction) -> None: ...

    service = Service(stock, database)
    assert await service.react(Paid(), saga=SAGA, step="one") == Thanked(amount=7)
    with pytest.raises(AlreadyDone, match="once in a saga"):
        await service.react(Paid(), saga=SAGA, step="two")


async def test_only_what_is_declared_is_heard() -> None:
    service = Service(Reactor().participant, MemoryDatabase())
    with pytest.raises(LookupError, match=r"does not react to shop.ordered.v1 of saga type returns"):
        await service.react(Ordered(), saga="returns/s1")
    with pytest.raises(LookupError, match=r"does not react to shop.browsed.v1"):
        await service.react(Browsed(), saga=SAGA)


# --- the worker -------------------------------------------------------------------------------------------------------


LISTENERS = [Reactor().participant.listener]


@pytest.fixture
async def playing(tmp_path: Path) -> AsyncIterator[Play]:
    async with play(tmp_path, listeners=LISTENERS) as found:
        yield found


@pytest.mark.parametrize("form", FORMS)
async def test_what_follows_is_published_in_the_same_saga(form: Form, tmp_path: Path) -> None:
    async with play(tmp_path, form, listeners=LISTENERS) as playing:
        await playing.worker(Reactor())
        started = await playing.tell(Ordered(), "s1")
        event = await playing.follows("s1", "stock-set-aside", ORDERED)
        assert event.id == event_subject(SagaKey.of("shop", "s1").path, "stock", "stock-set-aside", ORDERED, 1)
        assert (event.source, event.type, event.reacts) == ("stock", "stock.set-aside.v1", str(started))
        assert (event.command, event.traceparent) == ("", TRACEPARENT)
        assert event.started is not None
        await playing.tell(Unpaid(), "s1")
        undone = await playing.follows("s1", "stock-put-back", UNPAID)
        assert unpack_raw(undone.data, PutBack) == PutBack(reservation_id="r-1")
        await playing.all_heard()


async def test_the_step_of_an_event_tells_it_from_others_like_it(playing: Play) -> None:
    await playing.worker(Reactor())
    for step in ("one", "two"):
        await playing.tell(Paid(), "s1", step)
    for step in ("one", "two"):
        await playing.follows("s1", "stock-thanked", reaction_step("billing-paid", step))
    await playing.all_heard()


async def test_a_signal_is_heard_by_a_reaction_that_says_so(playing: Play) -> None:
    await playing.worker(Reactor())
    subject = signal_subject(SagaKey.of("shop", "s1"), "shop-hurry")
    await playing.administrator.store(subject, of_client(subject, Hurry()))
    await playing.follows("s1", "stock-thanked", "on-shop-hurry")
    await playing.all_heard()


NO_STARTS = {
    "a start that is sent as a signal": (signal_subject(SagaKey.of("shop", "s1"), "shop-ordered"), Ordered()),
    "a start at the signal of another event": (signal_subject(SagaKey.of("shop", "s1"), "shop-hurry"), Ordered()),
    "a start at a signal that nobody knows": (signal_subject(SagaKey.of("shop", "s1"), "x"), Ordered()),
    "a start in the place of a cancel": (cancel_subject(SagaKey.of("shop", "s1")), Ordered()),
    "a signal that is sent as a start": (start_subject(SagaKey.of("shop", "s1")), Hurry()),
}
FORMER_FILTERS = ("evt.*.shop.*.client.start", "evt.*.shop.*.client.signal.*.1")
"""What earlier releases had delivered to whoever reacts to a client's event."""


@pytest.mark.parametrize("filters", ["ours", "former"])
@pytest.mark.parametrize("name", NO_STARTS)
async def test_nothing_follows_from(name: str, filters: str, tmp_path: Path) -> None:
    """A start is what a client stores as one: with a signal instead there would be effects, and no saga."""
    subject, event = NO_STARTS[name]
    reactor = Reactor()
    ours = reactor.participant.listener
    listener = Listener("stock", (*ours.hears, *FORMER_FILTERS) if filters == "former" else ours.hears)
    async with play(tmp_path, listeners=[listener]) as playing:
        await playing.worker(reactor)
        await playing.administrator.store(subject, of_client(subject, event))
        await playing.tell(Ordered(), "s2")
        await playing.follows("s2", "stock-set-aside", ORDERED)
        await playing.all_heard()
        assert reactor.calls == ["set aside"]
        assert await playing.said("s1") == []


def of_client(subject: str, event: Event) -> bytes:
    envelope = Envelope(
        id=subject, source="client", type=event.__contract__.type, time=datetime.now(UTC), data=pack(event)
    )
    return encode(envelope)


async def test_silence_a_refusal_and_what_is_not_for_us_are_acked(playing: Play) -> None:
    reactor = Reactor(on_ordered=refuse, is_grateful=False)
    await playing.worker(reactor)
    await playing.tell(Paid(), "s1")
    await playing.tell(Browsed(), "s2")
    await playing.tell(Returned(), "s3")
    await playing.tell(Ordered(), "s4")
    refused = await playing.follows("s4", "stock-short", ORDERED)
    assert unpack_raw(refused.data, Short) == Short(reason="out of stock")
    await playing.all_heard()
    assert sorted(reactor.calls) == ["set aside", "thank"]
    assert [await playing.said(saga) for saga in ("s1", "s2", "s3")] == [[], [], []]
    assert await playing.administrator.read_all(PARKED, ["parked.>"]) == []


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"data": msgspec.Raw(b'{"amount":"much"}')}, "undecodable", "Expected `int`"),
        ({"id": "evt.1.shop.other.billing.billing-paid.said.1"}, "forged", "the envelope says"),
        ({"source": "shipping"}, "forged", "the envelope's source is 'shipping'"),
        ({"type": "billing.unpaid.v1"}, "forged", "the subject says 'billing-paid'"),
    ],
)
async def test_what_cannot_be_used_is_parked_and_never_handled(
    changes: dict[str, Any], kind: str, sentence: str, playing: Play
) -> None:
    reactor = Reactor()
    await playing.worker(reactor)
    sequence = await playing.tell(Paid(), "s1", **changes)
    stored = await playing.parked()
    parked = msgspec.json.decode(stored.data, type=Parked)
    assert (stored.subject, parked.stream, parked.sequence) == (f"parked.{kind}.stock.billing", "EVENTS", sequence)
    assert sentence in parked.reason
    assert parked.data != b""
    await playing.all_heard()
    assert reactor.calls == []
    assert await playing.said("s1") == []


async def test_a_subject_with_another_sagas_partition_is_forged(playing: Play) -> None:
    reactor = Reactor()
    await playing.worker(reactor)
    key = SagaKey.of("shop", "s1")
    subject = f"evt.{(key.partition + 1) % 64}.shop.s1.client.start"
    await playing.administrator.store(subject, of_client(subject, Ordered()))
    assert (await playing.parked()).subject == "parked.forged.stock.client"
    await playing.all_heard()
    assert reactor.calls == []


async def test_a_reaction_is_tried_for_ever_and_waits_for_a_person_as_well(playing: Play) -> None:
    reactor, database = Reactor(on_ordered=fail, retry=THREE), MemoryDatabase()
    await playing.worker(reactor, database)
    sequence = await playing.tell(Ordered(), "s1")
    parked = msgspec.json.decode((await playing.parked()).data, type=Parked)
    assert (parked.kind, parked.reason) == ("fault", "the shelf is stuck")
    await playing.noted(sequence, "s1")
    assert [each.reason for each in await waiting(playing.administrator)] == ["the shelf is stuck"]
    tried = len(reactor.calls)
    assert tried >= THREE.attempts
    await until(lambda: len(reactor.calls) > tried + THREE.attempts, what="more tries")
    assert effects_in(database) == []
    reactor.on_ordered = Reactor().on_ordered
    await playing.follows("s1", "stock-set-aside", ORDERED)
    await playing.all_heard()
    assert effects_in(database) == ["set aside"]
    assert await waiting(playing.administrator) == []


async def test_what_no_attempt_will_mend_waits_for_a_person_at_once(playing: Play) -> None:
    async def give_up(tx: Transaction) -> None:
        raise Unrecoverable("the shelf is gone")

    reactor = Reactor(on_ordered=give_up, retry=Retry(1_000_000, first_seconds=0.01, factor=1.0, cap_seconds=0.01))
    await playing.worker(reactor)
    await playing.tell(Ordered(), "s1")
    assert "the shelf is gone" in msgspec.json.decode((await playing.parked()).data, type=Parked).reason
    await until(lambda: len(reactor.calls) > 1, what="another attempt")


async def test_a_newer_event_waits_for_a_worker_that_knows_it(playing: Play) -> None:
    """As while a new version of the participant is being rolled out."""
    old, new, database = Reactor(), Reactor(), MemoryDatabase()
    await playing.worker(old, database, chance=lambda: 0.0)
    await playing.tell(PaidInCoins(), "s1")
    await until(lambda: database.spent, what="the first hand-back")

    @new.participant.reacts_to(PaidInCoins)
    async def thank_for_coins(paid: PaidInCoins, tx: Transaction) -> Thanked:
        return Thanked(amount=paid.coins)

    await playing.worker(new)
    await playing.follows("s1", "stock-thanked", PAID)
    await playing.all_heard()
    assert old.calls == []


async def test_an_older_event_is_known_and_left_out(playing: Play) -> None:
    stock = Reactor()
    stock.participant.reactions.clear()

    @stock.participant.reacts_to(PaidInCoins)
    async def thank_for_coins(paid: PaidInCoins, tx: Transaction) -> Thanked:
        return Thanked(amount=paid.coins)

    await playing.worker(stock)
    await playing.tell(Paid(), "s1")
    await playing.all_heard()
    assert await playing.said("s1") == []


async def test_a_drain_costs_a_reaction_nothing(playing: Play) -> None:
    gate, database = Gate(), MemoryDatabase()
    worker = await playing.worker(Reactor(on_ordered=gate, retry=Retry(attempts=1)), database)
    await playing.tell(Ordered(), "s1")
    await gate.reached.wait()
    await worker.drain(grace_seconds=0.0)
    assert database.spent == {told_subject(Ordered(), "s1"): Spent(returned=1)}
    await playing.worker(Reactor(), database)
    await playing.follows("s1", "stock-set-aside", ORDERED)
    assert effects_in(database) == ["set aside"]


async def test_reactions_have_places_of_their_own(playing: Play) -> None:
    gate = Gate()
    worker = await playing.worker(Reactor(on_ordered=gate), reaction_concurrency=3)
    for number in range(10):
        await playing.tell(Ordered(), f"s{number}")
    await until(lambda: worker.held == 3, what="three events held")
    gate.opened.set()
    await playing.all_heard()


async def test_what_is_told_of_events_and_of_commands_is_kept_apart(playing: Play) -> None:
    """By the id of the message: the two streams count alike, so an event and a command may have the same sequence."""
    reactor, database = Reactor(on_ordered=fail, retry=THREE), MemoryDatabase()
    await playing.worker(reactor, database)
    await playing.tell(Ordered(), "s1")
    await until(lambda: database.spent, what="a failure")
    assert set(database.spent) == {told_subject(Ordered(), "s1")}


async def test_a_reaction_that_killed_its_worker_too_often_rests_before_it_is_called_again(tmp_path: Path) -> None:
    async with play(tmp_path, ack_wait_seconds=0.5, listeners=LISTENERS) as playing:
        gate, database = Gate(), MemoryDatabase()
        reactor = Reactor(on_ordered=gate, retry=THREE)
        await playing.tell(Ordered(), "s1")
        await database.note(told_subject(Ordered(), "s1"), Spent(alone=THREE.attempts))
        link = await playing.up.connect("stock", name="lost")
        pull = await link.pull("EVENTS", "stock-on", 1, lambda _: None)
        await until(lambda: pull.held == 1, what="a delivery that is lost")
        await link.close()
        await playing.worker(reactor, database)
        parked = msgspec.json.decode((await playing.parked()).data, type=Parked)
        assert (parked.kind, parked.reason) == ("fault", "3 attempts took the worker with them")
        gate.opened.set()  # once it is done, what is parked says that nobody is called any more
        await playing.follows("s1", "stock-set-aside", ORDERED)
