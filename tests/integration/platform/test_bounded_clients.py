"""Clients with a bound of open sagas, on a real server with accounts: no flood of one takes what others need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from structlog.testing import capture_logs

from antiphon.contracts import AlreadyStarted, PlatformError, SagaKey, TooManyOpen, UnknownSaga, subjects
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX
from antiphon.contracts.errors import DefinitionError, StreamMissing, Unanswered
from antiphon.contracts.identity import CLIENT
from antiphon.contracts.stored import NoPlace, NoRoom
from antiphon.contracts.topology import (
    BOUNDED,
    BOUNDED_SIGNALS,
    BOUNDED_STARTS,
    EVENTS,
    SIGNALS_WAITING_MAX,
    Bound,
    bounded_stream_name,
)
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.coordinator.client.store_once import store_once
from antiphon.coordinator.runtime.admission import Admission
from antiphon.coordinator.runtime.bounded_clients import BoundedClients
from antiphon.coordinator.runtime.bounded_places import attempted
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.pressure import Watch
from antiphon.deploy.admin.rights import EVERYTHING, Grant, Rights
from antiphon.link import Link, set_up
from antiphon.link.setup import api, bounds_set, room_of
from antiphon.tracing.telemetry.metrics import Gauges
from tests.integration.platform.test_answers import reloaded
from tests.integration.platform.test_coordinator import Company, idle
from tests.support.raw_worker import start_message
from tests.support.server import RIGHTS_FORMS, Form, platform, until
from tests.support.trip import ASKED, PARTICIPANTS, TRIP

SHOP, TWIN, OTHER = "shop", "twin", "other"
MOST: Final = 5
LONGER: Final = msgspec.structs.replace(ASKED, nights=ASKED.nights + 1)
STREAM: Final = bounded_stream_name(BOUNDED_STARTS, SHOP, TRIP.name)
GHOSTS: Final = bounded_stream_name(BOUNDED_STARTS, "ghost", TRIP.name)
SIGNALS: Final = bounded_stream_name(BOUNDED_SIGNALS, SHOP, TRIP.name)


def rights(given: Rights) -> Rights:
    """Three clients of the same saga type, of which two have a bound."""
    clients = {name: [Grant(TRIP.name)] for name in (SHOP, TWIN, OTHER)}
    return replace(given, clients={**given.clients, **clients}, bounds={name: [TRIP.name] for name in (SHOP, TWIN)})


@asynccontextmanager
async def shops(folder: Path, form: Form, most: int = MOST, events_bytes: int = 0) -> AsyncIterator[Company]:
    with platform(folder, form, participants=PARTICIPANTS, rights=rights) as up:
        await up.set_up(events_bytes=events_bytes, client_bounds=[Bound(SHOP, TRIP.name, most)])
        async with AsyncExitStack() as stack:
            yield Company(up, stack)


@pytest.fixture(params=[*RIGHTS_FORMS, "pairs"])
async def there(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Company]:
    async with shops(tmp_path, request.param) as everybody:
        yield everybody


async def places(link: Link, stream: str = STREAM) -> int:
    """How many messages a client's stream holds."""
    return len([message async for message in link.scan(stream, subjects.BOUNDED_FILTER)])


async def until_places(link: Link, count: int, stream: str = STREAM) -> None:
    async with asyncio.timeout(120):
        while await places(link, stream) != count:
            await asyncio.sleep(0.02)


async def until_acked(link: Link, stream: str) -> None:
    """Wait until coordinators have done with what a client's stream holds."""
    async with asyncio.timeout(120):
        while True:
            info = await api(link, f"CONSUMER.INFO.{stream}.{BOUNDED}")
            if info["delivered"]["stream_seq"] and not info["num_ack_pending"] + info["num_pending"]:
                return
            await asyncio.sleep(0.05)


async def frees_nothing() -> None:
    """Instead of looking for sagas that have ended."""


@pytest.fixture
def hears_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coordinators free places by what they hear, and never by looking."""
    monkeypatch.setattr(BoundedClients, "free_ended", lambda self: frees_nothing())


async def is_seen(handle: Handle) -> None:
    """Wait until a coordinator has begun a saga."""
    async with asyncio.timeout(120):
        while True:
            with suppress(PlatformError, UnknownSaga):
                await handle.status()
                return
            await asyncio.sleep(0.02)


async def start_all(antiphon: Antiphon, ids: list[str]) -> list[Handle | BaseException]:
    return await asyncio.gather(*(antiphon.start(TRIP, ASKED, id=each) for each in ids), return_exceptions=True)


async def started_in_the_end(shop: Antiphon) -> Handle:
    async with asyncio.timeout(120):
        while True:
            with suppress(TooManyOpen):
                return await shop.start(TRIP, ASKED, id="again")
            await asyncio.sleep(0.05)


async def test_starts_above_a_clients_bound_are_refused_at_once_and_take_nothing_from_another_client(
    there: Company,
) -> None:
    for _ in range(2):
        await there.coordinate()
    await there.work(idle)
    shop, other, reader = await there.client(SHOP), await there.client(OTHER), await there.link("administrator")
    found = await start_all(shop, [f"s{number}" for number in range(100)])
    begun = [each for each in found if isinstance(each, Handle)]
    refused = [each for each in found if isinstance(each, TooManyOpen)]
    assert (len(begun), len(refused)) == (MOST, 95)
    assert "this client has as many sagas of type trip open as it may" in str(refused[0])
    others = await start_all(other, [f"o{number}" for number in range(20)])
    assert all(isinstance(each, Handle) for each in others)
    assert len(await reader.read_all(EVENTS, [subjects.starts_filter()])) == MOST + 20
    await begun[0].cancel("make room")
    assert (await begun[0].result(timeout=120)).outcome == "compensated"
    await is_seen(await started_in_the_end(shop))


@pytest.mark.usefixtures("hears_alone")
async def test_a_saga_of_a_client_with_a_bound_goes_like_any_other_and_frees_its_place(there: Company) -> None:
    await there.coordinate()
    await there.work()
    shop, reader = await there.client(SHOP), await there.link("administrator")
    handle = await shop.start(TRIP, ASKED, id="t1")
    assert (await handle.result(timeout=120)).outcome == "completed"
    assert not handle.was_started
    await until_places(reader, 0)
    again = await shop.start(TRIP, ASKED, id="t1")
    assert (await again.result(timeout=120)).outcome == "completed"
    await until_places(reader, 0)  # a start of a saga that has ended takes no place for long
    assert len(there.worker.steps(handle.key)) == 3


async def test_the_same_start_is_the_same_saga_and_another_payload_is_told(there: Company) -> None:
    await there.coordinate()
    await there.work(idle)
    shop, other = await there.client(SHOP), await there.client(OTHER)
    first = await shop.start(TRIP, ASKED, id="t1")
    assert (await shop.start(TRIP, ASKED, id="t1")).was_started
    assert (await other.start(TRIP, ASKED, id="t1")).was_started
    with pytest.raises(AlreadyStarted):
        await shop.start(TRIP, LONGER, id="t1")
    with pytest.raises(AlreadyStarted):
        await other.start(TRIP, LONGER, id="t1")
    await other.start(TRIP, LONGER, id="t2")
    late = await shop.start(TRIP, ASKED, id="t2")  # its own stream takes it: what EVENTS holds is told by the end
    await first.cancel("over")
    await late.cancel("over")
    with pytest.raises(AlreadyStarted):
        await late.result(timeout=120)
    assert (await first.result(timeout=120)).outcome == "compensated"


async def test_what_a_dead_coordinator_has_left_is_freed(there: Company) -> None:
    """Two places of sagas that have ended, which nobody remembers, and one of a saga that has not."""
    coordinator = await there.coordinate()
    await there.work(idle)
    shop, reader = await there.client(SHOP), await there.link("administrator")
    handles = [await shop.start(TRIP, ASKED, id=f"t{number}") for number in range(3)]
    for handle in handles:
        await is_seen(handle)
    there.attached[0].clients.stop_looking()
    there.attached[0].clients.places._own.clear()
    for handle in handles[:2]:
        await handle.cancel("over")
        await handle.result(timeout=120)
    assert await places(reader) == 3
    clients = BoundedClients(await there.link("coordinator"), coordinator.journals.admission)
    await clients.look()
    await clients.free_ended()
    assert await places(reader) == 1
    with capture_logs():
        clients.stop_looking()


async def test_a_start_that_a_coordinator_had_copied_when_it_died_is_one_start(there: Company) -> None:
    shop, reader = await there.client(SHOP), await there.link("administrator")
    handle = await shop.start(TRIP, ASKED, id="t1")
    (stored,) = [message async for message in reader.scan(STREAM, subjects.BOUNDED_FILTER)]
    await reader.store(subjects.start_subject(handle.key), stored.data)
    await there.coordinate()
    await until_acked(reader, STREAM)
    await there.work()
    assert (await handle.result(timeout=120)).outcome == "completed"
    await until_places(reader, 0)
    assert len(await reader.read_all(EVENTS, [subjects.starts_filter()])) == 1
    assert len(there.worker.steps(handle.key)) == 3


@pytest.mark.usefixtures("hears_alone")
async def test_two_clients_with_a_bound_may_mean_the_same_saga_and_both_have_their_places_again(there: Company) -> None:
    twin = bounded_stream_name(BOUNDED_STARTS, TWIN, TRIP.name)
    reader = await there.link("administrator")
    await set_up(reader, PARTICIPANTS, client_bounds=[Bound(TWIN, TRIP.name, 1)])
    await there.coordinate()
    handles = [await (await there.client(name)).start(TRIP, ASKED, id="t1") for name in (SHOP, TWIN)]
    assert (await places(reader), await places(reader, twin)) == (1, 1)
    for stream in (STREAM, twin):
        await until_acked(reader, stream)
    await there.work()
    for handle in handles:
        assert (await handle.result(timeout=120)).outcome == "completed"
    for stream in (STREAM, twin):
        await until_places(reader, 0, stream)
    assert len(there.worker.steps(handles[0].key)) == 3


async def test_what_is_no_start_is_deleted_and_takes_no_place(there: Company) -> None:
    """A literal `*` passes the right to start; a partition that is not the saga's is as wrong."""
    await there.coordinate()
    link, reader = await there.link(SHOP), await there.link("administrator")
    with capture_logs() as lines:
        await link.store("evt.1.trip.t1.client.start", b"x")
        await link.store("evt.*.trip.*.client.start", b"x")
        await until_places(reader, 0)
        await link.store("evt.*.trip.*.client.cancel", b"x")
        await until_places(reader, 0, SIGNALS)
    assert len([line for line in lines if line["event"] == "client.forged"]) == 3
    assert await reader.read_all(EVENTS, [subjects.EVENTS_FILTER]) == []


async def test_a_client_with_a_bound_writes_nothing_into_events_and_into_no_stream_of_another(there: Company) -> None:
    link, reader = await there.link(SHOP), await there.link("administrator")
    key = SagaKey.of(TRIP.name, "t1")
    for subject in (subjects.start_subject(key), subjects.cancel_subject(key)):
        assert await link.store(subject, b"x")
    assert await reader.read_all(EVENTS, [subjects.EVENTS_FILTER]) == []
    assert (await places(reader), await places(reader, SIGNALS)) == (1, 1)
    link.send(subjects.bounded_filter(subjects.start_subject(key), OTHER), b"x")
    await link.flushed()
    assert "does not let shop use from.other" in str(await link.failure)


# --- the room of EVENTS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", RIGHTS_FORMS)
async def test_a_client_with_a_bound_that_never_stops_leaves_room_for_the_answers_of_others(
    form: Form, tmp_path: Path
) -> None:
    """It starts, cancels and signals as fast as it can while EVENTS is nearly full."""
    async with shops(tmp_path, form, most=50, events_bytes=200_000) as there:
        coordinator, reader = await there.coordinate(), await there.link("administrator")
        other = await there.client(OTHER)
        saga = await other.start(TRIP, ASKED, id="t1")
        await is_seen(saga)
        await reader.store(start_message(SagaKey.of("ballast", "b1"))[0], bytes(182_000))
        await Watch(await there.link("coordinator"), coordinator, Gauges()).look()
        assert coordinator.journals.admission.closed
        link, refused = await there.link(SHOP), 0
        for number in range(2 * SIGNALS_WAITING_MAX):
            key = SagaKey.of(TRIP.name, f"f{number}")
            for subject in (subjects.start_subject(key), subjects.cancel_subject(key)):
                try:
                    await link.store(subject, bytes(1_000))
                except NoPlace:
                    refused += 1
        assert refused == 2 * 2 * SIGNALS_WAITING_MAX - 50 - SIGNALS_WAITING_MAX
        shop = await there.client(SHOP)
        with pytest.raises(TooManyOpen):
            await shop.start(TRIP, ASKED, id="t2")
        with pytest.raises(PlatformError, match="too much of what this client has stored before waits"):
            await shop.handle(TRIP, "t1").cancel("no")
        await there.work()
        assert (await saga.result(timeout=120)).outcome == "completed"
        room = await room_of(reader, EVENTS)
        assert room is not None
        assert room.used < 190_000
        await set_up(reader, PARTICIPANTS, events_bytes=100_000_000)
        await Watch(await there.link("coordinator"), coordinator, Gauges()).look()
        async with asyncio.timeout(120):
            while await places(reader, SIGNALS):
                await asyncio.sleep(0.05)


async def test_events_cannot_be_filled_between_two_looks_at_it(tmp_path: Path) -> None:
    async with shops(tmp_path, "accounts", events_bytes=2_000_000) as there:
        coordinator, reader = await there.coordinate(), await there.link("administrator")
        await Watch(await there.link("coordinator"), coordinator, Gauges()).look()
        link = await there.link(SHOP)
        cancels = [subjects.cancel_subject(SagaKey.of(TRIP.name, f"f{number}")) for number in range(900)]
        await asyncio.gather(*(link.store(each, bytes(3_000)) for each in cancels))
        async with asyncio.timeout(120):
            while (await api(reader, f"CONSUMER.INFO.{SIGNALS}.{BOUNDED}"))["num_pending"]:
                await asyncio.sleep(0.05)
        room = await room_of(reader, EVENTS)
        assert room is not None
        assert 150_000 < room.used < 200_000  # a tenth of what was left


async def test_an_answer_finds_no_room_after_the_same_flood_of_a_client_without_a_bound(tmp_path: Path) -> None:
    """What the bound is for."""
    async with shops(tmp_path, "accounts", events_bytes=200_000) as there:
        link = await there.link(OTHER)
        starts = [subjects.start_subject(SagaKey.of(TRIP.name, f"f{number}")) for number in range(1_000)]
        with pytest.raises(NoRoom):
            await asyncio.gather(*(link.store(each, bytes(1_000)) for each in starts))
        hotel = await there.link("hotel")
        path = SagaKey.of(TRIP.name, "t1").path
        with pytest.raises(NoRoom):
            await hotel.store(subjects.event_subject(path, "hotel", "hotel-booked", "book_room", 1), bytes(1_000))


# --- setting up -------------------------------------------------------------------------------------------------------


async def test_a_bound_stays_is_changed_and_loses_nothing(tmp_path: Path) -> None:
    async with shops(tmp_path, "accounts") as there:
        link, reader = await there.link(SHOP), await there.link("administrator")
        starts = [start_message(SagaKey.of(TRIP.name, f"t{number}")) for number in range(MOST)]
        for subject, data in starts:
            await link.store(subject, data)
        config = (await api(reader, f"STREAM.INFO.{STREAM}"))["config"]
        await api(reader, f"STREAM.UPDATE.{STREAM}", {**config, "max_msg_size": -1})
        await set_up(reader, PARTICIPANTS)
        assert await bounds_set(reader) == [Bound(SHOP, TRIP.name, MOST)]
        assert (await api(reader, f"STREAM.INFO.{STREAM}"))["config"]["max_msg_size"] == MESSAGE_BYTES_MAX
        await set_up(reader, PARTICIPANTS, client_bounds=[Bound(SHOP, TRIP.name, 2)])
        assert await bounds_set(reader) == [Bound(SHOP, TRIP.name, 2)]
        assert await places(reader) == MOST  # what was taken before goes on
        with pytest.raises(NoPlace):
            await link.store(*start_message(SagaKey.of(TRIP.name, "more")))
        await set_up(reader, PARTICIPANTS, client_bounds=[Bound(SHOP, TRIP.name, MOST + 1)])
        await link.store(*start_message(SagaKey.of(TRIP.name, "more")))
        await there.coordinate()
        async with asyncio.timeout(120):
            while len(await reader.read_all(EVENTS, [subjects.starts_filter()])) < MOST + 1:
                await asyncio.sleep(0.02)


async def test_a_bound_that_comes_later_is_served_without_a_restart(tmp_path: Path) -> None:
    async with shops(tmp_path, "accounts") as there:
        reader = await there.link("administrator")
        await there.coordinate()
        for stream in (STREAM, SIGNALS):
            await api(reader, f"STREAM.DELETE.{stream}")
        await set_up(reader, PARTICIPANTS, client_bounds=[Bound(SHOP, TRIP.name, 1)])
        shop = await there.client(SHOP)
        await is_seen(await shop.start(TRIP, ASKED, id="t1"))


def refused(lines: list[MutableMapping[str, Any]]) -> set[str]:
    return {line["what"] for line in lines if line["event"] == "client.refused"}


async def test_a_coordinator_whose_rights_know_no_bound_says_so_and_works(tmp_path: Path) -> None:
    with platform(tmp_path, "accounts", participants=PARTICIPANTS) as up:
        await up.set_up(client_bounds=[Bound(SHOP, TRIP.name, 1)])
        async with AsyncExitStack() as stack:
            there = Company(up, stack)
            with capture_logs() as lines:
                await there.coordinate()
                await there.work()
                antiphon = await there.client()
                assert (await (await antiphon.start(TRIP, ASKED, id="t1")).result(timeout=120)).outcome == "completed"
                await until(lambda: refused(lines) >= {STREAM, SIGNALS}, what="two refusals")


async def test_a_coordinator_outlives_every_right_that_it_lacks_of_a_client_with_a_bound(tmp_path: Path) -> None:
    """Whatever it tries first: what it lacks is heard of once it has begun with the next."""
    with platform(tmp_path, "accounts", participants=PARTICIPANTS) as up:
        await up.set_up(client_bounds=[Bound(SHOP, TRIP.name, 1)])
        async with AsyncExitStack() as stack:
            link = await Company(up, stack).link("coordinator")
            clients = BoundedClients(link, Admission(JetStreamStore(link), {}))
            with capture_logs() as lines:
                await clients._pull(STREAM)
                link.send(f"$JS.ACK.{STREAM}.{BOUNDED}.1.1.1.1.0", b"+ACK")
                await attempted(clients.places._delete(STREAM, 1))
                await attempted(clients.places.free_ended([STREAM]))
            assert STREAM in refused(lines)
            assert clients.pulls == {}
            assert not link.failure.done()
            assert await link.answers()


async def test_a_stream_that_is_refused_keeps_no_place_of_another_client(tmp_path: Path) -> None:
    async with shops(tmp_path, "accounts") as there:
        coordinator = await there.coordinate()
        await there.work(idle)
        shop, reader = await there.client(SHOP), await there.link("administrator")
        handle = await shop.start(TRIP, ASKED, id="t1")
        await is_seen(handle)
        there.attached[0].clients.stop_looking()
        there.attached[0].clients.places._own.clear()
        await handle.cancel("over")
        await handle.result(timeout=120)
        await set_up(reader, PARTICIPANTS, client_bounds=[Bound("ghost", TRIP.name, 1)])
        await reader.store(*bounded_start("ghost", "g1"))
        clients = BoundedClients(await there.link("coordinator"), coordinator.journals.admission)
        with capture_logs() as lines:
            await clients.look()
            await clients.places.free_ended([GHOSTS, STREAM])
            assert await places(reader) == 0
            assert await places(reader, GHOSTS) == 1
        assert GHOSTS in refused(lines)
        clients.stop_looking()


def bounded_start(client: str, id: str) -> tuple[str, bytes]:
    """A start as it is stored for a client with a bound."""
    subject, data = start_message(SagaKey.of(TRIP.name, id))
    return subjects.bounded_filter(subject, client), data


async def test_accounts_that_lose_a_bound_while_its_sagas_are_open_stop_nobody_and_lose_nothing(tmp_path: Path) -> None:
    async with shops(tmp_path, "accounts") as there:
        server, bounded = there.up.server, there.up.server.accounts
        without = replace(rights(Rights(PARTICIPANTS, {CLIENT: [EVERYTHING]})), bounds={}).config()
        await there.coordinate()
        await there.work(idle)
        shop, other, reader = await there.client(SHOP), await there.client(OTHER), await there.link("administrator")
        first = await shop.start(TRIP, ASKED, id="t1")
        await is_seen(first)
        with capture_logs() as lines:
            await reloaded(server, without)
            await reader.store(*bounded_start(SHOP, "t2"))  # stored by the client, and not copied yet
            await until(lambda: STREAM in refused(lines), what="the refusal of the stream")
            await is_seen(await other.start(TRIP, ASKED, id="o1"))
            await first.cancel("over")
            assert (await first.result(timeout=120)).outcome == "compensated"
            await is_seen(await shop.start(TRIP, ASKED, id="t3"))  # it has no bound any more
            assert await places(reader) == 2, "what ended has its place still, and what was not copied is there"
            await reloaded(server, bounded)
            await is_seen(shop.handle(TRIP, "t2"))
            await until_places(reader, 1)
        assert [line for line in lines if line["event"] == "client.bounded" and line["stream"] == STREAM]


@pytest.mark.parametrize("most", [0, -1, 10_001])
def test_a_bound_that_is_none_is_refused(most: int) -> None:
    with pytest.raises(DefinitionError, match="give one from 1 to"):
        Bound(SHOP, TRIP.name, most)


def test_a_bound_of_sagas_that_a_client_has_nothing_to_do_with_is_refused() -> None:
    with pytest.raises(DefinitionError, match="it may do nothing with sagas of that type"):
        Rights(("hotel",), {SHOP: [Grant("order")]}, bounds={SHOP: ["trip"]})


async def test_a_client_whose_bound_was_not_set_yet_is_told_the_set_up_with_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform(tmp_path, "accounts", participants=PARTICIPANTS, rights=rights) as up:
        await up.set_up()
        async with AsyncExitStack() as stack:
            there = Company(up, stack)
            shop, link = await there.client(SHOP), await there.link(SHOP)
            expected = rf"as administrator: antiphon setup; or .* antiphon setup --bound {SHOP}={TRIP.name}:NUMBER"
            with pytest.raises(StreamMissing, match=expected):
                await shop.start(TRIP, ASKED, id="s1")
            subject = subjects.start_subject(SagaKey.of(TRIP.name, "s1"))
            with monkeypatch.context() as clustered:
                clustered.setattr(Link, "may_be_clustered", True)
                with pytest.raises(Unanswered, match=expected):
                    await store_once(link, subject, b"{}", 1.0)
            await (await there.client(OTHER)).start(TRIP, ASKED, id="o1")
    with platform(tmp_path / "plain", participants=PARTICIPANTS) as up:
        link = await up.connect("client")
        with pytest.raises(StreamMissing, match=r"as administrator: antiphon setup$"):
            await store_once(link, subject, b"{}")
        await link.close()
