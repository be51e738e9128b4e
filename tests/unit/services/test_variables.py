"""Variables that nobody reads are told, and no others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.deploy.services.variables import known_variables, unknown_variables

ROOT = Path(__file__).parents[3]
FOLDERS = ("contracts", "coordinator", "participants", "tracing", "deploy", "tests")
NO_VARIABLES = {
    *("ANTIPHON_PARTICIPANTS", "ANTIPHON_READMODELS"),  # buckets
    *("ANTIPHON_PROBE", "ANTIPHON_SETUP"),  # streams
}
KUBERNETES = {
    "ANTIPHON_PORT": "tcp://10.0.0.1:4222",
    "ANTIPHON_SERVICE_HOST": "10.0.0.1",
    "ANTIPHON_SERVICE_PORT": "4222",
    "ANTIPHON_NATS_SERVICE_HOST": "10.0.0.1",
    "ANTIPHON_NATS_SERVICE_PORT": "4222",
    "ANTIPHON_NATS_SERVICE_PORT_CLIENT": "4222",
    "ANTIPHON_NATS_PORT": "tcp://10.0.0.1:4222",
    "ANTIPHON_NATS_PORT_4222_TCP": "tcp://10.0.0.1:4222",
    "ANTIPHON_NATS_PORT_4222_TCP_PROTO": "tcp",
    "ANTIPHON_NATS_PORT_4222_TCP_PORT": "4222",
    "ANTIPHON_NATS_PORT_4222_TCP_ADDR": "10.0.0.1",
    "ANTIPHON_DNS_PORT_53_UDP": "udp://10.0.0.1:53",
}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ANTIPHON_LOG_LEVLE", "did you mean ANTIPHON_LOG_LEVEL?"),
        ("ANTIPHON_CONCURENCY", "did you mean ANTIPHON_CONCURRENCY?"),
        ("antiphon_log_level", "did you mean ANTIPHON_LOG_LEVEL?"),
        ("ANTIPHON_READMODEL_FIL", "did you mean ANTIPHON_READMODEL_FILE?"),
        ("ANTIPHON_HTTP_PORT", "did you mean ANTIPHON_HTTP?"),
        ("ANTIPHON_ZZZZZZZZZZ", "antiphon settings lists those that there are."),
    ],
)
def test_a_misspelt_variable_is_told_with_the_one_that_was_meant(name: str, hint: str) -> None:
    found = unknown_variables({name: "8080", "NATS_URL": "x", "ANTIPHON_LOG": "json"})
    assert found == {name: f"{name} is set, and is no variable of Antiphon; {hint}"}


def test_what_says_where_services_are_is_no_mistake() -> None:
    assert unknown_variables(KUBERNETES) == {}


def test_each_variable_that_is_written_somewhere_is_known() -> None:
    known = known_variables() | NO_VARIABLES
    seen, unknown = set[str](), set[str]()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".yml", ".tpl", ".toml") and path != Path(__file__):
                written = re.findall(r"""["' ](ANTIPHON_[A-Z_]*[A-Z])["':=]""", path.read_text("utf-8"))
                seen |= {*written}
                unknown |= {f"{name} in {path.relative_to(ROOT)}" for name in written if name not in known}
    assert unknown == set()
    assert {"ANTIPHON_KILL_AT", "ANTIPHON_LOG_LEVEL", "ANTIPHON_JAEGER_URL", "ANTIPHON_EXPECT_WHEEL"} <= seen


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "NATS_URL": "nats://127.0.0.1:1",
        "COLUMNS": "200",
        "ANTIPHON_LOG": "json",
        **variables,
    }
    command = [sys.executable, "-m", "antiphon.deploy", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_command_tells_it_in_a_line() -> None:
    ran = run("list", ANTIPHON_LOG_LEVLE="debug")
    first = (
        "antiphon: note: ANTIPHON_LOG_LEVLE is set, and is no variable of Antiphon; did you mean ANTIPHON_LOG_LEVEL?"
    )
    assert ran.stderr.splitlines()[0] == first
    assert "note" not in run("list", **KUBERNETES).stderr


def test_the_settings_have_it_among_what_is_wrong() -> None:
    ran = run("settings", "participant", ANTIPHON_CONCURENCY="3", ANTIPHON_GRACE_SECONDS="nan")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        "ANTIPHON_CONCURENCY is set, and is no variable of Antiphon; did you mean ANTIPHON_CONCURRENCY?" in ran.stderr
    )
    assert "ANTIPHON_GRACE_SECONDS: " in ran.stderr
    assert ran.stderr.count("ANTIPHON_CONCURENCY") == 1
    alone = run("settings", "--json", ANTIPHON_CONCURENCY="3")
    assert alone.returncode == 2
    assert "ANTIPHON_CONCURENCY" in alone.stderr
    assert any(each["setting"] == "concurrency" for each in json.loads(alone.stdout))


def test_a_process_warns_of_it_in_its_log() -> None:
    ran = run("coordinator", "--app", "nowhere", ANTIPHON_LOG_LEVLE="debug")
    line = json.loads(ran.stderr.splitlines()[0])
    assert (line["event"], line["level"]) == ("settings.unknown", "warning")
    assert line["variable"] == "ANTIPHON_LOG_LEVLE"
    assert line["why"].endswith("did you mean ANTIPHON_LOG_LEVEL?")
