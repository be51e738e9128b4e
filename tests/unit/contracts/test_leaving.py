"""When a server is left that is of no use, by a clock that the test moves."""

from __future__ import annotations

import pytest

from antiphon.link import leaving
from antiphon.link.leaving import FORGET_SECONDS, LEAVE_SECONDS, LEAVE_SECONDS_MAX, Leaving


class Connection:
    """A connection that counts how often it was moved."""

    is_connected = True

    def __init__(self) -> None:
        self.moves = 0

    async def leave(self) -> bool:
        self.moves += 1
        return True


class Clock:
    """The time, in seconds."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leaving, "time", clock)
    return clock


async def unwell_for(seconds: float, found: Leaving, clock: Clock) -> None:
    """Find the server of no use, each second."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 1
        await found.unwell()


async def test_a_server_of_no_use_is_left_after_a_while_and_the_next_one_after_twice_the_time(clock: Clock) -> None:
    connection = Connection()
    found = Leaving(connection)
    await unwell_for(LEAVE_SECONDS, found, clock)
    assert connection.moves == 0
    await unwell_for(1, found, clock)
    assert connection.moves == 1
    await unwell_for(2 * LEAVE_SECONDS - 1, found, clock)
    assert connection.moves == 1
    await unwell_for(1, found, clock)
    assert connection.moves == 2
    await unwell_for(10 * LEAVE_SECONDS_MAX, found, clock)
    moves = connection.moves
    await unwell_for(LEAVE_SECONDS_MAX, found, clock)
    assert connection.moves == moves + 1


async def test_a_server_that_was_of_use_meanwhile_is_given_all_its_time_again(clock: Clock) -> None:
    connection = Connection()
    found = Leaving(connection)
    await unwell_for(LEAVE_SECONDS, found, clock)
    found.well()
    await unwell_for(LEAVE_SECONDS, found, clock)
    assert connection.moves == 0


async def test_two_failures_with_a_long_silence_between_them_do_not_count_together(clock: Clock) -> None:
    connection = Connection()
    found = Leaving(connection)
    await found.unwell()
    clock.now += FORGET_SECONDS + 1
    await found.unwell()
    assert connection.moves == 0


async def test_while_there_is_no_connection_nothing_is_left(clock: Clock) -> None:
    connection = Connection()
    found = Leaving(connection)
    connection.is_connected = False
    await unwell_for(3 * LEAVE_SECONDS, found, clock)
    connection.is_connected = True
    await unwell_for(LEAVE_SECONDS - 1, found, clock)
    assert connection.moves == 0
