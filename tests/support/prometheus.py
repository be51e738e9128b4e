"""A real Prometheus that fetches the pages of processes and judges them by deploy/prometheus' own rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from antiphon.deploy.local.server import HOST, free_port

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
EVERY: Final = "2s"
"""How often it fetches pages and asks its rules. A page may take as long as that, also on a busy machine."""
VARIABLE: Final = re.compile(r"\$\w+")


@dataclass(frozen=True)
class Prometheus:
    """One that runs.

    Args:
        url: where its API answers.
        log: what it has written.
    """

    url: str
    log: Path

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API.

        Raises:
            AssertionError: it refuses the question.
        """
        try:
            with urlopen(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=60) as answer:
                told: dict[str, Any] = json.loads(answer.read())
        except HTTPError as error:
            with error:
                raise AssertionError(f"{query}: {error.read().decode()}") from error
        return told["data"]

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            with urlopen(f"{self.url}/-/ready", timeout=60) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or fire, with their labels."""
        found: list[dict[str, Any]] = self.ask("alerts")["alerts"]
        return found

    def faulty_rules(self) -> list[str]:
        """The rules that it has not evaluated yet, or could not."""
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        assert rules
        return [f"{rule['name']}: {rule.get('lastError', rule['health'])}" for rule in rules if rule["health"] != "ok"]

    def is_fetched(self, metric: str) -> bool:
        """Whether it has had a sample of a metric within the last minutes, from a process that may have ended since."""
        return bool(self.ask("query", query=f"last_over_time({metric}[10m])")["result"])

    def evaluate(self, expression: str) -> None:
        """Ask what a panel asks, for all that its variables stand for."""
        self.ask("query", query=VARIABLE.sub(".*", expression))


@contextmanager
def prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Run one for the length of a block. Where there is none the test is skipped.

    Args:
        folder: where its configuration and its data go.
        targets: the addresses of pages, HOST:PORT.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on this machine; Debian has it in its package prometheus")
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_configuration(targets)))
    shutil.copy(DEPLOY / "prometheus" / "alerts.yaml", folder)
    address = f"{HOST}:{free_port()}"
    seen = Prometheus(f"http://{address}", folder / "prometheus.log")
    with seen.log.open("wb") as log:
        process = subprocess.Popen(
            [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield seen
    finally:
        process.kill()
        process.wait()


def _configuration(targets: Sequence[str]) -> dict[str, Any]:
    """deploy/prometheus/prometheus.yml with targets of this machine, asked often."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    found["global"] = {"scrape_interval": EVERY, "evaluation_interval": EVERY}
    (job,) = found["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [*targets]}]
    return found
