"""Sagas to which far more was written than one read gives, over a real server: they are decided, shown and traced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest, Record
from antiphon.contracts.topology import PARKED, SAGA
from antiphon.coordinator.client.operator import Operator
from antiphon.coordinator.decision.entries import read_entry
from antiphon.coordinator.decision.history import HEARD_MAX
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.reading.sagas import summaries, timeline
from antiphon.link import Link
from antiphon.link.sagas import PAGE_MAX
from antiphon.tracing.export.reading import read_projection
from tests.integration.platform.test_coordinator import company, idle
from tests.support.journeys import MilesGiven
from tests.support.trip import ASKED, TRIP, TripAsked, make_trip

FLOOD = 1_200
KEY = SagaKey.of("trip", "t1")


def recording() -> Saga[TripAsked]:
    saga = make_trip(name="recording")
    saga.records(MilesGiven)
    return saga


RECORDING = recording()


async def store_all(link: Link, messages: Iterable[tuple[str, bytes]]) -> None:
    """Store messages, many at once."""
    wanted = list(messages)
    for first in range(0, len(wanted), 200):
        await asyncio.gather(*(link.store(*each) for each in wanted[first : first + 200]))


def miles(key: SagaKey, number: int) -> tuple[str, bytes]:
    contract = MilesGiven.__contract__
    subject = subjects.event_subject(key.path, contract.owner, contract.token, f"on-{number}", 1)
    payload = pack(MilesGiven(miles=number))
    return subject, encode(
        Envelope(id=subject, source=contract.owner, type=contract.type, time=datetime.now(UTC), data=payload)
    )


async def test_a_saga_with_a_thousand_signals_that_nobody_knows_goes_on_and_is_seen(tmp_path: Path) -> None:
    async with company(tmp_path, "accounts") as there:
        client = await there.client()
        handle = await client.start(TRIP, ASKED, id="t1")
        stranger = await there.link("client")
        await store_all(stranger, ((subjects.signal_subject(KEY, f"x{number}"), b"{}") for number in range(FLOOD)))
        await there.coordinate()
        await there.work(idle)
        admin = await there.link("administrator")
        async with asyncio.timeout(120):
            while len(await admin.read_all(SAGA, [subjects.journal_filter(KEY)])) < 1:
                await asyncio.sleep(0.02)
        told = await timeline(admin, KEY)
        assert (told.state, len(told.lines) + told.left_out) == ("running", 1 + FLOOD + told.entries)
        assert told.left_out == FLOOD + 1 - PAGE_MAX
        assert (await handle.status()).state == "running"
        assert (await read_projection(admin, KEY)).spans
        assert [each.id for each in await summaries(admin)] == ["t1"]
        operator = await there.link("operator")
        assert (await Operator(operator, "operator").saga(TRIP, "t1").cancel("enough")).is_accepted
        assert (await handle.result(timeout=120)).outcome == "compensated"
        assert {each.kind for each in await waiting(admin)} <= {"undecodable", "forged"}


async def test_what_a_saga_records_is_bounded_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    async with company(tmp_path, "accounts") as there:
        for _ in range(2):
            await there.coordinate(sagas=(RECORDING,))
        client, hotel, admin = await there.client(), await there.link("hotel"), await there.link("administrator")
        flooded = await client.start(RECORDING, ASKED, id="t1")
        await store_all(hotel, (miles(flooded.key, number) for number in range(FLOOD)))
        await there.work()
        healthy = await client.start(RECORDING, ASKED, id="t2")
        assert (await healthy.result(timeout=120)).outcome == "completed"
        assert (await flooded.result(timeout=120)).outcome == "completed"
        stored = await admin.read_all(SAGA, [subjects.journal_filter(flooded.key)])
        found = [read_entry(each.subject, each.sequence, each.data).what for each in stored]
        assert found.count(Record(more="hotel")) == 1
        assert found.count(Record()) <= HEARD_MAX + 3


async def test_wishes_to_cancel_sagas_that_never_were_are_parked_and_keep_no_other_waiting(tmp_path: Path) -> None:
    async with company(tmp_path, "accounts") as there:
        await there.coordinate()
        await there.work()
        client, stranger, admin = await there.client(), await there.link("client"), await there.link("administrator")

        def cancel(number: int) -> tuple[str, bytes]:
            subject = subjects.cancel_subject(SagaKey.of("trip", f"never-{number}"))
            payload = pack(CancelRequest(reason="x"))
            return subject, encode(
                Envelope(id=subject, source="client", type=CANCEL_TYPE, time=datetime.now(UTC), data=payload)
            )

        await store_all(stranger, map(cancel, range(FLOOD)))
        handle = await client.start(TRIP, ASKED, id="t1")
        assert (await handle.result(timeout=120)).outcome == "completed"
        orphans = subjects.parked_subject("orphan", "coordinator", "client")
        async with asyncio.timeout(120):
            while len((await admin.page_with_rest(PARKED, orphans, 1, 1000))[0]) < 1000:
                await asyncio.sleep(0.05)
