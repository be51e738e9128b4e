"""The layers are kept by import-linter, and import-linter is seen to keep them: each contract is broken once here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.packaging.project import ROOT, SOURCE_ROOTS, settings

CONTRACTS = [contract["name"] for contract in settings()["tool"]["importlinter"]["contracts"]]

COORDINATOR = "In the coordinator a room imports only the rooms below it"
TRACING = "In tracing a room imports only the rooms below it"
DEPLOY = "In deploy a room imports only the rooms below it"
CIRCLES = "No modules import each other in a circle"

FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
"""Imports below this are for annotations alone, and count all the same."""

# For each contract a module and an import that it must not contain.
BREACHES = [
    ("A layer imports only the layers below it", "antiphon.coordinator", "import antiphon.participants"),
    ("A layer imports only the layers below it", "antiphon.participants", "import antiphon.coordinator"),
    ("A layer imports only the layers below it", "antiphon.participants", "import antiphon.order"),
    ("A layer imports only the layers below it", "antiphon.tracing", "import antiphon.coordinator"),
    ("A layer imports only the layers below it", "antiphon.link", "import antiphon.tracing"),
    ("A layer imports only the layers below it", "antiphon.contracts", "import antiphon.link"),
    ("A layer imports only the layers below it", "antiphon.order", "import antiphon.deploy"),
    ("A layer imports only the layers below it", "antiphon.trips", "import antiphon.deploy"),
    ("A layer imports only the layers below it", "antiphon.flow.graph", "import antiphon.deploy"),
    (COORDINATOR, "antiphon.coordinator.definition.saga", "import antiphon.coordinator.decision.decide"),
    (COORDINATOR, "antiphon.coordinator.decision.decide", "import antiphon.coordinator.views.timeline"),
    (COORDINATOR, "antiphon.coordinator.reading.sagas", "import antiphon.coordinator.client.operator"),
    (COORDINATOR, "antiphon.coordinator.views.wording", "import antiphon.coordinator.reading.sagas"),
    (COORDINATOR, "antiphon.coordinator.client.operator", "import antiphon.coordinator.runtime.jetstream"),
    (COORDINATOR, "antiphon.coordinator.runtime.serve", "import antiphon.coordinator.testing"),
    (TRACING, "antiphon.tracing.projection.sampling", "import antiphon.tracing.export.otlp"),
    (TRACING, "antiphon.tracing.export.serve", "import antiphon.tracing.telemetry.logs"),
    (TRACING, "antiphon.tracing.telemetry.logs", "import antiphon.tracing.jaeger.serve"),
    (DEPLOY, "antiphon.deploy.modules", "import antiphon.deploy.render.tables"),
    (DEPLOY, "antiphon.deploy.local.up", "import antiphon.deploy.readmodel.model"),
    (DEPLOY, "antiphon.deploy.local.platform", "import antiphon.deploy.chaos.network"),
    (DEPLOY, "antiphon.deploy.chaos.platform", "import antiphon.deploy.cli.main"),
    (DEPLOY, "antiphon.deploy.admin.rights", "import antiphon.deploy.cli.main"),
    (CIRCLES, "antiphon.link.guard", "import antiphon.link.delivery"),
    (CIRCLES, "antiphon.contracts.errors", "def later():\n    import antiphon.contracts.envelope"),
    (CIRCLES, "antiphon.flow.graph", f"{FOR_TYPES}    from antiphon.flow.check import Finding"),
    (
        "Of the examples only the sagas' definitions need the coordinator",
        "antiphon.order.inventory",
        "import antiphon.coordinator.definition.saga",
    ),
    (
        "Of the examples only the sagas' definitions need the coordinator",
        "antiphon.trips.airline",
        "import antiphon.coordinator.definition.saga",
    ),
    (
        "What decides knows neither clock, chance, network nor log",
        "antiphon.coordinator.decision.decide",
        "import time",
    ),
    ("What decides knows neither clock, chance, network nor log", "antiphon.participants.inbox", "import asyncio"),
    (
        "What decides knows neither clock, chance, network nor log",
        "antiphon.coordinator.testing.scenario",
        "import asyncio",
    ),
    ("What decides knows neither clock, chance, network nor log", "antiphon.flow.check", "import time"),
    ("What decides knows neither clock, chance, network nor log", "antiphon.contracts", "from random import random"),
    ("Contracts need msgspec and nothing else", "antiphon.contracts", "import sqlalchemy"),
    ("Only the plugin for pytest needs pytest", "antiphon.deploy.chaos.platform", "import pytest"),
    ("What decides knows neither clock, chance, network nor log", "antiphon.deploy.chaos.invariants", "import time"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources and their settings that a test may spoil."""
    copy = tmp_path_factory.mktemp("tree")
    for root in SOURCE_ROOTS:
        shutil.copytree(ROOT / root / "antiphon", copy / root / "antiphon")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def test_the_layers_are_kept(tree: Path) -> None:
    assert broken_contracts(tree) == []


def test_every_contract_is_seen_to_fail() -> None:
    assert {contract for contract, _, _ in BREACHES} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "module", "statement"), BREACHES)
def test_a_breach_is_reported(tree: Path, contract: str, module: str, statement: str) -> None:
    source = source_of(tree, module)
    unspoilt = source.read_text()
    source.write_text(f"{unspoilt}\n{statement}\n")
    try:
        assert contract in broken_contracts(tree)
    finally:
        source.write_text(unspoilt)


def test_a_circle_of_imports_for_annotations_is_what_the_linter_names(tree: Path) -> None:
    """The package of the breach is in the report: the contract is not broken by another circle."""
    source = source_of(tree, "antiphon.link.guard")
    unspoilt = source.read_text()
    source.write_text(f"{unspoilt}\n{FOR_TYPES}    from antiphon.link.connection import Link\n")
    try:
        found = report(tree)
        assert "No cycles are allowed in antiphon.link." in found
    finally:
        source.write_text(unspoilt)


def test_make_check_and_ci_look_at_the_layers() -> None:
    steps = subprocess.check_output(["make", "-n", "-o", ".venv/.ready", "check"], cwd=ROOT, text=True)
    assert "lint-imports" in steps
    assert 'make VENV="$VENV" check' in (ROOT / ".ci" / "run").read_text().splitlines()


def source_of(tree: Path, module: str) -> Path:
    name = module.replace(".", "/")
    (source,) = (path for ending in (".py", "/__init__.py") for path in tree.glob(f"*/{name}{ending}"))
    return source


def broken_contracts(tree: Path) -> list[str]:
    """The contracts that import-linter finds broken in this copy."""
    found = report(tree)
    return [name for name in CONTRACTS if f"{name} BROKEN" in found]


def report(tree: Path) -> str:
    """What import-linter prints of this copy, which is put on the path before any other Antiphon."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(tree / root) for root in SOURCE_ROOTS)}
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    run = subprocess.run(lint, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert " kept, " in run.stdout, run.stdout + run.stderr
    assert ("BROKEN" in run.stdout) == (run.returncode != 0), run.stdout + run.stderr
    return run.stdout
