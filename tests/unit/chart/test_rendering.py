"""What the chart is rendered to: it fits Kubernetes, and what it says of our processes is what they know."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import Bound, participant_consumers, reactions_consumer_name
from antiphon.deploy.cli.administration import bound_of
from antiphon.deploy.cli.main import app
from antiphon.deploy.services.declared import PARTICIPANT, SERVICES
from antiphon.deploy.services.running import options_of, settings_of
from antiphon.link.delivery import DRAIN_SECONDS_MAX
from antiphon.link.probes import TURN_SECONDS, address_of
from antiphon.link.process import CLOSE_SECONDS
from antiphon.link.registration import VERSION_VARIABLE
from antiphon.participants.worker import CANCEL_SECONDS
from antiphon.tracing.projection.links import VARIABLE as JAEGER_VARIABLE
from antiphon.tracing.telemetry.handler_spans import FLUSH_SECONDS
from tests.unit.chart import __main__ as command
from tests.unit.chart import fitting
from tests.unit.chart.chart import (
    DIGEST,
    FOLDER,
    KUBERNETES,
    RENDERED,
    VALUES,
    Document,
    containers,
    digest,
    documents,
    environment,
    find_helm,
    merged,
    render,
    rendered,
)

ALL: Final = {name: rendered(name) for name in VALUES}
EVERY: Final = [(name, document) for name, found in ALL.items() for document in found]
MOUNTED: Final = "/run/antiphon/"
OUR_VARIABLES: Final = re.compile(r"ANTIPHON_|NATS_|DATABASE_")
SECRET_NAME: Final = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$|NKEY|CREDS|HEADERS|DATABASE_URL|ANTIPHON_READMODEL")


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    """A parameter for each object of these kinds, in all renderings."""
    found = [(name, each) for name, each in EVERY if each["kind"] in kinds]
    assert found
    marks = [f"{name}, {each['kind']} {each['metadata']['name']}" for name, each in found]
    return pytest.mark.parametrize(("rendering", "document"), found, ids=marks)


def named(rendering: str, kind: str, name: str) -> Document:
    (found,) = (each for each in ALL[rendering] if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pod(document: Document) -> Document:
    found: Document = document["spec"]["template"]["spec"]
    return found


def pods_labels(document: Document) -> dict[str, str]:
    found: dict[str, str] = document["spec"]["template"]["metadata"]["labels"]
    return found


# --- the renderings are true and valid --------------------------------------------------------------------------------


def test_the_renderings_are_of_the_sources_as_they_are() -> None:
    assert DIGEST.read_text().strip() == digest(), command.STALE
    assert {path.stem for path in RENDERED.glob("*.yaml")} == set(VALUES)


def test_a_changed_source_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "sources.sha256"
    other.write_text("0" * 64)
    monkeypatch.setattr(command, "DIGEST", other)
    assert command.main(["check"]) == 1


@pytest.mark.parametrize("name", VALUES)
def test_helm_renders_the_same_again(name: str) -> None:
    helm = find_helm()
    if helm is None:
        pytest.skip("there is no helm: make chart installs one, and HELM names another")
    ran = render(helm, name)
    assert ran.returncode == 0, ran.stderr
    assert documents(ran.stdout) == ALL[name]


@pytest.mark.parametrize("name", VALUES)
def test_all_objects_fit_the_oldest_kubernetes_and_the_newest(name: str) -> None:
    assert fitting.faults(ALL[name], {}) == []


def test_only_two_kinds_are_not_checked_by_kubernetes_schemas() -> None:
    """What make chart alone checks, since their definitions are fetched."""
    apis = {each["kind"]: each["apiVersion"] for _, each in EVERY}
    others = {
        kind for kind, api in apis.items() if not re.fullmatch(r"v1|(apps|batch|policy|networking\.k8s\.io)/v1", api)
    }
    assert others == set(fitting.DEFINITIONS) == {"ScaledObject", "ServiceMonitor"}


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_field_that_kubernetes_does_not_know_is_noticed(version: str) -> None:
    broken = copy.deepcopy(named("small", "Deployment", "antiphon-coordinator"))
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    assert "terminationGracePeriod" in fitting.kubernetes_fault(broken, version)


def test_a_field_that_a_definition_does_not_name_is_noticed() -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"max": {"type": "integer"}}}}}
    definition = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    document = {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": {"maximum": 3}}
    schema["properties"]["apiVersion"] = schema["properties"]["kind"] = schema["properties"]["metadata"] = {}  # type: ignore[index]
    assert "maximum" in fitting.own_fault(document, definition)
    assert fitting.own_fault({**document, "spec": {"max": 3}}, definition) == ""


# --- processes --------------------------------------------------------------------------------------------------------


def program(container: Document, folder: Path) -> dict[str, str]:
    """The variables of a container as its process has them, with every mounted file in a folder."""
    found = {each["name"]: each.get("value", "from-a-secret") for each in container["env"]}
    folder.mkdir(exist_ok=True)
    for name, path in found.items():
        if path.startswith(MOUNTED):
            file = folder / path.replace("/", "_")
            file.write_text("memory:")
            found[name] = str(file)
    return found


@of_kind("Deployment")
def test_a_process_takes_its_arguments_and_variables(rendering: str, document: Document, tmp_path: Path) -> None:
    (container,) = containers(document)
    service = SERVICES[container["args"][0]]
    options = options_of(service, container["args"][1:])
    assert options is not None, container["args"]
    given = settings_of(service, options, program(container, tmp_path))
    assert given["http"] == f"0.0.0.0:{container['ports'][0]['containerPort']}"
    known = {each.variable for each in service.settings} | {f"{each.variable}_FILE" for each in service.settings}
    ours = {each["name"] for each in container["env"] if OUR_VARIABLES.match(each["name"])}
    assert ours - known - {VERSION_VARIABLE, JAEGER_VARIABLE} == set()


def test_each_kind_of_process_is_there() -> None:
    commands = {
        each["args"][0] for _, document in EVERY if document["kind"] == "Deployment" for each in containers(document)
    }
    assert commands == set(SERVICES) - {"jaeger-storage"}


@of_kind("Job")
def test_the_command_line_knows_the_options_of_the_setup(rendering: str, document: Document) -> None:
    for container in containers(document):
        asked = CliRunner().invoke(app, [*container["args"], "--help"])
        assert asked.exit_code == 0, asked.output


@pytest.mark.parametrize("name", VALUES)
def test_the_setup_names_every_participant(name: str) -> None:
    (job,) = (each for each in ALL[name] if each["kind"] == "Job")
    arguments = [argument for container in containers(job) for argument in container["args"]]
    for each in merged(name)["participants"]:
        by_name, by_app = f"--participant={each['name']}" in arguments, f"--app={each['module']}" in arguments
        assert (by_name, by_app) == (not by_app, by_app)
        assert by_app or not each.get("reacts"), "to what it reacts is known from its module alone"


def test_the_setup_sets_the_bounds_of_clients_once() -> None:
    """A bound is no participant's, so only the container that speaks of the whole platform names it."""
    *others, platform = containers(named("everything", "Job", "antiphon-setup"))
    wanted = [Bound(each["client"], each["type"], each["open"]) for each in merged("everything")["setup"]["bounds"]]
    assert wanted
    assert [bound_of(each) for each in values_of(platform, "--bound")] == wanted
    assert [each["name"] for each in others if values_of(each, "--bound")] == []


@pytest.mark.parametrize("name", VALUES)
def test_each_container_of_the_setup_lets_through_what_is_allowed_and_nothing_else(name: str) -> None:
    (job,) = (each for each in ALL[name] if each["kind"] == "Job")
    for container in containers(job):
        assert [Loss(each) for each in values_of(container, "--allow")] == merged(name)["setup"]["allow"]


def values_of(container: Document, option: str) -> list[str]:
    """What a container gives for an option, in order."""
    return [each.removeprefix(f"{option}=") for each in container["args"] if each.startswith(f"{option}=")]


@pytest.mark.parametrize("name", VALUES)
def test_the_setup_precedes_everything_and_its_policy_precedes_it(name: str) -> None:
    hooks = [each for each in ALL[name] if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    weights = {each["kind"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in hooks}
    assert {each["metadata"]["annotations"]["helm.sh/hook"] for each in hooks} == {"pre-install,pre-upgrade"}
    assert set(weights) == {"Job", "NetworkPolicy"}
    assert weights["NetworkPolicy"] < weights["Job"]


@of_kind("Deployment")
def test_a_process_is_probed_where_it_answers(rendering: str, document: Document) -> None:
    (container,) = containers(document)
    _, port = address_of(environment(container)["ANTIPHON_HTTP"])
    assert container["ports"] == [{"name": "pages", "containerPort": port}]
    pages = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: page["path"] for kind, page in pages.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {page["port"] for page in pages.values()} == {"pages"}
    assert container["livenessProbe"]["timeoutSeconds"] > TURN_SECONDS


@of_kind("Deployment")
def test_a_process_has_the_time_that_its_drain_takes(rendering: str, document: Document) -> None:
    (container,) = containers(document)
    end = DRAIN_SECONDS_MAX + CANCEL_SECONDS + CLOSE_SECONDS + FLUSH_SECONDS
    if container["args"][0] == PARTICIPANT.name:
        end += float(environment(container)["ANTIPHON_GRACE_SECONDS"])
    assert pod(document)["terminationGracePeriodSeconds"] > end


@of_kind("Deployment")
def test_a_process_is_not_process_1_of_its_container(rendering: str, document: Document) -> None:
    """It would not hear SIGTERM while it imports its program."""
    assert pod(document)["shareProcessNamespace"] is True


# --- what they may ----------------------------------------------------------------------------------------------------


@of_kind("Deployment", "Job")
def test_a_pod_may_as_little_as_it_needs(rendering: str, document: Document) -> None:
    security = pod(document)["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(document)["automountServiceAccountToken"] is False
    for container in containers(document):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


@of_kind("Deployment", "Job")
def test_no_secret_stands_in_an_object(rendering: str, document: Document) -> None:
    for container in containers(document):
        for name, value in environment(container).items():
            assert not SECRET_NAME.search(name) or value.startswith(MOUNTED), name
            assert not re.search(r"://[^/]*@", value), name


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_makes_no_secret(name: str) -> None:
    assert {each["kind"] for each in ALL[name]} & {"Secret", "ConfigMap"} == set()


def files_of(document: Document) -> Iterator[str]:
    """The paths of all files that a pod's secrets are mounted as."""
    mounts = {
        each["name"]: each["mountPath"] for container in containers(document) for each in container["volumeMounts"]
    }
    for volume in pod(document)["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
            yield from (f"{mounts[volume['name']]}/{each['path']}" for each in volume["secret"]["items"])


@of_kind("Deployment", "Job")
def test_a_pod_has_the_files_that_it_is_told_of_and_no_more(rendering: str, document: Document) -> None:
    told = {
        value
        for container in containers(document)
        for value in environment(container).values()
        if value.startswith(MOUNTED)
    }
    assert sorted(files_of(document)) == sorted(told)


@of_kind("Deployment", "Job")
def test_no_variable_is_given_twice(rendering: str, document: Document) -> None:
    for container in containers(document):
        names = [each["name"] for each in container["env"]]
        assert len(names) == len(set(names))


@of_kind("NetworkPolicy")
def test_a_policy_lets_in_the_pages_and_out_what_is_needed(rendering: str, document: Document) -> None:
    spec, values = document["spec"], merged(rendering)
    component = spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    let_in = [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
    assert let_in == ([] if component == "setup" else [values["pages"]["port"]])
    out = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    kinds = {"nats"}
    kinds |= {"databases"} if component.startswith(("participant-", "readmodel")) else set()
    has_otlp = component != "setup" and (
        values["otlp"]["metrics"] or component.startswith(("participant-", "exporter"))
    )
    kinds |= {"otlp"} if has_otlp else set()
    expected = {53, *(port for kind in kinds for port in values["networkPolicy"][kind]["ports"])}
    own = {
        port["port"]
        for each in values["participants"]
        if component == f"participant-{each['name']}"
        for rule in each.get("egress", ())
        for port in rule["ports"]
    }
    assert out == expected | own


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_has_one_policy_and_every_process_one_budget(name: str) -> None:
    for document in ALL[name]:
        if document["kind"] not in {"Deployment", "Job"}:
            continue
        labels = pods_labels(document).items()
        policies = [
            each
            for each in ALL[name]
            if each["kind"] == "NetworkPolicy" and each["spec"]["podSelector"]["matchLabels"].items() <= labels
        ]
        budgets = [
            each
            for each in ALL[name]
            if each["kind"] == "PodDisruptionBudget" and each["spec"]["selector"]["matchLabels"].items() <= labels
        ]
        assert len(policies) == 1
        assert len(budgets) == (document["kind"] == "Deployment")
        assert [each["spec"]["maxUnavailable"] for each in budgets] == [1] * len(budgets)


@of_kind("Deployment")
def test_a_deployment_selects_and_spreads_its_own_pods(rendering: str, document: Document) -> None:
    selector = document["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pods_labels(document).items()
    spread = pod(document)["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert [each["labelSelector"]["matchLabels"] for each in spread] == [selector, selector]


def test_prometheus_finds_every_process() -> None:
    service = named("everything", "Service", "antiphon-pages")
    monitor = named("everything", "ServiceMonitor", "antiphon-pages")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == [
        each["name"] for each in service["spec"]["ports"]
    ]
    for document in ALL["everything"]:
        if document["kind"] == "Deployment":
            assert service["spec"]["selector"].items() <= pods_labels(document).items()


# --- scaling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALUES)
def test_keda_asks_for_every_consumer_that_brings_a_participant_work(name: str) -> None:
    for each in merged(name)["participants"]:
        process = f"antiphon-participant-{each['name']}"
        deployment = named(name, "Deployment", process)
        found = [one for one in ALL[name] if one["kind"] == "ScaledObject" and one["metadata"]["name"] == process]
        assert len(found) == ("scaling" in each)
        assert ("replicas" in deployment["spec"]) == (not found), "only one of both may say how many there are"
        for scaled in found:
            assert scaled["spec"]["scaleTargetRef"] == {"name": process}
            asked = {(one["metadata"]["stream"], one["metadata"]["consumer"]) for one in scaled["spec"]["triggers"]}
            brings = {(consumer.stream, consumer.name) for consumer in participant_consumers(each["name"])}
            assert asked == brings | (
                {("EVENTS", reactions_consumer_name(each["name"]))} if each.get("reacts") else set()
            )
            assert scaled["spec"]["fallback"]["replicas"] >= 1


def test_no_file_of_the_chart_names_a_real_registry() -> None:
    names = re.findall(
        r"repository: (\S+)", "".join(path.read_text() for path in sorted((FOLDER / "values").glob("*.yaml")))
    )
    assert names
    assert [name for name in names if not name.startswith("registry.example/")] == []
