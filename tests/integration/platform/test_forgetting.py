"""A saga forgotten on demand, on a real server: nothing that was said in it is left, and its id answers as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.contracts import AlreadyStarted, SagaKey, TooLate, UnknownSaga, subjects
from antiphon.contracts.errors import NotEnded
from antiphon.contracts.identity import OPERATOR
from antiphon.contracts.payloads import Operation, verb_type
from antiphon.contracts.topology import EVENTS, PARKED, SAGA
from antiphon.coordinator.client.store_once import message
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.reading.sagas import timeline
from antiphon.coordinator.views.summary import Overview
from antiphon.deploy.cli.trace import read_trace
from antiphon.deploy.modules import CannotLoad
from antiphon.deploy.readmodel.announcing import Announcing
from antiphon.deploy.readmodel.model import Query, opened
from antiphon.deploy.readmodel.projector import Projector
from antiphon.link import Link
from antiphon.link.setup import api
from tests.integration.platform.test_coordinator import company, idle
from tests.integration.platform.test_retention import ONLY_ITS_END, Scene, until_async
from tests.support.server import FORMS, FORMS_AND_PAIRS
from tests.support.trip import PARTICIPANTS, TRIP, TripAsked

SECRET = "Ada-Lovelace-1815"
ASKED = TripAsked(traveller=SECRET, nights=2)


@pytest.fixture(params=FORMS_AND_PAIRS)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with company(tmp_path, request.param) as there:
        coordinator = await there.coordinate()
        await there.work()
        yield Scene(there, coordinator, await there.link("administrator"), await there.client())


async def holding(link: Link, secret: str) -> list[str]:
    """The subjects of all messages that hold some text."""
    found = list[str]()
    for stream in (SAGA, EVENTS, PARKED):
        found += [each.subject async for each in link.scan(stream, ">") if secret.encode() in each.data]
    return found


async def test_what_was_said_in_a_saga_is_forgotten_and_its_outcome_is_not(scene: Scene) -> None:
    handle = await scene.client.start(TRIP, ASKED, id="t1")
    before = await handle.result(timeout=120)
    await scene.run("t2")
    unreadable = subjects.event_subject(handle.key.path, "bank", "bank-charged", "charge_card", 7)
    await scene.link.store(unreadable, b"about " + SECRET.encode())
    await until_async(lambda: waiting(scene.link), len_is=1)
    assert await holding(scene.link, SECRET)
    operator = (await scene.there.client("operator")).operator("operator")
    end = await operator.forget(TRIP, "t1", "request 17")
    assert (end.outcome, end.reason, end.start) == (before.outcome, "", before.start)
    assert end.forgotten.startswith("by operator on 20")
    assert end.forgotten.endswith(": request 17")
    assert await holding(scene.link, SECRET) == []
    store = scene.there.up.server.store
    assert [each for each in store.rglob("*.blk") if SECRET.encode() in each.read_bytes()] == []
    assert await scene.left_of(handle.key) == ONLY_ITS_END
    assert await waiting(scene.link) == []
    assert await scene.client.handle(TRIP, "t1").result(timeout=120) == end
    assert await (await scene.client.start(TRIP, ASKED, id="t1")).result(timeout=120) == end
    with pytest.raises(AlreadyStarted):
        await scene.client.start(TRIP, TripAsked(traveller="Bob", nights=9), id="t1")
    with pytest.raises(TooLate, match="it has ended"):
        await handle.cancel("too late")
    assert (await operator.forget(TRIP, "t1", "once more")).forgotten == end.forgotten
    assert await scene.left_of(handle.key) == ONLY_ITS_END


async def read_on(scene: Scene, database: Path) -> dict[str, Overview]:
    """The rows of a read model that was away and has read on; it is not built anew."""
    link = await scene.there.link("coordinator" if scene.there.up.form == "plain" else "readmodel")
    async with opened(f"sqlite:///{database}", writes=True) as model:
        known = await model.generations()
        generation = known[-1] if known else await model.new_generation()
        projector = Projector(link, model, generation, pairs=link.pairs)
        while await projector.advance():
            pass
        await model.make_live(projector.generation)
        announcing = Announcing(link, "lists", "one")
        announcing.at(projector.generation.places)
        await announcing.look()
        return {row.id: row for row in await model.find(Query(limit=10))}


@pytest.mark.parametrize(
    "scene", FORMS, indirect=True
)  # in several pairs all these sagas would be marks of the streams
async def test_a_read_model_that_was_away_learns_what_was_forgotten_and_keeps_what_was_purged(
    scene: Scene, tmp_path: Path
) -> None:
    """Also where the last messages that it had read were those of the forgotten saga, in a platform that is quiet."""
    purged, *_ = await scene.run("t0", "t1")
    await (await scene.client.start(TRIP, ASKED, id="t2")).result(timeout=120)
    before = await read_on(scene, tmp_path / "sagas.db")
    await scene.ends().look(TRIP.name)
    assert await scene.left_of(purged.key) == ONLY_ITS_END
    operator = (await scene.there.client("operator")).operator("operator")
    await operator.forget(TRIP, "t2", "request 17")
    for _ in range(2):
        after = await read_on(scene, tmp_path / "sagas.db")
        assert (after["t2"].keys, after["t2"].reason, after["t2"].state) == ({}, "", "completed")
        assert after["t2"].forgotten.endswith("request 17")
        assert after["t0"] == before["t0"]
        await scene.client.start(TRIP, ASKED, id="t3")


async def test_a_saga_that_runs_or_never_began_is_not_forgotten(scene: Scene) -> None:
    scene.there.worker.play = idle
    handle = await scene.client.start(TRIP, ASKED, id="t1")
    await until_async(lambda: scene.left_of(handle.key), len_is=3)
    operator = (await scene.there.client("operator")).operator("operator")
    with pytest.raises(NotEnded, match="saga trip/t1 has not ended, and without its journal"):
        await operator.forget(TRIP, "t1", "request 17")
    with pytest.raises(UnknownSaga):
        await operator.forget(TRIP, "t9", "request 17")
    assert len(await scene.left_of(handle.key)) == 3


async def test_who_cannot_cancel_a_saga_any_more_is_told_what_else_brings_it_to_its_end(scene: Scene) -> None:
    scene.there.worker.play = idle
    handle = await scene.client.start(TRIP, ASKED, id="t1")
    await until_async(lambda: scene.left_of(handle.key), len_is=3)
    operator = (await scene.there.client("operator")).operator("operator")
    with pytest.raises(NotEnded, match="antiphon cancel trip/t1, or let it complete"):
        await operator.forget(TRIP, "t1", "request 17")
    for name in PARTICIPANTS:
        for stream in scene.link.pairs.saga:
            await api(scene.link, f"CONSUMER.PAUSE.{stream}.{name}-undo", {"pause_until": "2200-01-01T00:00:00Z"})
    await handle.cancel("enough")
    async with asyncio.timeout(120):
        while (await handle.status()).state != "compensating":
            await asyncio.sleep(0.01)
    with pytest.raises(NotEnded, match="It is compensating, which antiphon show trip/t1 follows; and again") as caught:
        await operator.forget(TRIP, "t1", "request 17")
    assert "antiphon cancel" not in str(caught.value)


def test_of_a_saga_that_is_parked_a_person_is_told_who_waits_for_whom() -> None:
    said = str(NotEnded("trip", "t1", "compensating", "refund_card failed 3 times"))
    assert "waits for a person (refund_card failed 3 times): antiphon retry, edit or resolve" in said
    assert "cancel" not in said


async def test_a_request_to_forget_that_comes_for_a_saga_that_runs_is_set_aside(scene: Scene) -> None:
    scene.there.worker.play = idle
    handle = await scene.client.start(TRIP, ASKED, id="t1")
    await until_async(lambda: scene.left_of(handle.key), len_is=3)
    subject = subjects.verb_subject(handle.key, "operator", subjects.FORGET, "k1")
    asked = message(subject, OPERATOR, verb_type(subjects.FORGET), Operation(reason="request 17"))
    await scene.link.store(subject, asked)
    await until_async(lambda: waiting(scene.link), len_is=1)
    (said,) = await waiting(scene.link)
    assert (said.kind, said.reason) == ("unhandled", "saga trip/t1 has not ended, so that it cannot be forgotten yet")
    assert len(await scene.left_of(handle.key)) == 4


async def test_a_purged_saga_is_shown_by_what_is_left_and_traced_with_a_sentence(scene: Scene) -> None:
    (handle,) = await scene.run("t1")
    assert not (await timeline(scene.link, handle.key)).purged
    await scene.ends().look(TRIP.name)
    told = await timeline(scene.link, handle.key)
    assert (told.purged, told.state, [line.text for line in told.lines]) == (True, "completed", ["completed"])
    with pytest.raises(
        CannotLoad, match=r"saga trip/t1 has ended, completed, on 20..-..-.., and its journal was purged"
    ):
        await read_trace(scene.link, SagaKey.of("trip", "t1"))
