"""Servers as child processes, and one that is too old."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from antiphon.contracts.errors import ServerUnfit, ServerUnreachable
from antiphon.contracts.payloads import PAYLOAD_BYTES_MIN
from antiphon.contracts.topology import EVENTS, SERVER_VERSION_MIN, STREAMS
from antiphon.deploy.files import nats_string
from antiphon.deploy.local import server
from antiphon.deploy.local.server import Server, find_binary, free_port, server_info
from antiphon.link import Link
from antiphon.link.setup import api
from tests.support.server import Platform, platform, until

TOO_OLD = os.environ.get("ANTIPHON_TEST_SERVER_TOO_OLD", "")
"""The last nats-server that is refused, where there is one."""


@pytest.mark.parametrize("name", ["ein ördner", "Übung 日本", "quote \" and 'quote'", "back\\slash"])
def test_its_folder_may_be_called_anything(name: str, tmp_path: Path) -> None:
    with Server(tmp_path / name) as there:
        assert there.is_running
    assert (tmp_path / name).is_dir()
    assert [each.name for each in tmp_path.iterdir()] == [name]


async def test_a_killed_server_comes_back_on_its_port_with_what_it_held(tmp_path: Path) -> None:
    with platform(tmp_path) as up:
        await up.set_up()
        link = await up.connect("client")
        await link.store("evt.1.order.a.client.start", b"first")
        await link.close()
        before = up.server.port
        up.server.kill()
        up.server.start()
        assert up.server.port == before
        link = await up.connect("client")
        stored = await link.get_last("EVENTS", "evt.1.order.a.client.start")
        assert stored is not None
        assert stored.data == b"first"
        await link.close()


def test_no_port_is_named_twice() -> None:
    """The servers of a cluster need ports for each other before any of them listens."""
    ports = [free_port() for _ in range(400)]
    assert len({*ports}) == len(ports)


async def test_three_servers_hold_three_copies(tmp_path: Path) -> None:
    with platform(tmp_path, nodes=3) as up:
        await up.set_up()
        client = await up.connect("client")
        await client.store("evt.1.order.a.client.start", b"first")
        await client.close()
        link = await up.connect("administrator")
        async with asyncio.timeout(120):
            while not all([await has_three_copies(link, stream.name) for stream in STREAMS]):
                await asyncio.sleep(0.05)
        info = await api(link, f"STREAM.INFO.{EVENTS}")
        assert info["state"]["messages"] == 1
        assert {info["cluster"]["leader"], *(each["name"] for each in info["cluster"]["replicas"])} == {
            node.name for node in up.nodes
        }
        await link.close()


async def has_three_copies(link: Link, stream: str) -> bool:
    """Whether a stream has a leader and two followers that lack nothing."""
    cluster = (await api(link, f"STREAM.INFO.{stream}"))["cluster"]
    followers = [each for each in cluster.get("replicas", []) if each["current"] and not each.get("lag")]
    return bool(cluster.get("leader")) and len(followers) == 2


def test_another_server_on_the_port_is_not_taken_for_this_one(tmp_path: Path) -> None:
    with Server(tmp_path / "one") as first:
        second = Server(tmp_path / "two", port=first.port)
        said = rf"ended at its start. Port {first.port} of 127.0.0.1 is in use.*--port {first.port + 1}, or --port 0"
        with pytest.raises(ServerUnreachable, match=said):
            second.start()
        assert server_info(first.port)["server_name"] == first.name


def test_a_config_that_may_hold_passwords_is_for_its_owner_only(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        assert (server.folder / "nats.conf").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name",
    ["ein ördner", "日本", 'a"quote', "back\\slash", "\\x41", "tab\tnew\nline", "$HOME", "{#}", "\x01\x7f", "\udcff"],
)
def test_a_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    with Server(tmp_path / name) as server:
        assert (server.store / "jetstream").is_dir(), "its streams are below the folder that was named"


@pytest.mark.parametrize("name", ["jürgen", 'say "hi"', "back\\slash", "\x01"])
def test_users_of_any_name_are_read_by_the_server(name: str, tmp_path: Path) -> None:
    accounts = f"accounts {{ A {{ users: [{{ user: {nats_string(name)}, password: x }}] }} }}"
    with Server(tmp_path, accounts=accounts) as server:
        assert server.answers


def test_the_platform_writes_every_message_through_to_the_disk(tmp_path: Path) -> None:
    assert 'sync_interval: "always"' in Server(tmp_path).config()


@pytest.mark.skipif(bool(TOO_OLD), reason="make oldest brings a server of its own")
def test_without_a_server_program_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerUnreachable, match=r"antiphon\[embedded\]"):
        find_binary()


# --- too old ----------------------------------------------------------------------------------------------------------


@contextmanager
def server_that_says(version: str, max_payload: int = 1_048_576) -> Iterator[str]:
    """Enough of a server to be connected to: it introduces itself and answers pings."""
    info = {"server_id": "X", "server_name": "old", "version": version, "max_payload": max_payload, "jetstream": True}
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, connection.makefile("rwb") as lines:
                    lines.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
                    lines.flush()
                    for line in lines:
                        if line.startswith(b"PING"):
                            lines.write(b"PONG\r\n")
                            lines.flush()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"nats://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
    thread.join()


async def test_a_server_without_message_schedules_is_too_old() -> None:
    with server_that_says("2.12.7") as url, pytest.raises(ServerUnfit, match=r"2\.12\.7.*2\.12\.8.*Upgrade"):
        await Link.connect(url, name="test")


@pytest.mark.skipif(not TOO_OLD, reason="make oldest has such a server")
async def test_the_last_server_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_binary", lambda: TOO_OLD)
    with Server(tmp_path) as old, pytest.raises(ServerUnfit, match=r"2\.12\.7, and sagas need 2\.12\.8 or newer"):
        await Link.connect(old.url, name="test")


def test_with_make_oldest_it_is_the_oldest_one_that_is_supported(tmp_path: Path) -> None:
    with Server(tmp_path) as each:
        version = tuple(map(int, server_info(each.port)["version"].split(".")))
    assert version == SERVER_VERSION_MIN if "ANTIPHON_TEST_SERVER" in os.environ else version > SERVER_VERSION_MIN


def test_the_command_line_says_so_too() -> None:
    with server_that_says("2.9.25") as url:
        ran = subprocess.run(
            [sys.executable, "-m", "antiphon.deploy", "list", "--server", url],
            env={name: value for name, value in os.environ.items() if not name.startswith("NATS_")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "2.9.25" in ran.stderr
    assert "antiphon[embedded]" in ran.stderr


# --- too small --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("coordinator", "--app", "antiphon.order.saga:order"),
        ("participant", "antiphon.order.inventory:inventory", "--database", "memory:"),
        ("exporter",),
        ("readmodel", "--database", "sqlite://"),
        ("jaeger-storage",),
        ("setup",),
        ("list",),
    ],
    ids=" ".join,
)
def test_nothing_begins_on_a_server_that_takes_small_messages_alone(arguments: tuple[str, ...]) -> None:
    with server_that_says("2.15.1", max_payload=65_536) as url:
        ran = subprocess.run(
            [sys.executable, "-m", "antiphon.deploy", *arguments, "--server", url],
            env={name: value for name, value in os.environ.items() if not name.startswith("NATS_")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.returncode == 1
    assert (
        "takes messages of up to 65536 bytes (max_payload), and sagas need 737280. Set max_payload: 1MB" in ran.stderr
    )


async def test_a_server_that_takes_just_enough_will_do() -> None:
    with server_that_says("2.15.1", max_payload=PAYLOAD_BYTES_MIN) as url:
        link = await Link.connect(url, name="test")
        assert link.payload_fault == ""
        await link.close()


# --- away -------------------------------------------------------------------------------------------------------------

PROCESSES = {
    "coordinator": ("coordinator", "--app", "antiphon.order.saga:order"),
    "participant": ("participant", "antiphon.order.inventory:inventory", "--database", "memory:"),
}


@pytest.mark.parametrize("name", PROCESSES)
async def test_a_process_ends_in_order_while_its_server_is_away(name: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with platform(tmp_path) as up, said.open("wb") as out:
        await up.set_up()
        process = started(name, up, out)
        await until(lambda: "ready" in said.read_text(), what="its readiness")
        up.server.kill()
        process.terminate()
        await until(lambda: process.poll() is not None, what="its end")
        assert (process.returncode, "Traceback" in said.read_text()) == (0, False)


def started(name: str, up: Platform, out: BinaryIO) -> subprocess.Popen[bytes]:
    """A process of the command line."""
    command = [sys.executable, "-m", "antiphon.deploy", *PROCESSES[name]]
    return subprocess.Popen(command, env={**os.environ, **up.environment("")}, stdout=out, stderr=out)
