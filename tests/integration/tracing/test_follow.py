"""`antiphon trace --follow` of sagas that run: on a terminal, in a pipe, before the beginning and until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from antiphon.contracts import AntiphonError
from antiphon.coordinator import Antiphon, Handle
from antiphon.tracing.projection.ids import trace_id
from tests.integration.tracing.stay import granted, stay
from tests.integration.tracing.voyage import VisaGranted
from tests.support.processes import Child, supervised
from tests.support.server import Platform, platform, until
from tests.support.trip import ASKED

ANTIPHON = str(Path(sys.executable).with_name("antiphon"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A server and a coordinator for all tests here."""
    folder = tmp_path_factory.mktemp("follow")
    with platform(folder, participants=()) as running:
        asyncio.run(running.set_up())
        arguments = ["antiphon.deploy", "coordinator", "--app", "tests.integration.tracing.stay:stay"]
        child = Child("coordinator", arguments, running.environment("coordinator"), folder / "coordinator.log")
        with supervised({child.role: child}):
            yield running


def follow(up: Platform, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [ANTIPHON, "trace", *arguments],
        env={**os.environ, **up.environment("operator"), "TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


async def ended(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """What it has printed, and complained of, once it has ended."""
    out, error = await asyncio.to_thread(process.communicate, None, 30)
    return (out or b"").decode(), error.decode()


class Screen:
    """Everything that was written to a terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal, self.text = terminal, ""
        self.reading = Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self) -> None:
        with suppress(OSError):  # which is how a terminal says that nobody writes to it any more
            while data := os.read(self._terminal, 65536):
                self.text += data.decode(errors="replace")


@contextmanager
def on_a_terminal(up: Platform, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Screen]]:
    ours, theirs = pty.openpty()
    process = follow(up, *arguments, stdout=theirs)
    os.close(theirs)
    screen = Screen(ours)
    try:
        yield process, screen
    finally:
        process.kill()
        process.communicate()
        screen.reading.join(120)
        os.close(ours)


async def test_a_saga_is_followed_from_before_its_beginning_to_its_end(up: Platform, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    async with Antiphon.connect(up.servers, name="client") as antiphon:
        with on_a_terminal(up, "stay/s1", "--follow") as (process, screen):
            piped = follow(up, "s1", "--follow")
            written = follow(up, "s1", "-f", "--format", "otlp", "--output", str(file))
            assert process.stderr is not None
            told = await asyncio.to_thread(process.stderr.readline)
            assert told.decode() == "antiphon: saga stay/s1 has not begun; waiting for it until Ctrl-C.\n"
            handle = await antiphon.start(stay, ASKED, id="s1")
            await until(lambda: "running" in screen.text and "granted" in screen.text, what="a picture of it")
            assert process.poll() is None
            await handle.signal(granted, VisaGranted(number="v-1"))
            assert await asyncio.to_thread(process.wait, 20) == 0
            screen.reading.join(120)
        (out, _), (nothing, _) = await ended(piped), await ended(written)
    assert "stay/s1  \x1b[0m\x1b[32mcompleted" in screen.text.rpartition("\x1b[2K")[2], "what stays on the screen"
    assert (piped.returncode, written.returncode, nothing) == (0, 0, "")
    assert out == (await ended(follow(up, "s1")))[0]
    assert out.startswith("stay/s1  completed")
    spans = json.loads(file.read_text())["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert {span["traceId"] for span in spans} == {trace_id(handle.key)}
    assert not spans[-1].get("parentSpanId"), "the root, which there is at the end only"


async def begun(handle: Handle) -> None:
    """Wait until a coordinator has taken the start in: before that the command says that it waits."""
    while True:
        with suppress(AntiphonError):
            await handle.status()
            return
        await asyncio.sleep(0.02)


async def test_ctrl_c_leaves_what_was_there_last(up: Platform) -> None:
    async with Antiphon.connect(up.servers, name="client") as antiphon:
        handle = await antiphon.start(stay, ASKED, id="s2")
        await begun(handle)
        with on_a_terminal(up, "stay/s2", "--follow") as (process, screen):
            await until(lambda: "granted" in screen.text, what="a picture of it")
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, 20) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""
            screen.reading.join(120)
        assert "stay/s2  \x1b[0m\x1b[36mrunning" in screen.text.rpartition("\x1b[2K")[2], "what stays on the screen"


async def test_ctrl_c_ends_the_wait_for_a_saga_that_never_begins(up: Platform) -> None:
    process = follow(up, "s3", "--follow")
    assert process.stderr is not None
    await asyncio.to_thread(process.stderr.readline)
    process.send_signal(signal.SIGINT)
    assert await ended(process) == ("", "")
    assert process.returncode == 130
