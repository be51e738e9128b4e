"""`antiphon chaos`: real processes in a short storm, what it says of it, and what it says of a violation."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from msgspec import json
from typer.testing import CliRunner, Result

from antiphon.deploy.chaos import storm
from antiphon.deploy.chaos.disks import why_not
from antiphon.deploy.cli import storms
from antiphon.deploy.cli.main import app

SMALL = ("--servers=1", "--coordinators=1", "--workers=1", "--no-exporter", "--no-readmodel", "--no-small-disks")
TWICE = """
CREATE TRIGGER twice AFTER INSERT ON ledger WHEN NEW.number % 20 = 0
AND NOT EXISTS (SELECT 1 FROM ledger GROUP BY saga, entry HAVING count(*) > 1) BEGIN
INSERT INTO ledger (saga, entry, account, amount, reference, idempotency_key)
VALUES (NEW.saga, NEW.entry, NEW.account, NEW.amount, NEW.reference, NEW.idempotency_key); END
"""


def chaos(folder: Path, *arguments: str) -> Result:
    """In this process, so that it can be patched; no server dies in it."""
    return CliRunner().invoke(app, ["chaos", "--folder", str(folder), *arguments])


def chaos_beside(folder: Path, *arguments: str, stderr: int | None = None) -> subprocess.Popen[str]:
    """In a process of its own, as it is used."""
    command = [sys.executable, "-m", "antiphon.deploy", "chaos", "--folder", str(folder), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)


def test_orders_survive_a_storm_and_its_schedule_is_kept(tmp_path: Path) -> None:
    asked = ("--seed", "12", "--faults", "8", "--every", "1.5", *([] if not why_not() else ["--without", "fill"]))
    with chaos_beside(tmp_path / "storm", *asked, "--summary", str(tmp_path / "storm.md")) as ran:
        told, _ = ran.communicate()
    assert ran.returncode == 0, told
    said = re.fullmatch(r"chaos: (\d+) sagas, 8 faults, 0 violations", told.splitlines()[-1])
    assert said is not None
    assert int(said[1]) > 10
    assert re.search(r"^\d+ compensated, \d+ completed; .* sagas/s over .* seed 12; the machine's load", told, re.M)
    kept = (tmp_path / "storm/faults.toml").read_text()
    assert kept == chaos(tmp_path / "plan", *asked, "--plan").stdout
    assert not (tmp_path / "plan").exists(), "a plan starts nothing"
    document = (tmp_path / "storm.md").read_text().splitlines()
    assert {"| seed | 12 |", "| faults | 8 |", "| servers | 3 |", f"| sagas | {said[1]} |"} <= {*document}
    assert any("nats-server" in line for line in document if line.startswith("| versions |"))
    assert document[-1] == f"`{said[0]}`"


def test_planned_restarts_cost_no_attempt(tmp_path: Path) -> None:
    """Of coordinators and workers alone: a server that ends takes deliveries with it."""
    names = ("billing-1", "coordinator-1", "inventory-2", "shipping-1", "billing-2", "inventory-1")
    faults = [
        f'[[faults]]\nat = {2.0 + 2 * each}\nkind = "restart"\ntarget = "{name}"' for each, name in enumerate(names)
    ]
    (tmp_path / "restarts.toml").write_text("seed = 7\n" + "\n".join(faults))
    platform = [each for each in SMALL if "workers" not in each]
    asked = (*platform, "--workers=2", "--schedule", str(tmp_path / "restarts.toml"), "--at-once=30", "--json")
    with chaos_beside(tmp_path / "storm", *asked, stderr=subprocess.PIPE) as ran:
        told, said = ran.communicate()
    assert ran.returncode == 0, told + said
    score = json.decode(told)
    assert (score["faults"], score["violations"]) == (len(names), [])


def test_a_storm_over_several_pairs_of_streams_kills_the_leader_of_each_in_turn(tmp_path: Path) -> None:
    kills = [f'[[faults]]\nat = {3 + 6 * number}.0\nkind = "kill"\ntarget = "leader"\n' for number in range(3)]
    (tmp_path / "mine.toml").write_text("\n".join(kills))
    asked = ("--streams", "2", "--no-small-disks", "--schedule", str(tmp_path / "mine.toml"))
    with chaos_beside(tmp_path / "storm", *asked, "--summary", str(tmp_path / "storm.md")) as ran:
        told, _ = ran.communicate()
    assert ran.returncode == 0, told
    assert re.fullmatch(r"chaos: \d+ sagas, 3 faults, 0 violations", told.splitlines()[-1])
    assert "3 servers, 2 pairs of streams; all of it stays in" in told
    assert "| servers | 3, 2 pairs of streams |" in (tmp_path / "storm.md").read_text()


KINDS = r"""
poison client|target = "client"
poison participant|target = "billing"\nmessage = "oversize"
raise in a handler|step = "reserve_inventory"\nerror = "SystemExit"
hang (wait) in a handler|step = "reserve_inventory"\nhow = "wait"
hang (deaf) in a handler|step = "reserve_inventory"\nhow = "deaf"
hang (block) in a compensation|step = "charge_customer"\nhow = "block"\nseconds = 2.0\ndirection = "undo"
stop backend|target = "backend"\nseconds = 3.0
kill exporter|target = "exporter"
kill readmodel|target = "readmodel"
lock database|target = "shipping"\nseconds = 2.0
outage (kill)|target = "nats-server-1"\nhow = "kill"\nseconds = 3.0
outage (stop)|target = "nats-server-2"\nhow = "stop"\nseconds = 3.0
outage (partition)|target = "nats-server-3"\nhow = "partition"\nseconds = 3.0
"""


def test_faults_of_all_kinds_in_a_file_come_about_and_stand_in_the_table(tmp_path: Path) -> None:
    lines = KINDS.strip().splitlines() + ([] if why_not() else [r'fill disk|target = "inventory"\nseconds = 2.0'])
    faults = [line.replace(r"\n", "\n").split("|") for line in lines]
    blocks = [
        f'[[faults]]\nat = {2 + 2 * number}\nkind = "{sort.partition(" ")[0]}"\n{rest}\n'
        for number, (sort, rest) in enumerate(faults)
    ]
    (tmp_path / "mine.toml").write_text("\n".join(blocks))
    asked = ("--workers", "1", "--handler-seconds", "2", "--schedule", str(tmp_path / "mine.toml"), "--json")
    with chaos_beside(tmp_path / "storm", *asked, stderr=subprocess.PIPE) as ran:
        out, told = ran.communicate()
    score = json.decode(out)
    assert (score["violations"], score["impossible"]) == ([], []), told
    assert {row["sort"] for row in score["rows"]} == {sort for sort, _ in faults}
    assert "outage (kill) of all servers but nats-server-1 for 3 s" in told
    assert "poison oversize billing" in told


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_a_storm_that_is_told_to_end_ends_what_it_started_and_says_how_to_have_it_again(
    tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    with chaos_beside(tmp_path, *SMALL, "--seed", "3", "--minutes", "10", stderr=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.readline()
        children = psutil.Process(ran.pid).children(recursive=True)
        assert len(children) > 4
        for number in signals:
            ran.send_signal(number)
        told = ran.stderr.read()
    assert ran.returncode not in (0, 1)
    assert f"--schedule {tmp_path / 'faults.toml'} has the same faults again" in told
    assert (tmp_path / "faults.toml").exists()
    assert psutil.wait_procs(children, timeout=120)[1] == []


def test_a_ledger_line_that_is_there_twice_fails_it_with_the_sagas_timeline(tmp_path: Path) -> None:
    with chaos_beside(tmp_path, *SMALL, "--seed", "3", "--faults", "3") as ran:
        assert ran.stdout is not None
        assert "seed 3, 3 faults, 4 processes, 1 server;" in ran.stdout.readline(), "its databases are there"
        with sqlite3.connect(tmp_path / "billing.db", timeout=60) as database:
            database.executescript(TWICE)
        told = ran.stdout.read()
    assert ran.returncode == 1
    assert re.search(r"^I3 order/storm-\d+: billing has 2 lines of what step charge_customer has done", told, re.M)
    assert re.search(r"^I2 billing: order/storm-\d+ has 2 lines where something was charged", told, re.M)
    assert re.search(r"^--- order/storm-\d+\n(.+\n)*.{19} billing charge_customer: payment\.charged", told, re.M)
    assert re.fullmatch(r"chaos: \d+ sagas, 3 faults, [1-9]\d* violations", told.splitlines()[-1])


def test_sagas_of_a_teams_own_run_and_a_fault_that_does_not_come_about_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_TEST_CARELESS_LEDGER", str(tmp_path / "charges"))
    monkeypatch.setattr(storm, "COMES_ABOUT_SECONDS", 2.0)
    (tmp_path / "sales.jsonl").write_text('{"amount": 7}\n{"amount": 8}\n')
    (tmp_path / "mine.toml").write_text(
        '[[faults]]\nat = 0.5\nkind = "kill"\ntarget = "till"\n\n'
        '[[faults]]\nat = 1\nkind = "point"\ntarget = "till"\npoint = "before_effect"\n'
    )
    own = ("--app", "tests.chaos.careless", "--payload", str(tmp_path / "sales.jsonl"))
    ran = chaos(tmp_path / "storm", *SMALL, *own, "--schedule", str(tmp_path / "mine.toml"), "--json")
    assert ran.exit_code == 1, ran.output
    score = json.decode(ran.stdout)
    assert (score["violations"], score["faults"], set(score["outcomes"])) == ([], 1, {"completed"})
    assert any(
        each.startswith("point till at before_effect (at 1 s) was not possible") for each in score["impossible"]
    ), score


def test_a_kind_that_is_not_possible_here_fails_a_storm_in_which_all_else_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storms, "why_not", lambda: "nobody may mount anything.")
    asked = [each for each in SMALL if each != "--no-small-disks"]
    ran = chaos(tmp_path / "storm", *asked, "--faults", "1", "--without", "point", "--json")
    score = json.decode(ran.stdout)
    assert (ran.exit_code, score["violations"]) == (1, [])
    assert score["impossible"] == [
        "no fault of the kind fill is possible here, which fails this run: nobody may mount anything. "
        "--without fill leaves that kind out."
    ]


def test_what_cannot_be_run_is_told_before_anything_is_started(tmp_path: Path) -> None:
    for arguments, sentence in (
        (("--app", "tests.chaos.careless"), "it is not said what sagas of type sale begin with: --payload FILE"),
        (("--payload", "x"), "--payload is for sagas of your own"),
        (("--app", "tests.chaos.careless", "--saga", "gift"), "say with --saga which sagas to run: sale"),
        (("--schedule", str(tmp_path / "none.toml")), "cannot read the schedule"),
    ):
        ran = chaos(tmp_path / "storm", *arguments)
        assert ran.exception is not None
        assert sentence in str(ran.exception)
    assert not [*(tmp_path / "storm").glob("nats/**/store")]
