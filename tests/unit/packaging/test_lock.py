"""requirements.lock keeps up with pyproject.toml; what it lacks would be fetched unpinned, or be missing."""

import re
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.packaging.project import ROOT, settings

LOCK = (ROOT / "requirements.lock").read_text()
PEER = ROOT / "tests/bench/databases"
PEER_LOCK = (PEER / "requirements.lock").read_text()


def locked(lock: str) -> dict[str, str]:
    """The version of each package in a lock."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock, re.MULTILINE))


LOCKED = locked(LOCK)


def required() -> Iterator[str]:
    project = settings()["project"]
    yield from project["dependencies"]
    for extra in project["optional-dependencies"].values():
        yield from extra
    yield from settings()["dependency-groups"]["dev"]


@pytest.mark.parametrize("requirement", [Requirement(line) for line in required()], ids=str)
def test_what_the_project_requires_is_locked(requirement: Requirement) -> None:
    assert LOCKED[canonicalize_name(requirement.name)] in requirement.specifier, "make lock brings it up to date"


def test_what_the_benchmarks_peer_requires_is_locked_apart() -> None:
    """Nobody but `make bench` installs FastStream; what both need is of one release, so that none is the quicker."""
    wanted = [Requirement(line) for line in (PEER / "requirements.in").read_text().splitlines() if line[:1].isalpha()]
    theirs = locked(PEER_LOCK)
    assert [each.name for each in wanted if theirs[canonicalize_name(each.name)] not in each.specifier] == []
    assert "faststream" in theirs
    assert "faststream" not in LOCKED
    assert {name: version for name, version in theirs.items() if LOCKED.get(name, version) != version} == {}


@pytest.mark.parametrize("lock", [LOCK, PEER_LOCK], ids=["ours", "the peer's"])
def test_every_locked_package_carries_hashes(lock: str) -> None:
    entries = re.findall(r"^[a-z].*(?:\n    --hash.*)*", lock, re.MULTILINE)
    assert len(entries) == len(locked(lock))
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
