"""What gives up before another worker can have taken over from one that died is warned of, and is no error."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import Event, HastyTimeout
from antiphon.contracts.topology import RECOVERY_SECONDS
from antiphon.coordinator import Choreography, Saga, State
from antiphon.coordinator.testing import rehearse
from antiphon.deploy.local.styles import Style
from tests.support.trip import BookRoom, BookSeat, RoomBooked, SeatBooked, TripAsked

LONG = timedelta(hours=1)
SHORT = timedelta(seconds=RECOVERY_SECONDS - 0.1)
ENOUGH = timedelta(seconds=RECOVERY_SECONDS)


class Approved(Event, name="haste.approved"):
    by: str


class Boarded(Event, name="haste.boarded", owner="airline"):
    seat: str


def a_step(saga: Saga[TripAsked], time: timedelta) -> None:
    @saga.step(timeout=time, needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)


def an_optional_step(saga: Saga[TripAsked], time: timedelta) -> None:
    def is_wanted(s: State[TripAsked]) -> bool:
        return True

    @saga.step(when=is_wanted, timeout=time, needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)


def a_pivot(saga: Saga[TripAsked], time: timedelta) -> None:
    @saga.step(timeout=time, pivot=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)


def a_list(saga: Saga[TripAsked], time: timedelta) -> None:
    @saga.each(timeout=time, needs_no_compensation=True)
    def book_seats(s: State[TripAsked]) -> list[BookSeat]:
        return [BookSeat(traveller=s.start.traveller)]


def an_awaited_event(saga: Saga[TripAsked], time: timedelta) -> None:
    saga.awaits(Boarded, within=time)


def a_child(saga: Saga[TripAsked], time: timedelta) -> None:
    @saga.child(whole(), timeout=time, needs_no_compensation=True)
    def another(s: State[TripAsked]) -> TripAsked:
        return s.start


def a_signal(saga: Saga[TripAsked], time: timedelta) -> None:
    saga.signal(Approved, within=time)


def a_wait(saga: Saga[TripAsked], time: timedelta) -> None:
    saga.wait("rest", time)


def whole(deadline: timedelta = LONG) -> Saga[TripAsked]:
    """A saga that is sound and in no hurry, unless it has a short deadline."""
    saga = Saga(TripAsked, name="whole", version=1, deadline=deadline)

    @saga.step(needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)

    return saga


def warned(call: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [each for each in found if each.category is HastyTimeout]


@pytest.mark.parametrize("add", [a_step, an_optional_step, a_pivot, a_list, an_awaited_event, a_child])
def test_a_step_that_waits_for_a_worker_is_warned_of_where_it_is_declared(
    add: Callable[[Saga[TripAsked], timedelta], None],
) -> None:
    saga = Saga(TripAsked, name="hurried", version=1, deadline=LONG)
    (found,) = warned(lambda: add(saga, SHORT))
    assert f"of hurried waits for {SHORT.total_seconds():g} s" in str(found.message)
    assert f"within {RECOVERY_SECONDS:g} s" in str(found.message)
    assert found.filename == __file__
    assert warned(lambda: add(Saga(TripAsked, name="calm", version=1, deadline=LONG), ENOUGH)) == []


@pytest.mark.parametrize("add", [a_signal, a_wait])
def test_what_waits_for_no_worker_may_be_short(add: Callable[[Saga[TripAsked], timedelta], None]) -> None:
    assert warned(lambda: add(Saga(TripAsked, name="calm", version=1, deadline=LONG), SHORT)) == []


def test_a_deadline_is_warned_of_and_that_of_a_choreography_is_not() -> None:
    (found,) = warned(lambda: whole(SHORT))
    assert "saga whole has a deadline of" in str(found.message)
    assert found.filename == __file__
    flow: dict[type[Event], str] = {TripAsked: "hotel", RoomBooked: "airline"}
    ends = (SeatBooked,)
    assert warned(lambda: Choreography(TripAsked, name="c", version=1, deadline=SHORT, flow=flow, completes=ends)) == []


async def test_a_rehearsal_warns_once_more() -> None:
    saga = Saga(TripAsked, name="hurried", version=1, deadline=LONG)
    with pytest.warns(HastyTimeout):
        a_step(saga, SHORT)
    with pytest.warns(HastyTimeout, match="step book_room of hurried waits for") as found:
        async with rehearse([saga], []):
            pass
    assert [each.filename for each in found] == [__file__]


@pytest.mark.parametrize("style", Style)
def test_the_order_system_is_in_no_hurry(style: Style) -> None:
    module = style.saga.partition(":")[0]
    strict = (
        "import warnings; from antiphon.contracts import HastyTimeout; warnings.simplefilter('error', HastyTimeout)"
    )
    code = f"{strict}; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
