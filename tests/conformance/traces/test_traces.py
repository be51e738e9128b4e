"""Every way a saga can go, as a text: played in memory and on a real server, with equal journals.

`REWRITE_TRACES=1 pytest tests/conformance/traces` writes into the texts what comes of them in memory. Review the diff.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.serve import attach
from tests.conformance.traces.stage import TELLING, MemoryStage, Play, ServerStage
from tests.conformance.traces.trace import FOLDER, Played, Trace, difference, read_trace, written
from tests.support.journeys import everywhere
from tests.support.server import Platform, platform
from tests.support.trip import PARTICIPANTS

TRACES = sorted(FOLDER.glob("*.txt"))
NAMES = [path.stem for path in TRACES]

LONG = timedelta(hours=1)
"""How long a unit is on a real server where no time must pass."""

SHORT = (timedelta(seconds=2), timedelta(seconds=20))
"""The same where a trace lets time pass. A busy machine may need more time for a deed than a deadline
leaves, so a trace that went another way is played once more with a longer unit."""


@cache
def told(name: str) -> Trace:
    return read_trace(FOLDER / f"{name}.txt")


@cache
def remembered(name: str) -> tuple[Played, Any]:
    """What comes of a trace in memory, and the sagas in it."""
    stage = MemoryStage()
    play = Play(told(name), stage)
    return asyncio.run(play.in_memory(stage)), play.keys


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played | Exception]:
    """What comes of all traces on a real server, where they are played side by side."""
    found: dict[str, Played | Exception] = {}
    # Two coordinators would know one saga by two shapes, so each unit has a server of its own.
    for unit in (LONG, *SHORT):
        names = [name for name in NAMES if told(name).needs_time is (unit is not LONG)]
        names = [name for name in names if name not in found or not goes_as_remembered(name, found[name])]
        if names:
            with platform(tmp_path_factory.mktemp("traces"), participants=PARTICIPANTS) as up:
                found |= asyncio.run(play_all(up, unit, names))
    return found


def goes_as_remembered(name: str, found: Played | Exception) -> bool:
    model, _ = remembered(name)
    return isinstance(found, Played) and (found.lines, found.causes) == (model.lines, model.causes)


async def play_all(up: Platform, unit: timedelta, names: Sequence[str]) -> dict[str, Played | Exception]:
    await up.set_up()
    async with AsyncExitStack() as stack:
        link = await up.connect("coordinator")
        stack.push_async_callback(link.close)
        sagas = [saga.definition for saga in everywhere(unit)]
        attached = await attach(link, Coordinator(JetStreamStore(link), sagas, 1800, TELLING))
        stage = ServerStage(link, unit)
        plays = {name: Play(told(name), stage) for name in names}
        errors = await asyncio.gather(*(perform(name, plays[name], stage) for name in names))
        await stage.is_idle()
        found = {
            name: error or await plays[name].found(remembered(name)[0])
            for name, error in zip(names, errors, strict=True)
        }
        for pull in attached.stop_looking():
            await pull.drain()
    return found


async def perform(name: str, play: Play, stage: ServerStage) -> Exception | None:
    model, keys = await asyncio.to_thread(remembered, name)
    try:
        await play.on_server(stage, model, keys)
    except TimeoutError:
        return None  # what there is says more
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_goes_as_it_is_told(name: str) -> None:
    found = written(told(name), remembered(name)[0])
    if os.environ.get("REWRITE_TRACES") == "1":
        (FOLDER / f"{name}.txt").write_text(found)
        told.cache_clear()
    assert not difference(told(name), told(name).text, found), "\n" + difference(told(name), told(name).text, found)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_server_has_the_same_journal(name: str, served: dict[str, Played | Exception]) -> None:
    found, (model, _) = served[name], remembered(name)
    assert isinstance(found, Played), found
    changes = difference(told(name), written(told(name), model), written(told(name), found))
    assert not changes, "\n" + changes
    assert found.causes == model.causes
