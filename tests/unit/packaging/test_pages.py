"""The pages in deploy/docs: all their code is run somewhere, their commands exist, and their links lead somewhere.

Here the Python of a page is run as one program. What is typed into a terminal is run on a platform by
tests/processes/test_pages.py, and the first page, which changes files, by test_new.py beside it.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from antiphon.deploy.cli.main import app
from tests.unit.packaging.project import ROOT, files
from tests.unit.packaging.readme import README, blocks, commands_of
from tests.unit.packaging.test_readme import run_readme, unknown_commands

FOLDER = ROOT / "deploy/docs"
PAGES = sorted(FOLDER.glob("*.md"))
FIRST = FOLDER / "first-project.md"
NEEDS_A_PROJECT = {FIRST.name, "fastapi.md", "chaos.md"}
"""Pages whose Python needs a project, and is run by tests/processes and tests/chaos."""
LANGUAGES = {"python", "sh", "text", "toml", "yaml"}
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.mark.parametrize(
    "page", [each for each in PAGES if each.name not in NEEDS_A_PROJECT], ids=lambda page: page.stem
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    run = run_readme(page.read_text(), tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


@pages
def test_all_python_of_a_page_runs(page: Path) -> None:
    assert [
        block.first_line for block in blocks(page.read_text()) if block.language == "python" and not block.runs
    ] == []


@pages
def test_the_commands_of_a_page_exist(page: Path) -> None:
    scripts = [line.strip().removeprefix("- run: ") for block in blocks(page.read_text()) for line in block.lines]
    typed = [*commands_of(page.read_text()), *(line for line in scripts if line.startswith("antiphon "))]
    assert [unknown for line in typed if "make" not in line.split() for unknown in unknown_commands(line)] == []


@pages
def test_the_options_of_its_commands_exist(page: Path) -> None:
    """Also of those that no test runs on a platform."""
    for line in commands_of(page.read_text()):
        words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
        if words[0] == "antiphon":
            # Options are read before the help is printed, and nothing is done.
            asked = CliRunner().invoke(app, [*words[1:], "--help"])
            assert asked.exit_code == 0, asked.output


def test_an_option_that_does_not_exist_is_noticed() -> None:
    assert CliRunner().invoke(app, ["parked", "--gone", "--help"]).exit_code == 2


@pages
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {block.language for block in blocks(page.read_text())} <= LANGUAGES


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor[1:] in anchors(found), anchor


def anchors(page: Path) -> set[str]:
    """What headings of a page can be linked to, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_first_page_leads_to_all_others_and_the_readme_to_the_first() -> None:
    linked = {target for target, _ in LINK.findall(FIRST.read_text())}
    assert sorted({page.name for page in PAGES} - linked - {FIRST.name}) == []
    first_link = next(target for target, _ in LINK.findall(README.read_text()))
    assert first_link == str(FIRST.relative_to(ROOT))


@pytest.mark.parametrize("list_of_pages", [README, ROOT / "deploy/README.md"], ids=["README", "deploy/README"])
def test_who_reads_a_list_of_pages_finds_all_of_them(list_of_pages: Path) -> None:
    linked = {
        (list_of_pages.parent / target).resolve() for target, _ in LINK.findall(list_of_pages.read_text()) if target
    }
    assert sorted(page.name for page in PAGES if page not in linked) == []


def test_no_page_says_the_same_twice() -> None:
    twice = {page.name: said for page in PAGES if (said := {*said_again(page.read_text())})}
    assert twice == {}


def said_again(text: str) -> list[str]:
    """Every fourteen words, without code and tables, that stand on a page at two places."""
    words = re.findall(r"[\w-]+", re.sub(r"^```.*?^```|<!--.*?-->|^\|[^\n]*", "", text, flags=re.DOTALL | re.MULTILINE))
    found = Counter(" ".join(words[first : first + 14]) for first in range(len(words) - 13))
    return [said for said, count in found.items() if count > 1]


def test_no_line_of_a_page_has_more_than_120_columns() -> None:
    """But for tables, headings, code, and what is a single word, such as a link."""
    code = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
    too_long = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in files()
        if page.suffix == ".md" and "node_modules" not in page.parts
        for number, line in enumerate(
            code.sub(lambda found: "\n" * found[0].count("\n"), page.read_text()).split("\n"), 1
        )
        if len(line) > 120 and not line.lstrip().startswith(("|", "#", "<")) and " " in line.strip().removeprefix("- ")
    ]
    assert too_long == []
