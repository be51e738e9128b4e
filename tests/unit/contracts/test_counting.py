"""Sentences count in the right number: one saga, two sagas."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.contracts.counting import counted

ROOT = Path(__file__).parents[3]
COUNTED = re.compile(
    r" (sagas|messages|events|streams|commands|orders|rows|files|spans|entries|attempts|workers|coordinators|servers|"
    r"copies|processes|participants|faults|violations|replica\(s\))\b(?!/s)"
)


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 messages wait"), (1, "1 message waits"), (2, "2 messages wait"), (1001, "1001 messages wait")],
)
def test_a_count_is_one_of_something_or_several(number: int, said: str) -> None:
    assert counted(number, "message waits", "messages wait") == said
    assert counted(number, "saga") == f"{number} saga{'' if number == 1 else 's'}"


def numbers_before_plurals(source: str) -> Iterator[str]:
    """What an f-string says behind a value of which nobody knows whether it is 1."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    expression = ast.unparse(value.value)
                    found = COUNTED.match(str(text.value))
                    if found and not expression.isupper():
                        yield f"{expression}{found[0]}"


SEVERAL = {  # never one where it is said, or no count at all
    "contracts/antiphon/contracts/registration.py": {"len(entries) entries"},
    "contracts/antiphon/link/connection.py": {"self.pairs.count streams"},
    "contracts/antiphon/link/servers.py": {"servers servers", "replicas servers", "replicas copies"},
    "coordinator/antiphon/coordinator/decision/author.py": {"len(found) commands"},
    "coordinator/antiphon/coordinator/decision/entries.py": {"len(commands) commands"},
    "coordinator/antiphon/coordinator/decision/planned.py": {"history.entries entries"},
    "deploy/antiphon/deploy/admin/doctor/clients.py": {"most sagas"},
    "deploy/antiphon/deploy/admin/doctor/streams.py": {"len(clusters) streams"},
    "deploy/antiphon/deploy/admin/doctor/monitor.py": {"copies servers"},
    "deploy/antiphon/deploy/admin/rights.py": {"unknown[0] sagas"},
    "deploy/antiphon/deploy/chaos/invariants.py": {"each.pending messages", "files[0] files"},
    "deploy/antiphon/deploy/cli/administration.py": {"bound.saga_type sagas"},
    "deploy/antiphon/deploy/render/tables.py": {"told.entries_max entries"},
}


def test_no_sentence_puts_a_number_before_a_plural_that_may_be_one() -> None:
    folders = ("contracts", "coordinator", "participants", "tracing", "deploy")
    found = {
        name: rest
        for folder in folders
        for path in sorted((ROOT / folder / "antiphon").rglob("*.py"))
        for name in [str(path.relative_to(ROOT))]
        if (rest := {*numbers_before_plurals(path.read_text())} - SEVERAL.get(name, set()))
    }
    assert found == {}
