"""What Prometheus asks for and Grafana shows is what processes export, and each alert has its runbook."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest
import yaml

from antiphon.deploy.local.server import free_port
from antiphon.link.probes import served
from antiphon.tracing.telemetry.counts import COUNTERS, SPANS, Counts
from antiphon.tracing.telemetry.metrics import GAUGES, Gauges, measuring

DEPLOY: Final = Path(__file__).parents[3] / "deploy"
ALERTS: Final = DEPLOY / "prometheus" / "alerts.yaml"
BOARDS: Final = sorted((DEPLOY / "grafana").glob("*.json"))
RUNBOOKS: Final = (DEPLOY / "docs" / "runbooks.md").read_text()
RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
OF_PROMETHEUS: Final = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate"}}
TARGET: Final = {"job", "instance"}
"""Labels that Prometheus gives to all that it fetches."""

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? \S+$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="')
STRING = re.compile(r'"[^"]*"')
SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\s*\{([^}]*)\}")
BY = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
NAME = re.compile(r"(?<![\w$.])([A-Za-z_:][\w:]*)(?!\w*\s*\()")
WORDS: Final = frozenset(("and", "or", "unless", "offset", "by", "bool"))


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of each metric that a process can export, as they stand on its page."""
    found = defaultdict[str, set[str]](set)
    text = asyncio.run(page())
    for name, labels in SAMPLE.findall(text):
        found[name] |= {*LABEL.findall(labels), *TARGET}
    for rule in RULES:
        if "record" in rule:
            found[rule["record"]] = {label for labels in BY.findall(rule["expr"]) for label in _words(labels)}
    return found | OF_PROMETHEUS


async def page() -> str:
    """What a process shows in which everything has happened once."""
    counts, address = Counts(), f"127.0.0.1:{free_port()}"
    gauges: Gauges = {(each.name, tuple((label, "x") for label in each.labels)): 1 for each in GAUGES}
    with served(address) as probes, measuring(counts, gauges, probes, "test"):
        for what, counter in COUNTERS.items():
            counts.add(what, *counter.labels)
        for which, span in SPANS.items():
            counts.took(which, 1.0, *span.labels)
        return fetch(address)


def fetch(address: str) -> str:
    """What Prometheus would read."""
    with urlopen(f"http://{address}/metrics", timeout=120) as answer:
        return str(answer.read().decode())


def _words(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def expressions() -> Iterator[tuple[str, str]]:
    """All expressions, each with where it stands."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in BOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
                yield f"{path.name}: ${variable['name']}", f'{metric}{{{label}=""}}'


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_what_is_asked_for_is_exported(where: str, expression: str, exported: dict[str, set[str]]) -> None:
    bare = STRING.sub('""', expression)
    for metric, selected in SELECTOR.findall(bare):
        assert {*re.findall(r"(\w+)\s*[=!]~?", selected)} <= exported.get(metric, set()), f"{where}: labels of {metric}"
    rest = re.sub(r"\[[^\]]*\]|\{[^}]*\}", "", bare)
    grouped = {label for labels in BY.findall(rest) for label in _words(labels)}
    names = {*NAME.findall(BY.sub(" ", re.sub(r"\boffset\s+\w+", "", rest)))} - WORDS
    assert names, f"{where}: {expression}"
    assert names <= exported.keys(), where
    assert all(grouped <= exported[name] for name in names), f"{where}: grouped by {grouped}"


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    alerts = [rule["alert"] for rule in RULES if "alert" in rule]
    assert re.findall(r"^## (Antiphon\w+)$", RUNBOOKS, re.MULTILINE) == alerts
    for rule in (rule for rule in RULES if "alert" in rule):
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description", "runbook_url"} <= rule["annotations"].keys()
        assert rule["annotations"]["runbook_url"] == f"deploy/docs/runbooks.md#{rule['alert'].lower()}"


def test_each_alert_is_played_once_where_it_fires() -> None:
    played = (Path(__file__).parent / "alerts.test.yaml").read_text()
    fires = set(
        re.findall(
            r'alertname="(\w+)",alertstate="firing"[^}]*\}\)\', eval_time: \w+, exp_samples: \[\{value: 1', played
        )
    )
    assert fires == {rule["alert"] for rule in RULES if "alert" in rule}


def test_dashboards_can_be_imported_together() -> None:
    boards = [json.loads(path.read_text()) for path in BOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 3
    for board in boards:
        numbers = [panel["id"] for panel in board["panels"]]
        assert len({*numbers}) == len(numbers)
        assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in board["panels"])
        cells = [cell for panel in board["panels"] for cell in _cells(panel["gridPos"])]
        assert len({*cells}) == len(cells), f"{board['title']}: panels overlap"


def _cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    assert place["x"] + place["w"] <= 24
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on this machine; Debian has it in its package prometheus")
    return found


def test_prometheus_reads_the_rules_and_fires_what_it_shall(promtool: str, tmp_path: Path) -> None:
    for file in (ALERTS, ALERTS.with_name("prometheus.yml"), Path(__file__).parent / "alerts.test.yaml"):
        shutil.copy(file, tmp_path)
    for command in (("check", "config", "prometheus.yml"), ("test", "rules", "alerts.test.yaml")):
        ran = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
