"""Render the chart, or check the renderings that are kept: `make chart` and `make check`.

python -m tests.unit.chart render --helm PROGRAM --go PROGRAM
python -m tests.unit.chart check
"""

from __future__ import annotations

import argparse
import sys

from tests.unit.chart import fitting
from tests.unit.chart.chart import CHART, DIGEST, KUBERNETES, RENDERED, VALUES, digest, documents, render, run_helm

STALE = "deploy/chart/rendered is not of the chart's sources as they are: make chart renders it anew, and commit that."


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.unit.chart")
    parser.add_argument("what", choices=("render", "check"))
    parser.add_argument("--helm", default="helm")
    parser.add_argument("--go", default="go")
    given = parser.parse_args(arguments)
    faults = _render(given.helm, given.go) if given.what == "render" else _check()
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


def _render(helm: str, go: str) -> list[str]:
    """Lint and render with all files of values, and keep what comes of it if none has a fault."""
    definitions = fitting.definitions(go)
    made: dict[str, str] = {}
    for name, path in VALUES.items():
        linted = run_helm(helm, "lint", "--strict", "--quiet", str(CHART), "--values", str(path))
        ran = render(helm, name)
        for run in (linted, ran):
            if run.returncode:
                return [run.stderr or run.stdout]
        made[name] = ran.stdout
    if faults := [fault for text in made.values() for fault in fitting.faults(documents(text), definitions)]:
        return faults
    RENDERED.mkdir(exist_ok=True)
    for name, text in made.items():
        (RENDERED / f"{name}.yaml").write_text(text)
    DIGEST.write_text(f"{digest()}\n")
    _tell("rendered", made, definitions)
    return []


def _check() -> list[str]:
    if DIGEST.read_text().strip() != digest():
        return [STALE]
    kept = {name: (RENDERED / f"{name}.yaml").read_text() for name in VALUES}
    if faults := [fault for text in kept.values() for fault in fitting.faults(documents(text), {})]:
        return faults
    _tell("checked", kept, ())
    return []


def _tell(done: str, texts: dict[str, str], own: object) -> None:
    counts = ", ".join(f"{len(documents(text))} objects of {name}" for name, text in texts.items())
    others = " and ".join(fitting.DEFINITIONS)
    how = "by their own definitions" if own else "when make chart rendered them, and not now"
    sys.stdout.write(f"{done} {counts}, against Kubernetes {' and '.join(KUBERNETES)}; {others} {how}.\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
