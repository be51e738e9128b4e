"""Plant each bug, and find the first test that notices it: `python -m tests.planted [NAME …]`, or `make planted`.

The layers come in the order of what they cost. In each, only those folders of tests are run that
run the patched code at all. Prints the table of this folder's README, and the rows of `caught.toml`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.planted.patches import Caught, Patch, all_patches, apply, copy_sources, run_tests

LAYERS: Final = ("unit", "explorer", "integration", "chaos")
TESTS: Final[dict[str, dict[str, list[str]]]] = {
    "contracts/": {
        "unit": ["unit/testing"],
        "integration": ["integration/link", "conformance", "integration/participants", "integration/platform"],
    },
    "coordinator/antiphon/coordinator/decision/": {
        "unit": ["unit/decide", "unit/testing"],
        "explorer": ["simulation"],
        "integration": ["conformance", "integration/platform"],
    },
    "coordinator/antiphon/coordinator/runtime/": {
        "unit": ["unit/testing"],
        "explorer": ["simulation/test_storms.py"],
        "integration": ["conformance", "integration/platform"],
    },
    "deploy/antiphon/deploy/readmodel/": {"integration": ["integration/readmodel"]},
    "participants/": {
        "unit": ["unit/testing"],
        "explorer": ["simulation/inbox"],
        "integration": ["integration/participants", "integration/order", "integration/platform"],
    },
    "tracing/": {"integration": ["integration/tracing"]},
}
"""The tests that run any of the code below a folder, by layer. Chaos is the same for all."""

FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (tests/\S+::.+?)(?: - .*)?$", re.MULTILINE)
RAN: Final = re.compile(r"(\d+) (?:passed|failed|error)")


def find(patch: Patch) -> Caught | None:
    """Run the layers until a test notices a patch; None where none does."""
    tests = next(tests for part, tests in TESTS.items() if patch.changes.startswith(part))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_sources(folder)
        apply(patch, folder)
        for layer in LAYERS:
            for below in ["chaos"] if layer == "chaos" else tests.get(layer, []):
                if (test := first_that_fails(folder, f"tests/{below}")) is not None:
                    return Caught(layer, *how_soon(folder, test.partition("::")[0]))
    return None


def first_that_fails(folder: Path, tests: str) -> str | None:
    """Run tests against a copy with a planted bug; None where none fails."""
    return _failed_in(run_tests(folder, tests))


def how_soon(folder: Path, file: str) -> tuple[str, int]:
    """Run one file of tests that notices a planted bug: the first test that does, and how many ran until then."""
    ran = run_tests(folder, file)
    test = _failed_in(ran)
    if test is None:
        raise RuntimeError(f"{file} fails beside other tests only:\n{ran.stdout}")
    return test, sum(int(each) for each in RAN.findall(ran.stdout.rstrip().rpartition("\n")[2]))


def _failed_in(ran: subprocess.CompletedProcess[str]) -> str | None:
    if (found := FAILED.search(ran.stdout)) is not None:
        return found[1]
    if ran.returncode:
        raise RuntimeError(ran.stdout + ran.stderr)
    return None


def main(names: list[str]) -> int:
    """Find who notices each of some patches, or of all."""
    patches = [Patch(name) for name in names] or all_patches()
    unnoticed = list[str]()
    for patch in patches:
        found = find(patch)
        if found is None:
            unnoticed.append(patch.name)
            sys.stdout.write(f"# {patch.name}: NO TEST NOTICES IT\n\n")
        else:
            sys.stdout.write(f'[{patch.name}]\nlayer = "{found.layer}"\ntest = "{found.test}"\nruns = {found.runs}\n\n')
        sys.stdout.flush()
    sys.stdout.write(f"planted bugs: {len(patches)}, {len(patches) - len(unnoticed)} noticed\n")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
