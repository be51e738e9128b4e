"""requirements.lock keeps up with pyproject.toml; what it lacks would be fetched unpinned, or be missing."""

import re
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.packaging.project import ROOT, settings

LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, re.MULTILINE))


def required() -> Iterator[str]:
    project = settings()["project"]
    yield from project["dependencies"]
    for extra in project["optional-dependencies"].values():
        yield from extra
    yield from settings()["dependency-groups"]["dev"]


@pytest.mark.parametrize("requirement", [Requirement(line) for line in required()], ids=str)
def test_what_the_project_requires_is_locked(requirement: Requirement) -> None:
    assert LOCKED[canonicalize_name(requirement.name)] in requirement.specifier, "make lock brings it up to date"


def test_every_locked_package_carries_hashes() -> None:
    entries = re.findall(r"^[a-z].*(?:\n    --hash.*)*", LOCK, re.MULTILINE)
    assert len(entries) == len(LOCKED)
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
