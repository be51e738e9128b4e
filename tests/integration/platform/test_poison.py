"""Poisoned messages beside fifty healthy sagas on a real server: the connection stays, and the healthy ones end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from antiphon.contracts import SagaKey, clock, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.errors import PlatformError, Undecodable
from antiphon.contracts.payloads import END_TYPE, RECORD_TYPE, Parked, Record, Request
from antiphon.contracts.topology import PARKED, SAGA
from antiphon.coordinator.client.changes import changes
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.serve import attach
from antiphon.link import Link, Mark
from antiphon.link.fast import FastTransport
from tests.integration.platform.test_coordinator import Company, company
from tests.support.poison import POISONED, RAISED, SECRET, UNSTEADY, Told, poisoned_start
from tests.support.raw_worker import start_message
from tests.support.server import until
from tests.support.trip import ASKED, REPLIES, TRIP

ROOT = Path(__file__).parents[3]
HEALTHY = 50


async def stored_as_poison(there: Company, names: Iterable[str]) -> list[str]:
    """Store one poisoned start for each name, and what no check of subjects expects."""
    writer = await there.link("client")
    stored = list[str]()
    for name in names:
        subject, data = poisoned_start(SagaKey.of("poisoned", name), name)
        await writer.store(subject, data)
        stored.append(subject)
    lock = f"evt.{SagaKey.of('lock', 'any').path}.hotel.ask.x.1"
    await writer.store(lock, b"x")
    return [*stored, lock]


async def started(client: Antiphon, first: int, count: int) -> list[Handle]:
    return [await client.start(TRIP, ASKED, id=f"t{number}") for number in range(first, first + count)]


async def parked_at(reader: Link, poisoned: Iterable[str]) -> dict[str, Parked]:
    """What PARKED says about these subjects, once it does."""
    wanted, found = set(poisoned), dict[str, Parked]()
    async with asyncio.timeout(120):
        while set(found) != wanted:
            messages = [message async for message in reader.scan(PARKED, "parked.>")]
            all_parked = [msgspec.json.decode(message.data, type=Parked) for message in messages]
            found = {each.subject: each for each in all_parked if each.subject in wanted}
            await asyncio.sleep(0.02)
    return found


async def require_completed(handles: list[Handle]) -> None:
    async with asyncio.timeout(120):
        outcomes = await asyncio.gather(*(handle.result() for handle in handles))
    assert {outcome.outcome for outcome in outcomes} == {"completed"}


async def test_poisoned_messages_cost_the_coordinator_neither_its_connection_nor_a_healthy_saga(
    tmp_path: Path,
) -> None:
    async with company(tmp_path, "plain") as there:
        await there.work()
        client = await there.client()
        handles = await started(client, 0, HEALTHY // 2)
        poisoned = await stored_as_poison(there, RAISED)
        odd = await there.link("client")
        assert isinstance(odd._transport, FastTransport)
        odd._transport.send_frame(b"PUB evt.1.trip.\xff\xfe.client.start 1\r\nx\r\n")
        odd.flush()
        handles += await started(client, HEALTHY // 2, HEALTHY // 2)
        link = await there.link("coordinator")  # it finds all of that waiting
        before = link.nc.client_id
        await attach(link, Coordinator(JetStreamStore(link), [TRIP.definition, POISONED.definition]))
        await require_completed(handles)
        found = await parked_at(await there.link("administrator"), [*poisoned, "evt.1.trip.\ufffd\ufffd.client.start"])
        for name, subject in zip(RAISED, poisoned, strict=False):
            assert found[subject].kind == "saga"
            assert f"reading it raised {name}" in found[subject].reason
            assert SECRET not in found[subject].reason
        assert (link.nc.client_id, link.nc.stats["reconnects"]) == (before, 0)
        assert not link.failure.done()


@pytest.mark.parametrize("function", ["step", "when"])
async def test_functions_that_raise_park_their_sagas_and_cost_the_healthy_ones_nothing(
    function: str, tmp_path: Path
) -> None:
    async with company(tmp_path, "plain") as there:
        await there.work()
        client, writer = await there.client(), await there.link("client")
        handles = await started(client, 0, HEALTHY // 2)
        for name in RAISED:
            told = Told(step=name if function == "step" else "", when=name if function == "when" else "")
            await writer.store(*start_message(SagaKey.of("unsteady", name), told))
        handles += await started(client, HEALTHY // 2, HEALTHY // 2)
        link = await there.link("coordinator")
        before = link.nc.client_id
        await attach(link, Coordinator(JetStreamStore(link), [TRIP.definition, UNSTEADY.definition]))
        await require_completed(handles)
        for name in RAISED:
            if function == "when":
                await answered(there, SagaKey.of("unsteady", name))
            parked = await parked_reason(client.handle(UNSTEADY, name))
            assert name in parked
            assert SECRET not in parked
        assert (link.nc.client_id, link.nc.stats["reconnects"]) == (before, 0)


async def parked_reason(handle: Handle) -> str:
    """Why a saga is parked, once it is."""
    async with asyncio.timeout(120):
        while not (parked := (await handle.status()).parked):
            await asyncio.sleep(0.02)
    return parked


async def answered(there: Company, key: SagaKey) -> None:
    """Have the room reserved, for a saga that the workers do not know."""
    reader, hotel = await there.link("coordinator"), await there.link("hotel")
    command = subjects.CommandAddress(key, "hotel", "reserve_room", "do", 1)
    async with asyncio.timeout(120):
        while (
            stored := await reader.get_last(SAGA, subjects.command_subject(key, "hotel", "reserve_room", "do", 1))
        ) is None:
            await asyncio.sleep(0.02)
    subject = subjects.event_subject(key.path, "hotel", "hotel-booked", command.step, 1)
    envelope = Envelope(
        id=subject,
        source="hotel",
        type="hotel.booked.v1",
        time=clock.moment(stored.stored_ns),
        data=pack(REPLIES["book_room"]),
        command=str(stored.sequence),
    )
    await hotel.store(subject, encode(envelope))


SERVER = """
import asyncio, os
from antiphon.coordinator.runtime.serve import serve
from tests.support.poison import POISONED
from tests.support.trip import TRIP

asyncio.run(serve(os.environ["NATS_URL"], [TRIP, POISONED], idle_seconds=1.0))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_coordinators_process_outlives_all_poison_and_ends_by_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with company(tmp_path, "plain") as there:
        await there.work()
        client = await there.client()
        environment = {**os.environ, **there.up.environment("coordinator")}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, env=environment, cwd=ROOT)
        try:
            handles = await started(client, 0, HEALTHY // 2)
            poisoned = await stored_as_poison(there, RAISED)
            handles += await started(client, HEALTHY // 2, HEALTHY // 2)
            await require_completed(handles)
            await parked_at(await there.link("administrator"), poisoned)
            assert process.returncode is None
            process.send_signal(number)
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_whoever_asks_for_a_status_is_told_that_looking_it_up_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antiphon.coordinator.runtime import coordinator

    def raises(*given: object) -> None:
        raise SystemExit(SECRET)

    async with company(tmp_path, "plain") as there:
        await there.coordinate()
        monkeypatch.setattr(coordinator, "status_answer", raises)
        with pytest.raises(PlatformError, match="cannot tell how trip/t1 stands: looking it up raised SystemExit"):
            await (await there.client()).handle(TRIP, "t1").status()


async def test_an_end_that_cannot_be_read_is_an_error_that_names_the_saga(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        client, writer = await there.client(), await there.link("administrator")
        handle = client.handle(TRIP, "t1")
        waiting = asyncio.ensure_future(handle.result(timeout=120))
        await asyncio.sleep(0)
        await writer.store(subjects.end_subject(handle.key), b"no end")
        with pytest.raises(Undecodable, match=r"trip/t1.*no JSON"):
            await waiting
        other = client.handle(TRIP, "t2")
        subject = subjects.end_subject(other.key)
        time = clock.moment(0)
        wrong = Envelope(id=subject, source="coordinator", type=END_TYPE, time=time, data=msgspec.Raw(b'{"outcome":1}'))
        await writer.store(subject, encode(wrong))
        with pytest.raises(Undecodable, match=r"trip/t2.*outcome"):
            await other.result(timeout=120)


async def test_an_answer_to_a_status_request_that_cannot_be_read_is_an_error_that_names_the_saga(
    tmp_path: Path,
) -> None:
    async with company(tmp_path, "plain") as there:
        forger = await there.link("administrator")
        await forger.subscribe(
            subjects.STATUS_FILTER, lambda subject, reply, *rest: forger.send(reply, b'{"status": 3}')
        )
        with pytest.raises(PlatformError, match="how trip/t1 stands"):
            await (await there.client()).handle(TRIP, "t1").status()


async def test_what_waits_is_listed_beside_what_nobody_can_read(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        admin = await there.link("administrator")
        bad, other = SagaKey.of("trip", "bad"), SagaKey.of("trip", "other")
        await admin.store("parked.fault.inventory", b"\xff no JSON")
        await admin.store(subjects.record_subject(bad, "n1"), b"no entry")
        for key in (bad, other):
            await admin.store(*indexed(key))
            await admin.store(*set_aside(key))
        found = await waiting(admin)
        (saga,) = (each for each in found if each.kind == "saga")
        assert (saga.saga, "its journal cannot be read" in saga.reason) == (str(bad), True)
        assert {each.saga for each in found if each.kind == "fault"} == {str(bad), str(other), ""}


def indexed(key: SagaKey) -> tuple[str, bytes]:
    parked = Parked(
        kind="saga", reason="r", noticed_by="coordinator", stream="EVENTS", sequence=1, subject="x", data=b"", saga=key
    )
    return parked.destination, parked.encode()


def set_aside(key: SagaKey) -> tuple[str, bytes]:
    parked = Parked(
        kind="fault",
        reason="r",
        noticed_by="coordinator",
        stream="EVENTS",
        sequence=int.from_bytes(key.id.encode()[:3]),
        subject=subjects.start_subject(key),
        data=b"",
    )
    return parked.destination, parked.encode()


async def test_changes_and_decisions_are_told_beside_entries_that_nobody_can_read(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        await there.coordinate()
        client, admin = await there.client(), await there.link("administrator")
        follower = await there.link("coordinator")
        seen = list[str]()

        async def follow() -> None:
            async for change in changes(follower, "", None, Mark()):
                seen.append(change.id)

        following = asyncio.ensure_future(follow())
        time = clock.moment(0)
        for number, cause in enumerate(("e", "e" + "9" * 40, "nonsense")):
            subject = subjects.record_subject(SagaKey.of("trip", f"bad{number}"), "n1")
            entry = Envelope(
                id=subject, source="coordinator", type=RECORD_TYPE, time=time, data=pack(Record()), cause=cause
            )
            await admin.store(subject, encode(entry))
        handle = await client.start(TRIP, ASKED, id="well")
        await until(lambda: "well" in seen)
        following.cancel()
        await admin.store(subjects.record_subject(handle.key, "n0"), b"no entry")
        request = Request(sequence=1, at="", user="ann", verb="retry")
        verbs = client.operator("ann").saga(TRIP, "well")
        assert await verbs._look(request) is None  # it goes on to look; the entry that cannot be read decides nothing
