"""What README.md shows works: its Python runs, and its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.commands import run_antiphon
from tests.unit.packaging.project import ROOT
from tests.unit.packaging.readme import README, blocks, commands_of, python_of

# Runs a program that may await outside any function, as a README does, in the namespace of __main__.
RUN = """
import ast, asyncio, inspect, sys
program = compile(open(sys.argv[1]).read(), "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
outcome = eval(program, globals())
if inspect.isawaitable(outcome):
    asyncio.run(outcome)
"""

OPERATORS = {"&&", "||", ";", "|", "&"}


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    run = run_readme(README.read_text(), tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_commands_of_the_readme_exist() -> None:
    for line in commands_of(README.read_text()):
        assert unknown_commands(line) == [], line


def test_a_broken_block_is_noticed_at_its_line(tmp_path: Path) -> None:
    text = "\n```python\nimport asyncio\nawait asyncio.sleep(0)\n```\n\nThen:\n\n```python\nasyncio.gone()\n```\n"
    run = run_readme(text, tmp_path)
    assert run.returncode == 1
    assert 'File "README.md", line 10' in run.stderr


def test_a_block_that_says_why_is_not_run(tmp_path: Path) -> None:
    text = "<!-- not run: needs a customer -->\n```python\nraise SystemExit('ran')\n```\n"
    assert [block.runs for block in blocks(text)] == [False]
    assert run_readme(text, tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("make test ARGS='-k name'", []),
        ("git clone somewhere && make dmeo", ["make dmeo"]),
        (".venv/bin/antiphon --help", []),
        ("antiphon gone --json  # not a command", ["antiphon gone"]),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str, unknown: list[str]) -> None:
    assert unknown_commands(line) == unknown


def run_readme(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = folder / "readme.py"
    program.write_text(python_of(text))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(program)],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def unknown_commands(line: str) -> list[str]:
    """The make targets and the subcommands of `antiphon` that this line names and nobody has."""
    unknown: list[str] = []
    command: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word not in OPERATORS:
            command.append(word)
            continue
        unknown += unknown_in(command)
        command = []
    return unknown


def unknown_in(command: list[str]) -> list[str]:
    words = [word for word in command if "=" not in word and not word.startswith("-")]
    match [Path(word).name for word in words[:1]] + words[1:]:
        case ["make", *targets]:
            return [f"make {target}" for target in targets if target not in make_targets()]
        case ["antiphon", subcommand, *_] if not is_subcommand(subcommand):
            return [f"antiphon {subcommand}"]
        case _:
            return []


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def is_subcommand(name: str) -> bool:
    return run_antiphon([name, "--help"], os.environ).returncode == 0
