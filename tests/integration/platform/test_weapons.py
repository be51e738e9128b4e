"""One participant, with its own rights, tries to stop all others on a real server: their sagas go on as before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX
from antiphon.contracts.identity import LOCK, PARTICIPANT, SAGA_TYPE
from antiphon.contracts.payloads import Parked, read_parked
from antiphon.contracts.topology import PARKED
from antiphon.link import Link
from antiphon.link.fast import PUBLIC_VARIABLE
from tests.conformance.test_weapons import guarded
from tests.integration.platform.test_coordinator import company
from tests.support.trip import ASKED, TRIP

BODIES = (b"x", b"{}", b"", b"\xff", b"[" * 10_000, rb'{"id":"\ud800"}', b" " * (MESSAGE_BYTES_MAX + 1))


def weapons() -> list[tuple[str, bytes]]:
    """A hundred and forty facts about locks, saga types and participants, and a few with parts that are no tokens."""
    families = ((LOCK, "seat"), (LOCK, "any"), (SAGA_TYPE, "trip"), (PARTICIPANT, "bank"))
    found = [
        (f"evt.{SagaKey.of(*family).path}.hotel.{event}.x.{number}", BODIES[number % len(BODIES)])
        for family in families
        for event in ("ask", "free", "granted", "pause", "resume")
        for number in range(1, 8)
    ]
    path = SagaKey.of("trip", "none").path
    odd = (f"evt.{path}.hotel.*.x.1", f"evt.{path}.hotel.hotel-booked.*.1", "evt.*.*.*.hotel.ask.x.1")
    return [*found, *((subject, b"x") for subject in odd)]


async def all_parked(link: Link) -> list[Parked]:
    return [read_parked(each.subject, each.data) async for each in link.scan(PARKED, subjects.PARKED_FILTER)]


@pytest.mark.parametrize("transport", ["frames", "public"])
async def test_no_fact_of_a_participant_about_locks_and_the_like_costs_others_anything(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "public":
        monkeypatch.setenv(PUBLIC_VARIABLE, "1")
    async with company(tmp_path, "accounts") as there:
        coordinators = [await there.coordinate(sagas=(TRIP, guarded)) for _ in range(2)]
        await there.work()
        client, hotel, reader = await there.client(), await there.link("hotel"), await there.link("operator")
        stored = weapons()
        await asyncio.gather(*(hotel.store(subject, data) for subject, data in stored))
        handles = [await client.start(saga, ASKED, id=f"s{number}") for number in range(20) for saga in (TRIP, guarded)]
        outcomes = await asyncio.gather(*(handle.result(timeout=120) for handle in handles))
        assert {outcome.outcome for outcome in outcomes} == {"completed"}
        async with asyncio.timeout(120):
            while {each.subject for each in await all_parked(reader)} != {subject for subject, _ in stored}:
                await asyncio.sleep(0.1)
        parked = await all_parked(reader)
        assert {(each.kind, each.source) for each in parked} == {("forged", "hotel")}
        assert all("raised" not in each.reason for each in parked)
        links = [coordinator.store._link for coordinator in coordinators]  # type: ignore[attr-defined]
        assert [link.nc.stats["reconnects"] for link in links] == [0, 0]
