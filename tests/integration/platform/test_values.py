"""What travels, over a real server and in every way there is; and a start that is too late for its saga."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.contracts import AlreadyStarted
from antiphon.contracts.payloads import Record
from antiphon.contracts.subjects import journal_filter
from antiphon.contracts.topology import PARKED, SAGA
from antiphon.contracts.values import is_same
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.decision.entries import read_entry
from antiphon.coordinator.decision.facts import Finish
from antiphon.coordinator.decision.history import DEADLINE_REASON
from antiphon.participants.memory import MemoryDatabase
from antiphon.participants.worker import Worker
from tests.integration.platform.test_coordinator import company
from tests.support.cargo import TRAVELS, WAYS, Cargo
from tests.support.trip import ASKED, make_trip

FIELDS = [(f"field_{number}", type_) for number, (type_, _) in enumerate(TRAVELS.values())]
Everything: Any = msgspec.defstruct("Everything", FIELDS, frozen=True, module=__name__)


async def test_all_that_travels_arrives_over_a_server(tmp_path: Path) -> None:
    cargo = Cargo(Everything, Everything(*(value for _, value in TRAVELS.values())))
    async with company(tmp_path, "plain", ("mover",)) as there:
        await there.coordinate(sagas=[cargo.saga, cargo.child])
        worker = Worker(cargo.mover, await there.link("mover"), MemoryDatabase())
        await worker.start()
        client = await there.client()
        done = await client.start(cargo.saga, cargo.start(field=cargo.value), id="1")
        await done.signal(cargo.cleared, cargo.signal(field=cargo.value))
        assert (await done.result(timeout=120)).outcome == "completed"
        undone = await client.start(cargo.saga, cargo.start(field=cargo.value), id="2")
        await undone.cancel("enough")
        assert (await undone.result(timeout=120)).outcome == "compensated"
        assert await (await there.link("coordinator")).read_all(PARKED, [f"{PARKED.lower()}.>"]) == []
        await require_same(client, cargo)
        await worker.drain()
    assert cargo.seen.keys() >= WAYS - {"reply to undo"}  # the cancel may come before there is one
    assert [way for way, seen in cargo.seen.items() if not is_same(seen, cargo.value)] == []


async def require_same(client: Antiphon, cargo: Cargo) -> None:
    """The same start and signal again change nothing; another start is one."""
    again = await client.start(cargo.saga, cargo.start(field=cargo.value), id="1")
    await again.signal(cargo.cleared, cargo.signal(field=cargo.value))
    with pytest.raises(AlreadyStarted, match="with another payload"):
        await client.start(cargo.saga, cargo.start(field=msgspec.structs.replace(cargo.value, field_0="")), id="1")


async def test_a_saga_whose_deadline_passed_before_a_coordinator_came_ends_at_once(tmp_path: Path) -> None:
    saga = make_trip(deadline=timedelta(milliseconds=1))
    async with company(tmp_path, "plain") as there:
        handle = await (await there.client()).start(saga, ASKED, id="t1")
        await there.coordinate(sagas=[saga])
        outcome = await handle.result(timeout=120)
        assert (outcome.outcome, outcome.reason) == ("compensated", DEADLINE_REASON)
        stored = await (await there.link("coordinator")).read_all(SAGA, [journal_filter(handle.key)])
        entries = [read_entry(each.subject, each.sequence, each.data) for each in stored]
        assert [type(entry.what) for entry in entries] == [Record, Finish]
