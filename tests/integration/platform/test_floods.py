"""Floods on a real server: whoever sends too much is shed, bound and named, and fills no disk that others need."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from antiphon.contracts import PlatformError, SagaKey, subjects
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.identity import CLIENT
from antiphon.contracts.payloads import StatusAnswer
from antiphon.contracts.stored import NoRoom
from antiphon.contracts.subjects import end_subject
from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import EVENTS, PARKED, REGISTRATIONS_BYTES_MAX, SAGA, STREAMS
from antiphon.coordinator.reading.sagas import timeline
from antiphon.coordinator.runtime.admission import Admission
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.pressure import STARTS_WAITING, Watch
from antiphon.coordinator.runtime.request_queue import WAITING_MAX
from antiphon.coordinator.runtime.schemas import begun_before
from antiphon.coordinator.runtime.serve import attach
from antiphon.link import Link, set_up
from antiphon.link.setup import Bounds, Room, api, room_of
from antiphon.tracing.export.reading import read_projection
from antiphon.tracing.telemetry.metrics import Gauges
from tests.integration.platform.test_coordinator import Company, company, idle
from tests.support.raw_worker import start_message
from tests.support.server import FORMS, platform, until
from tests.support.trip import ASKED, PARTICIPANTS, TRIP

SMALLER = [Loss.SMALLER_BOUNDS]


@pytest.fixture(params=FORMS)
async def there(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Company]:
    async with company(tmp_path, request.param) as everybody:
        yield everybody


# --- status requests --------------------------------------------------------------------------------------------------


async def test_a_flood_of_status_requests_is_shed_named_and_keeps_nobody_waiting(there: Company) -> None:
    coordinator = await there.coordinate()
    await there.work()
    client, flooder = await there.client(), await there.link("client")
    inbox, answers = flooder.new_inbox(), list[bytes]()
    await flooder.subscribe(f"{inbox}.*", lambda subject, reply, data, headers: answers.append(data))
    with capture_logs() as lines:
        for number in range(20_000):
            flooder.send(subjects.status_subject(SagaKey.of("trip", f"f{number}")), reply=f"{inbox}.{number}")
        handle = await client.start(TRIP, ASKED, id="t1")
        assert (await handle.result(timeout=120)).outcome == "completed"
        await flooder.flushed()
        await until(lambda: not coordinator.requests.waiting(), what="an empty queue")
    source = "CLIENT-client" if there.up.form == "accounts" else CLIENT
    shed = coordinator.counts.totals["requests_shed", (source,)]
    assert shed > 20_000 - 5 * WAITING_MAX
    assert {line["source"] for line in lines if line["event"] == "requests.shed"} == {source}
    assert b"ask again in a second" in answers[-1] or b"status" in answers[-1] or answers[-1] == b"{}"
    assert (await handle.status()).state == "completed"


async def test_a_request_that_names_no_inbox_costs_nobody_a_connection(there: Company) -> None:
    link = await there.link("coordinator")
    lost: list[str] = []
    link.on_reconnect.append(lambda: lost.append("connection"))
    await attach(link, Coordinator(JetStreamStore(link), [TRIP.definition]))
    client = await there.link("client")
    for _ in range(10):
        client.send(subjects.status_subject(SagaKey.of("trip", "t1")))
    await client.flushed()
    answer = await client.request(subjects.status_subject(SagaKey.of("trip", "t1")))
    assert unpack_raw(answer, StatusAnswer) == StatusAnswer()
    assert not lost


# --- starts -----------------------------------------------------------------------------------------------------------


async def bounded(there: Company, most: int) -> Coordinator:
    link = await there.link("coordinator")
    store = JetStreamStore(link)
    admission = Admission(store, {"trip": most}, await begun_before(link))
    coordinator = Coordinator(store, [TRIP.definition], admission=admission)
    await attach(link, coordinator)
    return coordinator


async def test_starts_above_a_bound_are_refused_and_told(there: Company) -> None:
    """Two coordinators with the same bound, and a hundred starts at once."""
    client, reader = await there.client(), await there.link("coordinator")
    before = await client.start(TRIP, ASKED, id="before")  # stored before any coordinator runs
    coordinators = [await bounded(there, 5) for _ in range(2)]
    await there.work(idle)
    handles = await asyncio.gather(*(client.start(TRIP, ASKED, id=f"t{number}") for number in range(100)))
    begun = [await first_entry(reader, handle.key) for handle in handles]
    refused = [handle for handle, subject in zip(handles, begun, strict=True) if subject == end_subject(handle.key)]
    assert len(refused) == 96
    for handle in refused:
        outcome = await handle.result(timeout=120)
        assert (outcome.outcome, outcome.reason) == (
            "compensated",
            "refused, with nothing done: 5 sagas of type trip are open, and more there may not be. Start it under "
            "another id once some have ended",
        )
    assert [coordinator.journals.admission.open() for coordinator in coordinators] == [{"trip": 5}] * 2
    await before.cancel("make room")
    assert (await before.result(timeout=120)).outcome == "compensated"
    async with asyncio.timeout(120):
        for number in itertools.count():  # what is known of ends may be half a second old
            handle = await client.start(TRIP, ASKED, id=f"after-{number}")
            if await first_entry(reader, handle.key) != end_subject(handle.key):
                break


async def first_entry(reader: Link, key: SagaKey) -> str:
    """Wait for a saga's first entry; its subject."""
    async with asyncio.timeout(120):
        while not (found := await reader.read_all(SAGA, [subjects.journal_filter(key)])):
            await asyncio.sleep(0.02)
    return found[0].subject


async def test_a_journal_of_a_refused_saga_is_told_and_drawn_like_any_other(there: Company) -> None:
    reader = await there.link("coordinator")
    await bounded(there, 1)
    client = await there.client()
    await client.start(TRIP, ASKED, id="t1")
    refused = await client.start(TRIP, ASKED, id="t2")
    await refused.result(timeout=120)
    found = await timeline(reader, refused.key)
    assert found.state == "compensated"
    assert "1 saga of type trip is open" in found.reason
    assert (await refused.status()).state == "compensated"
    spans = (await read_projection(reader, refused.key)).spans
    assert len([span for span in spans if not span.parent_id]) == 1


async def test_whose_starts_wait_is_named(there: Company) -> None:
    link, writer, gauges = await there.link("coordinator"), await there.link("client"), Gauges()
    watch = Watch(link, Coordinator(JetStreamStore(link), [TRIP.definition]), gauges)
    waiting = STARTS_WAITING + 200
    keys = [SagaKey.of("trip" if number % 4 else "hasty", f"t{number}") for number in range(waiting)]
    await asyncio.gather(*(writer.store(*start_message(key)) for key in keys))
    with capture_logs() as lines:
        await watch.look()
        await watch.look()
    (trip,) = (line for line in lines if line["event"] == "starts.waiting" and line["saga_type"] == "trip")
    assert trip["count"] == waiting * 3 // 4
    assert gauges["antiphon.starts.waiting", (("saga.type", "hasty"),)] == waiting // 4


# --- room -------------------------------------------------------------------------------------------------------------


async def test_what_clients_store_fills_no_disk_that_journals_need(tmp_path: Path) -> None:
    with platform(tmp_path, participants=(), store_bytes=REGISTRATIONS_BYTES_MAX + 4_000_000) as up:
        await up.set_up()
        link = await up.connect("client")
        starts = [start_message(SagaKey.of("trip", f"t{number}"))[0] for number in range(30)]
        with pytest.raises(NoRoom, match="maximum bytes exceeded"):
            await asyncio.gather(*(link.store(subject, bytes(50_000)) for subject in starts))
        room = await room_of(link, EVENTS)
        assert room is not None
        assert room.most == 1 << 20  # half of the largest power of two that could be set aside
        for number in range(20):
            await link.store(subjects.record_subject(SagaKey.of("trip", "t1"), f"n{number}"), bytes(50_000))
        await link.close()


async def test_what_a_participant_parks_at_subjects_of_its_choice_fills_no_disk_that_journals_need(
    tmp_path: Path,
) -> None:
    with platform(tmp_path, "accounts", store_bytes=REGISTRATIONS_BYTES_MAX + 4_000_000) as up:
        await up.set_up()
        link, administrator = await up.connect("inventory"), await up.connect("administrator")
        places = [subjects.parked_subject(f"kind-{number}", "inventory", f"source-{number}") for number in range(30)]
        with pytest.raises(NoRoom, match="maximum bytes exceeded"):
            await asyncio.gather(*(link.store(subject, bytes(50_000)) for subject in places))
        room = await room_of(administrator, PARKED)
        assert room is not None
        assert room.most == 1 << 20
        for number in range(20):
            key = SagaKey.of("trip", "t1")
            await administrator.store(subjects.record_subject(key, f"n{number}"), bytes(50_000))
        gauges = Gauges()
        with capture_logs() as lines:
            await Watch(administrator, Coordinator(JetStreamStore(administrator), [TRIP.definition]), gauges).look()
        assert [line["event"] for line in lines] == ["parked.nearly_full"]
        assert 0.9 < gauges["antiphon.parked.filled", ()] <= 1
        for each in (link, administrator):
            await each.close()


async def test_while_events_is_nearly_full_nothing_begins_and_what_has_begun_goes_on(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        reader = await there.link("administrator")
        await set_up(reader, PARTICIPANTS, events_bytes=60_000, allowed=SMALLER)
        coordinator = await there.coordinate()
        link, gauges = await there.link("coordinator"), Gauges()
        watch = Watch(link, coordinator, gauges)
        client = await there.client()
        first = await client.start(TRIP, ASKED, id="t1")
        await first_entry(reader, first.key)
        await reader.store(start_message(SagaKey.of("other", "ballast"))[0], bytes(54_000))
        with capture_logs() as lines:
            await watch.look()
        assert [line["event"] for line in lines] == ["events.nearly_full"]
        assert 0.9 < gauges["antiphon.events.filled", ()] < 1
        second = await client.start(TRIP, ASKED, id="t2")
        outcome = await second.result(timeout=120)
        assert outcome.outcome == "compensated"
        assert outcome.reason.startswith("refused, with nothing done: stream EVENTS has taken 9")
        await there.work()
        assert (await first.result(timeout=120)).outcome == "completed"
        await set_up(reader, PARTICIPANTS, events_bytes=1_000_000, allowed=SMALLER)
        await watch.look()
        third = await client.start(TRIP, ASKED, id="t3")
        assert (await third.result(timeout=120)).outcome == "completed"


async def test_an_answer_that_does_not_fit_is_handed_back_until_it_does_and_is_no_attempt(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        reader = await there.link("administrator")
        await there.coordinate()
        client = await there.client()
        first = await client.start(TRIP, ASKED, id="t1")
        await first_entry(reader, first.key)
        room = await room_of(reader, EVENTS)
        assert room is not None
        await set_up(reader, PARTICIPANTS, events_bytes=room.used + 1, allowed=SMALLER)
        await there.work()
        await until(lambda: there.worker.steps(first.key), what="a command")
        assert (await room_of(reader, EVENTS)) == Room(room.used, room.used + 1)
        await set_up(reader, PARTICIPANTS, events_bytes=1_000_000, allowed=SMALLER)
        assert (await first.result(timeout=120)).outcome == "completed"


async def test_the_bound_of_events_stays_as_it_was_set(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        link = await up.connect("administrator")
        by_default = await set_up(link, [])
        assert by_default.events > 1_000_000
        assert await set_up(link, []) == by_default
        assert await set_up(link, [], events_bytes=5_000_000, allowed=SMALLER) == Bounds(5_000_000, by_default.parked)
        assert await set_up(link, [], parked_bytes=6_000_000, allowed=SMALLER) == Bounds(5_000_000, 6_000_000)
        assert await set_up(link, []) == Bounds(5_000_000, 6_000_000)
        subject, data = start_message(SagaKey.of("trip", "t1"))
        await link.store(subject, data)
        with pytest.raises(
            PlatformError, match=r"EVENTS has \d+ bytes already, so it cannot be bound to 100; give more"
        ):
            await set_up(link, [], events_bytes=100)
        with pytest.raises(PlatformError, match="insufficient storage"):
            await set_up(link, [], events_bytes=1 << 60)
        await link.close()


async def test_a_stream_of_an_earlier_release_is_bound_above_what_it_holds(tmp_path: Path) -> None:
    with platform(tmp_path, participants=(), store_bytes=REGISTRATIONS_BYTES_MAX + 4_000_000) as up:
        link = await up.connect("administrator")
        (events,) = (each for each in STREAMS if each.name == EVENTS)
        await api(link, f"STREAM.CREATE.{EVENTS}", events.config(1))
        subject, _ = start_message(SagaKey.of("trip", "t1"))
        await link.store(subject, bytes(500_000))
        with capture_logs() as lines:
            await Watch(link, Coordinator(JetStreamStore(link), [TRIP.definition]), Gauges()).look()
        assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["events.unbounded"]
        most = (await set_up(link, [])).events
        room = await room_of(link, EVENTS)
        assert room is not None
        assert (room.most, room.used > 500_000) == (most, True)
        assert most == room.used + (1 << 20)
        await link.close()
