"""Sagas spread over several pairs of streams, on a real server with accounts: what other tests do not have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from antiphon.contracts import subjects
from antiphon.contracts.errors import PlatformError, RightsMissing, StreamMissing
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.pairs import Pairs
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.changes import Position
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.reading.sagas import started_last
from antiphon.coordinator.runtime.admission import Admission, require_shares
from antiphon.coordinator.runtime.cache import Cache
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.schemas import begun_before
from antiphon.coordinator.runtime.serve import attach
from antiphon.deploy.readmodel.model import Query, opened
from antiphon.deploy.readmodel.projector import Projector
from antiphon.link import Link, Mark, OtherStream, require_platform, set_up
from antiphon.link.pairs import VARIABLE, find_pairs, is_served
from antiphon.link.setup import api
from antiphon.tracing.export.exporter import Exporter
from antiphon.tracing.jaeger.sagas import Sagas
from antiphon.tracing.projection.spans import Span
from tests.integration.platform.test_coordinator import Company, company, idle
from tests.support.server import PAIRS, until
from tests.support.trip import ASKED, TRIP

IDS = [f"t{number}" for number in range(12)]
"""Enough for each pair to have some."""


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Company]:
    async with company(tmp_path, "pairs") as everybody:
        yield everybody


async def run(there: Company) -> list[SagaKey]:
    """Sagas in all pairs that have ended."""
    await there.coordinate()
    await there.work()
    client = await there.client()
    handles = [await client.start(TRIP, ASKED, id=id) for id in IDS]
    for handle in handles:
        assert (await handle.result(timeout=120)).outcome == "completed"
    return [handle.key for handle in handles]


# --- how many there are -----------------------------------------------------------------------------------------------


async def unaware(there: Company, user: str) -> Link:
    """A connection that was told nothing."""
    link = await there.link(user)
    link.spread_over(Pairs(1))
    return link


async def test_a_platform_keeps_the_number_that_it_was_set_up_with(there: Company) -> None:
    admin = await there.link("administrator")
    with pytest.raises(PlatformError, match=f"spread over {PAIRS} pairs of streams, and that stays so"):
        await set_up(admin, [], pairs=PAIRS + 1)
    with pytest.raises(PlatformError, match="Leave --streams out"):
        await set_up(admin, [], pairs=1)
    await set_up(await unaware(there, "administrator"), ["newcomer"])
    names = (await api(admin, "STREAM.NAMES", {"subject": "saga.>"}))["streams"]
    assert sorted(names) == [f"SAGA-{pair}of{PAIRS}" for pair in range(PAIRS)]
    for stream in admin.pairs.saga:
        assert "error" not in await api(admin, f"CONSUMER.INFO.{stream}.newcomer")


async def test_who_may_ask_the_server_finds_the_pairs(there: Company) -> None:
    for user in ("administrator", "coordinator"):
        link = await unaware(there, user)
        assert (await find_pairs(link)).count == PAIRS
        await require_platform(link)
        assert not link.failure.done()


@pytest.mark.parametrize("user", ["operator", "exporter", "readmodel"])
async def test_who_may_not_ask_is_told_by_its_environment_or_refuses(
    there: Company, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await unaware(there, user)
    with capture_logs() as lines:
        assert (await find_pairs(link)).count == 1
    assert lines == [], "the sentence says it"
    with pytest.raises(Exception, match="a right is missing"):
        await link.read_all(SAGA, [subjects.end_subject(SagaKey.of("trip", "t1"))])
    assert isinstance(link.failure.result(), RightsMissing)
    assert f"set {VARIABLE} to their number" in str(link.failure.result())
    told = await unaware(there, user)
    monkeypatch.setenv(VARIABLE, str(PAIRS))
    assert (await find_pairs(told)).count == PAIRS
    assert await told.read_all(SAGA, [subjects.end_subject(SagaKey.of("trip", "t1"))]) == []


async def test_a_wrong_number_finds_no_stream(there: Company) -> None:
    link = await there.link("coordinator")
    link.spread_over(Pairs(PAIRS + 1))
    with pytest.raises(StreamMissing, match=f"there is no stream SAGA-0of{PAIRS + 1}"):
        await require_platform(link)


@pytest.mark.parametrize("text", ["0", "9", "many", "-1"])
async def test_what_is_no_number_is_refused(there: Company, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(PlatformError, match=f"{VARIABLE} is '{text}'"):
        await find_pairs(await unaware(there, "coordinator"))


async def test_with_one_pair_nobody_asks_for_names(tmp_path: Path) -> None:
    async with company(tmp_path, "accounts") as there:
        for user in ("coordinator", "operator", "exporter", "readmodel"):
            link = await there.link(user)
            assert (await find_pairs(link)).count == 1
            assert not link.failure.done()
        assert "STREAM.NAMES" not in there.up.server.log.read_text()


# --- what reads all of them -------------------------------------------------------------------------------------------


async def test_who_looks_for_its_consumer_takes_no_command_from_it(tmp_path: Path) -> None:
    async with company(tmp_path, "accounts") as there:
        link, asked = await there.link("hotel"), "CONSUMER.INFO.SAGA.hotel"
        assert await is_served(link, SAGA, "hotel")
        assert await is_served(link, SAGA, "bank") is None  # whose rights it has not
        administrator = await there.link("administrator")
        assert not await is_served(administrator, SAGA, "nobody")
        assert (await api(administrator, asked))["num_waiting"] == 0


async def test_what_is_stored_of_a_saga_is_in_its_pair_and_lists_have_all(there: Company) -> None:
    keys = await run(there)
    link = await there.link("operator")
    assert {link.pairs.pair_of(key) for key in keys} == {*range(PAIRS)}
    for key in keys:
        for base, subject in ((SAGA, subjects.journal_filter(key)), (EVENTS, subjects.saga_events_filter(key))):
            own = link.pairs.stream_of(base, key)
            for stream in link.pairs.names(base):
                assert bool(await link.read_all(stream, [subject])) == (stream == own)
    found, total = await started_last(link, "trip", 5)
    assert ([each.id for each in found], total) == (IDS[-1:-6:-1], len(IDS))


async def test_a_sequence_alone_is_refused(there: Company) -> None:
    link = await there.link("coordinator")
    with pytest.raises(RuntimeError, match=f"a sequence of EVENTS is one in each of {PAIRS} streams"):
        await link.get_all_at(EVENTS, [1])
    with pytest.raises(RuntimeError, match="is in several streams"):
        await link.next_page(SAGA, subjects.ENDS_FILTER, 1)


async def test_a_read_model_has_the_sagas_of_all_pairs_and_goes_on_where_it_was(there: Company, tmp_path: Path) -> None:
    await run(there)
    link = await there.link("readmodel")
    async with opened(f"sqlite:///{tmp_path / 'sagas.db'}", writes=True) as model:
        projector = Projector(link, model, await model.new_generation(), pairs=link.pairs)
        while await projector.advance():
            pass
        await model.make_live(projector.generation)
        assert {row.id for row in await model.find(Query(limit=100))} == {*IDS}
        (known,) = await model.generations()
        assert len(known.places.all) == PAIRS
        assert known.places == projector.generation.places
        again = Projector(link, model, known, pairs=link.pairs)
        assert await again.advance() == 0
        with pytest.raises(OtherStream, match=f"made of {PAIRS} pairs of streams, and there are 1"):
            Projector(link, model, known)


async def test_an_exporter_hands_over_the_traces_of_all_pairs(there: Company) -> None:
    keys = await run(there)
    link, sent = await there.link("exporter"), list[Span]()

    async def send(spans: Sequence[Span]) -> bool:
        sent.extend(spans)
        return True

    exporter = Exporter(link, send)
    running = asyncio.create_task(exporter.run(await exporter.start()))
    try:
        await until(lambda: len({span.trace_id for span in sent}) == len(keys) and not exporter.backlog.entries())
    finally:
        exporter.stop()
        await running


async def test_a_search_for_traces_finds_the_sagas_of_all_pairs(there: Company) -> None:
    await run(there)
    sagas = Sagas(await there.link("operator"))
    for _ in range(2):
        await sagas.refresh()
        assert len(sagas.index) == len(IDS)


async def test_changes_go_on_in_all_pairs_from_a_position(there: Company) -> None:
    await run(there)
    reader = await there.client("operator")
    first, position = await followed(reader, Mark(), len(IDS))
    assert isinstance(position, Position)
    kept = msgspec.json.decode(msgspec.json.encode(position), type=Position)
    second, _ = await followed(reader, kept, len(IDS))
    assert {*first} | {*second} >= {(id, state) for id in IDS for state in ("running", "completed")}
    assert not {*first} & {*second}
    with pytest.raises(PlatformError, match=f"the position is one of 1 pairs of streams, and there are {PAIRS}"):
        await followed(reader, Mark(5, "saga.1.trip.t1.c.end", 1), 1)


async def followed(reader: Antiphon, after: Mark, most: int) -> tuple[list[tuple[str, str]], Mark]:
    """So many changes after a position, and where the last one was."""
    found, position = list[tuple[str, str]](), after
    async with aclosing(reader.changes(after=after)) as changes, asyncio.timeout(120):
        async for change in changes:
            found.append((change.id, change.state))
            position = change.position
            if len(found) == most:
                break
    return found, position


# --- what cannot be had -----------------------------------------------------------------------------------------------


def test_a_bound_of_open_sagas_of_which_not_every_pair_has_a_share_is_refused() -> None:
    require_shares(Pairs(1), {"order": 1})
    require_shares(Pairs(2), {"order": 2})
    with pytest.raises(PlatformError, match=r"bound of 1 is given for sagas of type 'order'.*Give 2 or more"):
        require_shares(Pairs(2), {"order": 1})


async def test_each_pair_has_its_share_of_a_bound_of_open_sagas(there: Company) -> None:
    """Whichever of two coordinators judges."""
    client, link = await there.client(), await there.link("coordinator")
    for _ in range(2):
        store = JetStreamStore(link)
        admission = Admission(store, {"trip": 2 * PAIRS}, await begun_before(link))
        await attach(link, Coordinator(store, [TRIP.definition], admission=admission))
        link = await there.link("coordinator")
    await there.work(idle)
    handles = [await client.start(TRIP, ASKED, id=f"many-{number}") for number in range(40)]
    ended = {subjects.end_subject(handle.key) for handle in handles}
    refused = dict[int, int]()
    open_in = dict.fromkeys(range(PAIRS), 0)
    for handle in handles:
        while not (found := await link.read_all(SAGA, [subjects.journal_filter(handle.key)])):
            await asyncio.sleep(0.02)
        pair = link.pairs.pair_of(handle.key)
        if found[0].subject in ended:
            refused[pair] = refused.get(pair, 0) + 1
            reason = (await handle.result(timeout=120)).reason
            assert f"2 sagas of type trip are open in pair {pair} of {PAIRS}, which is its share" in reason
        else:
            open_in[pair] += 1
    assert open_in == dict.fromkeys(range(PAIRS), 2)
    assert set(refused) == {*range(PAIRS)}


def test_what_is_kept_of_a_saga_is_not_dropped_because_another_stream_has_lower_sequences() -> None:
    cache, keys = Cache(Pairs(2)), {SagaKey.of("trip", id).partition % 2: SagaKey.of("trip", id) for id in IDS}
    with capture_logs() as lines:
        cache.stored(keys[0], None, 100)  # type: ignore[arg-type] # nothing is kept of it
        cache.stored(keys[1], None, 5)  # type: ignore[arg-type] # as above
        assert lines == []
        cache.stored(keys[0], None, 100)  # type: ignore[arg-type] # as above
    assert [line["event"] for line in lines] == ["stream.went_backwards"]
