"""The README of a folder names every file in it, so that a newcomer finds a file by reading one page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.packaging.project import ROOT, files

PARTS = ("contracts", "coordinator", "deploy", "participants", "tracing")
MADE = re.compile(r"_pb2\.pyi?$")
WITH_A_README_OF_THEIR_OWN = ("antiphon/order", "antiphon/trips", "antiphon/deploy/template")
NO_PLACE_OF_THEIR_OWN = {"__init__.py", "py.typed"}


def names_in(readme: str) -> Counter[str]:
    """The files that a README names, each as often as it does, without the folder before the name."""
    return Counter(each.rpartition("/")[2] for each in re.findall(r"`([\w./-]+\.py)`", readme))


def modules_of(part: str) -> Counter[str]:
    """The names of all modules below a folder, but for those that stand in a README of their own."""
    below = [path.relative_to(ROOT / part) for path in files() if path.is_relative_to(ROOT / part)]
    ours = [path for path in below if path.suffix == ".py" and not _stands_elsewhere(path)]
    return Counter(path.name for path in ours if path.name not in NO_PLACE_OF_THEIR_OWN and not MADE.search(path.name))


def _stands_elsewhere(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in WITH_A_README_OF_THEIR_OWN)


@pytest.mark.parametrize("part", PARTS)
def test_a_readme_names_every_module_of_its_folder(part: str) -> None:
    """One name that several rooms have must be named as often."""
    named = names_in((ROOT / part / "README.md").read_text())
    assert sorted((modules_of(part) - named).elements()) == []


@pytest.mark.parametrize("part", PARTS)
def test_a_readme_names_no_module_that_is_gone(part: str) -> None:
    everywhere = {path.name for path in files()}
    assert sorted(set(names_in((ROOT / part / "README.md").read_text())) - everywhere) == []


def test_the_readme_of_the_tests_names_every_folder() -> None:
    readme = (ROOT / "tests/README.md").read_text()
    holding = {path.parent for path in files() if path.is_relative_to(ROOT / "tests") and path.name.startswith("test_")}
    folders = {str(each.relative_to(ROOT / "tests")) for each in holding}
    assert sorted(each for each in folders if f"`{each}/`" not in readme) == []
