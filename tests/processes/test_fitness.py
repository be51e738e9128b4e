"""The server is not as it should be: every process says so, with the remedy, and goes on by itself once it is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antiphon.contracts.topology import (
    EVENTS,
    PARKED,
    PLATFORM_CONSUMERS,
    REGISTRATIONS,
    SAGA,
    TIMERS,
    answers_consumer_name,
)
from antiphon.coordinator.runtime.serve import fitness_of
from antiphon.link import Link, Pull, Rejected, require_accepted, set_up
from antiphon.link.fast import PUBLIC_VARIABLE
from antiphon.link.fitness import Fitness, pulls
from antiphon.link.setup import NotChanged, api
from antiphon.tracing.telemetry.metrics import DIFFERENCES, Gauges
from tests.support.commands import run_antiphon
from tests.support.server import FORMS, Form, Platform, platform, until
from tests.support.trip import PARTICIPANTS, TRIP

SECONDS = 120.0
DAY_NS = 86_400 * 10**9
SERVICES = ("inventory", "billing", "shipping")

COORDINATOR = ("coordinator", "--app", "antiphon.order.saga:order")
PROCESSES: dict[str, Sequence[str]] = {
    "coordinator": COORDINATOR,
    "inventory": ("participant", "antiphon.order.inventory:inventory", "--database", "memory:"),
    "exporter": ("exporter",),
    "readmodel": ("readmodel",),
}
CONSUMERS = {
    "coordinator": (SAGA, TIMERS),
    "inventory": (SAGA, "inventory-undo"),
    "exporter": (SAGA, "exporter"),
}
"""A consumer that each of them pulls from."""


class Process:
    """A process of the command line, and what it has logged."""

    def __init__(self, up: Platform, user: str, arguments: Sequence[str], folder: Path) -> None:
        self.said = folder / f"{user}.log"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "ANTIPHON_", "OTEL_"))
        }
        environment = {**kept, **up.environment(user), "ANTIPHON_READMODEL": f"sqlite:///{folder}/sagas.db"}
        command = [sys.executable, "-m", "antiphon.deploy", *arguments]
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.said.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    async def says(self, event: str, count: int = 1) -> dict[str, Any]:
        await until(lambda: len(self.lines(event)) >= count, seconds=SECONDS, what=f"{event}: {self.said.read_text()}")
        return self.lines(event)[count - 1]

    async def is_ready(self) -> None:
        await until(lambda: '.ready"' in self.said.read_text(), seconds=SECONDS, what=self.said.read_text())


@contextmanager
def running(up: Platform, user: str, folder: Path) -> Iterator[Process]:
    process = Process(up, user, PROCESSES[user], folder)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()


@asynccontextmanager
async def there(folder: Path, form: Form) -> AsyncIterator[tuple[Platform, Link]]:
    """A platform that is set up, and its administrator."""
    async with AsyncExitStack() as stack:
        up = stack.enter_context(platform(folder, form, participants=SERVICES))
        await up.set_up()
        link = await up.connect("administrator")
        stack.push_async_callback(link.close)
        yield up, link


async def change(link: Link, stream: str, **settings: Any) -> None:
    config = (await api(link, f"STREAM.INFO.{stream}"))["config"]
    answer = await api(link, f"STREAM.UPDATE.{stream}", {**config, **settings})
    assert "error" not in answer, answer


async def command(up: Platform, user: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that a person runs, and ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "ANTIPHON_"))}
    return await asyncio.to_thread(run_antiphon, arguments, {**kept, **up.environment(user), **variables})


def registered(link: Link, name: str) -> Any:
    return link.get_latest(REGISTRATIONS.name, f"$KV.ANTIPHON_PARTICIPANTS.{name}.*")


async def until_registered(link: Link, name: str, is_registered: bool) -> None:
    async with asyncio.timeout(SECONDS):
        while (found := await registered(link, name)) is None or bool(found.data) is not is_registered:
            await asyncio.sleep(0.05)


# --- at the start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "settings", "said"),
    [
        (SAGA, {"max_age": DAY_NS}, "stream SAGA: max_age is 86400 s and must be none"),
        (EVENTS, {"allow_direct": False}, "stream EVENTS: allow_direct is off and must be on"),
    ],
)
async def test_a_coordinator_says_what_differs_and_begins_after_a_setup(
    stream: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    async with there(tmp_path, "accounts") as (up, administrator):
        await change(administrator, stream, **settings)
        with running(up, "coordinator", tmp_path) as coordinator:
            line = await coordinator.says("platform.differs")
            assert [each.partition(" (")[0] for each in line["differences"]] == [said]
            assert (line["remedy"], line["ready"]) == ("as administrator: antiphon setup", False)
            assert coordinator.lines("coordinator.ready") == []
            assert await registered(administrator, "coordinator") is None
            done = await command(up, "administrator", "setup")
            assert done.returncode == 0
            assert f"stream {stream}: {next(iter(settings))} was" in done.stdout
            await coordinator.says("coordinator.ready")
            assert len(coordinator.lines("platform.differs")) == len(coordinator.lines("platform.restored")) == 1
            await until_registered(administrator, "coordinator", True)


@pytest.mark.parametrize("user", ["exporter", "readmodel"])
async def test_who_only_reads_says_that_it_cannot_and_begins_after_a_setup(user: str, tmp_path: Path) -> None:
    async with there(tmp_path, "accounts") as (up, administrator):
        await change(administrator, SAGA, allow_direct=False)
        with running(up, user, tmp_path) as process:
            line = await process.says("platform.differs")
            assert line["differences"] == ["stream SAGA is not there, or does not allow direct reads"]
            assert (await command(up, "administrator", "setup")).returncode == 0
            await process.is_ready()
            await process.says("platform.restored")


async def test_a_read_model_that_is_to_end_ends_with_a_sentence(tmp_path: Path) -> None:
    async with there(tmp_path, "accounts") as (up, administrator):
        await change(administrator, SAGA, allow_direct=False)
        database = f"sqlite:///{tmp_path}/sagas.db"
        arguments = ("readmodel", "--rebuild", "--once", "--database", database)
        done = await command(up, "readmodel", *arguments)
        assert done.returncode == 1
        assert "does not allow direct reads" in done.stderr.splitlines()[-1]


async def test_list_says_that_reads_may_be_what_is_missing(tmp_path: Path) -> None:
    async with there(tmp_path, "accounts") as (up, administrator):
        await change(administrator, EVENTS, allow_direct=False)
        done = await command(up, "operator", "list")
        assert (done.returncode, done.stdout) == (1, "")
        assert "are not on this server, or do not allow direct reads. Create or mend them" in done.stderr


# --- while they run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("user", CONSUMERS)
async def test_a_consumer_that_is_deleted_is_told_by_who_pulls_from_it(user: str, form: Form, tmp_path: Path) -> None:
    stream, consumer = CONSUMERS[user]
    async with there(tmp_path, form) as (up, administrator):
        with running(up, user, tmp_path) as process:
            await process.is_ready()
            if user != "exporter":
                await until_registered(administrator, user, True)
            await api(administrator, f"CONSUMER.DELETE.{stream}.{consumer}")
            line = await process.says("platform.differs")
            assert line["differences"] == [f"there is no consumer {consumer} of stream {stream} on this server."]
            option = " --participant inventory" if user == "inventory" else ""
            assert (line["remedy"], line["ready"]) == (f"as administrator: antiphon setup{option}", False)
            if user != "exporter":
                await until_registered(administrator, user, False)
            done = await command(up, "administrator", "setup", "--participant", "inventory")
            assert f"consumer {consumer} of stream {stream} was not there; it was created" in done.stdout
            await process.says("platform.restored")
            if user != "exporter":
                await until_registered(administrator, user, True)
            assert process.process.poll() is None


@pytest.mark.parametrize("user", ["exporter", "readmodel"])
async def test_reads_that_are_no_longer_answered_are_told_once(user: str, tmp_path: Path) -> None:
    async with there(tmp_path, "accounts") as (up, administrator):
        with running(up, user, tmp_path) as process:
            await process.is_ready()
            await change(administrator, EVENTS, allow_direct=False)
            await process.says("platform.differs")
            assert len(process.lines("readmodel.waits")) <= 1
            await set_up(administrator, [])
            await process.says("platform.restored")
            assert process.process.poll() is None


async def test_a_pause_is_no_difference(tmp_path: Path) -> None:
    async with there(tmp_path, "accounts") as (up, administrator):
        link = await up.connect("inventory")
        pull = await link.pull(SAGA, "inventory", 4, lambda delivery: None)
        await require_accepted([pull], lambda missing, seconds: None)
        await api(administrator, f"CONSUMER.PAUSE.{SAGA}.inventory", {"pause_until": "2100-01-01T00:00:00Z"})
        for _ in range(3):
            pull.renew()
            await link.flushed()
            heard = pull._heard
            await until(partial(heard_since, pull, heard), seconds=SECONDS, what="a sign of life")
            assert pull.refused_seconds(time.monotonic()) == 0
        fitness = Fitness(link, [pulls(link, lambda: [pull])])
        assert await fitness.look() == []
        await link.close()


def heard_since(pull: Pull, before: float) -> bool:
    """Whether the server has said anything about a pull."""
    return pull._heard > before


# --- whatever is changed ----------------------------------------------------------------------------------------------

CHANGES: list[tuple[str, dict[str, Any]]] = [
    (SAGA, {"max_age": DAY_NS}),
    (SAGA, {"max_msgs": 1000}),
    (SAGA, {"max_bytes": 10**6}),
    (SAGA, {"max_msgs_per_subject": 5}),
    (SAGA, {"max_msg_size": 1000}),
    (SAGA, {"subjects": ["saga.1.>"]}),
    (SAGA, {"allow_direct": False}),
    (EVENTS, {"max_age": DAY_NS}),
    (EVENTS, {"discard_new_per_subject": False}),
    (EVENTS, {"discard": "old", "discard_new_per_subject": False}),
    (EVENTS, {"max_msgs_per_subject": 5}),
    (EVENTS, {"allow_rollup_hdrs": True}),
    (PARKED, {"max_age": DAY_NS}),
    (REGISTRATIONS.name, {"max_age": DAY_NS}),
]


async def test_whatever_is_changed_is_found_and_mended(tmp_path: Path) -> None:
    gauges: Gauges = {}
    async with there(tmp_path, "accounts") as (up, administrator):
        await set_up(administrator, PARTICIPANTS)
        link = await up.connect("coordinator")
        fitness = fitness_of(link, [TRIP.definition], gauges)
        assert await fitness.look() == []
        for stream, settings in CHANGES:
            await change(administrator, stream, **settings)
            found = await fitness.look()
            assert found, (stream, settings)
            assert all(each.sentence.startswith(f"stream {stream}: ") for each in found)
            assert fitness.is_ready is (stream not in (SAGA, EVENTS))
            assert gauges[DIFFERENCES, ()] == len(found)
            await set_up(administrator, [])
            assert await fitness.look() == []
            assert (gauges[DIFFERENCES, ()], fitness.is_ready) == (0, True)
        await link.close()


async def test_consumers_that_are_gone_or_changed_are_found_and_mended(tmp_path: Path) -> None:
    gauges: Gauges = {}
    async with there(tmp_path, "accounts") as (up, administrator):
        await set_up(administrator, PARTICIPANTS)
        link = await up.connect("coordinator")
        fitness = fitness_of(link, [TRIP.definition], gauges)
        theirs = [(SAGA, name) for name in PARTICIPANTS] + [(EVENTS, answers_consumer_name(PARTICIPANTS[0]))]
        platforms = [(each.stream, each.name) for each in PLATFORM_CONSUMERS]
        for stream, name in (*platforms, *theirs):
            await api(administrator, f"CONSUMER.DELETE.{stream}.{name}")
            assert len(await fitness.look()) == 1
            assert fitness.is_ready is ((stream, name) in theirs), "others can do without that participant"
            await set_up(administrator, PARTICIPANTS)
            assert await fitness.look() == []
            config = (await api(administrator, f"CONSUMER.INFO.{stream}.{name}"))["config"]
            changed = {"stream_name": stream, "config": {**config, "max_deliver": 5}}
            assert "error" not in await api(administrator, f"CONSUMER.CREATE.{stream}.{name}", changed)
            assert "max_deliver is 5 and must be none" in (await fitness.look())[0].sentence
            await set_up(administrator, PARTICIPANTS)
            assert await fitness.look() == []
        await link.close()


async def test_what_cannot_be_changed_is_told_and_the_rest_is_mended(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        link = await up.connect("administrator")
        await set_up(link, [])
        await api(link, f"STREAM.DELETE.{PARKED}")
        wrong = {"name": PARKED, "subjects": ["parked.>"], "storage": "memory", "max_age": DAY_NS, "discard": "old"}
        assert "error" not in await api(link, f"STREAM.CREATE.{PARKED}", {**wrong, "num_replicas": 1})
        await api(link, f"CONSUMER.DELETE.{SAGA}.{TIMERS}")
        acked = {"durable_name": TIMERS, "ack_policy": "none", "deliver_policy": "all"}
        assert "error" not in await api(
            link, f"CONSUMER.CREATE.{SAGA}.{TIMERS}", {"stream_name": SAGA, "config": acked}
        )
        with pytest.raises(NotChanged) as caught:
            await set_up(link, ["inventory"])
        said = str(caught.value)
        assert "The server does not change stream PARKED: storage is memory and must be file" in said
        assert "take a backup" in said
        assert "The server does not change consumer timers of stream SAGA" in said
        assert "ack_policy is none and must be explicit" in said
        assert "nats consumer rm SAGA timers" in said
        parked = (await api(link, f"STREAM.INFO.{PARKED}"))["config"]
        assert (parked["max_age"], parked["discard"], parked["allow_direct"]) == (0, "new", True)
        assert "error" not in await api(link, f"CONSUMER.INFO.{SAGA}.inventory-close")
        done = await command(up, "administrator", "setup")
        assert done.returncode == 1
        assert "storage is memory and must be file" in done.stderr
        assert "streams SAGA" in done.stdout, "what was done is told"
        done = await command(up, "administrator", "setup", "--json")
        assert done.returncode == 1
        assert "storage is memory and must be file" in " ".join(json.loads(done.stdout)["failed"])
        await link.close()


async def test_a_setup_keeps_what_was_asked_for_before(tmp_path: Path) -> None:
    with platform(tmp_path, participants=(), nodes=3) as up:
        link = await up.connect("administrator")
        await set_up(link, ["inventory"], replicas=3)
        await change(link, SAGA, num_replicas=1)
        reader = await up.connect("coordinator")
        fitness = fitness_of(reader, [], {})
        (found,) = await fitness.look()
        assert found.sentence.startswith("stream SAGA: num_replicas is 1 and must be 3")
        assert fitness.is_ready
        await set_up(link, ["billing"])
        assert (await api(link, f"STREAM.INFO.{SAGA}"))["config"]["num_replicas"] == 3
        await asyncio.gather(link.close(), reader.close())


async def test_a_setup_leaves_a_participant_paused(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        link = await up.connect("administrator")
        await set_up(link, ["inventory"])
        await api(link, f"CONSUMER.PAUSE.{SAGA}.inventory", {"pause_until": "2100-01-01T00:00:00Z"})
        await set_up(link, ["inventory"])
        assert (await api(link, f"CONSUMER.INFO.{SAGA}.inventory"))["paused"]
        await link.close()


# --- how large a message may be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_public", [False, True])
async def test_a_message_that_is_too_large_costs_no_connection(
    is_public: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_public:
        monkeypatch.setenv(PUBLIC_VARIABLE, "1")
    with platform(tmp_path, participants=()) as up:
        await up.set_up()
        link = await up.connect("administrator")
        with pytest.raises(Rejected, match="max_payload"):
            await link.store("evt.1.order.a.client.start", b"x" * 1_100_000)
        link.send("any.subject", b"x" * 1_100_000)
        await link.store("evt.1.order.b.client.start", b"x")
        assert not link.failure.done()
        await link.close()
