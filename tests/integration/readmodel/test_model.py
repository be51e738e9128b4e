"""The model in SQLite and in PostgreSQL: whatever happens on the way, it is what the streams hold, folded once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import saga_in
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.views.summary import Overview
from antiphon.deploy.readmodel import projector
from antiphon.deploy.readmodel import retention as purges
from antiphon.deploy.readmodel.model import Generation, Model, Overtaken, Query, opened
from antiphon.deploy.readmodel.projector import Projector
from antiphon.deploy.readmodel.retention import Purged
from antiphon.link import OtherStream
from antiphon.link import tail as tails

from .streams import PAGE, Streams, by_name

SEED = random.randrange(10**9)
MANY = 10_000


@pytest.fixture
async def model(database: str) -> AsyncIterator[Model]:
    async with opened(database, writes=True) as found:
        yield found


async def catch_up(streams: Streams, model: Model, generation: Generation) -> Generation:
    projector = Projector(streams, model, generation)
    while await projector.advance():
        pass
    return projector.generation


async def built(streams: Streams, model: Model) -> Generation:
    """Build from nothing, and have readers see it."""
    generation = await catch_up(streams, model, await model.new_generation())
    await model.make_live(generation)
    return replace(generation, is_live=True)


async def everything(model: Model) -> dict[str, Overview]:
    return by_name(await model.find(Query(limit=MANY)))


class Crash(Exception):
    """The process is gone at this point."""


class Fragile:
    """A model whose writes may fail before they are committed, or be committed with nobody left to know."""

    def __init__(self, model: Model, dice: random.Random) -> None:
        self._model, self._dice = model, dice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def write(self, *arguments: Any) -> Generation:
        chance = self._dice.random()
        if chance < 0.1:
            raise Crash
        written = await self._model.write(*arguments)
        if chance < 0.2:
            raise Crash
        return written


async def test_after_any_crashes_and_storms_the_model_is_the_fold_of_the_streams(model: Model) -> None:
    """Several projectors over one database, each of which dies now and then and begins anew from what is stored."""
    dice = random.Random(SEED)
    streams = Streams(dice)
    await built(streams, model)
    fragile: Any = Fragile(model, dice)

    async def project() -> None:
        while not streams.stormy or await behind(streams, model):
            projector = Projector(streams, fragile, (await model.generations())[-1])
            try:
                for _ in range(dice.randrange(1, 6)):
                    await projector.advance()
            except (Crash, Overtaken, Ambiguous):
                continue

    streams.stormy = True
    for _ in range(2):
        streams.live(sagas=12)
        await asyncio.gather(*(project() for _ in range(2)))
    streams.stormy = False
    await catch_up(streams, model, (await model.generations())[-1])
    assert await everything(model) == streams.folded(), f"seed {SEED}"


async def behind(streams: Streams, model: Model) -> bool:
    """Whether something was not applied yet; the last messages of SAGA may be none of a saga."""
    places = (await model.generations())[-1].places
    return places.events.sequence < len(streams.stored[EVENTS]) or places.saga.sequence < len(streams.stored[SAGA]) - 2


async def test_a_model_built_from_nothing_is_the_one_that_grew(model: Model) -> None:
    streams = Streams(random.Random(SEED))
    generation = await built(streams, model)
    for _ in range(3):
        streams.live(sagas=10)
        generation = await catch_up(streams, model, generation)
    grown = await everything(model)
    await built(streams, model)
    assert await everything(model) == grown == streams.folded(), f"seed {SEED}"


async def test_readers_see_the_old_model_until_the_new_one_is_whole(model: Model) -> None:
    streams = Streams(random.Random(SEED))
    streams.live(sagas=10)
    await built(streams, model)
    before = await everything(model)
    streams.live(sagas=5)
    rebuilding = Projector(streams, model, await model.new_generation())
    assert await rebuilding.advance()
    assert await everything(model) == before
    while await rebuilding.advance():
        pass
    await model.make_live(rebuilding.generation)
    assert await everything(model) == streams.folded()
    await model.sweep()
    assert [each.number for each in await model.generations()] == [rebuilding.generation.number]
    assert await everything(model) == streams.folded()


async def test_who_was_overtaken_writes_nothing(model: Model) -> None:
    streams = Streams(random.Random(SEED))
    generation = await built(streams, model)
    streams.live(sagas=3)
    late = Projector(streams, model, generation)
    await catch_up(streams, model, generation)
    before = await everything(model)
    with pytest.raises(Overtaken):
        await late.advance()
    assert await everything(model) == before


async def test_a_first_build_that_is_not_done_is_said_to_be_under_way(model: Model) -> None:
    await model.new_generation()
    with pytest.raises(PlatformError, match="is being built for the first time"):
        await model.find(Query())


# --- streams that are not the same any more ---------------------------------------------------------------------------


async def test_a_stream_with_other_messages_at_the_position_is_noticed(model: Model) -> None:
    streams = Streams(random.Random(SEED))
    streams.live(sagas=5)
    generation = await built(streams, model)
    restored = Streams(random.Random(SEED + 1))
    restored.live(sagas=60)  # a shorter one would look like a replica that lags
    with pytest.raises(OtherStream, match="has another message"):
        await catch_up(restored, model, generation)


@pytest.mark.parametrize("stream", [SAGA, EVENTS])
async def test_a_stream_that_went_backwards_is_noticed_and_a_lagging_replica_is_not(
    stream: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = Streams(random.Random(SEED))
    streams.live(sagas=5)
    generation = await built(streams, model)
    whole = streams.stored[stream]
    streams.stored[stream] = whole[:-20]
    projector = Projector(streams, model, generation)
    assert await projector.advance() == 0
    streams.stored[stream] = whole  # the replica has caught up
    assert await projector.advance() == 0
    streams.stored[stream] = whole[:-60]  # none of the last sagas is left by which it would be known
    monkeypatch.setattr(tails, "LAG_SECONDS_MAX", 0.0)
    assert await projector.advance() == 0
    await asyncio.sleep(0.001)
    with pytest.raises(OtherStream, match="went backwards"):
        await projector.advance()


def latest_of(streams: Streams, stream: str) -> SagaKey:
    """The saga of a stream's last message that is one of a saga."""
    found = (saga_in(each.subject) for each in reversed(streams.stored[stream]))
    return next(key for key in found if key is not None and key.type == "trip")


@pytest.mark.parametrize("stream", [SAGA, EVENTS])
async def test_a_saga_that_was_forgotten_is_no_other_stream_though_its_message_was_the_last_one_read(
    stream: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the projector runs, or begins anew from what the database has; and then goes on."""
    monkeypatch.setattr(tails, "LAG_SECONDS_MAX", 0.0)
    streams = Streams(random.Random(SEED))
    streams.live(sagas=10)
    generation = await built(streams, model)
    running = Projector(streams, model, generation)
    streams.purge(latest_of(streams, stream))
    for _ in range(3):
        assert await running.advance() == 0
    streams.live(sagas=3, lives=3)
    (stored,) = await model.generations()
    assert stored.places == generation.places
    after = await catch_up(streams, model, stored)
    assert after.places.saga.sequence > generation.places.saga.sequence
    assert await catch_up(streams, model, (await model.generations())[0]) == after


@pytest.mark.parametrize("behind", [0, 3 * PAGE], ids=["at once", "pages later"])
@pytest.mark.parametrize("stream", [SAGA, EVENTS])
async def test_a_stream_that_goes_on_before_what_was_read_is_another_one_although_it_is_known_again(
    stream: str, behind: int, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is restored from a backup and written to."""
    monkeypatch.setattr(tails, "LAG_SECONDS_MAX", 0.0)
    monkeypatch.setattr(tails, "OTHERS_MAX", 9)
    streams = Streams(random.Random(SEED))
    streams.live(sagas=10)
    key = SagaKey.of("trip", "s-0")
    last = next(
        each for each in reversed(streams.stored[stream]) if ".c.cmd." in each.subject or ".client." in each.subject
    )
    for _ in range(behind):  # so far before the mark is the last message of another saga
        streams.store(stream, last.subject, last.data)
    generation = await built(streams, model)
    mark = generation.places.saga if stream == SAGA else generation.places.events
    streams.stored[stream] = [each for each in streams.stored[stream] if each.sequence < mark.sequence - 3]
    projector = Projector(streams, model, generation)
    assert await projector.advance() == 0
    restored = f"evt.{key.path}.client.signal.x.1" if stream == EVENTS else f"saga.{key.path}.c.note.n9"
    streams.store(stream, restored, b"stored after the restore")
    await asyncio.sleep(0.001)
    with suppress(OtherStream):  # where its own message at the mark is gone, it is waited for that first
        assert await projector.advance() == 0
    with pytest.raises(OtherStream):
        await projector.advance()


async def test_what_is_replaced_is_no_position(model: Model) -> None:
    """A lock's state and a timer are gone as soon as there is a newer one."""
    streams = Streams(random.Random(SEED))
    streams.live(sagas=3)
    streams.store(SAGA, "saga.1.lock.l-1.c.state", b"a lock")
    generation = await built(streams, model)
    assert ".lock." not in generation.places.saga.subject
    streams.stored[SAGA].pop()
    streams.live(sagas=2)
    await catch_up(streams, model, generation)
    assert await everything(model) == streams.folded()


async def test_facts_that_were_purged_do_not_hold_up_the_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "LAG_SECONDS_MAX", 0.01)
    streams = Streams(random.Random(SEED))
    streams.live(sagas=10)
    streams.stored[EVENTS] = streams.stored[EVENTS][30:60]
    await built(streams, model)
    whole = {message.subject.split(".")[3] for message in streams.stored[SAGA] if message.subject.endswith(".do.1")}
    assert {row.id for row in (await everything(model)).values()} >= whole


async def test_what_was_purged_of_a_saga_but_its_end_is_still_listed_as_ended(model: Model) -> None:
    streams = Streams(random.Random(SEED))
    streams.live(sagas=30, moves=60)
    ends = [message for message in streams.stored[SAGA] if message.subject.endswith(".c.end")]
    streams.stored[SAGA], streams.stored[EVENTS] = ends, []
    await built(streams, model)
    assert all(row.ended_ns for row in (await everything(model)).values())
    assert len(await everything(model)) == len(ends) > 0


async def looked(purged: Purged, generation: Generation, times: int = 8) -> set[str]:
    """What is forgotten when all rows are looked after, some of them more than once."""
    return {name for _ in range(times) for name in await purged.look(generation)}


async def test_sagas_that_are_purged_one_by_one_are_forgotten_and_no_others(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purges, "PAGE", 4)
    streams = Streams(random.Random(SEED))
    streams.live(sagas=10)
    generation = await built(streams, model)
    purged = Purged(streams, model, lag_seconds=0)
    assert await looked(purged, generation) == set()
    gone = {"trip/s-0", "trip/s-7"}
    for name in gone:
        streams.purge(SagaKey.of(*name.split("/")))
    assert await looked(purged, generation) == gone
    assert (await everything(model)).keys() == {f"trip/s-{number}" for number in range(10)} - gone
    assert all(row.id not in ("s-0", "s-7") for row in await model.find(Query(keys={"traveller": "c-0"}, limit=MANY)))


async def test_a_saga_that_one_replica_does_not_have_or_that_begins_anew_is_not_forgotten(model: Model) -> None:
    streams = Streams(random.Random(SEED))
    streams.live(sagas=10)
    generation = await built(streams, model)
    lagging, patient = Purged(streams, model, lag_seconds=0), Purged(streams, model, lag_seconds=60)
    streams.stored, kept = {EVENTS: [], SAGA: []}, streams.stored
    assert await looked(patient, generation) == set()
    await lagging.look(generation)
    streams.stored = kept
    assert await looked(lagging, generation) == set()
    (row,) = (await model.rows(generation, ["trip/s-3"])).values()
    await model.forget(generation, {"trip/s-3": row.changed_ns - 1})
    assert len(await everything(model)) == 10


# --- questions --------------------------------------------------------------------------------------------------------


async def test_a_query_gives_what_it_asks_for_in_its_order(model: Model) -> None:
    dice = random.Random(SEED)
    streams = Streams(dice)
    streams.live(sagas=60, lives=20)
    await built(streams, model)
    rows = list(streams.folded().values())
    middle = sorted(row.started_ns for row in rows)[30]
    queries: list[tuple[Query, Callable[[Overview], bool]]] = [
        (Query(limit=MANY), lambda row: True),
        (Query(type="trip", limit=MANY), lambda row: True),
        (Query(type="other", limit=MANY), lambda row: False),
        (Query(state="running", limit=MANY), lambda row: row.state == "running"),
        (Query(state="compensated", limit=MANY), lambda row: row.state == "compensated"),
        (Query(parked=True, limit=MANY), lambda row: bool(row.parked)),
        (Query(started_before_ns=middle, limit=MANY), lambda row: row.started_ns < middle),
        (Query(keys={"traveller": "c-1"}, limit=MANY), lambda row: row.keys.get("traveller") == "c-1"),
        (Query(keys={"traveller": "c-1", "nights": "3"}, limit=MANY), lambda row: False),
        (
            Query(keys={"traveller": "c-2", "nights": "2"}, state="completed", limit=MANY),
            lambda row: row.keys.get("traveller") == "c-2" and row.state == "completed",
        ),
    ]
    for query, holds in queries:
        found = await model.find(query)
        assert by_name(found) == by_name(row for row in rows if holds(row)), query
        assert [row.started_ns for row in found] == sorted((row.started_ns for row in found), reverse=True)
    oldest = await model.find(Query(sort="age", limit=7))
    assert [row.started_ns for row in oldest] == sorted(row.started_ns for row in rows)[:7]
    newest = await model.find(Query(sort="changed", limit=7, keys={"nights": "2"}))
    changes = sorted((row.changed_ns for row in rows if row.keys), reverse=True)
    assert [row.changed_ns for row in newest] == changes[:7]
