"""One saga that nobody can read, or whose row no database takes, keeps no other saga out of the model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from sqlalchemy import update

from antiphon.contracts import PlatformError, SagaKey, clock, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.payloads import RECORD_TYPE, Record
from antiphon.contracts.topology import SAGA
from antiphon.coordinator.views.summary import Overview
from antiphon.deploy.cli.listing import list_from_model
from antiphon.deploy.readmodel import model as model_module
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
    database = f"sqlite:///{tmp_path}/sagas.db"
    with structlog.testing.capture_logs() as lines:
        found = await model_of(streams, database)
    assert BAD.id in found  # shown, and as what it is
    assert len(found) >= 6
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["readmodel.faulty_entry"]
    async with opened(database) as model:
        assert await model.lacking(5) == ([str(BAD)], 1)
        (row,) = [each for each in await model.find(Query(limit=1000)) if each.id == BAD.id]
    assert "reading an entry raised" in row.incomplete


@pytest.mark.parametrize("cause", ["e", "ex", "e" + "9" * 30, "e٣", "e-1"])
async def test_a_cause_that_is_no_sequence_stops_no_model(cause: str, tmp_path: Any) -> None:
    streams = Streams(random.Random(1))
    streams.store(SAGA, *record(BAD, cause=cause))
    streams.live(sagas=3)
    assert BAD.id in await model_of(streams, f"sqlite:///{tmp_path}/sagas.db")


def without_repeats(length: int) -> str:
    """A text that no database can make smaller."""
    return "".join(random.Random(1).choices([chr(code) for code in range(0x20, 0xD000)], k=length))


HALF = "the place of a half"

STRANGE = {
    "a NUL": "a\0b",
    "a NUL alone": "\0",
    "very long": "x" * 100_000,
    "long and random": without_repeats(3_000),
    "the last character": "\U0010ffff",
    "half a pair of surrogates": HALF,
    "control codes": "\x01\x1b\u202e",
}


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("place", ["value", "name", "reason", "fault", "parked", "definition"])
async def test_whatever_one_saga_holds_all_sagas_are_projected(place: str, what: str, database: str) -> None:
    text = STRANGE[what]
    attributes: dict[str, dict[str, Any]] = {
        "value": {"keys": {"customer": text}},
        "name": {"keys": {text: "c-1"}},
        "reason": {"data": pack(Record(turned=text))},
        "fault": {"data": pack(Record(fault=text))},
        "parked": {"data": pack(Record(step=text, parked=text))},
        "definition": {"definition": text},
    }
    streams = Streams(random.Random(1))
    streams.live(sagas=3)
    subject, data = record(BAD, **{"definition": "trip.v1.x", **attributes[place]})
    streams.store(SAGA, subject, data.replace(HALF.encode(), rb"\ud800"))
    streams.live(sagas=3)
    async with asyncio.timeout(60):
        assert {BAD.id, "s-0", "s-1", "s-2"} <= set(await model_of(streams, database))


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 40_000, b"1" + b"0" * 100_000, b"1e999", b'{"fault":7}', b'"' + b"x" * 200_000]
)
async def test_whatever_an_entry_says_all_sagas_are_projected(data: bytes, database: str) -> None:
    subject, empty = record(BAD)
    streams = Streams(random.Random(1))
    streams.live(sagas=3)
    streams.store(SAGA, subject, empty.replace(b'"data":{}', b'"data":' + data))
    streams.live(sagas=3)
    async with asyncio.timeout(60):
        assert {BAD.id, "s-0", "s-1", "s-2"} <= set(await model_of(streams, database))
    async with opened(database) as model:
        assert await model.lacking(5) == ([str(BAD)], 1)


async def test_a_long_key_is_found_in_both_databases(database: str) -> None:
    text = without_repeats(3_000)
    streams = Streams(random.Random(1))
    streams.store(SAGA, *record(BAD, keys={"customer": text}, definition="trip.v1.x"))
    await model_of(streams, database)
    async with opened(database) as model:
        (row,) = await model.find(Query(keys={"customer": text}))
    assert row.keys == {"customer": text}


async def test_what_a_database_does_not_take_is_left_out_of_its_row_and_counted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "_clean", lambda text, chars_max: text)
    monkeypatch.setattr(model_module, "_saga_row", refused_where("x\0"))
    streams = Streams(random.Random(1))
    streams.live(sagas=3)
    streams.store(SAGA, *record(BAD, keys={"customer": "x\0"}, definition="trip.v1.x"))
    streams.live(sagas=3)
    with structlog.testing.capture_logs() as lines:
        assert {BAD.id, "s-0", "s-1", "s-2"} <= set(await model_of(streams, database))
    assert [line["saga"] for line in lines if line["event"] == "readmodel.faulty_row"] == [str(BAD)]
    async with opened(database) as model:
        assert await model.lacking(5) == ([str(BAD)], 1)
        (row,) = [each for each in await model.find(Query(limit=1000)) if each.id == BAD.id]
    assert "the database does not take its row" in row.incomplete
    assert row.keys == {}


def refused_where(value: str) -> Callable[[int, Overview], dict[str, Any]]:
    """Rows of which those with a key of that value have a number that no database takes."""
    made = model_module._saga_row

    def row_of(generation: int, row: Overview) -> dict[str, Any]:
        found = made(generation, row)
        return {**found, "started_ns": 2**70} if value in row.keys.values() else found

    return row_of


async def test_a_database_that_takes_no_row_at_all_is_no_fault_of_a_saga(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model_module._saga_row
    monkeypatch.setattr(model_module, "_saga_row", lambda *given: {**made(*given), "started_ns": 2**70})
    streams = Streams(random.Random(1))
    streams.live(sagas=2)
    with pytest.raises(model_module.REFUSALS):
        await model_of(streams, database)


async def test_a_row_that_cannot_be_read_hides_no_other(database: str) -> None:
    streams = Streams(random.Random(1))
    streams.live(sagas=3)
    await model_of(streams, database)
    async with opened(database, writes=True) as model:
        async with model._engine.begin() as connection:
            spoilt = model_module.sagas.c.saga == "trip/s-1"
            await connection.execute(update(model_module.sagas).where(spoilt).values(told='{"type":7}'))
        generation = (await model.generations())[-1]
        assert len(await model.find(Query(limit=10))) == 3
        assert "rebuild" in (await model.rows(generation, ["trip/s-1", "trip/s-2"]))["trip/s-1"].incomplete


async def test_list_says_of_how_many_sagas_the_model_lacks_something(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    database = f"sqlite:///{tmp_path}/sagas.db"
    streams = Streams(random.Random(1))
    streams.live(sagas=2)
    for number in range(7):
        subject, _ = record(SagaKey.of("trip", f"bad-{number}"))
        streams.store(SAGA, subject, b'{"half an envelope')
    await model_of(streams, database)
    await list_from_model(database, "*", "running", False, 0, (), "started", 3, False)
    printed = capsys.readouterr()
    assert "does not have all of 7 sagas: trip/bad-0, " in printed.err
    assert "and 2 more" in printed.err
    assert "incomplete: an entry cannot be read" in " ".join(printed.out.split())
    await list_from_model(database, "*", "running", False, 0, (), "started", 3, True)
    assert '"incomplete":"an entry cannot be read' in capsys.readouterr().out.replace('": "', '":"')


async def test_list_reads_the_model_of_a_process_of_an_earlier_release(tmp_path: Any) -> None:
    database = f"sqlite:///{tmp_path}/sagas.db"
    streams = Streams(random.Random(1))
    streams.live(sagas=2)
    await model_of(streams, database)
    async with opened(database, writes=True) as model:
        async with model._engine.begin() as connection:
            await connection.run_sync(model_module.incomplete.drop)
        assert await model.lacking(5) == ([], 0)


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


async def test_a_model_that_is_to_be_built_once_and_cannot_be_ends_with_a_sentence(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(self: Projector, *given: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Projector, "_load", failing)
    with platform(tmp_path, participants=()) as up:
        await up.set_up()
        link = await up.connect("administrator")
        await link.store(*start_message(SagaKey.of("trip", "t1")))
        await link.close()
        database = f"sqlite:///{tmp_path}/sagas.db"
        with pytest.raises(PlatformError, match="cannot be brought into step: ZeroDivisionError"):
            async with asyncio.timeout(120):
                await serve(up.servers, database, rebuild=True, once=True, name="readmodel")
