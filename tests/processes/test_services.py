"""The processes that stay, as a team starts them: what they load, what they say of mistakes, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from antiphon.deploy.local.server import free_port
from tests.support.server import Platform, platform, until

NOT_FOR_SERVICES = ("click", "pydantic", "rich", "typer", "pytest")


def environment(up: Platform | None = None, **variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("ANTIPHON_", "NATS_", "OTEL_"))}
    return ours | (up.environment("coordinator") if up else {}) | variables


def status(address: str, page: str) -> int:
    try:
        with urlopen(f"http://{address}/{page}", timeout=120) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


@contextmanager
def running(up: Platform, folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "antiphon.deploy", *arguments],
            env=environment(up, **variables),
            cwd=folder,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def unread(command: list[str], up: Platform | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process whose stderr nobody reads any more."""
    reader, stderr = os.pipe()
    os.close(reader)
    process = subprocess.Popen(command, env=environment(up), stdout=subprocess.PIPE, stderr=stderr, text=True)
    os.close(stderr)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


COMMANDS = {
    "coordinator": ["--app", "antiphon.order.saga:order"],
    "participant": ["antiphon.order.billing:billing", "--database", "memory:"],
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_process_is_ready_when_its_page_says_so_and_drains(tmp_path: Path, name: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with platform(tmp_path) as up:
        await up.set_up()
        with running(up, tmp_path, name, *COMMANDS[name], ANTIPHON_HTTP=address) as process:
            await until(lambda: status(address, "readyz") == 200, what="readiness")
            assert [status(address, page) for page in ("livez", "version", "metrics")] == [200, 200, 200]
            up.server.kill()
            await until(lambda: status(address, "readyz") == 503, what="a connection that is lost")
            assert status(address, "livez") == 200
            up.server.start()
            await until(lambda: status(address, "readyz") == 200, what="readiness again")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 120) == 0
    assert f"{name}.drained" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_process_whose_log_nobody_reads_serves_and_drains(tmp_path: Path, name: str) -> None:
    with platform(tmp_path) as up:
        await up.set_up()
        address = f"127.0.0.1:{free_port()}"
        with unread([sys.executable, "-m", "antiphon.deploy", name, *COMMANDS[name], "--http", address], up) as process:
            await until(lambda: process.poll() is not None or status(address, "readyz") == 200, what="readiness")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 120) == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_process_loads_nothing_of_the_command_line(name: str) -> None:
    code = (
        "import sys, antiphon.deploy.__main__ as entry; sys.argv = ['antiphon', *sys.argv[1:]]\n"
        "try: entry.main()\n"
        "except SystemExit: print([each for each in sys.modules if each in " + repr(NOT_FOR_SERVICES) + "])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, name, *COMMANDS[name]],
        env=environment(NATS_URL="nats://127.0.0.1:1"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no NATS server answers at nats://127.0.0.1:1" in ran.stderr
    assert ran.stdout == "[]\n"


def test_all_mistakes_of_a_start_are_sentences() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "antiphon.deploy", "participant", "--concurrency", "none"],
        env=environment(ANTIPHON_HANDLER_SECONDS="0", NATS_KEY="key.pem", DATABASE_URL="memory:"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr.split("\n")[0]) == (2, "antiphon: these settings cannot hold:")
    assert [line.partition(" ")[0] for line in ran.stderr.splitlines()[1:]] == [
        "ANTIPHON_PARTICIPANT",
        "--concurrency:",
        "ANTIPHON_HANDLER_SECONDS:",
    ]


BEFORE_A_SERVER = {
    **COMMANDS,
    "exporter": [],
    "readmodel": ["--database", "sqlite:///rows.db"],
}


@pytest.mark.parametrize("name", BEFORE_A_SERVER)
def test_a_process_that_is_told_to_end_before_it_has_a_server_ends_cleanly(tmp_path: Path, name: str) -> None:
    address, nobody = f"127.0.0.1:{free_port()}", f"nats://127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "antiphon.deploy", name, *BEFORE_A_SERVER[name]],
            env=environment(NATS_URL=nobody, ANTIPHON_HTTP=address),
            cwd=tmp_path,
            stderr=log,
        )
    try:
        asyncio.run(until(lambda: status(address, "livez") == 200 or process.poll() is not None, what="a sign of life"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "log").read_text()
    assert "process.ended" in said
    assert "Traceback" not in said


HANGS = """
import asyncio, sys
from antiphon.link.process import on_stop

async def main() -> None:
    on_stop(lambda: print("told", flush=True))
    print("up", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
STANDS = """
import asyncio, sys, time
from antiphon.link.process import Ending, signals

async def main() -> None:
    ending = Ending(600)
    with signals(ending):
        print("up", flush=True)
        time.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("program", [HANGS, STANDS], ids=["drain", "blocked loop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_at_once(program: str, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM)  # both may come of one end
    process.send_signal(number)
    if program == HANGS:
        assert [process.stdout.readline() for _ in range(2)] == ["told\n", "told\n"]
        assert process.poll() is None
    for _ in range(12_000):  # signals that come before the first was taken are one to the system
        process.send_signal(number)
        if process.poll() is not None:
            break
        time.sleep(0.01)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (1, "antiphon: told to end a second time, it ends at once\n")


@pytest.mark.parametrize("program", [HANGS, STANDS], ids=["drain", "blocked loop"])
def test_a_second_signal_ends_a_process_whose_stderr_nobody_reads(program: str) -> None:
    with unread([sys.executable, "-c", program]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        for _ in range(12_000):
            process.send_signal(signal.SIGTERM)
            if process.poll() is not None:
                break
            time.sleep(0.01)
        assert process.wait(120) == 1
