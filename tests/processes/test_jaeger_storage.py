"""deploy/jaeger-storage.yaml: Jaeger knows its settings, and finds the storage where it listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from antiphon.deploy.services.declared import JAEGER_STORAGE
from antiphon.tracing.jaeger.serve import LISTEN
from tests.processes.containers import DEPLOY, JAEGER
from tests.processes.test_images import DOCUMENTED, paths

# As Jaeger 2.20 documents them, in its sample config-query.yaml and in the structs that it is read into.
DOCUMENTED_HERE: Final = {
    "extensions.jaeger_storage.backends.*.grpc.endpoint",
    "extensions.jaeger_storage.backends.*.grpc.tls.insecure",
}
FOUND: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "jaeger-storage.yaml").read_text())
((STORAGE, BACKEND),) = FOUND["extensions"]["jaeger_storage"]["backends"].items()


def test_jaeger_knows_every_setting() -> None:
    found = {path.replace(f".{STORAGE}.", ".*.") for path in paths(FOUND)}
    assert found - DOCUMENTED == DOCUMENTED_HERE


def test_what_jaegers_service_names_is_configured_and_keeps_nothing() -> None:
    service = FOUND["service"]
    assert set(service["extensions"]) == set(FOUND["extensions"])
    assert service["pipelines"]["traces"] == {"receivers": ["nop"], "processors": [], "exporters": ["nop"]}
    assert FOUND["receivers"] == FOUND["exporters"] == {"nop": {}}
    assert FOUND["extensions"]["jaeger_query"]["storage"]["traces"] == STORAGE


def test_jaeger_asks_where_the_storage_listens_and_shows_the_same_page() -> None:
    (listen,) = [setting for setting in JAEGER_STORAGE.own if setting.name == "listen"]
    assert BACKEND["grpc"]["endpoint"] == LISTEN == listen.default
    page, in_container = (Path(config["extensions"]["jaeger_query"]["ui"]["config_file"]) for config in (FOUND, JAEGER))
    assert (DEPLOY.parent / page).is_file()  # relative to where the README starts Jaeger
    assert page.name == in_container.name
