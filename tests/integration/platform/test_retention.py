"""Ended sagas purged on a real server: what is left of them answers as before, and what has to stay stays."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from typing import TypeVar

import pytest

from antiphon.contracts import AlreadyStarted, Event, SagaKey, TooLate, subjects
from antiphon.contracts.bounds import SEQUENCE_MAX
from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.readmodel_places import Place
from antiphon.contracts.stored import NobodyReads, StoredMessage
from antiphon.contracts.topology import EVENTS, EXPORTER, READMODELS, SAGA, Listener, reactions_consumer_name
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.coordinator.decision.entries import child_id
from antiphon.coordinator.definition.retention import Retention
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.runtime import retention as runtime
from antiphon.coordinator.runtime import stream_readers
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.retention import Ends, Keeping
from antiphon.link import Delivery, Link, readmodel_places, set_up, setup
from antiphon.link.journals import read_journals
from antiphon.link.purging import delete_all
from antiphon.link.readmodel_places import forget_reader, readers
from antiphon.link.setup import api
from antiphon.tracing.telemetry.metrics import WAITING, Gauges
from tests.integration.platform.test_coordinator import Company, company
from tests.support.raw_worker import answer_message
from tests.support.server import FORMS, FORMS_AND_PAIRS, until
from tests.support.trip import ASKED, TRIP, TripAsked

AT_ONCE = Retention(completed=1e-9, compensated=1e-9)
OTHER = TripAsked(traveller="Bob", nights=9)


class Packed(Event, name="bags.packed"):
    bags: int


FAMILY = Saga(TripAsked, name="family", version=1, deadline=timedelta(hours=1))


@FAMILY.child(TRIP, needs_no_compensation=True)
def travel(s: State[TripAsked]) -> TripAsked:
    return s.start


PACKED = FAMILY.signal(Packed, after=travel)


class Scene:
    """A company, whose old sagas are purged when a test says so."""

    def __init__(self, there: Company, coordinator: Coordinator, link: Link, client: Antiphon) -> None:
        self.there, self.coordinator, self.link, self.client = there, coordinator, link, client

    async def run(self, *ids: str) -> list[Handle]:
        """Sagas that have ended, and one more in each of their pairs, so that theirs are not the last messages of
        EVENTS."""
        handles = [await self.client.start(TRIP, ASKED, id=id) for id in (*ids, *self._after(ids))]
        for handle in handles:
            await handle.result(timeout=120)
        return handles[: len(ids)]

    def _after(self, ids: Sequence[str]) -> list[str]:
        names = (f"after-{ids[-1]}{suffix}" for suffix in chain([""], map(str, count(1))))
        wanted, found = {self._pair_of(id) for id in ids}, dict[int, str]()
        while wanted - found.keys():
            name = next(names)
            if self._pair_of(name) in wanted:
                found.setdefault(self._pair_of(name), name)
        return [*found.values()]

    def _pair_of(self, id: str) -> int:
        return self.link.pairs.pair_of(SagaKey.of(TRIP.name, id))

    def ends(
        self,
        retention: Retention = AT_ONCE,
        keeping: Keeping = Keeping(),  # noqa: B008
        gauges: Gauges | None = None,
    ) -> Ends:
        return Ends(self.link, {TRIP.name: retention}, self.coordinator, keeping, gauges)

    async def left_of(self, key: SagaKey) -> list[str]:
        """The subjects that the streams hold of a saga, less the saga itself."""
        found = await self.link.read_all(SAGA, [subjects.whole_saga_filter(key)])
        found += await self.link.read_all(EVENTS, [subjects.saga_events_filter(key)])
        return [message.subject.replace(key.path, "*") for message in found]


ONLY_ITS_END = ["saga.*.c.end"]


ALSO_IN_PAIRS = pytest.mark.parametrize("scene", FORMS_AND_PAIRS, indirect=True)


@pytest.fixture(params=FORMS)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with company(tmp_path, request.param) as there:
        coordinator = await there.coordinate()
        await there.work()
        yield Scene(there, coordinator, await there.link("coordinator"), await there.client())


@ALSO_IN_PAIRS
async def test_an_old_saga_is_purged_but_for_its_end_and_answers_as_before(scene: Scene) -> None:
    (handle,) = await scene.run("t1")
    before = await handle.result(timeout=120)
    await scene.ends().look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END
    assert await scene.client.handle(TRIP, "t1").result(timeout=120) == before
    again = await scene.client.start(TRIP, ASKED, id="t1")
    assert await again.result(timeout=120) == before
    with pytest.raises(AlreadyStarted):
        await scene.client.start(TRIP, OTHER, id="t1")  # told by the start that is stored again
    with pytest.raises(TooLate, match="it has ended"):
        await handle.cancel("too late")
    assert len(scene.there.worker.steps(handle.key)) == 3
    assert scene.coordinator.counts.totals["sagas_purged", ("trip",)] == 1


async def test_another_start_of_a_purged_id_does_not_hide_the_first_one(scene: Scene) -> None:
    (handle,) = await scene.run("t1")
    before = await handle.result(timeout=120)
    await scene.ends().look(TRIP.name)
    other = await scene.client.start(TRIP, OTHER, id="t1")
    with pytest.raises(AlreadyStarted):
        await other.result(timeout=120)
    again = await scene.client.start(TRIP, ASKED, id="t1")
    assert (again.was_started, await again.result(timeout=120)) == (True, before)
    with pytest.raises(AlreadyStarted):
        await scene.client.start(TRIP, OTHER, id="t1")
    await scene.run("t2")
    await scene.ends().look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END
    assert scene.coordinator.counts.totals["sagas_purged", ("trip",)] == 3  # and after-t1


@pytest.mark.parametrize(
    ("retention", "stays"),
    [(Retention(completed=3600.0, compensated=1e-9), True), (Retention(completed=1e-9, compensated=None), False)],
)
async def test_each_outcome_is_kept_for_its_own_time(scene: Scene, retention: Retention, stays: bool) -> None:
    (handle,) = await scene.run("t1")
    await scene.ends(retention).look(TRIP.name)
    assert (len(await scene.left_of(handle.key)) > 1) is stays


async def test_what_purging_takes_calls_for_no_rest(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only passing over what is kept does: at any other rate old sagas would come faster than they are purged."""
    await scene.run(*(f"t{number}" for number in range(8)))
    took, rest = await took_and_rest(scene.ends(keeping=Keeping(per_second=8.0, look_seconds=0.0)), monkeypatch)
    assert rest < runtime.REST * (took - 8 / 8.0 * 0.8), "a second of it was spent on the rate alone"


@pytest.mark.parametrize("what", ["sagas", "ends"])
async def test_what_finding_those_takes_that_are_purged_calls_for_no_rest_either(
    what: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the more there are to purge, the longer the rest, and the more there are after it: without bound."""
    await scene.run(*(f"t{number}" for number in range(8)))
    keeping = Keeping(per_second=1e4, look_seconds=0.0, ends_seconds=1e-9 if what == "ends" else None)
    if what == "ends":
        await scene.ends().look(TRIP.name)
    page = scene.link.next_page
    slow_filter = subjects.ends_filter(TRIP.name) if what == "ends" else subjects.starts_filter(TRIP.name)

    async def slow(stream: str, subject_filter: str, *others: int) -> list[StoredMessage]:
        found = await page(stream, subject_filter, *others)
        if found and subject_filter == slow_filter:
            await asyncio.sleep(3.0)
        return found

    monkeypatch.setattr(scene.link, "next_page", slow)
    took, rest = await took_and_rest(scene.ends(keeping=keeping), monkeypatch)
    assert rest < runtime.REST * (took - 3.0 * 8 / 9 * 0.8), "eight of nine were purged"


async def took_and_rest(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """How long a look takes, and for how long there is a rest after it, which is not taken."""
    rests = list[float]()

    class Stop(Exception):
        pass

    async def rest(seconds: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        if "keep_looking" not in {frame.function for frame in inspect.stack()[:2]}:
            return await sleep(seconds)
        rests.append(seconds)
        raise Stop

    monkeypatch.setattr(asyncio, "sleep", rest)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Stop):
        await ends.keep_looking()
    return loop.time() - began, rests[0]


async def test_old_sagas_are_purged_side_by_side(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes its time with an answer holds up no other saga: here it answers once all have asked."""
    handles = await scene.run(*(f"t{number}" for number in range(runtime.AT_ONCE)))
    asked, all_have_asked, deletes = scene.link.request, asyncio.Event(), list[bytes]()

    async def request(to: str, data: bytes = b"") -> bytes:
        if to == f"$JS.API.STREAM.MSG.DELETE.{SAGA}":
            deletes.append(data)
            if len(deletes) == runtime.AT_ONCE:
                all_have_asked.set()
            await all_have_asked.wait()
        return await asked(to, data)

    monkeypatch.setattr(scene.link, "request", request)
    async with asyncio.timeout(60):
        await scene.ends(keeping=Keeping(per_second=1e4)).look(TRIP.name)
    assert [await scene.left_of(handle.key) for handle in handles] == [ONLY_ITS_END] * len(handles)


async def test_a_saga_that_another_coordinator_purges_is_left_to_it_and_finished_if_that_one_dies(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await scene.run("t1", "t2")
    ends, admin = scene.ends(), await scene.there.link("administrator")
    find_beside = ends._beside

    async def beside(keys: list[SagaKey]) -> dict[SagaKey, list[tuple[str, str]]]:
        (first, *_) = await scene.link.read_all(SAGA, [subjects.journal_filter(one.key)])
        assert await delete_all(admin, SAGA, [first.sequence]) == 1
        return await find_beside(keys)

    before = await scene.left_of(one.key)
    with monkeypatch.context() as patched:
        patched.setattr(ends, "_beside", beside)
        await ends.look(TRIP.name)
    assert len(await scene.left_of(one.key)) == len(before) - 1
    assert await scene.left_of(other.key) == ONLY_ITS_END
    await scene.ends().look(TRIP.name)
    assert await scene.left_of(one.key) == ONLY_ITS_END


# --- what has to stay -------------------------------------------------------------------------------------------------


async def test_a_saga_that_runs_stays_whatever_its_age(scene: Scene) -> None:
    await scene.there.coordinate(sagas=[FAMILY])
    running = await scene.client.start(FAMILY, ASKED, id="f1")
    child = SagaKey.of("trip", child_id(running.key, "travel", 1))
    await until_async(lambda: scene.link.read_all(SAGA, [subjects.end_subject(child)]), len_is=1)
    await scene.run("t1")
    before = await scene.left_of(running.key)
    await Ends(scene.link, {FAMILY.name: AT_ONCE}, scene.coordinator, Keeping(ends_seconds=1e-9)).look(FAMILY.name)
    assert await scene.left_of(running.key) == before


async def test_the_saga_of_the_last_event_stays_so_that_readers_find_their_place(scene: Scene) -> None:
    await scene.run("t1")
    await scene.ends().look(TRIP.name)
    last = await scene.link.get_latest(EVENTS, subjects.EVENTS_FILTER)
    assert last is not None
    assert subjects.saga_in(last.subject) == SagaKey.of("trip", "after-t1")


@pytest.mark.parametrize("subject", [f"CONSUMER.INFO.{SAGA}.{EXPORTER}", f"CONSUMER.NAMES.{EVENTS}"])
async def test_a_saga_stays_while_no_server_leads_that_could_tell_who_has_read_it(
    scene: Scene, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, no_leader = scene.link.request, b'{"error": {"code": 503, "err_code": 10008, "description": "unavailable"}}'

    async def request(to: str, data: bytes = b"") -> bytes:
        return no_leader if to == f"$JS.API.{subject}" else await asked(to, data)

    (handle,) = await scene.run("t1")
    with monkeypatch.context() as patched:
        patched.setattr(scene.link, "request", request)
        patched.setattr(setup, "WAIT_SECONDS", 0.0)
        with pytest.raises((Ambiguous, PlatformError), match="unavailable"):
            await scene.ends().look(TRIP.name)
    assert len(await scene.left_of(handle.key)) > 1
    await scene.ends().look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END


async def test_a_saga_stays_while_one_of_several_servers_may_not_know_the_exporter(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gone = scene.link.request, b'{"error": {"code": 404, "err_code": 10014, "description": "not found"}}'

    async def request(to: str, data: bytes = b"") -> bytes:
        return gone if to == f"$JS.API.CONSUMER.INFO.{SAGA}.{EXPORTER}" else await asked(to, data)

    (handle,) = await scene.run("t1")
    monkeypatch.setattr(scene.link, "request", request)
    monkeypatch.setattr(Link, "may_be_clustered", property(lambda link: True))
    ends = scene.ends()
    with pytest.raises(Ambiguous, match="may not know yet that there is a consumer exporter"):
        await ends.look(TRIP.name)
    assert len(await scene.left_of(handle.key)) > 1
    monkeypatch.setattr(stream_readers, "ELECTION_SECONDS", 0.0)
    await ends.look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END


async def test_a_saga_stays_until_the_exporter_has_its_trace(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its journal is not even read: each look comes by it, and while an exporter is away there are ever more."""
    (handle,) = await scene.run("t1")
    read = set[SagaKey]()

    async def noted(link: Link, keys: Sequence[SagaKey]) -> dict[SagaKey, list[StoredMessage]]:
        read.update(keys)
        return await read_journals(link, keys)

    monkeypatch.setattr("antiphon.coordinator.runtime.retention.read_journals", noted)
    held: list[Delivery] = []
    exporter = await scene.there.link("exporter" if scene.there.up.form == "accounts" else "coordinator")
    pull = await exporter.pull(SAGA, EXPORTER, 1000, held.append, 3600.0)
    await until(lambda: len(held) >= 8, what="the journals at the exporter")
    await scene.ends().look(TRIP.name)
    assert len(await scene.left_of(handle.key)) > 1
    assert read == set()
    for delivery in held:
        delivery.ack()
    await exporter.flushed()
    await purged_in_the_end(scene, handle)
    assert handle.key in read
    await pull.drain()


async def test_a_saga_stays_until_whoever_reacts_to_events_has_heard_its_own(scene: Scene) -> None:
    admin = await scene.there.link("administrator")
    await set_up(admin, [Listener("hotel", (subjects.source_filter("bank"),))])
    (handle,) = await scene.run("t1")
    held: list[Delivery] = []
    hotel = await scene.there.link("hotel")
    pull = await hotel.pull(EVENTS, reactions_consumer_name("hotel"), 10, held.append, 3600.0)
    await until(lambda: len(held) == 2, what="the events at their reaction")
    await scene.ends().look(TRIP.name)
    assert len(await scene.left_of(handle.key)) > 1
    for delivery in held:
        delivery.ack()
    await hotel.flushed()
    await purged_in_the_end(scene, handle)
    await pull.drain()


async def announcing(scene: Scene, saga: int, events: int, *, kept: str = "", name: str = "lists") -> None:
    """A read model says where it is."""
    link = await scene.there.link("readmodel" if scene.there.up.form == "accounts" else "coordinator")
    place = Place(saga=saga, events=events, kept=(kept,) if kept else ())
    await link.store(subjects.readmodel_subject(name), place.encode())


async def test_a_saga_stays_until_each_read_model_has_read_all_of_it(scene: Scene) -> None:
    (handle,) = await scene.run("t1")
    entries = await scene.link.read_all(SAGA, [subjects.whole_saga_filter(handle.key)])
    events = await scene.link.read_all(EVENTS, [subjects.saga_events_filter(handle.key)])
    end, last = entries[-1].sequence, events[-1].sequence
    far = SEQUENCE_MAX
    await announcing(scene, far, far, name="other")
    gauges: Gauges = {}
    for saga, event, kept in [(0, 0, ""), (end - 1, far, ""), (end, last - 1, ""), (far, far, str(handle.key))]:
        await announcing(scene, saga, event, kept=kept)
        await scene.ends(gauges=gauges).look(TRIP.name)
        assert len(await scene.left_of(handle.key)) > 1, (saga, event, kept)
        assert bool(gauges[WAITING, (("saga.waits_for", "readmodel"),)]) is not bool(kept)
    await announcing(scene, end, last)
    await scene.ends(gauges=gauges).look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END
    assert gauges[WAITING, (("saga.waits_for", "readmodel"),)] == 1  # after-t1


async def test_what_came_for_a_purged_saga_stays_until_read_models_have_read_that_too(scene: Scene) -> None:
    """And with it the start, by which it is found again."""
    (handle,) = await scene.run("t1")
    late = subjects.event_subject(handle.key.path, "bank", "bank-charged", "charge_card", 7)
    read = await scene.link.get_latest(EVENTS, subjects.EVENTS_FILTER)
    assert read is not None
    await (await scene.there.link("administrator")).store(late, b"a late answer")
    await scene.run("t2")
    await announcing(scene, SEQUENCE_MAX, read.sequence)
    await scene.ends().look(TRIP.name)
    left = [*ONLY_ITS_END, "evt.*.client.start", "evt.*.bank.bank-charged.charge_card.7"]
    assert sorted(await scene.left_of(handle.key)) == sorted(left)
    await announcing(scene, SEQUENCE_MAX, SEQUENCE_MAX)
    await scene.ends().look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END


async def test_nothing_is_purged_where_a_read_model_says_what_cannot_be_read_or_nobody_knows_of_any(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    (handle,) = await scene.run("t1")
    admin = await scene.there.link("administrator")
    await admin.store(subjects.readmodel_subject("lists"), b"{}" * 9)
    await scene.ends().look(TRIP.name)
    assert "retention.unreadable" in capsys.readouterr().out
    await api(admin, f"STREAM.DELETE.{READMODELS.name}")
    with pytest.raises(NobodyReads):
        await scene.ends().look(TRIP.name)
    assert len(await scene.left_of(handle.key)) > 1
    assert "KV_ANTIPHON_READMODELS" in capsys.readouterr().out
    await set_up(admin, [])
    await purged_in_the_end(scene, handle)


async def test_an_end_stays_until_read_models_have_read_it(scene: Scene) -> None:
    (handle,) = await scene.run("t1")
    await scene.ends().look(TRIP.name)
    (end,) = await scene.link.read_all(SAGA, [subjects.end_subject(handle.key)])
    keeping = Keeping(ends_seconds=1e-9)
    for saga, kept in [(end.sequence - 1, ""), (SEQUENCE_MAX, str(handle.key))]:
        await announcing(scene, saga, SEQUENCE_MAX, kept=kept)
        await scene.ends(keeping=keeping).look(TRIP.name)
        assert await scene.left_of(handle.key) == ONLY_ITS_END
    await announcing(scene, end.sequence, SEQUENCE_MAX)
    await scene.ends(keeping=keeping).look(TRIP.name)
    assert await scene.left_of(handle.key) == []


async def test_a_read_model_that_is_gone_for_good_is_forgotten_by_a_command_unless_it_runs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (handle,) = await scene.run("t1")
    await announcing(scene, 0, 0)
    admin = await scene.there.link("administrator")
    with pytest.raises(PlatformError, match="no read model is called 'x'; known are: lists"):
        await forget_reader(admin, "x")
    with pytest.raises(PlatformError, match=r"read model lists runs: it told \d+ s ago how far it has read"):
        await forget_reader(admin, "lists")
    monkeypatch.setattr(readmodel_places, "SILENT_SECONDS", 0.0)
    await forget_reader(admin, "lists")
    assert await readers(admin) == []
    await purged_in_the_end(scene, handle)


async def purged_in_the_end(scene: Scene, handle: Handle) -> None:
    async with asyncio.timeout(120):
        while await scene.left_of(handle.key) != ONLY_ITS_END:
            await scene.ends().look(TRIP.name)


async def test_a_child_stays_while_its_parent_runs_and_a_parent_while_its_child_does(scene: Scene) -> None:
    """A family is purged once all of it has ended."""
    await scene.there.coordinate(sagas=[FAMILY])
    client = scene.client
    handle = await client.start(FAMILY, ASKED, id="f1")
    child = SagaKey.of("trip", child_id(handle.key, "travel", 1))
    await until_async(lambda: scene.link.read_all(SAGA, [subjects.end_subject(child)]), len_is=1)
    await scene.run("t1")
    await scene.ends().look(TRIP.name)
    assert len(await scene.left_of(child)) > 1
    await handle.signal(PACKED, Packed(bags=2))
    await handle.result(timeout=120)
    await scene.run("t2")
    for saga_type in (FAMILY.name, TRIP.name):
        ends = Ends(scene.link, {saga_type: AT_ONCE}, scene.coordinator, Keeping())
        await ends.look(saga_type)
    assert await scene.left_of(child) == await scene.left_of(handle.key) == ONLY_ITS_END


# --- what is half purged ----------------------------------------------------------------------------------------------


def journal_of(key: SagaKey) -> tuple[str, str]:
    return SAGA, f"saga.{key.path}.c.cmd.>"


def events_of(key: SagaKey) -> tuple[str, str]:
    return EVENTS, subjects.saga_events_filter(key)


@pytest.mark.parametrize("gone", ["the journal", "the events", "some of the events", "the first entry", "all"])
async def test_a_half_purged_saga_answers_as_one_that_has_ended(scene: Scene, gone: str) -> None:
    (handle,) = await scene.run("t1")
    before, key, admin = await handle.result(timeout=120), handle.key, await scene.there.link("administrator")
    (first, *_), late = await scene.link.read_all(SAGA, [subjects.journal_filter(key)]), "charge_card"
    parts = {
        "the journal": [journal_of(key)],
        "the events": [events_of(key)],
        "some of the events": [(EVENTS, f"evt.{key.path}.hotel.>")],
        "the first entry": [(SAGA, first.subject)],
        "all": [journal_of(key), events_of(key)],
    }
    for stream, subject_filter in parts[gone]:
        assert await purge(admin, stream, subject_filter)
    await scene.there.coordinate()  # one that has nothing in its cache
    assert await scene.client.handle(TRIP, "t1").result(timeout=120) == before
    again = await scene.client.start(TRIP, ASKED, id="t1")
    assert await again.result(timeout=120) == before
    with pytest.raises(AlreadyStarted):
        await (await scene.client.start(TRIP, OTHER, id="t1")).result(timeout=120)
    with pytest.raises(TooLate, match="it has ended"):
        await handle.cancel("too late")
    status = await handle.status()
    assert (status.state, status.purged) == ("completed", True)
    command = subjects.CommandAddress(key, "bank", late, "do", 2)
    assert isinstance(await admin.store(*answer_message(command, 1, "done")), int)
    await until_async(lambda: pending(admin, "coordinator-answers-bank"), len_is=0)
    await scene.run("t2")
    await purged_in_the_end(scene, handle)
    assert len(scene.there.worker.steps(key)) == 3
    assert [each.saga for each in await waiting(admin)] == []


async def purge(link: Link, stream: str, subject_filter: str) -> int:
    """As an administrator does by hand."""
    removed: int = (await api(link, f"STREAM.PURGE.{stream}", {"filter": subject_filter}))["purged"]
    return removed


async def pending(link: Link, consumer: str) -> list[None]:
    """As many as a consumer has not finished."""
    info = await api(link, f"CONSUMER.INFO.{EVENTS}.{consumer}")
    return [None] * (info["num_pending"] + info["num_ack_pending"])


# --- the end of what is left ------------------------------------------------------------------------------------------


@ALSO_IN_PAIRS
async def test_an_end_that_is_old_is_purged_and_its_id_is_free(scene: Scene) -> None:
    handle, kept = await scene.run("t1", "t2")
    before = await handle.result(timeout=120)
    await scene.ends().look(TRIP.name)
    await scene.ends(keeping=Keeping(ends_seconds=3600)).look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END
    await scene.ends(Retention(compensated=1e-9), Keeping(ends_seconds=1e-9)).look(TRIP.name)
    assert await scene.left_of(handle.key) == await scene.left_of(kept.key) == []
    again = await scene.client.start(TRIP, OTHER, id="t1")
    assert (await again.result(timeout=120)).start != before.start


async def test_an_end_stays_while_the_rest_of_its_saga_does(scene: Scene) -> None:
    (handle,) = await scene.run("t1")
    before = await scene.left_of(handle.key)
    await scene.ends(Retention(compensated=1e-9), Keeping(ends_seconds=1e-9)).look(TRIP.name)
    assert await scene.left_of(handle.key) == before


T = TypeVar("T")


async def until_async(look: Callable[[], Awaitable[list[T]]], *, len_is: int) -> None:
    """Until so many are found."""
    async with asyncio.timeout(120):
        while len(await look()) != len_is:
            await asyncio.sleep(0.01)
