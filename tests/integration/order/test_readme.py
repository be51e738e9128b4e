"""What the README shows can be copied."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from antiphon.order import reconciliation
from antiphon.order.data import load_orders
from antiphon.participants import Participant
from tests.integration.order.services import PARTICIPANTS, services
from tests.unit.packaging.readme import commands_of, python_of

README = Path(reconciliation.__file__).with_name("README.md").read_text()


async def test_its_reconciliation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with services({each.name: f"sqlite:///{each.name}.db" for each in PARTICIPANTS}) as shop:
        outcomes = {f"order/{order.order_id}": await shop.handle(order) for order in load_orders()[:5]}
    names: dict[str, Any] = {"outcomes": outcomes}
    await eval(compile(python_of(README), "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert names["report"].completed == list(outcomes.values()).count("completed") > 0


def test_its_commands_name_what_is_there() -> None:
    places = [word for line in commands_of(README) for word in line.split() if word.startswith("antiphon.")]
    found = [getattr(import_module(module), name) for module, _, name in (place.partition(":") for place in places)]
    assert [each.name for each in found if isinstance(each, Participant)] == ["inventory", "billing", "shipping"]
    assert len(found) == 4
