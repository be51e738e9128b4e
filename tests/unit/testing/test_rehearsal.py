"""The platform in memory: everything a saga meets, in virtual time, with participants' own handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import DefinitionError, TooLate
from antiphon.contracts.stored import Delivered
from antiphon.contracts.topology import EVENTS, PLATFORM_CONSUMERS, STARTS
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.runtime.memory import MemoryPlatform
from antiphon.coordinator.testing import Rehearsal, rehearse
from antiphon.coordinator.testing.rehearsal import PATIENCE_SECONDS
from antiphon.participants import Participant, Transaction
from antiphon.participants.testing import Service
from tests.support.journeys import DAY, Approved, everywhere, rest
from tests.support.trip import ASKED, BookRoom, RoomBooked
from tests.unit.testing.hotel import airline, bank, hotel

SAGAS: dict[str, Saga[Any]] = {saga.name: saga for saga in everywhere(DAY) if isinstance(saga, Saga)}
ROOM, SEAT, CARD = "book_room", "book_seat", "charge_card"


@pytest.fixture
async def services() -> AsyncIterator[dict[str, Service]]:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Service.open(each)) for each in (hotel, airline, bank)]
        yield {service.name: service for service in opened}


@pytest.fixture
async def rehearsal(services: dict[str, Service]) -> AsyncIterator[Rehearsal]:
    async with rehearse(SAGAS.values(), services.values(), coordinators=2) as stage:
        yield stage


async def test_a_saga_completes(rehearsal: Rehearsal, services: dict[str, Service]) -> None:
    saga = await rehearsal.start(SAGAS["trip"], ASKED)
    assert (saga.outcome(), saga.sent()) == ("completed", [ROOM, SEAT, CARD])
    assert [service.effects for service in services.values()] == [
        ["2 nights for 1"],
        ["a seat for 1"],
        ["a charge for 1"],
    ]
    assert "charge_card" in saga.story()


async def test_a_story_and_a_rehearsal_can_be_printed(rehearsal: Rehearsal) -> None:
    saga = await rehearsal.start(SAGAS["approval"], ASKED)
    signal: Any = SAGAS["approval"].steps[1]
    await saga.signal(signal, Approved(by="Ada"))
    told = saga.story()
    assert "2025" in told
    assert "coordinator trip-approved: is waited for" in told
    assert "client trip-approved: signals trip.approved.v1" in told
    for word in ("Record(", "Send(", "Finish(", "msgspec"):
        assert word not in told
    assert repr(saga) == "<saga approval/1 completed>"
    poor = await rehearsal.start(SAGAS["trip"], ASKED, id="poor")
    await rehearsal.stop("bank")
    assert f"{poor}".startswith("<saga trip/poor compensated: charge_card was refused")
    assert "hotel, airline, bank take part, stopped: bank; approval/1 completed; trip/poor comp" in str(rehearsal)


async def test_a_signal_or_a_cancel_that_comes_too_late_is_refused(rehearsal: Rehearsal) -> None:
    approval = SAGAS["approval"]
    signal: Any = approval.steps[1]
    saga = await rehearsal.start(approval, ASKED)
    await saga.cancel("changed my mind")
    assert saga.outcome() == "compensated"
    await saga.cancel("and again")
    with pytest.raises(TooLate, match="the signal trip-approved comes too late for saga approval/1: it has ended"):
        await saga.signal(signal, Approved(by="Ada"))
    done = await rehearsal.start(SAGAS["trip"], ASKED)
    with pytest.raises(TooLate, match="the wish to cancel comes too late for saga trip/1: it has ended"):
        await done.cancel("no more")


async def test_a_refused_saga_is_compensated(rehearsal: Rehearsal, services: dict[str, Service]) -> None:
    saga = await rehearsal.start(SAGAS["trip"], ASKED, id="poor")
    assert (saga.outcome(), saga.sent()[3:]) == ("compensated", [f"undo {SEAT}", f"undo {ROOM}"])
    assert services["bank"].effects == []
    assert services["hotel"].effects[1:] == ["room 2 freed for poor"]


async def test_a_participant_that_is_unavailable_is_asked_until_its_attempts_run_out(rehearsal: Rehearsal) -> None:
    saga = await rehearsal.start(SAGAS["trip"], ASKED, id="unlucky")
    assert saga.outcome() is None
    await rehearsal.run(timedelta(minutes=5))
    assert (saga.outcome(), saga.sent()[3:]) == ("compensated", [f"undo {CARD}", f"undo {SEAT}", f"undo {ROOM}"])
    assert "has no known outcome: closed" in saga.status().reason


async def test_thirty_days_of_waiting_take_no_time(rehearsal: Rehearsal) -> None:
    thirty = rest(timedelta(days=30))
    async with Service.open(hotel) as service, rehearse([thirty], [service]) as stage:
        saga = await stage.start(thirty, ASKED)
        await stage.run(timedelta(days=30, seconds=-1))
        assert saga.outcome() is None
        await stage.run(timedelta(seconds=1))
        assert saga.outcome() == "completed"


async def test_a_signal_and_a_cancel_reach_their_saga(rehearsal: Rehearsal) -> None:
    approval = SAGAS["approval"]
    signal: Any = approval.steps[1]
    first = await rehearsal.start(approval, ASKED, id="a")
    await first.signal(signal, Approved(by="Bob"))
    assert first.outcome() == "completed"
    second = await rehearsal.start(approval, ASKED, id="b")
    await second.cancel("another time")
    assert (second.outcome(), second.status().reason) == ("compensated", "cancelled: another time")


async def test_children_and_locks_work_together(rehearsal: Rehearsal) -> None:
    package = await rehearsal.start(SAGAS["package"], ASKED)
    assert (package.outcome(), package.sent()) == ("completed", [ROOM, "fly", CARD])
    await rehearsal.stop("hotel")
    first = await rehearsal.start(SAGAS["exclusive"], ASKED, id="a")
    second = await rehearsal.start(SAGAS["exclusive"], ASKED, id="b")
    assert (first.sent(), second.sent()) == ([ROOM], [])
    await rehearsal.restart("hotel")
    await rehearsal.run()
    assert (first.outcome(), second.outcome()) == ("completed", "completed")


@pytest.mark.parametrize("when", ["before commit", "after commit"])
async def test_who_dies_over_a_compensation_undoes_once(
    rehearsal: Rehearsal, services: dict[str, Service], when: Any
) -> None:
    await rehearsal.stop("bank")
    saga = await rehearsal.start(SAGAS["trip"], ASKED)
    rehearsal.crash("hotel", when)
    await saga.cancel("no")
    await rehearsal.restart("bank")
    await rehearsal.run(timedelta(minutes=2))
    assert saga.outcome() == "compensated"
    assert services["hotel"].effects == ["2 nights for 1", "room 2 freed for 1"]


async def test_who_is_stopped_or_not_there_cannot_crash(rehearsal: Rehearsal) -> None:
    await rehearsal.stop("hotel")
    with pytest.raises(AssertionError, match=r"^participant hotel is stopped; restart it"):
        rehearsal.crash("hotel", "after commit")
    with pytest.raises(AssertionError, match=r"^participant hotel is stopped; restart it"):
        await rehearsal.stop("hotel")
    rehearsal.slow("hotel", timedelta(minutes=1))
    await rehearsal.restart("hotel")
    with pytest.raises(
        AssertionError, match=r"^no participant 'motel' takes part in this rehearsal; did you mean 'hotel'"
    ):
        rehearsal.slow("motel", timedelta(minutes=1))


async def test_a_point_that_does_not_exist_is_refused_at_once(rehearsal: Rehearsal) -> None:
    wrong: Any = "after comit"
    with pytest.raises(AssertionError, match=r"^no process dies 'after comit'; did you mean 'after commit'\?$"):
        rehearsal.crash("hotel", wrong)


async def test_a_signal_of_another_step_is_refused_at_once(rehearsal: Rehearsal) -> None:
    saga = await rehearsal.start(SAGAS["trip"], ASKED)
    room: Any = SAGAS["trip"].steps[0]
    with pytest.raises(DefinitionError, match=r"waits for no RoomBooked there"):
        await saga.signal(room, RoomBooked(room="1"))


async def test_who_is_slow_is_late_by_that_time(rehearsal: Rehearsal) -> None:
    rehearsal.slow("airline", timedelta(minutes=10))
    saga = await rehearsal.start(SAGAS["trip"], ASKED)
    await rehearsal.run(timedelta(minutes=9))
    assert saga.outcome() is None
    await rehearsal.run(timedelta(minutes=1))
    assert (saga.outcome(), saga.sent()) == ("completed", [ROOM, SEAT, CARD])


async def test_a_saga_that_stands_still_is_among_what_is_parked(rehearsal: Rehearsal) -> None:
    saga = await rehearsal.start(SAGAS["broken"], ASKED)
    assert saga.status().parked == "book_seat raised ZeroDivisionError('book_seat')"
    assert [parked.saga for parked in rehearsal.parked] == [saga.key]


async def test_a_handler_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    inn = Participant("hotel")

    @inn.handles(BookRoom)
    async def ponder(command: BookRoom, tx: Transaction) -> RoomBooked:
        await asyncio.Event().wait()
        return RoomBooked(room="none")

    monkeypatch.setattr("antiphon.coordinator.testing.rehearsal.PATIENCE_SECONDS", PATIENCE_SECONDS / 100)
    async with Service.open(inn) as service, rehearse([SAGAS["rest"]], [service]) as stage:
        with pytest.raises(AssertionError, match=r"a handler of hotel has not returned within 0\.1 s of real time"):
            await stage.start(SAGAS["rest"], ASKED)


async def test_a_saga_that_was_never_started_has_no_status(rehearsal: Rehearsal) -> None:
    saga = await rehearsal.start(SAGAS["trip"], ASKED)
    with pytest.raises(AssertionError, match="there is no saga trip/other"):
        rehearsal.status_of(type(saga.key).of("trip", "other"))


def test_what_is_handed_back_for_longer_than_the_ack_wait_stays_away_as_long() -> None:
    platform, seen = MemoryPlatform(), list[float]()
    consumer = next(each for each in PLATFORM_CONSUMERS if each.name == STARTS)

    def hand_back(delivery: Delivered) -> None:
        seen.append(platform.now_ns / 1e9)
        delivery.hand_back(consumer.ack_wait_seconds * 10)

    platform.consume(consumer, hand_back)
    platform.store(EVENTS, "evt.1.trip.t1.client.start", b"")
    platform.run(consumer.ack_wait_seconds * 10 + 1)
    assert len(seen) == 2
    assert seen[1] - seen[0] == pytest.approx(consumer.ack_wait_seconds * 10)
