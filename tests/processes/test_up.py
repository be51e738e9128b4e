"""`antiphon up`: a platform in one command, which heals itself, drains, and goes on where it stopped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import msgspec
import psutil
import pytest

from antiphon.contracts.errors import AntiphonError, PlatformError
from antiphon.contracts.identity import SagaKey
from antiphon.deploy.local.children import FIRST_PAUSE_SECONDS
from antiphon.deploy.local.platform import LocalPlatform
from antiphon.deploy.local.server import free_port
from antiphon.deploy.local.up import databases_of, parts_of
from antiphon.order.data import load_orders
from antiphon.tracing.projection.ids import trace_id
from tests.support.receiver import receiver
from tests.support.server import until

PAYLOAD = msgspec.json.encode(load_orders()[1]).decode()
COORDINATOR_BYTES_MAX = 60_000_000

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}


@dataclass
class Running:
    """`antiphon up` as a process, and what it has printed so far."""

    process: subprocess.Popen[bytes]
    out: Path

    def said(self, pattern: str) -> re.Match[str] | None:
        """The first place in the output that matches."""
        return re.search(pattern, self.out.read_text())

    async def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until something is printed."""
        await until(lambda: self.said(pattern) or self.process.poll() is not None, what=pattern)
        found = self.said(pattern)
        assert found is not None, self.out.read_text()
        return found

    async def url(self) -> str:
        """Wait until all serve; where the server listens."""
        await self.wait_for(r"ready: 5 processes")
        return (await self.wait_for(r"listens on (\S+)")).group(1)

    def child(self, name: str) -> psutil.Process:
        """The process that was started under a name."""
        return next(p for p in self.family() if p.cmdline()[-2:] == ["--name", name])

    def family(self) -> list[psutil.Process]:
        """Everybody it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def running_up(folder: Path, *options: str, **variables: str) -> Iterator[Running]:
    folder.mkdir(exist_ok=True)
    out = folder / "out.txt"
    command = [sys.executable, "-m", "antiphon.deploy", "up", "--port", "0", "--folder", str(folder / "platform")]
    with out.open("wb") as file:
        environment = {**ENVIRONMENT, **variables}
        process = subprocess.Popen([*command, *options], env=environment, stdout=file, stderr=file, process_group=0)
    try:
        yield Running(process, out)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(120)


def antiphon(*arguments: str, url: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "antiphon.deploy", *arguments, "--server", url]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True).stdout


def run_order(id: str, url: str) -> dict[str, str]:
    outcome: dict[str, str] = json.loads(
        antiphon("start", "antiphon.order.saga:order", "--id", id, "--payload", PAYLOAD, "--wait", "--json", url=url)
    )
    return outcome


async def test_a_platform_in_one_command(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        url = await up.url()
        assert run_order("one", url)["outcome"] == "completed"
        assert (
            max(up.child(name).memory_info().rss for name in ("coordinator-1", "coordinator-2")) < COORDINATOR_BYTES_MAX
        )
        await a_killed_process_is_started_again(up)
        await a_killed_server_is_started_again(up)
        assert run_order("two", url)["outcome"] == "completed"
        family = up.family()
        assert len(family) == 6  # the server too
        up.process.send_signal(signal.SIGINT)
        await until(lambda: up.process.poll() is not None, what="the drain")
        assert up.process.returncode == 0
        assert not [process for process in family if process.is_running()]
    logs = {log.name for log in (tmp_path / "platform" / "logs").iterdir()}
    assert {"nats-server.log", "coordinator-1.log", "coordinator-2.log", "billing.log"} <= logs
    assert "drained" in (tmp_path / "platform" / "logs" / "billing.log").read_text()

    with running_up(tmp_path, ANTIPHON_HTTP=f"127.0.0.1:{free_port()}") as up:
        url = await up.url()
        every_process_shows_its_pages(up)
        listed = json.loads(antiphon("list", "--json", url=url))
        assert {(each["id"], each["state"]) for each in listed} == {("one", "completed"), ("two", "completed")}


def every_process_shows_its_pages(up: Running) -> None:
    shown = re.findall(
        r"^(\S+) +\| answers at (http://127.0.0.1:(\d+))/readyz and /metrics$", up.out.read_text(), re.MULTILINE
    )
    assert [name for name, _, _ in shown] == ["coordinator-1", "coordinator-2", "inventory", "billing", "shipping"]
    assert [port for _, _, port in shown] == sorted({port for _, _, port in shown})
    for _, address, _ in shown:
        for name in ("livez", "readyz", "version", "metrics"):
            with urlopen(f"{address}/{name}", timeout=120) as page:
                assert page.status == 200


async def a_killed_process_is_started_again(up: Running) -> None:
    first = up.child("billing")
    first.kill()
    await up.wait_for(rf"billing.*was killed by SIGKILL; starting it again in {FIRST_PAUSE_SECONDS:g} s")
    await until(lambda: any_with_name(up, "billing", lambda process: process.pid != first.pid), what="its next life")


async def a_killed_server_is_started_again(up: Running) -> None:
    """On the same port, and with the same streams: what ran before is listed in the platform's next life."""
    server = next(process for process in up.family() if process.name() == "nats-server")
    server.kill()
    await up.wait_for(rf"nats-server.*was killed by SIGKILL; starting it again in {FIRST_PAUSE_SECONDS:g} s")
    await up.wait_for(r"nats-server.*listens on nats://127.0.0.1:\d+ again")


def any_with_name(up: Running, name: str, also: Callable[[psutil.Process], bool]) -> bool:
    """Whether there is such a process; some may end while they are looked at."""
    try:
        return also(up.child(name))
    except (psutil.Error, StopIteration):
        return False


UNSOUND = """
from datetime import timedelta
from antiphon.contracts import Event
from antiphon.coordinator import Saga

class Asked(Event, name="asked"):
    id: str

SAGA = Saga(Asked, name="empty", version=1, deadline=timedelta(hours=1))
SAGA.definition
"""


async def test_what_an_author_must_mend_is_said_and_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unsound.py").write_text(UNSOUND)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    notes: list[tuple[str, str]] = []
    platform = LocalPlatform(
        tmp_path / "up", ["unsound:SAGA"], {}, lambda *_: None, lambda *note: notes.append(note), coordinators=1
    )
    try:
        with pytest.raises(PlatformError, match=r"^coordinator-1 cannot start: antiphon: .*empty.*"):
            await platform.start()
    finally:
        await platform.stop()
    assert [line for name, line in notes if name == "coordinator-1"] == [
        "ended with exit code 4; it is not started again before that is mended"
    ]


async def test_a_second_platform_in_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        url = await up.url()
        assert run_order("one", url)["outcome"] == "completed"
        with running_up(tmp_path / "same", "--folder", str(tmp_path / "platform")) as second:
            await until(lambda: second.process.poll() is not None, what="the end of the second")
            assert second.process.returncode == 1
            assert second.said(f"a platform runs in {re.escape(str(tmp_path / 'platform'))} already. End it first")
        assert run_order("two", url)["outcome"] == "completed"
        assert {each["id"] for each in json.loads(antiphon("list", "--json", url=url))} == {"one", "two"}
    with running_up(tmp_path) as up:  # once that has ended the folder is free, and all is there
        assert len(json.loads(antiphon("list", "--json", url=await up.url()))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children whose parent was killed")
async def test_a_killed_platform_leaves_nobody_behind(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        await up.url()
        family = up.family()
        up.process.kill()
        await until(
            lambda: not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], seconds=120
        )


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; nobody may be there to bury it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_every_trace_goes_to_a_jaeger_that_runs_already(tmp_path: Path) -> None:
    jaeger = ("--jaeger", "http://127.0.0.1:16686")
    with receiver() as (backend, environment), running_up(tmp_path, *jaeger, **environment) as up:
        await up.wait_for(r"ready: 6 processes")
        url = (await up.wait_for(r"listens on (\S+)")).group(1)
        assert run_order("one", url)["outcome"] == "completed"
        told = up.child("billing").environ()["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert told == environment["OTEL_EXPORTER_OTLP_ENDPOINT"], "where spans of its own would go"
        wanted = trace_id(SagaKey.of("order", "one"))
        await until(lambda: any(trace == wanted for trace, _ in backend.spans), what="a span of the order")


async def test_a_demo_sends_every_trace_to_a_jaeger_that_runs_and_says_where_two_are(tmp_path: Path) -> None:
    with receiver() as (backend, environment):
        options = ["--orders", "6", "--folder", str(tmp_path / "demo"), "--jaeger", "http://127.0.0.1:16686"]
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "antiphon.deploy", "demo", *options],
            env={**ENVIRONMENT, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        seen = {trace for trace, _ in backend.spans}
    orders = re.findall(r"^(?:order/)(\S+)", ran.stdout, re.MULTILINE)
    assert orders
    links = [f"http://127.0.0.1:16686/trace/{trace_id(SagaKey.of('order', each))}" for each in orders]
    assert all(link in ran.stdout for link in links)
    assert len(seen) >= 6, "each order has a trace of its own"


def test_what_is_no_address_of_jaeger_is_a_sentence(tmp_path: Path) -> None:
    with running_up(tmp_path, "--jaeger", "localhost") as up:
        assert up.process.wait(120) == 1
        assert up.said("is no address of Jaeger. Give its page, such as http://localhost:16686")


def test_databases_are_named_by_participant() -> None:
    names = ["payments", "stock"]
    found = databases_of(["payments=postgresql://shop:hush@db/x?a=b", "stock=memory:"], names)
    assert found == {"payments": "postgresql://shop:hush@db/x?a=b", "stock": "memory:"}
    for text, said in (
        ("postgresql://shop:hush@db/x?a=b", "--database is NAME=URL, as in payments=postgresql://"),
        ("payments", "--database is NAME=URL"),
        ("payments=", "--database is NAME=URL"),
        ("billing=postgresql://shop:hush@db/x", "there is no participant 'billing' to give a database to: payments"),
        ("payments=oracle://shop:hush@db/x", "'oracle' is no database"),
    ):
        with pytest.raises(AntiphonError, match=said) as raised:
            databases_of([text], names)
        assert "hush" not in str(raised.value)


async def test_a_participant_has_the_database_that_is_named_and_nobody_sees_its_password(tmp_path: Path) -> None:
    mine = tmp_path / "mine.db"
    options = ("--database", f"inventory=sqlite:///{mine}", "--database", "billing=postgresql://b:hush@127.0.0.1:1/x")
    with running_up(tmp_path, *options) as up:
        await up.wait_for(r"billing +\| .*starting it again")
        await until(mine.exists, what="the database of inventory")
        ours = psutil.Process(up.process.pid)
        assert not [each for each in ours.children(recursive=True) if "hush" in " ".join(each.cmdline())]
    assert not (tmp_path / "platform" / "inventory.db").exists()
    assert "hush" not in up.out.read_text()
    for log in (tmp_path / "platform" / "logs").iterdir():
        assert "hush" not in log.read_text(errors="replace"), log


def test_a_package_brings_its_sagas_and_its_participants() -> None:
    sagas, participants = parts_of(["antiphon.order.choreographed", "antiphon.order.saga:order"])
    assert "antiphon.order.saga:order" in sagas
    assert any(saga.endswith(":choreographed_order") for saga in sagas)
    assert sorted(participants) == ["billing", "inventory", "shipping"]
    with pytest.raises(AntiphonError, match="has neither a saga, nor a choreography, nor a participant"):
        parts_of(["antiphon.contracts.clock"])


async def test_whoever_does_not_run_and_is_waited_for_is_named(tmp_path: Path) -> None:
    one = ("--app", "antiphon.order.saga:order", "--participant", "antiphon.order.inventory:inventory")
    with running_up(tmp_path, *one) as up:
        named = "billing and shipping do not run here, and saga order waits for them: add --participant"
        await up.wait_for(re.escape(named))
        await up.wait_for("ready: ")


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    command = [sys.executable, "-m", "antiphon.deploy", "up", "--port", "0", "--folder", str(tmp_path / "file")]
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("antiphon: cannot write streams, databases and logs to "), ran.stderr
    assert len(ran.stderr.splitlines()) == 1
