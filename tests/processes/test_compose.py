"""compose.yaml does what it says: its services, run as processes from the wheel that the image would hold, bring an
order to its end and let go in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import msgspec
import psutil
import pytest

from antiphon.deploy.local.server import server_info
from antiphon.deploy.local.styles import Style
from antiphon.order.data import load_orders
from tests.processes.compose_up import Up
from tests.processes.containers import (
    OURS,
    SERVICES,
    copied,
    executed_for_a_person,
    megabytes,
    run_for_a_person,
)
from tests.support.receiver import receiver
from tests.support.server import until
from tests.support.wheel import build, install
from tests.unit.packaging.project import ROOT

SHARE_OF_MEMORY_MAX: Final = 0.6
"""Of its limit that a service may use after an order: the rest is for load."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from no more than the build of the image is sent and copies."""
    source = tmp_path_factory.mktemp("source")
    for path in copied():
        there = source / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
    return build(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def up(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """All services that can run here."""
    running = Up(install(wheel, tmp_path_factory.mktemp("image")), tmp_path_factory.mktemp("up"))
    with receiver() as (jaeger, environment):
        running.jaeger, running.traces = environment["OTEL_EXPORTER_OTLP_ENDPOINT"], jaeger
        try:
            running.make_secrets()
            for name, service in SERVICES.items():
                if name != "jaeger" and not service.get("profiles"):
                    running.start(name)
            yield running
        finally:
            running.kill()


def test_the_image_is_built_from_all_that_the_wheel_holds(wheel: Path, tmp_path: Path) -> None:
    assert sorted(ZipFile(wheel).namelist()) == sorted(ZipFile(build(ROOT, tmp_path)).namelist())


def test_nobody_gets_in_without_a_password(up: Up) -> None:
    assert server_info(up.port)["auth_required"]


async def test_the_services_bring_orders_of_each_style_to_their_end_within_their_memory_and_drain(up: Up) -> None:
    order = msgspec.json.encode(load_orders()[1]).decode()
    told = run_for_a_person("client")
    for style in Style:
        arguments = [style.saga if argument == Style.ORCHESTRATED.saga else argument for argument in told]
        assert "completed" in up.run("client", *arguments, stdin=order), style
    assert "completed" in up.run("operator", *run_for_a_person("operator"))
    await until(lambda: _listed(up) == len(Style), what=f"all orders in the read model\n{up.logs()}")
    await until(lambda: up.traces.spans, what=f"a span of the order in the backend\n{up.logs()}")
    stay = [name for name in up.processes if name in OURS and name != "setup"]
    assert sum(len(up.processes[name]) for name in stay) == 7
    for name in stay:
        limit = megabytes(SERVICES[name]["deploy"]["resources"]["limits"]["memory"])
        for process in up.processes[name]:
            used = psutil.Process(process.pid).memory_info().rss / 1024**2
            assert used < limit * SHARE_OF_MEMORY_MAX, f"{name} uses {used:.0f} MB of {limit}"
    assert {name: set(up.stop(name)) for name in stay} == {name: {0} for name in stay}, up.logs()


def _listed(up: Up) -> int:
    """How many orders the read model has that are as the page asks for."""
    return len(json.loads(up.execute("readmodel", *executed_for_a_person("readmodel"), "--json")))
