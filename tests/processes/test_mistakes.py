"""What an author is told of the mistakes of a first project: at once, on the terminal, and with the reason."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from antiphon.deploy.local.children import Child
from tests.processes.test_command_line import antiphon
from tests.support.server import until

START = ("start", "shop.saga:order", "--id", "one", "--payload", "@order.json", "--wait", "--timeout", "8")
ON_THE_PLATFORM = ("--port", "0", "--coordinators", "1", "--", sys.executable, "-m", "antiphon.deploy")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    assert antiphon("new", "shop", folder=tmp_path).returncode == 0
    return tmp_path / "shop"


def mistaken(shop: Path, file: str, wrong: str, right: str) -> None:
    path = shop / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))


def run(shop: Path, *options: str) -> CompletedProcess[str]:
    return antiphon("up", *(options or ("--app", "shop")), *ON_THE_PLATFORM, *START, folder=shop)


def test_a_function_that_raises_is_said_while_its_saga_is_waited_for_and_at_the_end(shop: Path) -> None:
    mistaken(shop, "shop/saga.py", "start.custmer", "start.customer")
    ran = run(shop)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    reason = r"charge_customer raised AttributeError\(.*has no attribute 'custmer'"
    assert re.search(rf"saga order/one has not ended, since it waits for a person \({reason}", ran.stderr)
    assert re.search(rf"has not ended within 8 s, since it waits for a person \({reason}", ran.stderr)
    assert re.search(r"^coordinator-1 +\| saga.parked reason=.*custmer", ran.stdout, re.MULTILINE)


def test_a_saga_that_goes_on_is_waited_for_in_silence(shop: Path) -> None:
    ran = run(shop)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("file", "declared", "said"),
    [
        ("billing", "@billing.handles(ChargeCustomer)", r"command customer\.charge has no handler\. Let billing"),
        ("stock", "@stock.compensates(ReserveGoods)", r"compensation goods\.release has no handler\. Let stock"),
    ],
)
def test_a_handler_that_is_missing_is_told_before_anything_is_started(
    file: str, declared: str, said: str, shop: Path
) -> None:
    mistaken(shop, f"shop/{file}.py", "", declared)
    ran = run(shop)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert re.search(said, ran.stderr)
    assert f"leave {file} out here, where another process runs it" in ran.stderr
    assert not (shop / ".antiphon").exists()


def test_a_participant_that_runs_elsewhere_is_not_judged(shop: Path) -> None:
    mistaken(shop, "shop/billing.py", "", "@billing.handles(ChargeCustomer)")
    options = ("--app", "shop.saga:order", "--participant", "shop.stock:stock")
    ran = antiphon("up", *options, "--port", "0", "--", sys.executable, "-c", "", folder=shop)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "billing does not run here" in ran.stdout


async def test_a_process_that_ends_by_an_error_is_told_with_its_last_line_and_each_reason_once(tmp_path: Path) -> None:
    notes: list[str] = []
    dies = "print(f'begins\\ncannot: {len(open(\"lives\").read()) // 3}.'); open('lives', 'a').write('x')"
    (tmp_path / "lives").touch()
    program = f"import os; os.chdir({str(tmp_path)!r}); {dies}; raise SystemExit(1)"
    child = Child(
        "billing", [sys.executable, "-c", program], os.environ, tmp_path, ignored, lambda _, line: notes.append(line)
    )
    await child.start()
    try:
        await until(lambda: len([each for each in notes if "ended" in each]) >= 4, what="four ends")
    finally:
        child.ask_to_end()
        await child.wait_ended()
    assert [each.partition("; starting")[0] for each in notes if "ended" in each][:4] == [
        "ended with exit code 1: cannot: 0",
        "ended with exit code 1",
        "ended with exit code 1",
        "ended with exit code 1: cannot: 1",
    ]


def ignored(_: str, __: str) -> None:
    """A line that nobody is shown."""
