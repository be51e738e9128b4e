"""One saga that nobody can read, or whose row no database takes, keeps no other saga out of the model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from antiphon.contracts import SagaKey, clock, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.payloads import RECORD_TYPE, Record
from antiphon.contracts.topology import SAGA
from antiphon.deploy.readmodel import projector
from antiphon.deploy.readmodel.model import Query, opened
from antiphon.deploy.readmodel.projector import Projector, serve
from tests.integration.readmodel.streams import Streams
from tests.support.poison import RAISED, explode
from tests.support.raw_worker import start_message
from tests.support.server import platform

BAD = SagaKey.of("trip", "bad")


def record(key: SagaKey, **attributes: Any) -> tuple[str, bytes]:
    """A journal entry with these attributes in its envelope."""
    subject = subjects.record_subject(key, "n1")
    time = clock.moment(1_750_000_000_000_000_000)
    what: dict[str, Any] = {"source": "coordinator", "type": RECORD_TYPE, "time": time, "data": pack(Record())}
    return subject, encode(Envelope(id=subject, **{**what, **attributes}))


async def model_of(streams: Streams, database: str) -> list[str]:
    """The sagas in a model that is made of the streams."""
    async with opened(database, writes=True) as model:
        projector = Projector(streams, model, await model.new_generation())
        while await projector.advance():
            pass
        await model.make_live(projector.generation)
        return sorted(row.id for row in await model.find(Query(limit=1000)))


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("what", ["read_told", "tell"])
async def test_an_entry_whose_reading_raises_is_logged_and_skipped(
    what: str, name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Any] = getattr(projector, what)

    def call(*given: Any) -> Any:
        if any(
            each == BAD.id
            for each in (getattr(given[0], "id", ""), given[0].subject.split(".")[3] if what == "read_told" else "")
        ):
            explode(name)
        return original(*given)

    monkeypatch.setattr(projector, what, call)
    streams = Streams(random.Random(1))
    streams.live(sagas=5)
    streams.store(SAGA, *record(BAD))
    streams.live(sagas=5)
    with structlog.testing.capture_logs() as lines:
        found = await model_of(streams, f"sqlite:///{tmp_path}/sagas.db")
    assert BAD.id not in found
    assert len(found) >= 5
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["readmodel.faulty_entry"]


@pytest.mark.parametrize("cause", ["e", "ex", "e" + "9" * 30, "e٣", "e-1"])
async def test_a_cause_that_is_no_sequence_stops_no_model(cause: str, tmp_path: Any) -> None:
    streams = Streams(random.Random(1))
    streams.store(SAGA, *record(BAD, cause=cause))
    streams.live(sagas=3)
    assert BAD.id in await model_of(streams, f"sqlite:///{tmp_path}/sagas.db")


@pytest.mark.parametrize("value", ["a\0b", "x" * 100_000, "\U0010ffff"])
async def test_a_key_that_a_database_does_not_take_costs_its_own_row_at_most(value: str, database: str) -> None:
    streams = Streams(random.Random(1))
    streams.live(sagas=3)
    streams.store(SAGA, *record(BAD, keys={"customer": value}, definition="trip.v1.x"))
    streams.live(sagas=3)
    found = await model_of(streams, database)
    assert {"s-0", "s-1", "s-2"} <= set(found)


async def test_a_key_with_a_nul_is_found_in_both_databases(database: str) -> None:
    streams = Streams(random.Random(1))
    streams.store(SAGA, *record(BAD, keys={"customer": "a\0b"}, definition="trip.v1.x"))
    assert await model_of(streams, database) == [BAD.id]
    async with opened(database) as model:
        (row,) = await model.find(Query(keys={"customer": "a\0b"}))
    assert (row.id, row.keys) == (BAD.id, {"customer": "a\0b"})


async def test_a_model_that_nobody_expected_to_fail_is_tried_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, calls = Projector._load, list[object]()

    async def failing(self: Projector, *given: Any) -> None:
        calls.append(given)
        if len(calls) == 1:
            raise ZeroDivisionError
        await load(self, *given)

    monkeypatch.setattr(Projector, "_load", failing)
    with platform(tmp_path, participants=()) as up:
        await up.set_up()
        link = await up.connect("administrator")
        await link.store(*start_message(SagaKey.of("trip", "t1")))
        await link.close()
        database = f"sqlite:///{tmp_path}/sagas.db"
        async with asyncio.timeout(120):
            await serve(up.servers, database, rebuild=False, once=True, name="readmodel")
        async with opened(database) as model:
            assert [row.id for row in await model.find(Query(limit=10))] == ["t1"]
