"""Runs mypy and pyright over the files in `cases` and compares what they say with the comments there.

A line that must be refused ends with `# error: <mypy's code>, <pyright's rule>`; every other line must pass.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CASES = Path(__file__).parent / "cases"
EXPECTED = re.compile(r"# error: ([a-z-]+), (report[A-Za-z]+)$")
MYPY_LINE = re.compile(r"(?:.*/)?(\w+\.py):(\d+): error: .*\[([a-z-]+)\]$")

Errors = set[tuple[str, int, str]]
"""File, line and code."""


def expected(checker: int) -> Errors:
    """What the comments say: 0 is mypy, 1 is pyright."""
    found = Errors()
    for path in CASES.glob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := EXPECTED.search(line):
                found.add((path.name, number, match.groups()[checker]))
    return found


def test_mypy_refuses_what_is_wrong_and_nothing_else() -> None:
    done = run("mypy", "--no-error-summary", "--hide-error-context", "--no-pretty", *map(str, CASES.glob("*.py")))
    found = {parse(line) for line in done.stdout.splitlines() if ": error: " in line}
    compare(found, expected(0), done.stdout + done.stderr)


def test_pyright_refuses_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    # pyright forgets its settings when it is given files, and takes none from another folder than theirs.
    shutil.copytree(CASES, tmp_path, dirs_exist_ok=True)
    roots = [str(ROOT / name) for name in ("contracts", "tracing", "coordinator", "participants", "deploy")]
    settings = {"extraPaths": roots, "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = run("pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path))
    said = json.loads(done.stdout)["generalDiagnostics"]
    found = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["rule"]) for each in said}
    compare(found, expected(1), json.dumps(said, indent=2))


def compare(found: Errors, wanted: Errors, output: str) -> None:
    """Every refused line has its code, perhaps with others that follow from it, and no other line is refused."""
    assert wanted, "no case expects an error"
    assert wanted <= found, output
    assert {error[:2] for error in found} == {error[:2] for error in wanted}, output


def parse(line: str) -> tuple[str, int, str]:
    match = MYPY_LINE.fullmatch(line)
    assert match is not None, line
    return match[1], int(match[2]), match[3]


def run(checker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", checker, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
