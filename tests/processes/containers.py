"""The files for containers as these tests read them: what Docker and Compose would make of them, without either."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from tests.unit.packaging.project import ROOT, files
from tests.unit.packaging.readme import commands_of

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = {name: service for name, service in SERVICES.items() if service["image"] == "antiphon:local"}
JAEGER: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "jaeger.yaml").read_text())

DOCKERFILE: Final = [
    line.split(maxsplit=1)
    for line in (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
IGNORE: Final = [
    line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line and not line.startswith("#")
]


def instructions(name: str) -> list[str]:
    """What every such instruction of the Dockerfile says."""
    return [rest for word, rest in DOCKERFILE if word == name]


def is_sent(path: PurePosixPath) -> bool:
    """Whether a file of the tree gets into the build: the last line that matches it or a folder above it decides."""
    sent = True
    for pattern in IGNORE:
        if any(_matches(each, pattern.removeprefix("!")) for each in (path, *path.parents)):
            sent = pattern.startswith("!")
    return sent


def _matches(path: PurePosixPath, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.name, pattern.removeprefix("**/"))
    return len(path.parts) == len(PurePosixPath(pattern).parts) and fnmatch.fnmatch(str(path), pattern)


def copied() -> Iterator[Path]:
    """The files of the tree that the image is built from."""
    from_the_tree = [copy.split() for copy in instructions("COPY") if not copy.startswith("--from=")]
    sources = [source for *sources, _ in from_the_tree for source in sources]
    for path in files():
        relative = PurePosixPath(path.relative_to(ROOT).as_posix())
        if is_sent(relative) and any(relative.is_relative_to(source) for source in sources):
            yield path


def megabytes(limit: str) -> int:
    """A limit of memory, as Compose writes it."""
    number, unit = re.fullmatch(r"(\d+)([MG])", limit).groups()  # type: ignore[union-attr]
    return int(number) * {"M": 1, "G": 1024}[unit]


def run_for_a_person(service: str) -> list[str]:
    """What deploy/README.md has a person give to `docker compose run` for a service, the first time it does."""
    return _given_to("run", service)


def executed_for_a_person(service: str) -> list[str]:
    """The command that deploy/README.md has a person give to `docker compose exec` for a service, the first time."""
    return _given_to("exec", service)


def _given_to(verb: str, service: str) -> list[str]:
    lines = commands_of((DEPLOY / "README.md").read_text())
    commands = [shlex.split(line.split("|")[-1], comments=True) for line in lines]
    runs = [command for command in commands if command[:3] == ["docker", "compose", verb] and service in command]
    return runs[0][runs[0].index(service) + 1 :]
