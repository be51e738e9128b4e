"""A process ends when it is told to, and not before what it holds is durable."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import cast

import pytest

from antiphon.link.delivery import Pull
from antiphon.link.process import STOP_SIGNALS, drain, told_to_stop

SECONDS_MAX = 120.0


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_a_signal_tells_a_process_to_stop(number: signal.Signals) -> None:
    told = told_to_stop()
    assert not told.is_set()
    os.kill(os.getpid(), number)
    await asyncio.wait_for(told.wait(), SECONDS_MAX)


async def test_the_end_of_a_terminal_tells_those_that_want_to_know() -> None:
    told = told_to_stop((*STOP_SIGNALS, signal.SIGHUP))
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.wait_for(told.wait(), SECONDS_MAX)


class Held:
    """A pull that holds a delivery until it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        self._looks, self.is_stopped = looks, False

    def stop(self) -> None:
        self.is_stopped = True

    @property
    def held(self) -> int:
        self._looks = max(0, self._looks - 1)
        return self._looks


def pulls(*looks: int) -> list[Pull]:
    return cast("list[Pull]", [Held(each) for each in looks])


async def test_a_drain_stops_all_pulls_and_waits_for_those_that_are_awaited() -> None:
    awaited, other = pulls(3, 1_000_000)
    await asyncio.wait_for(drain([awaited, other], [awaited], seconds=1_000_000.0), SECONDS_MAX)
    assert awaited.held == 0
    assert other.held > 0
    assert [cast("Held", each).is_stopped for each in (awaited, other)] == [True, True]


async def test_a_drain_waits_no_longer_than_it_may() -> None:
    (never,) = pulls(1_000_000)
    await asyncio.wait_for(drain([never], [never], seconds=0.0), SECONDS_MAX)
    assert never.held > 0
