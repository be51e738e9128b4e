"""What the command line answers about sagas while a coordinator runs: what became of what was asked, and why not."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antiphon.contracts import subjects
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.topology import EVENTS
from tests.processes.test_command_line import INVENTORY, antiphon, assert_one_sentence, environment
from tests.support.server import Platform, platform

CLEARED = "tests.processes.clearing:clearing"
ASKED = '{"traveller": "Ada", "nights": 2}'


@contextmanager
def coordinating(up: Platform, *apps: str) -> Iterator[None]:
    """A coordinator that is ready."""
    command = [sys.executable, "-m", "antiphon.deploy", "coordinator", *(f"--app={app}" for app in apps)]
    process = subprocess.Popen(command, env=environment(up.servers), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("coordinator.ready" in line for line in process.stderr)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("answers"), participants=()) as running:
        asyncio.run(running.set_up())
        with coordinating(running, CLEARED):
            yield running


def signal(up: Platform, id: str, *more: str, by: str = "Ada") -> subprocess.CompletedProcess[str]:
    payload = json.dumps({"by": by})
    return antiphon("signal", id, "trip-cleared", "--app", CLEARED, "--payload", payload, *more, server=up.servers)


def start(up: Platform, id: str, *more: str) -> subprocess.CompletedProcess[str]:
    return antiphon("start", CLEARED, "--id", id, "--payload", ASKED, *more, server=up.servers)


async def _stored(up: Platform, id: str) -> list[str]:
    link = await up.connect("operator")
    try:
        return [each.subject for each in await link.read_all(EVENTS, [f"evt.*.*.{id}.>"])]
    finally:
        await link.close()


def test_a_signal_to_a_mistyped_id_is_refused_and_stored_nowhere(up: Platform) -> None:
    assert_one_sentence(signal(up, "typo"), "there is no saga clearing/typo; check its type and its id")
    assert asyncio.run(_stored(up, "typo")) == []


def test_a_signal_says_what_became_of_it(up: Platform) -> None:
    assert start(up, "s1").returncode == 0
    first, again = signal(up, "s1"), signal(up, "clearing/s1")
    assert first.stdout == "saga clearing/s1 waited for trip-cleared, and has it now.\n", first.stderr
    assert again.stdout == "saga clearing/s1 has got trip-cleared before, with the same payload. Nothing was changed.\n"
    assert_one_sentence(
        signal(up, "s1", by="Bob"), "saga clearing/s1 has got the signal trip-cleared before, with another"
    )


def test_a_signal_to_a_saga_that_has_ended_is_refused(up: Platform) -> None:
    assert start(up, "s2").returncode == 0
    assert antiphon("cancel", "s2", "--reason", "no more", server=up.servers).returncode == 0
    late = signal(up, "s2")
    assert_one_sentence(late, "the signal trip-cleared comes too late for saga clearing/s2: it has ended")
    assert subjects.signal_subject(SagaKey.of("clearing", "s2"), "trip-cleared") not in asyncio.run(_stored(up, "s2"))


def test_a_signal_waits_for_a_start_where_that_is_asked_for(up: Platform) -> None:
    told = signal(up, "s3", "--wait-for-start", "--json")
    assert json.loads(told.stdout) == {
        "type": "clearing", "id": "s3", "signal": "trip-cleared", "prospect": "unstarted",
    }  # fmt: skip
    ended = start(up, "s3", "--wait", "--json")
    assert json.loads(ended.stdout)["outcome"] == "completed"


def test_a_start_of_a_saga_that_is_there_says_how_it_stands(up: Platform) -> None:
    assert "saga clearing/b1 is started." in start(up, "b1").stdout
    again = start(up, "b1")
    assert again.stdout.startswith("saga clearing/b1 was started before, with the same payload. Follow it"), (
        again.stderr
    )
    assert signal(up, "b1").returncode == 0
    ended = start(up, "b1")
    assert ended.stdout == "saga clearing/b1 was started before, with the same payload, and has ended: completed.\n"
    told = json.loads(start(up, "b1", "--json").stdout)
    assert (told["was_started"], told["outcome"], told["version"]) == (True, "completed", 1)


def test_a_start_with_another_version_is_refused_before_it_is_stored(up: Platform) -> None:
    other = start(up, "v1", "--version", "2")
    assert_one_sentence(other, "saga clearing/v1 would begin with version 1, and version 2 was asked for. Nothing was")
    assert asyncio.run(_stored(up, "v1")) == []
    assert start(up, "v1", "--version", "1").returncode == 0
    assert_one_sentence(start(up, "v1", "--version", "2"), "saga clearing/v1 runs with version 1, and version 2 was")


def test_a_list_says_that_there_are_more_sagas_than_it_shows(up: Platform) -> None:
    for id in ("l1", "l2"):
        assert start(up, id).returncode == 0
    listed = antiphon("list", "--limit", "1", "--json", server=up.servers)
    assert len(json.loads(listed.stdout)) == 1
    assert re.search(r"these are the 1 that were started last, of \d+\. Show more with --limit", listed.stderr)
    assert antiphon("list", server=up.servers).stderr == ""


def test_what_a_list_is_asked_for_is_checked_before_the_read_model_is_wanted() -> None:
    for option, value, said in (
        ("--state", "nonsense", "--state: 'nonsense' is no state of a saga; they are running, compensating, completed"),
        ("--older-than", "soon", "--older-than: 'soon' is no time. Give a number with s, m, h or d"),
        ("--key", "nonsense", "--key: 'nonsense' is no key. Give name=value"),
        ("--state", "running", "--state needs the read model"),
    ):
        assert_one_sentence(antiphon("list", option, value), said, code=1 if "needs" in said else 2)


def test_a_misspelt_field_is_refused_before_anything_is_sent(up: Platform) -> None:
    payload = '{"traveller": "Ada", "nights": 2, "nigths": 3}'
    started = antiphon("start", CLEARED, "--id", "m1", "--payload", payload, server=up.servers)
    assert_one_sentence(started, "TripAsked has no field 'nigths'; did you mean 'nights'? Nothing was sent.")
    told = ("signal", "m1", "trip-cleared", "--app", CLEARED, "--payload", '{"by": "Ada", "nots": "x"}')
    assert_one_sentence(antiphon(*told, server=up.servers), "Cleared has no field 'nots'; did you mean 'note'?")
    assert asyncio.run(_stored(up, "m1")) == []


def test_a_platform_is_waited_for_until_it_is_ready(up: Platform) -> None:
    for more in (("--app", CLEARED), ("--type", "clearing"), ()):
        ready = antiphon("wait", *more, server=up.servers)
        assert (ready.returncode, ready.stderr) == (0, "")
        assert ready.stdout == "ready: 1 coordinator of clearing v1, and no participants.\n"
    found = json.loads(antiphon("wait", "--json", server=up.servers).stdout)
    assert found == {
        "ready": True,
        "missing": [],
        "coordinators": 1,
        "sagas": ["clearing v1"],
        "participants": [],
    }


def test_what_is_missing_of_a_platform_is_said(up: Platform) -> None:
    wanted = ("--participant", "billing", "--app", "antiphon.order.saga:order", "--timeout", "0")
    late = antiphon("wait", *wanted, server=up.servers)
    missing = "a coordinator of order v1; participant billing; participant inventory; participant shipping"
    assert_one_sentence(late, f"not ready within 0 s. Missing: {missing}")
    told = antiphon("wait", *wanted, "--json", server=up.servers)
    assert (told.returncode, json.loads(told.stdout)["missing"]) == (1, missing.split("; "))
    nobody = antiphon("wait", "--timeout", "0.5")
    assert_one_sentence(nobody, "antiphon: waits for no NATS server answers", "not ready within 0.5 s")


def test_without_streams_or_coordinators_it_is_not_ready(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as empty:
        assert_one_sentence(antiphon("wait", "--timeout", "0", server=empty.servers), "the streams", "antiphon setup")
        asyncio.run(empty.set_up())
        assert_one_sentence(antiphon("wait", "--timeout", "0", server=empty.servers), "Missing: a coordinator")


def test_how_much_is_logged_is_said_by_the_environment(monkeypatch: pytest.MonkeyPatch, up: Platform) -> None:
    for name, value, said in (
        ("ANTIPHON_LOG_LEVEL", "loud", "ANTIPHON_LOG_LEVEL is 'loud'; give debug, info, warning or error."),
        ("ANTIPHON_LOG", "loud", "ANTIPHON_LOG is 'loud'; give text or json."),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            assert_one_sentence(antiphon("list", server=up.servers), said)
    monkeypatch.setenv("ANTIPHON_LOG_LEVEL", "Error")
    ran = antiphon("participant", INVENTORY, "--database", "memory:", server=up.servers)  # which nobody set up
    assert "participant.waits" not in ran.stderr
    assert_one_sentence(ran, "antiphon setup --participant inventory")
