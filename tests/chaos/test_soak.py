"""The soak, for a minute: it samples everything, purges what is old, and says that it was too short to judge."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import msgspec
import psutil

from tests.support.processes import ROOT

from .soak import INTERRUPTED, Soaked

PROCESSES = (
    *("coordinator-1", "coordinator-2", "inventory-1", "inventory-2", "billing-1", "billing-2"),
    *("shipping-1", "shipping-2", "readmodel", "nats-server", "the client"),
)


async def start(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.soak", *options),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_soak_of_a_minute_samples_everything_and_keeps_its_summary(tmp_path: Path) -> None:
    summary = tmp_path / "soak.md"
    process = await start("--minutes", "1", "--measure", "10", "--json", "--summary", f"{summary}")
    out, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    soaked = msgspec.json.decode(out, type=Soaked)
    slopes = {each.name: each for each in soaked.slopes}
    wanted = {f"{what} of {name}" for what in ("memory", "descriptors") for name in PROCESSES}
    wanted |= {f"disk of {name}" for name in ("nats-server", "inventory", "billing", "shipping", "readmodel")}
    wanted |= {f"rows of {name}" for name in ("inventory", "billing", "shipping", "readmodel")}
    assert wanted <= slopes.keys()
    assert all(slopes[name].last for name in wanted if not name.startswith("rows")), slopes
    assert {each.verdict for each in soaked.slopes} == {"not judged"}
    assert soaked.capacity > soaked.rate > 0
    assert soaked.sagas > 0
    assert len(soaked.times) == len(soaked.samples["rows of inventory"])
    assert summary.read_text().endswith(f"`{soaked.last_line}`\n")
    assert "not judged" in summary.read_text()
    assert " under way, memory " in told.decode()


async def test_a_soak_that_is_told_to_end_says_what_it_saw_and_leaves_nobody_behind() -> None:
    process = await start("--minutes", "10", "--rate", "5")
    assert process.stdout is not None
    async with asyncio.timeout(240):
        while b" under way, memory " not in (line := await process.stdout.readline()):
            assert line, "it ended"
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    out, told = await process.communicate()
    assert process.returncode == INTERRUPTED, told.decode()
    assert out.decode().splitlines()[-1].endswith("0 things grow, 0 are wrong")
    assert len(children) > len(PROCESSES) - 2
    assert not [each for each in children if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
