"""`antiphon doctor --database --readmodel`: what the databases lack is told with its remedy, and nothing is written."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import CliRunner

from antiphon.deploy.admin.doctor.databases import _inbox
from antiphon.deploy.admin.doctor.findings import Finding
from antiphon.deploy.cli.main import app
from antiphon.deploy.local.postgres import Postgres
from antiphon.deploy.readmodel.examined import _look
from antiphon.deploy.readmodel.model import opened
from antiphon.participants.databases import open_database
from antiphon.participants.engines import require_driver
from antiphon.participants.tables import VERSION, inbox, schema
from tests.support.server import platform


class Usage(NamedTuple):
    """What shutil gives."""

    total: int
    used: int
    free: int


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/billing.db"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.new_database()


async def made(url: str) -> None:
    """The tables as a worker makes them."""
    database = open_database(url)
    await database.open()
    await database.close()


async def execute(url: str, *statements: object) -> None:
    engine = create_async_engine(require_driver(url)[1])
    async with engine.begin() as connection:
        for each in statements:
            await connection.execute(each)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    await engine.dispose()


def graded(found: list[Finding], grade: str) -> str:
    return "\n".join(f"{each.what} -> {each.remedy}" for each in found if each.grade == grade)


async def test_a_database_as_it_should_be_has_no_fault(url: str) -> None:
    await made(url)
    found = await _inbox("billing", url)
    assert {each.grade for each in found} == {"fine"}, found
    assert f"its tables have version {VERSION}" in graded(found, "fine")
    assert "the inbox of billing has 0 rows" in graded(found, "fine")
    assert ("in WAL mode" if url.startswith("sqlite") else "synchronous_commit = ") in graded(found, "fine")


async def test_runs_in_doubt_and_the_age_of_rows_are_told(url: str) -> None:
    await made(url)
    now = datetime.now(UTC)
    row = {"saga_type": "order", "element": 0, "attempt": 1, "written_at": now - timedelta(days=40)}
    claimed = {**row, "state": "claimed", "claim": 1}
    await execute(
        url,
        insert(inbox).values(**claimed, saga_id="o-1", step="charge", due_at=now - timedelta(hours=1)),
        insert(inbox).values(**claimed, saga_id="o-2", step="charge", due_at=now + timedelta(hours=1)),
        insert(inbox).values(**row, saga_id="o-3", step="charge", state="done", claim=0),
    )
    found = await _inbox("billing", url)
    doubtful = graded(found, "warning")
    assert "step charge of saga order/o-1 may have happened outside of billing" in doubtful
    assert "antiphon show order/o-1, then retry or resolve" in doubtful
    assert "o-2" not in doubtful
    assert f"the inbox of billing has 3 rows, the oldest of {now - timedelta(days=40):%Y-%m-%d}" in graded(
        found, "fine"
    )


async def test_a_database_of_another_release_is_told(url: str) -> None:
    await made(url)
    await execute(url, update(schema).values(version=VERSION + 1))
    assert "run antiphon of the release that the workers have" in graded(await _inbox("billing", url), "fault")
    await execute(url, update(schema).values(version=1))
    assert "start a worker of this release" in graded(await _inbox("billing", url), "warning")


async def test_what_is_no_inbox_or_no_database_is_told_and_nothing_is_made(url: str, tmp_path: Path) -> None:
    if url.startswith("sqlite"):
        assert "there is no file" in graded(await _inbox("billing", url), "fault")
        assert os.listdir(tmp_path) == []
        (tmp_path / "billing.db").write_bytes(b"no database at all, but some text" * 100)
        assert "cannot be read: file is not a database" in graded(await _inbox("billing", url), "fault")
        (tmp_path / "billing.db").write_bytes(b"")
    assert "holds no inbox" in graded(await _inbox("billing", url), "fault")
    assert "holds no read model" in graded(await _look(url), "fault")
    assert "memory" in graded(await _inbox("billing", "memory:"), "warning")
    if url.startswith("sqlite"):
        assert (tmp_path / "billing.db").read_bytes() == b""
    nobody = "postgresql://nobody@127.0.0.1:1/nothing"
    assert "the database of billing cannot be read" in graded(await _inbox("billing", nobody), "fault")


async def test_sqlites_journal_mode_and_the_room_on_its_disk_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/billing.db"
    await made(url)
    connection = sqlite3.connect(tmp_path / "billing.db")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    assert "journal_mode = delete" in graded(await _inbox("billing", url), "warning")
    for free, grade in ((2 * 10**9, "fine"), (5 * 10**8, "warning"), (10**7, "fault")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(10**12, 0, free))
        assert "GB left on its disk" in graded(await _inbox("billing", url), grade)
    assert sqlite3.connect(tmp_path / "billing.db").execute("PRAGMA journal_mode").fetchone() == ("delete",)


async def test_a_read_model_is_told_whether_it_is_filled(url: str) -> None:
    async with opened(url, writes=True) as model:
        assert "not filled yet" in graded(await _look(url), "warning")
        await model.make_live(await model.new_generation())
    found = await _look(url)
    assert {each.grade for each in found} == {"fine"}, found
    assert "can be read, and has 0 sagas" in graded(found, "fine")


async def test_the_command_looks_at_what_is_named(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        await up.set_up()
        url = f"sqlite:///{tmp_path}/billing.db"
        await made(url)
        options = ["--database", f"billing={url}", "--readmodel", url, "--server", up.servers, "--json"]
        ran = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["doctor", *options]))
        told = json.loads(ran.stdout)["findings"]
        assert {each["grade"] for each in told if each["check"] == "databases"} == {"fine"}
        assert [each["grade"] for each in told if each["check"] == "readmodel"] == ["fault"]
        ran = await asyncio.to_thread(
            lambda: CliRunner().invoke(app, ["doctor", "--database", "postgresql://u:secret@h/d"])
        )
        assert ran.exit_code == 2
        assert "secret" not in ran.output
