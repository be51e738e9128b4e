"""The Helm chart does what it says: its processes, started with the arguments, variables and files that its smaller
rendering gives them, are ready, bring an order to its end, and drain. And the server tells KEDA what waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from antiphon.contracts.identity import CLIENT
from antiphon.coordinator.client.client import Antiphon
from antiphon.deploy.admin.rights import EVERYTHING, Rights, server_environment
from antiphon.deploy.local.server import HOST, Server, free_port
from antiphon.link import Credentials
from antiphon.order.data import load_orders
from antiphon.order.saga import order
from tests.support.receiver import Receiver, receiver
from tests.support.server import until
from tests.unit.chart.chart import Document, containers, rendered
from tests.unit.packaging.project import ROOT
from tests.unit.packaging.readme import blocks

SMALL: Final = rendered("small")
DEPLOYMENTS: Final = {each["metadata"]["name"]: each for each in SMALL if each["kind"] == "Deployment"}
WORKERS: Final = [name for name in DEPLOYMENTS if "-participant-" in name]
ENDED_SECONDS: Final = 120.0


@dataclass
class Cluster:
    """What a kubelet does, without one: a container is a process with its arguments and variables, and its Secrets are
    files. Only addresses and ports are those of this machine."""

    folder: Path
    passwords: dict[str, str]
    server: Server
    monitoring: int
    endpoint: str
    processes: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    pages: dict[str, list[str]] = field(default_factory=dict)

    def secret(self, name: str, key: str) -> str:
        """What a Secret has under a key, where it was made as deploy/docs/kubernetes.md says."""
        owner, _, kind = name.rpartition("-")
        if kind == "database":
            return {"url": f"sqlite:///{self.folder / owner}.db"}[key]
        return {"NATS_USER": owner, "NATS_PASSWORD": self.passwords[owner]}[key]

    def mounted(self, document: Document) -> dict[str, str]:
        """The files of a pod's Secrets, by their paths inside of its containers: where they are here."""
        spec = document["spec"]["template"]["spec"]
        (mounts,) = [each["volumeMounts"] for each in containers(document)]
        places = {each["name"]: each["mountPath"] for each in mounts}
        found = dict[str, str]()
        for volume in spec["volumes"]:
            for item in volume.get("secret", {}).get("items", ()):
                secret = volume["secret"]["secretName"]
                file = self.folder / f"{secret}.{item['key']}"
                file.write_text(self.secret(secret, item["key"]))
                found[f"{places[volume['name']]}/{item['path']}"] = str(file)
        return found

    def environment(self, document: Document, container: Document, page: str) -> dict[str, str]:
        files = self.mounted(document)
        found = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
        for each in container["env"]:
            if "value" in each:
                value: str = each["value"]
                found[each["name"]] = files.get(value, value)
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                found[each["name"]] = self.secret(reference["name"], reference["key"])
        changes = {"NATS_URL": self.server.url, "ANTIPHON_HTTP": page, "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint}
        return found | {key: value for key, value in changes.items() if key in found}

    def start(self, document: Document) -> None:
        """Start the containers of a Deployment, or of a Job."""
        name = document["metadata"]["name"]
        (container,) = containers(document)
        for _ in range(document["spec"].get("replicas", 1)):
            page = f"{HOST}:{free_port()}"
            with (self.folder / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "antiphon.deploy", *container["args"]],
                    env=self.environment(document, container, page),
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self.processes.setdefault(name, []).append(process)
            self.pages.setdefault(name, []).append(page)

    def answers(self, name: str, path: str) -> bool:
        """Whether all processes of a Deployment answer a probe with 200."""
        return all(_status(f"http://{page}{path}") == 200 for page in self.pages[name])

    def lag(self, consumer: str) -> int:
        """What KEDA's scaler nats-jetstream makes of the page that it asks for."""
        page = f"http://{HOST}:{self.monitoring}/jsz?acc=PLATFORM&config=true&consumers=true"
        with urllib.request.urlopen(page, timeout=10) as answer:
            (account,) = (each for each in json.load(answer)["account_details"] if each["name"] == "PLATFORM")
        found: list[dict[str, Any]] = [
            each
            for stream in account["stream_detail"]
            if stream["name"] == "SAGA"
            for each in stream["consumer_detail"]
            if each["name"] == consumer
        ]
        (only,) = found
        return int(only["num_pending"]) + int(only["num_ack_pending"])

    def logs(self) -> str:
        """What the processes said, for a failing test to show."""
        return "\n".join(f"--- {log.stem}\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.log"))

    def kill(self) -> None:
        """End what is left."""
        for process in (each for found in self.processes.values() for each in found):
            process.kill()
            process.wait()


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except OSError:
        return 0


@pytest.fixture
def traces() -> Iterator[tuple[Receiver, str]]:
    with receiver() as (backend, environment):
        yield backend, environment["OTEL_EXPORTER_OTLP_ENDPOINT"]


@pytest.fixture
def cluster(tmp_path: Path, traces: tuple[Receiver, str]) -> Iterator[Cluster]:
    """A server with the accounts of the three participants, and nobody on it."""
    given = Rights(tuple(name.rpartition("-")[2] for name in WORKERS), {CLIENT: [EVERYTHING]})
    passwords, monitoring = given.new_passwords(), free_port()
    accounts = f'{given.config()}\nhttp: "{HOST}:{monitoring}"\n'
    server = Server(tmp_path / "nats", accounts=accounts, environment=server_environment(passwords))
    running = Cluster(tmp_path, passwords, server, monitoring, traces[1])
    try:
        server.start()
        yield running
    finally:
        running.kill()
        server.kill()


async def test_the_processes_of_the_chart_are_ready_bring_an_order_to_its_end_and_drain(
    cluster: Cluster, traces: tuple[Receiver, str]
) -> None:
    (job,) = (each for each in SMALL if each["kind"] == "Job")
    job_of_one_server = json.loads(json.dumps(job).replace("--replicas=3", "--replicas=1"))
    cluster.start(job_of_one_server)
    assert [each.wait(ENDED_SECONDS) for each in cluster.processes[job["metadata"]["name"]]] == [0], cluster.logs()

    asleep = set(WORKERS)
    for name, document in DEPLOYMENTS.items():
        if name not in asleep:
            cluster.start(document)
    who = Credentials(user=CLIENT, password=cluster.passwords[CLIENT])
    async with Antiphon.connect(cluster.server.url, credentials=who) as antiphon:
        assert cluster.lag("inventory") == 0
        handle = await antiphon.start(order, load_orders()[1], id="order-1")
        await until(lambda: cluster.lag("inventory") == 1, what=f"KEDA's reason to start a worker\n{cluster.logs()}")
        for name in WORKERS:
            cluster.start(DEPLOYMENTS[name])
        outcome = await handle.result(timeout=ENDED_SECONDS)
    assert outcome.outcome == "completed", cluster.logs()
    await until(lambda: cluster.lag("inventory") == 0, what="a lag of nothing")
    await until(lambda: traces[0].spans, what=f"a span of the order in the backend\n{cluster.logs()}")
    await until(
        lambda: all(cluster.answers(name, page) for name in DEPLOYMENTS for page in ("/livez", "/readyz")),
        what=f"processes that live and are ready\n{cluster.logs()}",
    )
    for name in DEPLOYMENTS:
        for process in cluster.processes[name]:
            process.terminate()
    for name, document in DEPLOYMENTS.items():
        grace = document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert {each.wait(grace) for each in cluster.processes[name]} == {0}, cluster.logs()


def test_hadolint_finds_nothing_in_the_image_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "deploy/docs/kubernetes.md").read_text()
    (lines,) = (block.lines for block in blocks(page) if block.language == "text" and block.lines[0].startswith("FROM"))
    assert len(lines) == 5
    file = tmp_path / "Dockerfile"
    file.write_text("\n".join(lines) + "\n")
    hadolint = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([hadolint, "--failure-threshold", "style", file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
