"""Whether objects fit the schemas of Kubernetes, which kubernetes-validate brings along, or those of their own CRDs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import yaml

from tests.unit.chart.chart import KUBERNETES, Document

DEFINITIONS: Final = {
    "ScaledObject": ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    "ServiceMonitor": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
}
"""Objects of others' kinds: the Go module whose release has the definition, and where it stands in there."""


def kubernetes_fault(document: Document, version: str) -> str:
    """What a version of Kubernetes would refuse, in words; empty where it would take the object."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{name_of(document)}, Kubernetes {version}: {_place(error)}: {error.message}"
    return ""


def own_fault(document: Document, definition: Mapping[str, Any]) -> str:
    """The same by a CustomResourceDefinition."""
    (schema,) = (
        each["schema"]["openAPIV3Schema"]
        for each in definition["spec"]["versions"]
        if document["apiVersion"].endswith(f"/{each['name']}")
    )
    try:
        jsonschema.validate(document, strict(schema))
    except jsonschema.ValidationError as error:
        return f"{name_of(document)}: {_place(error)}: {error.message}"
    return ""


def strict(schema: Any) -> Any:
    """The schema, refusing fields that it does not name: Kubernetes drops those without a word."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    is_closed = isinstance(found.get("properties"), dict) and found.get("type") == "object"
    if is_closed and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def definitions(go: str) -> dict[str, Document]:
    """The definitions of all kinds that are not Kubernetes' own, fetched by Go's package manager."""
    found: dict[str, Document] = {}
    for kind, (module, path) in DEFINITIONS.items():
        said = subprocess.run([go, "mod", "download", "-json", module], capture_output=True, text=True, check=True)
        found[kind] = yaml.safe_load((Path(json.loads(said.stdout)["Dir"]) / path).read_text())
    return found


def faults(documents: list[Document], own: Mapping[str, Document]) -> list[str]:
    """All that is wrong with objects, by the oldest and the newest Kubernetes.

    Args:
        documents: the objects.
        own: definitions of others' kinds; objects of such a kind that has none here are left out.
    """
    found = [own_fault(each, own[each["kind"]]) for each in documents if each["kind"] in own]
    ours = [each for each in documents if each["kind"] not in DEFINITIONS]
    found += [kubernetes_fault(each, version) for each in ours for version in KUBERNETES]
    return [each for each in found if each]


def name_of(document: Document) -> str:
    """Kind and name of an object."""
    return f"{document['kind']} {document['metadata']['name']}"


def _place(error: jsonschema.ValidationError) -> str:
    return ".".join(map(str, error.absolute_path))
