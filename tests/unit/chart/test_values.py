"""The chart's values: a typo is refused, by the schema alone and by helm, and what is wrong is said."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import jsonschema
import pytest
import yaml

from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import BOUND_MAX, RECOVERY_SECONDS
from antiphon.deploy.services.declared import COORDINATOR, EXPORTER, PARTICIPANT, READMODEL, Service
from tests.unit.chart.chart import CHART, FOLDER, VALUES, Document, find_helm, merged, over, render, run_helm
from tests.unit.packaging.project import ROOT, settings
from tests.unit.packaging.readme import blocks

PAGE: Final = ROOT / "deploy/docs/kubernetes.md"
SCHEMA: Final[Document] = json.loads((CHART / "values.schema.json").read_text())
GIVEN_BY_THE_CHART: Final = {
    *("NATS_URL", "NATS_USER", "NATS_PASSWORD", "NATS_CREDS", "NATS_NKEY", "NATS_CA", "NATS_CERT", "NATS_KEY"),
    *("ANTIPHON_APP", "ANTIPHON_PARTICIPANT", "DATABASE_URL", "ANTIPHON_READMODEL"),
    *("ANTIPHON_HTTP", "ANTIPHON_GRACE_SECONDS"),
}
OF_NO_USE: Final = {"ANTIPHON_NAME", "ANTIPHON_SETTINGS", "ANTIPHON_REBUILD", "ANTIPHON_ONCE"}
"""The server's monitoring knows users; there is no file of settings; and each restart would rebuild, or end at once."""


def faults(values: Document) -> list[str]:
    return [error.json_path for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(values)]


def changed(path: str, value: Any, name: str = "everything") -> Document:
    """Values with one that is set, by a path such as participants.0.name; None takes it away."""
    found = copy.deepcopy(merged(name))
    *parents, last = path.split(".")
    place: Any = found
    for each in parents:
        place = place[int(each)] if isinstance(place, list) else place[each]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return found


def test_the_chart_is_of_the_projects_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == settings()["project"]["version"]


@pytest.mark.parametrize("name", ["nats", "jaeger"])
def test_others_are_of_the_releases_that_compose_has(name: str) -> None:
    values = yaml.safe_load((FOLDER / f"others/{name}.yaml").read_text())
    image = values["container" if name == "nats" else name]["image"]
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"][name]["image"]
    assert compose.endswith(f":{image['tag']}")


def test_the_servers_lose_nothing_when_the_power_fails() -> None:
    """As in nats.conf.example: three servers, and an fsync before each confirmation."""
    config = yaml.safe_load((FOLDER / "others/nats.yaml").read_text())["config"]
    assert config["cluster"] == {"enabled": True, "replicas": 3}
    assert config["jetstream"]["merge"] == {"sync_interval": "always"}
    assert "sync_interval: always" in (ROOT / "deploy/nats.conf.example").read_text()


def test_the_values_of_the_page_are_taken() -> None:
    found = [yaml.safe_load("\n".join(each.lines)) for each in blocks(PAGE.read_text()) if each.language == "yaml"]
    whole, bounds, scaling = found
    assert faults(over(yaml.safe_load((CHART / "values.yaml").read_text()), whole)) == []
    assert faults(over(merged("everything"), bounds)) == []
    assert faults(changed("participants.1.scaling", scaling["scaling"])) == []


def test_the_page_tells_the_times_that_a_start_from_zero_is_given() -> None:
    """And the four seconds in which what a worker holds that dies is done by another."""
    defaults = (CHART / "templates/_scaling.tpl").read_text()
    (polling,) = re.findall(r'"pollingSeconds" (\d+)', defaults)
    (starting,) = re.findall(r'"startSeconds" (\d+)', defaults)
    assert f"addf $scaling.pollingSeconds $scaling.startSeconds {RECOVERY_SECONDS:g} " in defaults
    said = " ".join(PAGE.read_text().split())
    assert f"(`pollingSeconds`, {polling})" in said
    assert f"(`startSeconds`, {starting} unless" in said
    assert f"`pollingSeconds` + `startSeconds` + {RECOVERY_SECONDS:g} s" in said.replace("> ", "")


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", VALUES)
def test_values_of_the_examples_are_taken(name: str) -> None:
    assert faults(merged(name)) == []


def objects(schema: Any, place: str = "#") -> Iterator[tuple[str, Document]]:
    """All parts of the schema that name the keys of an object by themselves."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield place, schema
        for key, value in schema.items():
            yield from objects(value, f"{place}/{key}")


def test_every_object_with_names_refuses_others() -> None:
    found = list(objects(SCHEMA))
    assert len(found) > 20
    assert [place for place, each in found if each.get("additionalProperties") is not False] == []


def test_the_schema_and_the_values_have_the_same_keys() -> None:
    """Of the top, and of each part but the participants', which have no defaults."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(SCHEMA["properties"]) - {"global"}
    for key, part in SCHEMA["properties"].items():
        if "properties" in part:
            assert set(values[key]) == set(part["properties"]), key


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("participant", []),
        ("coordinator.replica", 3),
        ("coordinator.apps", []),
        ("coordinator.rights.secret", ""),
        ("coordinator.rights.password", "hunter2"),
        ("coordinator.settings.ANTIPHON_OPENMAX", "order=1"),
        ("coordinator.settings.ANTIPHON_CONCURRENCY", 4),
        ("participants.0.modul", "shop.stock:inventory"),
        ("participants.0.module", "shop.stock"),
        ("participants.0.module", None),
        ("participants.0.name", "a b"),
        ("participants.0.settings.ANTIPHON_CONCURRENCY", 0),
        ("participants.0.settings.ANTIPHON_GRACE_SECONDS", 5),
        ("participants.0.database.url", "postgresql://shop:hunter2@db/shop"),
        ("participants.1.scaling.minimum", 0),
        ("participants.1.replicas", 3),
        ("participants.2.scaling.stepTimeoutSeconds", None),
        ("participants.2.scaling.stepTimeoutSeconds", "soon"),
        ("image.repository", ""),
        ("image.digest", "latest"),
        ("nats.url", "nats://shop:hunter2@nats:4222"),
        ("nats.tls.secretName", "x"),
        ("otlp.endpoint", "jaeger:4318"),
        ("environment.ANTIPHON_HTTP", "0.0.0.0:1"),
        ("environment.OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2"),
        ("environment.OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere:4318"),
        ("settings.ANTIPHON_LOG_LEVEL", "loud"),
        ("setup.replicas", 7),
        ("setup.rights.secret", ""),
        ("setup.allow", ["fewer-replica"]),
        ("setup.allow", "lost-messages"),
        ("setup.bounds.0.open", 0),
        ("setup.bounds.0.open", BOUND_MAX + 1),
        ("setup.bounds.0.open", None),
        ("setup.bounds.0.client", "web=order"),
        ("setup.bounds.0.number", 10),
        ("readmodel.database.secret", ""),
        ("networkPolicy.nat", {}),
        ("serviceMonitor.interval", "often"),
        ("keda.url", "nats:8222"),
    ],
)
def test_a_typo_is_refused(path: str, value: Any) -> None:
    assert faults(changed(path, value)) != []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("participants.2.scaling.stepTimeoutSeconds", "none"),
        ("setup.rights.secret", "administrator"),
        ("setup.allow", [each.value for each in Loss]),
        ("setup.bounds.0.open", BOUND_MAX),
        ("global", {"of": "a chart above"}),
        ("nats.url", "nats://nats-1:4222,nats://nats-2:4222"),
    ],
)
def test_what_is_right_is_taken(path: str, value: Any) -> None:
    assert faults(changed(path, value)) == []


def test_what_is_off_needs_no_secret() -> None:
    values = merged("small")
    values["setup"] = {"enabled": False, "rights": {"secret": ""}}
    values["exporter"] = {**values["exporter"], "enabled": False, "rights": {"secret": ""}}
    assert faults(values) == []


@pytest.mark.parametrize("service", [COORDINATOR, PARTICIPANT, EXPORTER, READMODEL], ids=lambda each: each.name)
def test_every_setting_of_a_process_can_be_given(service: Service) -> None:
    allowed = set(SCHEMA["definitions"][f"{service.name}Settings"]["properties"])
    assert allowed == {each.variable for each in service.settings} - GIVEN_BY_THE_CHART - OF_NO_USE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "coordinator.replica=3"], "replica"),
        (["--set", "participants[2].scaling.stepTimeoutSeconds=20"], "participant shipping: from zero"),
        (["--set", "participants[1].scaling.min=9"], "more than scaling.max"),
        (["--set", "participants[1].name=inventory"], "both be participant-inventory"),
        (["--set", "otlp.endpoint="], "otlp.endpoint says where traces go"),
        (["--set", "setup.bounds[1].client=web"], "client web has two bounds of open sagas of type order"),
    ],
)
def test_helm_refuses_it_with_a_sentence(arguments: list[str], said: str) -> None:
    helm = find_helm()
    if helm is None:
        pytest.skip("there is no helm: make chart installs one, and HELM names another")
    ran = render(helm, "everything", *arguments)
    assert ran.returncode == 1
    assert said in ran.stderr


def test_helm_finds_nothing_to_say_about_the_chart() -> None:
    helm = find_helm()
    if helm is None:
        pytest.skip("there is no helm: make chart installs one, and HELM names another")
    for path in VALUES.values():
        ran = run_helm(helm, "lint", "--strict", "--quiet", str(CHART), "--values", str(path))
        assert ran.returncode == 0, ran.stdout
