"""`antiphon chaos --running`: a platform of `antiphon up` is harmed that others use, too, and nobody else's process."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from antiphon.contracts.errors import PlatformError
from antiphon.deploy.chaos.running import POSSIBLE, RunningPlatform
from antiphon.deploy.local.state import is_child, send_signal
from tests.chaos.test_storm import TWICE
from tests.processes.test_up import Running, run_order, running_up
from tests.support.server import until


def chaos(up: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """As it is used."""
    command = [
        sys.executable,
        "-m",
        "antiphon.deploy",
        "chaos",
        "--running",
        str(up),
        "--folder",
        str(folder),
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


async def serving(up: Running, folder: Path) -> str:
    """Wait until all of it serves; where."""
    url = await up.url()
    await until(lambda: all(each.serves for each in RunningPlatform(folder).processes.values()), what="all serve")
    return url


async def test_a_platform_that_runs_is_harmed_and_goes_on(tmp_path: Path) -> None:
    """Twice with one seed: sagas of before are left alone, whatever becomes of their books."""
    folder = tmp_path / "platform"
    with running_up(tmp_path) as up:
        url = await serving(up, folder)
        assert run_order("one", url)["outcome"] == "completed"
        with sqlite3.connect(folder / "billing.db") as database:
            database.execute("DELETE FROM ledger")
        database.close()
        for number in (1, 2):
            ran = chaos(folder, tmp_path / f"storm-{number}", "--seed", "3", "--faults", "8", "--every", "1", "--json")
            assert ran.returncode == 0, ran.stdout + ran.stderr
            score = json.loads(ran.stdout)
            assert (score["faults"], score["violations"], score["impossible"]) == (8, [], [])
            assert {row["sort"] for row in score["kinds"]} == {*POSSIBLE}
            assert score["sagas"] > 10
        assert "is harmed by kill, stop, restart alone" in ran.stderr
        assert run_order("two", url)["outcome"] == "completed"
        said = up.out.read_text()
        assert re.search(r"was killed by SIGKILL", said)
        assert re.search(r"ended by itself", said)
        assert up.process.poll() is None
    assert not (folder / "platform.json").exists()


async def test_what_is_wrong_of_a_platform_that_runs_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    with running_up(tmp_path) as up:
        await serving(up, folder)
        with sqlite3.connect(folder / "billing.db") as database:
            database.executescript(TWICE)
        database.close()
        ran = chaos(folder, tmp_path / "storm", "--only", "restart", "--faults", "3", "--every", "3")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert re.search(r"^I3 order/storm-\S+: billing has 2 lines of what step charge_customer", ran.stdout, re.M)
    assert re.search(r"^--- order/storm-\S+\n(.+\n)*.{19} billing charge_customer: payment\.charged", ran.stdout, re.M)
    assert re.fullmatch(r"chaos: \d+ sagas, 3 faults, [1-9]\d* violations", ran.stdout.splitlines()[-1])


async def test_what_is_not_possible_there_is_said_before_anything_is_harmed(tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    nobody = chaos(tmp_path / "nothing", tmp_path / "storm")
    assert nobody.returncode == 1
    assert f"no platform runs in {tmp_path / 'nothing'}. Start one: antiphon up --folder" in nobody.stderr
    assert "leave out --app" in chaos(folder, tmp_path / "storm", "--app", "antiphon.trips").stderr.replace("\n", " ")
    faults = tmp_path / "faults.toml"
    faults.write_text('[[faults]]\nat = 1.0\nkind = "partition"\ntarget = "billing"\nseconds = 1.0\n')
    with running_up(tmp_path) as up:
        await serving(up, folder)
        for options in (["--only", "partition"], ["--schedule", str(faults)]):
            ran = chaos(folder, tmp_path / "storm", *options)
            assert ran.returncode == 1
            assert "is not possible" in ran.stderr
            assert "the processes can be harmed only, by kill, stop, restart" in ran.stderr
        load = ("--load", "antiphon.deploy.chaos.trips:Trips")
        assert "processes that know" in chaos(folder, tmp_path / "storm", *load).stderr
        assert "starting it again" not in up.out.read_text()


async def test_no_process_is_harmed_that_the_platform_has_not_started(tmp_path: Path) -> None:
    """Such as one that has the number of one that ended, as far as its file says."""
    folder = tmp_path / "platform"
    with running_up(tmp_path) as up, sleeper() as other:
        await serving(up, folder)
        told = folder / "platform.json"
        state = json.loads(told.read_text())
        state["processes"]["billing"]["pid"] = other.pid
        told.write_text(json.dumps(state))
        there = RunningPlatform(folder)
        for harm in (there.kill, there.stop):
            with pytest.raises(PlatformError, match="is none of the platform's"):
                harm("billing")
        there.go_on("billing")
        assert not there.serves("billing")
        assert there.troubles.all() == []
        assert psutil.Process(other.pid).status() == psutil.STATUS_SLEEPING


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_signal_reaches_the_child_of_its_parent_alone() -> None:
    with sleeper() as child:
        with pytest.raises(PlatformError, match="is none of the platform's"):
            send_signal(child.pid, 1, signal.SIGKILL)
        assert is_child(child.pid, os.getpid())
        send_signal(child.pid, os.getpid(), signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert not is_child(child.pid, os.getpid())
    with pytest.raises(PlatformError, match=r"is not there any more|is none of the platform's"):
        send_signal(child.pid, os.getpid(), signal.SIGKILL)
