"""Settings of processes: where they come from, which of several holds, and what is said of all mistakes at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from antiphon.deploy.cli.main import app
from antiphon.deploy.services.declared import COORDINATOR, EXPORTER, PARTICIPANT, READMODEL, SERVICES, credentials_of
from antiphon.deploy.services.running import options_of, settings_of
from antiphon.deploy.services.settings import Mistaken

NEEDED = {"DATABASE_URL": "memory:", "ANTIPHON_PARTICIPANT": "shop:stock"}


def toml(folder: Path, text: str) -> str:
    path = folder / "antiphon.toml"
    path.write_text(text)
    return str(path)


def test_an_option_holds_before_a_variable_and_that_before_a_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'concurrency = 1\nserver = "nats://file"\n[participant]\nconcurrency = 2\nhttp = "a:1"\n')
    environment = {**NEEDED, "ANTIPHON_SETTINGS": file, "NATS_URL": "nats://variable"}
    found = settings_of(PARTICIPANT, {}, environment)
    assert (found["concurrency"], found["server"], found["http"]) == (2, "nats://variable", "a:1")
    origins = {value.setting.key: value.origin for value in found}
    assert origins["concurrency"] == f"{file}, participant.concurrency"
    assert (origins["server"], origins["handler_seconds"]) == ("NATS_URL", "default")
    options = options_of(PARTICIPANT, ["--concurrency", "3", "-s", "nats://option", "other:stock"])
    assert options is not None
    found = settings_of(PARTICIPANT, options, environment)
    assert (found["concurrency"], found["server"], found["participant"]) == (3, "nats://option", "other:stock")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    environment = {
        "DATABASE_URL_FILE": str(tmp_path / "absent"),
        "ANTIPHON_CONCURRENCY": "0",
        "ANTIPHON_GRACE_SECONDS": "nan",
        "ANTIPHON_ERROR_TEXTS": "perhaps",
        "ANTIPHON_HTTP": "nowhere",
        "ANTIPHON_LOG": "xml",
    }
    with pytest.raises(Mistaken) as raised:
        settings_of(PARTICIPANT, {"handler_seconds": "soon"}, environment)
    first, *said = str(raised.value).split("\n")
    assert first == "these settings cannot hold:"
    assert [line.split(" ")[0] for line in said] == [
        "ANTIPHON_PARTICIPANT",
        "DATABASE_URL_FILE:",
        "ANTIPHON_CONCURRENCY:",
        "--handler-seconds:",
        "ANTIPHON_GRACE_SECONDS:",
        "ANTIPHON_ERROR_TEXTS:",
        "ANTIPHON_HTTP:",
        "ANTIPHON_LOG:",
    ]
    assert "'0' is not a whole number from 1 to 10000" in said[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concurency = 3", "concurency is no setting; did you mean concurrency?"),
        ("[participants]\nconcurrency = 3", "[participants] is no table; there are coordinator, exporter"),
        ("[participant]\nbound = 3", "participant.bound is no setting; there are app"),
        ("[coordinator]\nservr = 'x'", "coordinator.servr is no setting; did you mean server?"),
        ("concurrency = 3.5", "concurrency: 3.5 is not a whole number"),
        ("concurrency = true", "concurrency: True is not a whole number"),
        ("error_texts = 'x'", "error_texts: 'x' is neither true nor false"),
        ("http = 9464", "http: give a text, not 9464"),
        ("x = ", "is no TOML"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Mistaken, match=r"no setting|no table|number|neither|text|TOML") as raised:
        settings_of(PARTICIPANT, {"settings": toml(tmp_path, text)}, NEEDED)
    assert said in str(raised.value)
    assert "antiphon.toml" in str(raised.value)


def test_all_mistakes_are_told_at_once_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = toml(tmp_path, "concurency = 3\nhttp = 5\n[participants]\n")
    with pytest.raises(Mistaken) as raised:
        settings_of(PARTICIPANT, {"settings": file}, {**NEEDED, "ANTIPHON_LOG": "loud"})
    assert len(str(raised.value).splitlines()) == 5
    monkeypatch.setenv("ANTIPHON_LOG", "loud")
    ran = CliRunner().invoke(app, ["settings", "participant", "--settings", file])
    assert ran.exit_code == 2
    assert len(ran.stderr.splitlines()) == 5


def test_a_file_is_for_all_processes_and_keys_of_another_one_are_no_mistake(tmp_path: Path) -> None:
    file = toml(tmp_path, "handler-seconds = 5\n[coordinator]\napp = ['shop', 'returns']\nopen_max = ['order=5']\n")
    assert settings_of(COORDINATOR, {}, {"ANTIPHON_SETTINGS": file})["app"] == ["shop", "returns"]
    assert settings_of(PARTICIPANT, {}, {**NEEDED, "ANTIPHON_SETTINGS": file})["handler_seconds"] == 5
    assert settings_of(EXPORTER, {}, {"ANTIPHON_SETTINGS": file})["slow"] == 10


def test_a_list_is_given_several_times_or_with_commas() -> None:
    options = options_of(COORDINATOR, ["--app", "shop.saga:order", "--app=returns"])
    assert options is not None
    assert settings_of(COORDINATOR, options, {})["app"] == ["shop.saga:order", "returns"]
    assert settings_of(COORDINATOR, {}, {"ANTIPHON_APP": "shop, returns"})["app"] == ["shop", "returns"]


@pytest.mark.parametrize("text", ["order", "order=", "=5", "order=0", "order=1e3", "order=٣", "order=100001"])
def test_a_bound_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Mistaken, match=r"--open-max: .* give a type and a number from 1 to 100000"):
        settings_of(COORDINATOR, {"app": ["shop"], "open_max": [text]}, {})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["--unknown"], ["--database"], ["a:b", "c:d"], ["--conc", "1"]]
)
def test_a_command_line_that_asks_for_help_or_is_wrong_is_left_to_the_command_lines_library(
    arguments: list[str],
) -> None:
    assert options_of(PARTICIPANT, arguments) is None


def test_secrets_come_from_files_and_are_shown_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "NATS_PASSWORD"):
        path = tmp_path / name
        path.write_text(f"postgresql://of-{name}:hidden@db/x\n")
        monkeypatch.setenv(f"{name}_FILE", str(path))
    monkeypatch.setenv("NATS_USER", "billing")
    monkeypatch.setenv("NATS_URL", "nats://me:hidden@nats-1:4222,nats://me:a/b@hidden@nats-2:4222")
    for arguments in (["settings"], ["settings", "participant", "--json"]):
        ran = CliRunner().invoke(app, arguments, env={"COLUMNS": "250"})
        assert ran.exit_code == 0, ran.output
        assert "hidden" not in ran.output
        assert "DATABASE_URL_FILE" in ran.output
    import os

    found = settings_of(PARTICIPANT, {"participant": "a:b"}, os.environ)
    assert found["database"] == "postgresql://of-DATABASE_URL:hidden@db/x"
    credentials = credentials_of(found)
    assert (credentials.user, credentials.password) == ("billing", "postgresql://of-NATS_PASSWORD:hidden@db/x")


def test_settings_lists_every_setting_of_every_process_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_CONCURRENCY", "4")
    ran = CliRunner().invoke(app, ["settings", "--json"])
    found: list[dict[str, Any]] = json.loads(ran.output)
    shown = {(each["process"], each["setting"]) for each in found}
    for service in SERVICES.values():
        for setting in service.own:
            assert (service.name, setting.key) in shown
    (concurrency,) = [each for each in found if each["setting"] == "concurrency"]
    assert (concurrency["value"], concurrency["origin"], concurrency["default"]) == (4, "ANTIPHON_CONCURRENCY", 16)
    refused = CliRunner().invoke(app, ["settings", "participants"])
    assert refused.exit_code == 2
    assert "there is no process 'participants'; there are coordinator" in " ".join(refused.output.split())


@pytest.mark.parametrize("service", SERVICES.values(), ids=lambda service: service.name)
def test_no_two_settings_of_a_process_are_called_alike(service: Any) -> None:
    for names in ([each.key for each in service.settings], [each.variable for each in service.settings]):
        assert len(names) == len({*names})


@pytest.mark.parametrize("service", SERVICES.values(), ids=lambda service: service.name)
def test_help_names_every_option_and_its_variable(service: Any) -> None:
    ran = CliRunner().invoke(app, [service.name, "--help"], env={"COLUMNS": "200"})
    assert ran.exit_code == 0
    for setting in service.settings:
        if setting.has_option:
            assert setting.variable in ran.output
            assert setting.is_argument or f"--{setting.name}" in ran.output


def test_readmodel_and_participant_have_databases_of_their_own() -> None:
    environment = {**NEEDED, "ANTIPHON_READMODEL": "sqlite:///sagas.db"}
    assert settings_of(READMODEL, {}, environment)["database"] == "sqlite:///sagas.db"
    assert settings_of(PARTICIPANT, {}, environment)["database"] == "memory:"
