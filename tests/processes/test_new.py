"""`antiphon new`: what it writes runs and passes at once, from the wheel, and what cannot be written is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.deploy.cli.new_project import FILES, NAME_CHARS_MAX, NEEDED
from tests.processes.test_command_line import antiphon, assert_one_sentence
from tests.support.reader import SECONDS_MAX, Reader
from tests.support.server import until
from tests.support.wheel import build, install
from tests.unit.packaging.project import ROOT, files
from tests.unit.packaging.readme import blocks

PAGE = ROOT / "deploy/docs/first-project.md"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and what it depends on."""
    return install(build(ROOT, tmp_path_factory.mktemp("dist")), tmp_path_factory.mktemp("environment"))


RUFF = [["ruff", "check", "."], ["ruff", "format", "--check", "."]]
LONGEST = "an_order_of_" + "a" * (NAME_CHARS_MAX - len("an_order_of_"))


@pytest.mark.parametrize(
    ("name", "tools"), [("x", RUFF), ("billing", [*RUFF, ["pytest", "-q"]]), (LONGEST, [*RUFF, ["mypy", "."]])]
)
def test_whatever_it_is_called_its_code_is_sound(name: str, tools: list[list[str]], tmp_path: Path) -> None:
    assert antiphon("new", name, folder=tmp_path).returncode == 0
    project = tmp_path / name
    modules = f"--app {name}.saga:order --app {name}.stock --app {name}.billing".split()
    assert antiphon("flow", "check", *modules, folder=project).returncode == 0
    for tool in tools:
        ran = subprocess.run([sys.executable, "-m", *tool], cwd=project, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [file for file in FILES if re.search(r"\bshop\b", (project / file.replace("shop", name)).read_text())] == []


def test_a_handler_that_was_forgotten_is_named_before_any_test_runs(tmp_path: Path) -> None:
    assert antiphon("new", "shop", folder=tmp_path).returncode == 0
    billing = tmp_path / "shop/shop/billing.py"
    billing.write_text(re.sub(r"^@billing\.handles.*\n", "", billing.read_text(), flags=re.MULTILINE))
    ran = subprocess.run(
        ["make", "test", f"PYTHON={sys.executable}"], cwd=tmp_path / "shop", capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0
    assert "customer.charge" in ran.stdout + ran.stderr
    assert "test session starts" not in ran.stdout


def test_all_files_of_the_template_are_written() -> None:
    template = ROOT / "deploy/antiphon/deploy/template"  # in the tree, whatever is installed
    assert sorted(FILES) == sorted(str(each.relative_to(template)) for each in files() if each.is_relative_to(template))


def test_where_no_environment_is_active_its_python_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    assert f"make test PYTHON={sys.executable}" in antiphon("new", "shop", folder=tmp_path).stdout


def test_an_empty_folder_is_filled_and_called_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "hotel").mkdir()
    ran = antiphon("new", ".", folder=tmp_path / "hotel")
    assert ran.returncode == 0, ran.stderr
    assert "cd " not in ran.stdout
    assert (tmp_path / "hotel/hotel/saga.py").is_file()
    assert 'name = "hotel"' in (tmp_path / "hotel/pyproject.toml").read_text()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("my-shop", "antiphon new my_shop"),
        ("My Shop", "antiphon new my_shop"),
        ("3d-shop", "antiphon new d_shop"),
        ("größe", "antiphon new grosse"),
        ("café", "antiphon new cafe"),
        ("_shop", "antiphon new shop"),
        ("_x", "antiphon new x"),
        ("shop_", "antiphon new shop"),
        ("email-", "antiphon new my_project"),
        ("---", "antiphon new my_project"),
    ],
)
def test_what_cannot_be_a_packages_name_is_refused_with_one_that_can(name: str, advice: str, tmp_path: Path) -> None:
    ran = antiphon("new", "--", name, folder=tmp_path)
    assert_one_sentence(ran, repr(name), "the letters a to z, digits, and _ between them", advice)
    assert list(tmp_path.iterdir()) == []


def test_a_word_of_pythons_own_is_refused(tmp_path: Path) -> None:
    ran = antiphon("new", "class", folder=tmp_path)
    assert_one_sentence(ran, "'class' is a word of Python's own", "antiphon new my_project")


@pytest.mark.parametrize("name", ["email", "asyncio", *sorted(NEEDED), "msgspec", "nats"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    assert_one_sentence(antiphon("new", name, folder=tmp_path), repr(name), "hoose another")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert_one_sentence(antiphon("new", "a" * (NAME_CHARS_MAX + 1), folder=tmp_path), f"{NAME_CHARS_MAX} characters")


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/notes").write_text("mine")
    assert_one_sentence(antiphon("new", "shop", folder=tmp_path), "is not empty", str(tmp_path / "shop"))
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["notes"]
    (tmp_path / "file").write_text("mine")
    assert_one_sentence(antiphon("new", "file", folder=tmp_path), "is no folder")


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_one_sentence(antiphon("new", "file/shop", folder=tmp_path), "cannot write the project to", "Not a directory")


# --- a command on the platform ----------------------------------------------------------------------------------------


def test_up_ends_as_its_command_does(tmp_path: Path) -> None:
    print_and_fail = "import os; print(os.environ['NATS_URL'].startswith('nats://127.0.0.1:')); raise SystemExit(7)"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "antiphon.deploy", "up", "--port", "0", "--coordinators", "1"),
            *("--", sys.executable, "-c", print_and_fail),
        ],
        cwd=tmp_path,
        env={**os.environ, "NATS_URL": "nats://nowhere"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 7, ran.stdout + ran.stderr
    assert "True" in ran.stdout.splitlines()
    assert "participant.ready" not in ran.stdout, "what processes write is in their logs only"


def test_a_platform_runs_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'ein "ördner" \\ 日本'
    folder.mkdir()
    ran = antiphon("up", "--port", "0", "--coordinators", "1", "--", sys.executable, "-c", "", folder=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (folder / ".antiphon/up/nats/store/jetstream").is_dir()


def test_a_command_that_is_not_there_is_told_before_anything_is_started(tmp_path: Path) -> None:
    ran = antiphon("up", "--port", "0", "antiphon.order.saga:order", folder=tmp_path)
    assert_one_sentence(ran, "there is no program 'antiphon.order.saga:order'", "--app")
    assert list(tmp_path.iterdir()) == []


# --- the page ---------------------------------------------------------------------------------------------------------


async def test_a_reader_who_follows_the_page_gets_there(programs: Path, tmp_path: Path) -> None:
    text = PAGE.read_text()
    install, start, *others = [block for block in blocks(text) if block.language in ("sh", "python")]
    assert install.lines[0] == "python3 -m venv .venv"  # which the wheel's environment is in the place of
    reader = Reader(tmp_path, programs)
    shown = next(block for block in blocks(text) if block.language == "text")
    said = reader.types("\n".join(start.lines))
    assert "make run  " in said, "the environment is active, so no Python is named"
    told = without_numbers(said)
    assert "\n".join(map(without_numbers, shown.lines)) in told
    reader.folder = tmp_path / "shop"
    change, test, tests, up, order, kill = others
    reader.edits(text, change)
    reader.edits(text, test)
    assert re.search(r"\b12 passed", reader.types("\n".join(tests.lines)))
    with reader.leaves_running(up) as platform:
        await until(lambda: "ready: 4 processes" in platform.said(), seconds=60, what="the platform")
        assert "order/first" in reader.types("\n".join(order.lines))
        billing = re.search(r"^billing +\| runs as process (\d+)$", platform.said(), re.MULTILINE)
        assert billing is not None
        assert "completed" in reader.types("\n".join(kill.lines).replace("4711", billing[1]))
        assert re.search(r"^billing +\| was killed by SIGKILL", platform.said(), re.MULTILINE)
        assert {"first", "second"} <= set(re.findall(r"\border/(\w+)", reader.types("antiphon list")))


def without_numbers(text: str) -> str:
    """A text in which neither times nor the width of columns matter."""
    lines = [re.sub(r"[\d.-]+", "#", line) for line in text.splitlines()]
    return "\n".join(" ".join(line.split()) for line in lines)
