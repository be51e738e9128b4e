"""What a person does to old sagas by the command line, on a real server: `forget`, `purge-inbox`, `archive`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.readmodel_places import Place
from antiphon.contracts.subjects import CommandAddress, readmodel_subject
from antiphon.deploy.cli.archives import archive_sagas
from antiphon.deploy.cli.main import app
from antiphon.deploy.modules import WrongValue
from antiphon.link import readmodel_places
from antiphon.participants.databases import open_database
from antiphon.participants.inbox import Answer, Row
from antiphon.tracing.export.archive import NotArchived, read_archived
from tests.integration.platform.test_coordinator import company
from tests.integration.platform.test_retention import Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with company(tmp_path, "plain") as there:
        coordinator = await there.coordinate()
        await there.work()
        yield Scene(there, coordinator, await there.link("administrator"), await there.client())


async def call(*words: str) -> Result:
    """The command line, which has an event loop of its own."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, [*words]))


async def inbox_of(folder: Path, *sagas: str) -> str:
    """The URL of an inbox with a row of each saga."""
    url = f"sqlite:///{folder}/bank.db"
    database = open_database(url)
    await database.open()
    for saga in sagas:
        async with database.begin(CommandAddress(SagaKey.of("trip", saga), "bank", "charge_card", "do", 1)) as held:
            await held.claim()
            await held.settle(Row("done", 1, Answer("bank.charged.v1", b'{"name":"Ada"}')))
    await database.close()
    return url


async def test_an_inbox_is_purged_of_sagas_whose_journals_are_gone_and_of_no_unknown_ones(
    scene: Scene, tmp_path: Path
) -> None:
    await scene.run("t1", "t2")
    await scene.ends().look("trip")
    await scene.run("t3")
    url, server = await inbox_of(tmp_path, "t1", "t2", "t3", "elsewhere"), ("--server", scene.there.up.servers)
    command = ("purge-inbox", "--database", f"bank={url}", "--older-than", "1s", *server)
    await asyncio.sleep(1.1)  # the rows are to be older than a second, by the database's clock
    told = await call(*command)
    assert told.exit_code == 0, told.output
    assert "journals were purged: 2." in told.stdout
    assert "not even their ends: 1. Is it the right server" in told.stderr
    told = await call(*command, "--json")
    assert json.loads(told.stdout) == {"deleted": 0, "sagas_left": 1}
    told = await call(*command, "--ends-gone", "--json")
    assert json.loads(told.stdout) == {"deleted": 1, "sagas_left": 0}
    refused = await call("purge-inbox", "--database", url, "--older-than", "forever", *server)
    assert isinstance(refused.exception, WrongValue)
    assert "nothing is older than forever" in str(refused.exception)


async def test_what_is_left_of_a_saga_that_is_forgotten_is_named(scene: Scene, tmp_path: Path) -> None:
    await scene.run("t1", "t2", "t3")
    url, server = await inbox_of(tmp_path, "t1", "t2"), ("--server", scene.there.up.servers)
    told = await call("forget", "trip/t1", "--reason", "request 17", "--database", f"bank={url}", *server)
    assert told.exit_code == 0, told.output
    assert "inbox of bank: 1 answers deleted" in told.stdout
    assert "--database hotel=URL" in told.stderr
    await scene.ends().look("trip")
    told = await call("forget", "trip/t2", "--reason", "request 18", *server)
    assert "nobody knows whose inboxes hold answers" in told.stderr


async def test_nothing_is_forgotten_where_a_database_cannot_be_had_or_nobody_says_why(
    scene: Scene, tmp_path: Path
) -> None:
    (handle,) = await scene.run("t1")
    before, server = await scene.left_of(handle.key), ("--server", scene.there.up.servers)
    file = f"sqlite:///{tmp_path}/mistyped.db"
    for words, said in (
        (("--reason", "r", "--database", f"bank={file}"), "there is no such file"),
        (("--reason", "r", "--database", "bank=postgresql://nobody:hush@127.0.0.1:1/x"), "cannot be used"),
        (("--reason", "r", "--database", "bank=postgresql://nobody:hush@127.0.0.1:port/x"), "its port is no number"),
        (("--reason", " "), "--reason: say why"),
    ):
        told = await call("forget", "trip/t1", *words, *server)
        assert isinstance(told.exception, PlatformError | WrongValue)
        assert said in str(told.exception)
        assert "hush" not in str(told.exception)
    assert await scene.left_of(handle.key) == before
    assert not (tmp_path / "mistyped.db").exists()
    url = await inbox_of(tmp_path, "t1")
    told = await call("forget", "trip/t1", "--reason", "r", "--database", f"bnk={url}", *server)
    assert "nothing is known of a participant bnk" in told.stderr


async def test_an_archive_that_cannot_be_written_or_read_is_told_before_anything_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotArchived, match=r"no archive can be written at .*file"):
        await archive_sagas("nats://127.0.0.1:1", file, "*", False)
    for wrong in (file, tmp_path / "nowhere"):
        with pytest.raises(NotArchived, match="there is no archive at"):
            read_archived(wrong, SagaKey.of("trip", "t1"))


async def test_a_read_model_is_forgotten_by_an_administrator_unless_it_runs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.link.store(readmodel_subject("lists"), Place().encode())
    command = ("setup", "--server", scene.there.up.servers)
    refused = await call(*command, "--forget-readmodel", "lists")
    assert isinstance(refused.exception, PlatformError)
    assert "read model lists runs: " in str(refused.exception)
    monkeypatch.setattr(readmodel_places, "SILENT_SECONDS", 0.0)
    wrong_first = await call(*command, "--forget-readmodel", "nowhere", "--forget-readmodel", "lists")
    assert "no read model is called 'nowhere'" in str(wrong_first.exception)
    assert "read model lists is forgotten" in wrong_first.output
    assert await readmodel_places.readers(scene.link) == []
    await scene.link.store(readmodel_subject("lists"), Place().encode())
    told = await call(*command, "--forget-readmodel", "lists", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["forgotten_readmodels"] == ["lists"]
    assert await readmodel_places.readers(scene.link) == []
