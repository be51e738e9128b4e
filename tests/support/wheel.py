"""A wheel installed into an environment that is empty but for the packages it depends on."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel, and return its folder of programs.

    The packages that the wheel depends on are lent by the environment that runs the tests.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = str(folder / "bin" / "python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", str(wheel))
    # The lent folder comes last and its own .pth files are not read, so that an editable Antiphon stays out.
    (site_packages(folder) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of a tree."""
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder), cwd=source)
    (built,) = folder.glob("*.whl")
    return built


def site_packages(environment: Path) -> Path:
    """Where the packages of an environment are."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command without any settings for Python, and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
