"""Sagas archived before they are purged: what is read from the files is what the server told before."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.stored import SagaPages
from antiphon.contracts.topology import EVENTS, REGISTRATIONS, SAGA
from antiphon.coordinator.definition.capabilities import capabilities_of
from antiphon.coordinator.reading.sagas import timeline
from antiphon.coordinator.runtime.retention import Keeping
from antiphon.coordinator.views.timeline import timeline_of
from antiphon.deploy.cli.archives import archive_sagas, read_from
from antiphon.deploy.cli.main import app
from antiphon.deploy.modules import CannotLoad
from antiphon.link.registration import registered
from antiphon.tracing.export.archive import NotArchived, archive, is_archived, path_of, read_archived
from antiphon.tracing.export.reading import read_projection
from tests.integration.platform.test_coordinator import company
from tests.integration.platform.test_retention import ONLY_ITS_END, Scene, until_async
from tests.support.server import FORMS
from tests.support.trip import TRIP


@pytest.fixture(params=FORMS)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with company(tmp_path, request.param) as there:
        coordinator = await there.coordinate()
        await there.work()
        yield Scene(there, coordinator, await there.link("coordinator"), await there.client())


async def test_what_is_purged_is_read_from_the_archive_as_it_was(scene: Scene, tmp_path: Path) -> None:
    (handle,) = await scene.run("t1")
    key, folder, reader = handle.key, tmp_path / "archive", await scene.there.link("administrator")
    strange = subjects.event_subject(key.path, "bank", "noise", "charge_card", 9)
    await reader.store(strange, b"\xff\x00 no text")
    await scene.run("t2")
    before, trace = await timeline(reader, key), await read_projection(reader, key)
    entries = await reader.read_all(SAGA, [subjects.journal_filter(key)])
    events = await reader.read_all(EVENTS, [subjects.saga_events_filter(key)])
    await scene.ends(keeping=Keeping(archive=folder)).look(TRIP.name)
    assert await scene.left_of(key) == ONLY_ITS_END
    found = read_from(folder, "t1")
    assert (found.key, found.entries, found.events) == (key, entries, events)
    assert timeline_of(key, SagaPages(found.entries, found.events)) == before
    assert found.projection().spans == trace.spans
    for command in (["show", "trip/t1"], ["trace", "t1"], ["trace", "t1", "--format", "otlp"]):
        ran = CliRunner().invoke(app, [*command, "--archive", str(folder)])
        assert (ran.exit_code, "charge" in ran.stdout) == (0, True), ran.output
    last = path_of(folder, key).read_bytes().splitlines()[-1]
    assert json.loads(last)["trace"]["resourceSpans"]


async def test_nothing_is_purged_that_cannot_be_archived(scene: Scene, tmp_path: Path) -> None:
    (handle,) = await scene.run("t1")
    before = await scene.left_of(handle.key)
    (tmp_path / "archive").write_text("a file where the folder should be")
    await scene.ends(keeping=Keeping(archive=tmp_path / "archive")).look(TRIP.name)
    assert await scene.left_of(handle.key) == before
    (tmp_path / "archive").unlink()
    await scene.ends(keeping=Keeping(archive=tmp_path / "archive")).look(TRIP.name)
    assert await scene.left_of(handle.key) == ONLY_ITS_END


async def test_archiving_by_hand_twice_changes_nothing(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scene.there.up.environment("operator").items():
        monkeypatch.setenv(name, value)
    (one, gone) = await scene.run("t1", "t2")
    await scene.ends().look(TRIP.name)
    await scene.run("t3")
    folder, counts = tmp_path / "archive", list[list[int]]()
    for _ in range(2):
        capsys.readouterr()
        await archive_sagas(scene.there.up.servers, folder, "*", True)
        counts.append([*json.loads(capsys.readouterr().out).values()])
    assert counts == [[3, 0, 2], [0, 3, 2]]
    assert not path_of(folder, one.key).exists()
    assert not path_of(folder, gone.key).exists()
    assert sorted(path.name for path in folder.rglob("*.jsonl")) == ["after-t2.jsonl", "after-t3.jsonl", "t3.jsonl"]
    path_of(folder, SagaKey.of("trip", "damaged")).parent.mkdir(exist_ok=True, parents=True)
    path_of(folder, SagaKey.of("trip", "damaged")).touch()
    told = CliRunner().invoke(app, ["list", "--archive", str(folder), "--limit", "2", "--json"])
    assert [each["id"] for each in json.loads(told.stdout)] == ["after-t3", "t3"]
    assert "the 2 that were started last, of 3" in told.stderr
    assert "cannot be read in" in told.stderr
    again = read_archived(folder, SagaKey.of("trip", "t3"))
    assert not archive(folder, again.key, again.entries, again.events)


async def test_a_saga_in_the_place_of_the_folder_is_refused_before_anything_is_written(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scene.there.up.environment("operator").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    await scene.run("t1")
    before = sorted(os.listdir())
    for given in ("t1", "trip/t1", "trip/t7"):
        with pytest.raises(CannotLoad, match=f"^{given} is no folder, and looks like a saga.*antiphon show {given}"):
            await archive_sagas(scene.there.up.servers, Path(given), "*", True)
    assert sorted(os.listdir()) == before
    await archive_sagas(scene.there.up.servers, Path("kept"), "*", True)
    assert path_of(tmp_path / "kept", SagaKey.of("trip", "t1")).exists()


async def test_a_file_of_another_saga_with_the_same_id_or_half_a_file_is_no_archive_of_this_one(
    scene: Scene, tmp_path: Path
) -> None:
    """An id is free again once its end was purged; and disks lose the ends of files."""
    (one, two) = await scene.run("t1", "t2")
    folder, reader = tmp_path / "archive", await scene.there.link("administrator")
    for key, former in ((one.key, whole_of_another(one.key)), (two.key, b"")):
        path_of(folder, key).parent.mkdir(parents=True, exist_ok=True)
        path_of(folder, key).write_bytes(former)
        end = await reader.get_last(SAGA, subjects.end_subject(key))
        assert end is not None
        assert not is_archived(folder, key, end)
    before = [await timeline(reader, key) for key in (one.key, two.key)]
    await scene.ends(keeping=Keeping(archive=folder)).look(TRIP.name)
    for key, told in zip((one.key, two.key), before, strict=True):
        assert await scene.left_of(key) == ONLY_ITS_END
        found = read_from(folder, key.id)
        assert timeline_of(key, SagaPages(found.entries, found.events)) == told
        end = await reader.get_last(SAGA, subjects.end_subject(key))
        assert end is not None
        assert is_archived(folder, key, end)
    assert path_of(folder, one.key).read_bytes() == whole_of_another(one.key), "another saga's archive stays"


async def test_what_came_after_a_saga_was_archived_is_archived_before_the_purge(scene: Scene, tmp_path: Path) -> None:
    (handle,) = await scene.run("t1")
    key, folder, reader = handle.key, tmp_path / "archive", await scene.there.link("administrator")
    entries = await reader.read_all(SAGA, [subjects.journal_filter(key)])
    assert archive(folder, key, entries, await reader.read_all(EVENTS, [subjects.saga_events_filter(key)]))
    late = subjects.event_subject(key.path, "bank", "noise", "charge_card", 9)
    await reader.store(late, b"late")
    await scene.run("t2")
    await scene.ends(keeping=Keeping(archive=folder)).look(TRIP.name)
    assert await scene.left_of(key) == ONLY_ITS_END
    assert late in [each.subject for each in read_archived(folder, key).events]


def whole_of_another(key: SagaKey) -> bytes:
    head = {"archive": 1, "type": key.type, "id": key.id, "outcome": "completed", "started": "2020", "ended": "2020"}
    return json.dumps(head).encode() + b'\n{"stream":"SAGA","subject":"x","sequence":1,"stored_ns":1}\n{"trace":null}\n'


@pytest.mark.parametrize(
    "wrong", [b"", b"{\n{\n{", b'{"archive":2,"type":"trip","id":"t1","outcome":"","started":"","ended":""}\n{}\n{}']
)
def test_a_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path, wrong: bytes) -> None:
    key = SagaKey.of("trip", "t1")
    with pytest.raises(NotArchived, match="there is no saga trip/t1 in the archive"):
        read_archived(tmp_path, key)
    path_of(tmp_path, key).parent.mkdir(parents=True)
    path_of(tmp_path, key).write_bytes(wrong)
    with pytest.raises(NotArchived, match=r"cannot be read|has format 2"):
        read_archived(tmp_path, key)


async def test_who_has_no_archive_purges_nothing_while_another_coordinator_has_one(
    scene: Scene, tmp_path: Path
) -> None:
    (handle,) = await scene.run("t1")
    before = await scene.left_of(handle.key)
    other = await scene.there.link("coordinator")
    async with registered(other, capabilities_of([TRIP.definition]), archives=True):
        subject = subjects.registration_subject(COORDINATOR, "*")
        await until_async(lambda: other.read_all(REGISTRATIONS.name, [subject]), len_is=1)
        with capture_logs() as lines:
            await scene.ends().look(TRIP.name)
        assert [line["event"] for line in lines] == ["retention.waits"]
        assert "give both the same --archive" in lines[0]["remedy"]
        assert await scene.left_of(handle.key) == before
        await scene.ends(keeping=Keeping(archive=tmp_path / "archive")).look(TRIP.name)
        assert await scene.left_of(handle.key) == ONLY_ITS_END
