"""Whoever only defines, or decides, loads no network client, no database and no event loop: seen in a process."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from .project import ROOT

LOADED_BY_NOBODY = (
    *("aiosqlite", "asyncpg", "asyncio", "grpc", "nats", "opentelemetry", "rich"),
    *("sqlalchemy", "structlog", "typer", "uvloop"),
)
PURE = "What decides knows neither clock, chance, network nor log"

SCRIPT = f"""
import importlib, pkgutil, sys
def wrong(what):
    loaded = [name for name in {LOADED_BY_NOBODY!r} if name in sys.modules]
    if loaded:
        raise SystemExit(f"{{what}} loads {{', '.join(loaded)}}")
"""


def pure_modules() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found: list[str] = next(each["source_modules"] for each in contracts if each["name"] == PURE)
    return found


def said_by(script: str) -> str:
    """What a process that runs a script says in the end; empty if all is well."""
    command = [sys.executable, "-c", SCRIPT + script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(
    "statement",
    [
        "import antiphon.contracts, antiphon.coordinator, antiphon.participants",
        "from antiphon.contracts import Command, Compensation, Event, Refused, Retry, SagaKey",
        "from antiphon.coordinator import Awaited, Choreography, Retry, Saga, State, Step",
        "from antiphon.coordinator.testing import given",
        "from antiphon.participants import Participant, Transaction",
        "import antiphon.order.saga, antiphon.order.choreographed.saga, antiphon.order.hybrid.saga",
        "import antiphon.trips.saga",
    ],
)
def test_what_only_defines_loads_neither_clients_nor_databases(statement: str) -> None:
    assert said_by(f"{statement}\nwrong({statement!r})") == ""


def test_nothing_that_decides_loads_clients_or_databases() -> None:
    """Each module of the list, and each in a package of the list."""
    script = f"""
for name in {pure_modules()!r}:
    module = importlib.import_module(name)
    wrong(name)
    for each in pkgutil.walk_packages(getattr(module, "__path__", []), f"{{name}}."):
        importlib.import_module(each.name)
        wrong(each.name)
"""
    assert said_by(script) == ""


def test_a_module_that_loads_a_client_is_noticed() -> None:
    assert said_by("import antiphon.link.connection\nwrong('the link')").startswith("the link loads asyncio, nats")


PACKAGES = ("coordinator", "coordinator.testing", "link", "participants")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_all_that_it_names_whatever_was_loaded_before(package: str) -> None:
    script = f"""
package = importlib.import_module("antiphon.{package}")
assert set(package.__all__) <= set(dir(package)), "dir"
for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(each.name)
for name in package.__all__:
    value = getattr(package, name)
    assert not isinstance(value, type(sys)), name
assert not hasattr(package, "nothing"), "nothing"
"""
    assert said_by(script) == ""


@pytest.mark.parametrize("first", ["antiphon.participants", "antiphon.participants.serve"])
def test_serve_is_the_function_whichever_is_imported_first(first: str) -> None:
    script = f"""
import {first}
from antiphon.participants import serve
from antiphon.participants.serve import serve as same
assert serve is same, serve
"""
    assert said_by(script) == ""
