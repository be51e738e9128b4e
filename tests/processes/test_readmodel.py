"""The projector as a process, over a real server in both of its forms: killed at every point, told to stop, asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.contracts import SagaKey
from antiphon.contracts.topology import EVENTS, READMODELS, SAGA
from antiphon.coordinator import Antiphon, Change
from antiphon.deploy.readmodel.announcing import Announcing
from antiphon.deploy.readmodel.model import Places, Query, opened
from antiphon.link import Link, Mark, OtherStream
from antiphon.link.killpoints import POINTS, VARIABLE
from antiphon.link.readmodel_places import readers
from antiphon.link.setup import api
from tests.support.commands import run_antiphon
from tests.support.server import FORMS, Platform, platform, until
from tests.unit.decide.walk import Walk, Written, messages_of

KILL_POINTS = sorted(point for point in POINTS if point.startswith("readmodel."))
SECONDS_MAX = 120.0
SAGAS = 30


class Scene:
    """A server with sagas in its streams, and what is run against it."""

    def __init__(self, up: Platform, administrator: Link, folder: Path) -> None:
        self.up, self.administrator, self.database = up, administrator, f"sqlite:///{folder}/sagas.db"
        self.events = 0

    async def write(self, first: int, count: int) -> None:
        """Write the lives of sagas, as coordinators, clients and participants would have."""
        for number in range(first, first + count):
            walk = Walk(200 + number)  # of these some complete
            for _ in range(number % 20):
                if walk.life.history.end is None:
                    walk.move()
            saga = Written(messages_of(walk.life), SagaKey.of("trip", f"s-{number}"), b"c-%d" % (number % 3))
            for place in range(len(saga.life)):
                subject, data, is_event = saga.message(place, self.events)
                self.events += is_event
                await self.administrator.store(subject, data)

    def environment(self, user: str = "readmodel", kill_at: str = "") -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "ANTIPHON_"))}
        found = {**kept, **self.up.environment(user), "COLUMNS": "200", "NO_COLOR": "1"}
        return {**found, VARIABLE: kill_at} if kill_at else found

    def run(self, *arguments: str, user: str = "readmodel", kill_at: str = "") -> subprocess.CompletedProcess[str]:
        """The command line, to its end."""
        return run(self.environment(user, kill_at), *arguments)

    def project(self, *arguments: str, kill_at: str = "") -> subprocess.CompletedProcess[str]:
        """The projector, until it is in step."""
        return self.run("readmodel", "--database", self.database, "--once", *arguments, kill_at=kill_at)

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        ran = self.run("list", "--database", self.database, "--json", "--limit", "1000", *arguments)
        assert ran.returncode == 0, ran.stderr
        found: list[dict[str, Any]] = json.loads(ran.stdout)
        return found

    async def rows(self) -> set[str]:
        """What the model says, whoever built it."""
        async with opened(self.database) as model:
            return {repr(row) for row in await model.find(Query(limit=10_000))}

    async def rebuilt(self, folder: Path) -> set[str]:
        """What a model says that was built from nothing, undisturbed."""
        other = Scene(self.up, self.administrator, folder)
        assert other.project().returncode == 0
        return await other.rows()


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    return run_antiphon(arguments, environment)


@pytest.fixture(params=FORMS)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    with platform(tmp_path / "nats", request.param) as up:
        await up.set_up()
        async with AsyncExitStack() as stack:
            link = await up.connect("administrator")
            stack.push_async_callback(link.close)
            yield Scene(up, link, tmp_path)


async def test_killed_at_any_point_it_loses_nothing_and_doubles_nothing(plain: Scene, tmp_path: Path) -> None:
    """Over one database, where each life goes on from what the one before it left, and is killed at another point."""
    for number, point in enumerate(KILL_POINTS):
        await plain.write(number * SAGAS, SAGAS)
        killed = plain.project(kill_at=point)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert plain.project().returncode == 0
    assert len(await plain.rows()) == SAGAS * len(KILL_POINTS)
    assert await plain.rows() == await plain.rebuilt(tmp_path / "nats")


async def test_it_follows_until_it_is_told_to_stop_and_notices_a_stream_that_is_not_the_same(scene: Scene) -> None:
    await scene.write(0, SAGAS)
    command = [sys.executable, "-m", "antiphon.deploy", "readmodel", "--database", scene.database]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=scene.environment(), stderr=pipe)
    try:
        await until(lambda: _count(scene) == SAGAS, what="the first build")
        await scene.write(SAGAS, 5)
        await until(lambda: _count(scene) == SAGAS + 5, what="what came later")
        await purge_one(scene, SagaKey.of("trip", "s-3"))
        await until(lambda: _count(scene) == SAGAS + 4, what="the model without the saga that was purged")
        for stream in (SAGA, EVENTS):
            await api(scene.administrator, f"STREAM.PURGE.{stream}")
        await scene.write(1000, 3)
        await until(lambda: _count(scene) == 3, what="the model of the purged streams")
        process.send_signal(signal.SIGTERM)
        _, logged = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0
        assert b"readmodel.rebuild" in logged
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_says_where_it_is_while_it_runs_and_that_stays_once_it_is_gone(scene: Scene) -> None:
    """Of a model that is kept up with `--once` nobody hears, unless a process that stays has joined before."""
    await scene.write(0, SAGAS)
    assert scene.project("--name", "lists").returncode == 0
    assert await readers(scene.administrator) == []
    command = [sys.executable, "-m", "antiphon.deploy", "readmodel", "--database", scene.database, "--name", "lists"]
    process = await asyncio.create_subprocess_exec(
        *command, env=scene.environment(), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        await until_at_the_end(scene)
        await scene.write(SAGAS, 5)
        await until_at_the_end(scene)
    finally:
        process.kill()
        _, logged = await process.communicate()
    assert b"readmodel.registered" in logged
    await scene.write(SAGAS + 5, 5)
    assert not await said_to_be_at_the_end(scene)
    assert scene.project("--name", "lists").returncode == 0
    assert await said_to_be_at_the_end(scene)
    (reader,) = await readers(scene.administrator)
    assert (reader.name, 1 < len(reader.place.kept) <= 6) == ("lists", True)


async def until_at_the_end(scene: Scene) -> None:
    async with asyncio.timeout(120):
        while not await said_to_be_at_the_end(scene):
            await asyncio.sleep(0.05)


async def said_to_be_at_the_end(scene: Scene) -> bool:
    """Whether the one read model there is says that it has read both streams."""
    known = await readers(scene.administrator)
    places = [each.place for each in known]
    last = [await scene.administrator.get_latest(*each) for each in ((SAGA, "saga.>"), (EVENTS, "evt.>"))]
    return [(each.saga, each.events) for each in places] == [tuple(each.sequence for each in last if each)]


async def test_two_databases_under_one_name_say_so_and_the_one_that_is_behind_counts(
    plain: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    link = plain.administrator
    ahead, behind = (Announcing(link, "lists", database) for database in ("one", "two"))
    for announcing, sequence in ((ahead, 9), (behind, 4)):
        announcing.at(
            Places(saga=Mark(sequence, "saga.1.trip.s-1.c.end"), events=Mark(1, "evt.1.trip.s-2.client.start"))
        )
        await announcing.look()
    assert "readmodel.name_taken" in capsys.readouterr().out
    ahead.at(Places(saga=Mark(10, "saga.1.trip.s-1.c.end")))
    await ahead.look()
    (reader,) = await readers(link)
    assert (reader.place.saga, reader.place.database) == (4, "two")
    assert reader.place.kept == ("trip/s-1", "trip/s-2")
    ahead.at(Places(saga=Mark(3)))
    await ahead.look()
    (reader,) = await readers(link)
    assert (reader.place.saga, reader.place.database) == (3, "one")


async def test_with_accounts_of_an_earlier_release_it_goes_on_and_says_that_nothing_is_kept_for_it(
    scene: Scene,
) -> None:
    await scene.write(0, 3)
    if scene.up.form == "plain":
        await api(scene.administrator, f"STREAM.DELETE.{READMODELS.name}")
    user = "readmodel" if scene.up.form == "plain" else "exporter"  # who may read both streams, and say nothing
    command = [sys.executable, "-m", "antiphon.deploy", "readmodel", "--database", scene.database]
    process = await asyncio.create_subprocess_exec(
        *command, env=scene.environment(user), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(120):
            while b"readmodel.unregistered" not in (line := await process.stderr.readline()):
                assert line, "it ended"
        await until(lambda: _count(scene) == 3, what="the model")
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_ends_with_a_sentence_when_its_file_is_taken_away_and_builds_a_new_one(plain: Scene) -> None:
    await plain.write(0, SAGAS)
    command = [sys.executable, "-m", "antiphon.deploy", "readmodel", "--database", plain.database]
    process = await asyncio.create_subprocess_exec(
        *command, env=plain.environment(), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        await until(lambda: _count(plain) == SAGAS, what="the first build")
        os.unlink(plain.database.removeprefix("sqlite:///"))
        printed, logged = await asyncio.wait_for(process.communicate(), 120)
        assert (process.returncode, b"its file was deleted or replaced" in printed + logged) == (1, True)
        assert plain.project().returncode == 0
        assert _count(plain) == SAGAS
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def purge_one(scene: Scene, saga: SagaKey) -> None:
    """As after its retention; facts first."""
    for stream, part in ((EVENTS, f"evt.{saga.path}.>"), (SAGA, f"saga.{saga.path}.>")):
        answer = await api(scene.administrator, f"STREAM.PURGE.{stream}", {"filter": part})
        assert answer["purged"] > 0


def _count(scene: Scene) -> int:
    """How many sagas readers see; none while there is no model yet."""
    path = scene.database.removeprefix("sqlite:///")
    if not Path(path).exists():
        return -1
    connection = sqlite3.connect(path)
    try:
        live = "SELECT generation FROM antiphon_generations_v1 WHERE is_live"
        (count,) = connection.execute(f"SELECT COUNT(*) FROM antiphon_sagas_v1 WHERE generation IN ({live})").fetchone()
        return int(count)
    except sqlite3.OperationalError:
        return -1
    finally:
        connection.close()


async def test_list_filters_and_sorts_by_the_model_and_says_what_it_needs_without_one(plain: Scene) -> None:
    scene = plain
    await scene.write(0, SAGAS)
    assert scene.project().returncode == 0
    everything = scene.list()
    assert len(everything) == SAGAS
    assert [each["started"] for each in everything] == sorted((each["started"] for each in everything), reverse=True)
    oldest = scene.list("--sort", "age", "--state", "running")
    running = [each["id"] for each in everything if each["state"] == "running"]
    assert [each["id"] for each in oldest] == running[::-1] != []
    mine = scene.list("--key", "traveller=c-1", "--type", "trip")
    assert {each["id"] for each in mine} == {f"s-{number}" for number in range(SAGAS) if number % 3 == 1}
    assert scene.list("--older-than", "1d", "--parked") == []
    shown = scene.run("list", "--database", scene.database, "--state", "completed")
    assert "trip/s-" in shown.stdout
    assert "traveller=c-" in shown.stdout
    without = scene.run("list", "--parked", "--key", "a=b", user="operator")
    assert (without.returncode, without.stdout) == (1, "")
    assert "--parked, --key needs the read model" in without.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--database", "sqlite:////nowhere/at/all.db"), "there is no such file"),
        (("--database", "mysql://x"), "'mysql' is no database for a read model"),
        (("--database", "sqlite:///x.db", "--state", "failed"), "is no state of a saga"),
        (("--database", "sqlite:///x.db", "--older-than", "soon"), "is no time"),
    ],
)
def test_what_cannot_be_listed_is_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    ran = run({**os.environ}, "list", *arguments)
    assert (ran.returncode, ran.stdout) == (2 if said.startswith("is no ") else 1, "")
    assert "Traceback" not in ran.stderr
    assert said in ran.stderr


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Scene]:
    with platform(tmp_path / "nats") as up:
        await up.set_up()
        link = await up.connect("administrator")
        yield Scene(up, link, tmp_path)
        await link.close()


# --- changes ----------------------------------------------------------------------------------------------------------


async def told(antiphon: Antiphon, last: str, after: Mark | None, **options: Any) -> list[Change]:
    """The changes up to the first of a saga."""
    found: list[Change] = []
    async with asyncio.timeout(120), aclosing(antiphon.changes(after=after, **options)) as changes:
        async for change in changes:
            found.append(change)
            if change.id == last:
                break
    return found


async def test_changes_are_told_in_order_from_any_position_and_none_is_left_out(scene: Scene) -> None:
    await scene.write(0, SAGAS + 1)
    last = f"s-{SAGAS}"
    user = scene.up.credentials("operator")
    async with Antiphon.connect(scene.up.servers, name="operator", credentials=user) as antiphon:
        everything = await told(antiphon, last, Mark())
        sequences = [change.position.sequence for change in everything]
        assert sequences == sorted(set(sequences))
        begun = list(dict.fromkeys(change.id for change in everything))
        assert begun == [f"s-{number}" for number in range(SAGAS + 1)]
        assert {change.state for change in everything} == {"running", "compensating", "completed", "compensated"}
        for place in (0, 7, 20, 33):
            rest = await told(antiphon, last, everything[place].position)
            assert {c.position for c in everything[place + 1 :]} <= {c.position for c in rest}
        turned = [change for change in everything if change.state == "compensated"]
        await scene.write(1000, 20)
        again = await told(antiphon, turned[-1].id, Mark(), state="compensated")
        assert again == turned[: len(again)] != []
        elsewhere = replace(everything[0].position, stored_ns=1)
        with pytest.raises(OtherStream):
            await told(antiphon, last, elsewhere)


async def test_changes_begin_now_where_no_position_is_given(plain: Scene) -> None:
    await plain.write(0, 5)
    async with Antiphon.connect(plain.up.servers) as antiphon:
        waiting = asyncio.ensure_future(anext(antiphon.changes()))
        number = 100
        while not waiting.done():  # it begins whenever its first read is answered
            await plain.write(number, 1)
            number += 1
        assert int((await waiting).id.removeprefix("s-")) >= 100
