"""The pytest plugin as a project of its own finds it: both modes, several workers, settings, what a failure shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.packaging.project import ROOT
from tests.unit.packaging.readme import README, blocks, python_of

SETTINGS = """
[tool.pytest.ini_options]
asyncio_mode = "strict"
asyncio_default_fixture_loop_scope = "function"
antiphon_apps = ["antiphon.order.saga"]
antiphon_participants = [
    "antiphon.order.inventory:inventory", "antiphon.order.billing:billing", "antiphon.order.shipping:shipping"
]
"""
TESTS = """
import pytest
from antiphon.order.data import load_orders
from antiphon.order.saga import order

async def ordered(chaos):
    async with chaos.client() as antiphon:
        placed = load_orders()[1]
        return await (await antiphon.start(order, placed, id=placed.order_id)).result(timeout=100)

@pytest.mark.asyncio
async def test_that_fails(chaos):
    chaos.kill("billing")
    assert (await ordered(chaos)).outcome == "lost"

@pytest.mark.asyncio
async def test_that_passes(chaos):
    assert (await ordered(chaos)).outcome == "completed"
    await chaos.assert_invariants()

def test_without_a_loop(antiphon_server):
    antiphon_server.kill()
    antiphon_server.start()

@pytest.mark.chaos()
@pytest.mark.chaos(participants=["antiphon.order.gone:gone"])
def test_of_nobody(chaos):
    pass
"""


def run_pytest(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "--strict-markers", "-W", "error", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_a_project_has_it_without_a_word_and_a_failure_shows_what_happened(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "test_shop.py").write_text(TESTS)
    ran = run_pytest(tmp_path, "-n", "2")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert re.search(r"= 1 failed, 2 passed, 1 error in ", ran.stdout), ran.stdout
    assert "CannotLoad: cannot import antiphon.order.gone: there is no module 'antiphon.order.gone'" in ran.stdout
    for shown in (
        r"-- what became of the processes --",
        r"^billing: was killed by SIGKILL; starting it again in 0\.25 s$",
        r"-- saga order/order-0002: completed --",
        r"^.{19} billing charge_customer: payment\.charged",
        r"-- log of billing --",
        r"^.*participant\.ready .*participant=billing",
        r"-- log of nats-server --",
    ):
        assert re.search(shown, ran.stdout, re.MULTILINE), shown


def test_a_project_that_does_not_say_what_it_consists_of_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text("def test_one(chaos):\n    pass\n")
    ran = run_pytest(tmp_path, "-p", "no:asyncio")
    assert "CannotLoad: it is not said what the platform consists of. Name sagas and participants" in ran.stdout


def test_where_postgresql_is_not_installed_a_test_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "test_database.py").write_text(
        "def test_one(antiphon_postgres):\n    antiphon_postgres.new_database()\n"
    )
    nowhere = "from pathlib import Path\nPath.glob = lambda self, pattern: iter(())\n"
    (tmp_path / "conftest.py").write_text(nowhere)
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    ran = run_pytest(tmp_path, "-p", "no:cacheprovider", PATH="/nowhere", ANTIPHON_REQUIRE_POSTGRES="0")
    assert re.search(r"SKIPPED .*PostgreSQL is not installed", ran.stdout), ran.stdout + ran.stderr
    required = run_pytest(tmp_path, "-p", "no:cacheprovider", PATH="/nowhere", ANTIPHON_REQUIRE_POSTGRES="1")
    assert re.search(r"LookupError: PostgreSQL is not installed", required.stdout), required.stdout


@pytest.mark.chaos(
    "antiphon.order.saga",
    participants=[f"antiphon.order.{name}:{name}" for name in ("inventory", "billing", "shipping")],
    databases={"billing": "postgres"},
)
async def test_a_participant_may_have_postgresql(chaos: object) -> None:
    from antiphon.deploy.chaos import ChaosPlatform
    from antiphon.order.data import load_orders
    from antiphon.order.saga import order

    assert isinstance(chaos, ChaosPlatform)
    assert chaos.databases["billing"].startswith("postgresql://")
    chaos.at("billing", "after_commit")
    placed = load_orders()[1]
    async with chaos.client() as antiphon:
        handle = await antiphon.start(order, placed, id=placed.order_id)
        assert (await handle.result(timeout=120)).outcome == "completed"
    await chaos.assert_invariants()


def test_the_story_of_the_readme_is_true(tmp_path: Path) -> None:
    """The same lines as in the README, in a project that has nothing else but what they name."""
    (story,) = (block for block in blocks(README.read_text()) if "chaos.at(" in "\n".join(block.lines))
    assert len(story.lines) <= 25
    (tmp_path / "pyproject.toml").write_text(SETTINGS.replace("strict", "auto"))
    (tmp_path / "test_story.py").write_text("\n".join(story.lines) + "\n")
    ran = run_pytest(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_code_of_the_page_passes_in_a_new_project(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "antiphon.deploy", "new", "shop"], cwd=tmp_path, check=True)
    (tmp_path / "shop/tests/test_page.py").write_text(python_of((ROOT / "deploy/docs/chaos.md").read_text()))
    ran = run_pytest(tmp_path / "shop", "-n", "2", "tests/test_page.py", "tests/test_whole_platform.py")
    assert re.search(r"= 6 passed in ", ran.stdout), ran.stdout + ran.stderr
    asked = ["--app", "shop", "--load", "tests.test_page:Sales", "--servers", "1", "--workers", "1", "--faults", "3"]
    command = [sys.executable, "-m", "antiphon.deploy", "chaos", *asked, "--seed", "7", "--every", "1"]
    stormed = subprocess.run(command, cwd=tmp_path / "shop", capture_output=True, text=True, check=False)
    assert stormed.stdout.endswith(" 3 faults, 0 violations\n"), stormed.stdout + stormed.stderr
    assert re.search(r"^\d+ compensated, \d+ completed; ", stormed.stdout, re.M), stormed.stdout


def test_antiphon_does_without_pytest() -> None:
    """Whoever has no pytest never loads the plugin, and everything else loads without it."""
    script = "import sys; sys.modules['pytest'] = None; import antiphon.deploy.chaos.platform, antiphon.deploy.cli.main"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_the_plugin_loads_nothing_but_pytest() -> None:
    """Whoever runs other tests waits for nothing that only chaos tests need."""
    script = """
import sys
import pytest
before = set(sys.modules)
import antiphon.deploy.chaos.plugin
print(*(set(sys.modules) - before))
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert loaded <= {"antiphon", "fractions", "msgspec", "typing_extensions"}, ran.stderr
