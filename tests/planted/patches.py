"""The planted bugs as patches, and copies of the source folders that have one of them. The tree is never changed.

Tests import from such a copy because `PYTHONPATH` comes before all that is installed, be that the tree or the wheel;
the processes that they start inherit it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = Path(__file__).resolve().parent
SOURCES: Final = ("contracts", "coordinator", "deploy", "participants", "tracing")
SEED: Final = "--hypothesis-seed=0"
"""What is left to chance is the same each time."""


class NotApplied(Exception):
    """A patch does not fit the files that are shipped."""


@dataclass(frozen=True)
class Caught:
    """Which test notices a planted bug, as `caught.toml` says."""

    layer: str
    test: str
    runs: int
    """How many tests of its file ran until this one noticed it."""


@dataclass(frozen=True)
class Patch:
    """A planted bug."""

    name: str

    @property
    def path(self) -> Path:
        """The file of the patch."""
        return FOLDER / f"{self.name}.patch"

    @property
    def says(self) -> str:
        """What a user would suffer: the lines before the difference."""
        return self.path.read_text().partition("--- a/")[0].strip()

    @property
    def changes(self) -> str:
        """The file that it changes first."""
        return self.path.read_text().partition("--- a/")[2].partition("\n")[0]


def all_patches() -> list[Patch]:
    """Every patch, by name."""
    return [Patch(path.stem) for path in sorted(FOLDER.glob("*.patch"))]


def recorded() -> dict[str, Caught]:
    """What is known of who notices which patch."""
    return {name: Caught(**each) for name, each in tomllib.loads((FOLDER / "caught.toml").read_text()).items()}


def copy_sources(folder: Path) -> None:
    """Copy what is shipped, without what Python has compiled."""
    for source in SOURCES:
        shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))


def apply(patch: Patch, folder: Path, *options: str) -> None:
    """Apply a patch to a copy of the source folders.

    Raises:
        NotApplied: the files are not what the patch was made for.
    """
    # Without the ceiling, git would look for a repository above the folder, and count the patch's names from there.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", *options, str(patch.path)]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise NotApplied(f"{patch.path.name} does not apply any more: {ran.stderr.strip()}")


def run_tests(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests against a copy of the source folders, up to the first that fails."""
    path = [str(folder / source) for source in SOURCES] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(each for each in path if each),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
    }
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", SEED]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
