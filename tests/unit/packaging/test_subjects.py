"""Every subject is built and parsed in `contracts/subjects.py`: no other file of the product spells one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.packaging.project import NAMESPACES, ROOT

LINK = ROOT / "contracts/antiphon/link"
"""It takes its own inboxes apart, and no subject of the protocol."""
HOME = ROOT / "contracts/antiphon/contracts/subjects.py"

ALWAYS = re.compile(r"(evt|antiphon\.(status|changed)|\$KV)\.")
WITH_A_HOLE = re.compile(r"(saga|parked)\.([*>{]|.*\.[*>{])")
OTHER = re.compile(r"saga\.\{\}(\.v1)?")
"""Types of messages, and attributes of spans."""
PARSERS = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix", "removesuffix"}


def found_in(source: str) -> Iterator[tuple[int, str]]:
    """The subjects that a source spells, and where it takes one apart, each with its line."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = _text(node) if id(node) not in inside else ""
        if ALWAYS.match(text) or (WITH_A_HOLE.match(text) and not OTHER.fullmatch(text)):
            yield node.lineno, text  # type: ignore[attr-defined] # whatever holds a text has a line
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PARSERS:
            taken = ast.unparse(node.func.value)
            if taken.endswith("subject"):
                yield node.lineno, f"{taken}.{node.func.attr}"


def _text(node: ast.AST) -> str:
    """A string, where an f-string has `{}` in the place of a value."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "{}" for part in parts)
        case _:
            return ""


def sources() -> list[Path]:
    return sorted(path for namespace in NAMESPACES for path in namespace.rglob("*.py") if path != HOME)


def test_no_other_file_spells_or_parses_a_subject() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {what}"
        for path in sources()
        for line, what in found_in(path.read_text())
        if not (path.is_relative_to(LINK) and what == "subject.rpartition")
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'f"evt.{key.path}.>"',
        '"evt.*.*.*.client.cancel"',
        'f"saga.{path}.c.end"',
        '"saga.*.*.*.c.>"',
        '"parked.>"',
        'f"antiphon.status.{type}"',
        'f"$KV.{bucket}.>"',
        'message.subject.split(".")[2]',
        'subject.endswith(".start")',
    ],
)
def test_one_that_does_is_noticed(source: str) -> None:
    assert list(found_in(source))


@pytest.mark.parametrize(
    "source", ['"saga.parked"', '"saga.cancel.v1"', 'f"saga.{verb}.v1"', '"antiphon.sagas.started"']
)
def test_names_of_other_things_are_left_alone(source: str) -> None:
    assert not list(found_in(source))
