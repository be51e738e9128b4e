"""The project as these tests see it: its folders, its files and its settings."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SOURCE_ROOTS = ("contracts", "tracing", "coordinator", "participants", "deploy")
NAMESPACES = [ROOT / source / "antiphon" for source in SOURCE_ROOTS]


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages() -> list[Path]:
    """Every package directly below the namespace, in whichever source root it lies."""
    return sorted(init.parent for namespace in NAMESPACES for init in namespace.glob("*/__init__.py"))


def files() -> list[Path]:
    """Every file that is tracked, or would be if it were added now."""
    # Owned by somebody else, as a checkout in a container often is, the repository would not be read without this.
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    listed = subprocess.check_output([*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], text=True)
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
