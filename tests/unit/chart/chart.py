"""The Helm chart as tests read it: its sources, what they were rendered to, and helm where it is there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.unit.packaging.project import ROOT

FOLDER: Final = ROOT / "deploy/chart"
CHART: Final = FOLDER / "antiphon"
VALUES: Final = {path.stem: path for path in sorted((FOLDER / "values").glob("*.yaml"))}
RENDERED: Final = FOLDER / "rendered"
DIGEST: Final = RENDERED / "sources.sha256"

RELEASE: Final = "antiphon"
NAMESPACE: Final = "shop"
KUBERNETES: Final = ("1.27", "1.37")
"""The oldest that the chart is for, and the newest that it was rendered for."""

Document = dict[str, Any]


def digest() -> str:
    """A digest over all that a rendering is made of, names included."""
    found = hashlib.sha256()
    for path in sorted([*CHART.rglob("*"), *VALUES.values()]):
        if path.is_file():
            content = path.read_bytes()
            found.update(f"{path.relative_to(FOLDER).as_posix()} {len(content)}\n".encode())
            found.update(content)
    return found.hexdigest()


def documents(text: str) -> list[Document]:
    """The objects of a rendering."""
    return [each for each in yaml.safe_load_all(text) if each]


def rendered(name: str) -> list[Document]:
    """The objects of a rendering that is kept."""
    return documents((RENDERED / f"{name}.yaml").read_text())


def merged(name: str) -> Document:
    """Values as helm merges them over the chart's own."""
    return over(yaml.safe_load((CHART / "values.yaml").read_text()), yaml.safe_load(VALUES[name].read_text()))


def over(general: Document, own: Document) -> Document:
    """Values over others, as helm merges them: lists take each other's place."""
    found = dict(general)
    for key, value in own.items():
        is_nested = isinstance(value, dict) and isinstance(general.get(key), dict)
        found[key] = over(general[key], value) if is_nested else value
    return found


def find_helm() -> str | None:
    """The helm that `make chart` names or PATH has."""
    return os.environ.get("HELM") or shutil.which("helm")


def run_helm(helm: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm, without any cluster."""
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run([helm, *arguments], env=environment, capture_output=True, text=True, check=False)


def render(helm: str, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Render the chart with one of the files of values."""
    return run_helm(
        *(helm, "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES[-1]),
        *("--values", str(VALUES[name]), *arguments),
    )


def containers(document: Document) -> Iterator[Document]:
    """All containers of a Deployment or Job."""
    pod = document["spec"]["template"]["spec"]
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def environment(container: Document) -> dict[str, str]:
    """The variables of a container that have their value in the rendering."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}
