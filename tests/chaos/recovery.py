"""How long commands wait whose worker was killed: `python -m tests.chaos.recovery` (`make recovery`).

In each run a process takes sixteen commands, has the effect of the first and commits nothing. It is killed, and another
process answers all of them, either one that runs (the time counts from the kill), or one that is started afterwards
(from the moment at which it pulls). A watcher looks at the clock beside them; a run in which the machine stood still is
printed, and repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from antiphon.contracts.subjects import EVENTS_FILTER
from antiphon.contracts.topology import EVENTS, PARTICIPANT_ACK_WAIT_SECONDS
from antiphon.deploy.local.postgres import postgres
from antiphon.link import Link
from antiphon.participants import Transaction, Worker, open_database
from antiphon.participants.notes import open_notes
from antiphon.participants.takeover import STARTING_LOOK_SECONDS, STARTING_LOOKS
from tests.integration.participants.play import Play, play
from tests.integration.participants.stock import Stock
from tests.support.logs import plain_logs

HELD: Final = 16
KILLS: Final = 50
STALL_SECONDS: Final = 0.2
"""A machine that stands still for longer says nothing about recovery."""
BOUNDS: Final = {"running": 3.0, "restarted": 1.0}
"""Seconds within which nineteen of twenty runs must have answered everything."""
NOTED_SECONDS: Final = 0.1
"""After what time it is noted in PostgreSQL, too, what a process has in hand."""
REPEATS_MAX: Final = 4
"""How often a run is repeated because of the machine, before its time counts as it is."""


def main(arguments: Sequence[str]) -> int:
    """Run the campaign and print its times; 1 if a bound was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help="how many in each of the two forms")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    chosen = parser.parse_args(arguments)
    missed = 0
    with _new_database(chosen.database) as new_database:
        for form, bound in BOUNDS.items():
            seconds = sorted(_measured(form, number, new_database) for number in range(chosen.kills))
            p95 = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[-1]
            missed += p95 > bound
            say(
                f"{chosen.database}, {form}: {len(seconds)} kills, median {seconds[len(seconds) // 2]:.2f} s, "
                f"p95 {p95:.2f} s (at most {bound:g}), longest {', '.join(f'{each:.2f}' for each in seconds[-5:])} s",
            )
    return 1 if missed else 0


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _new_database(kind: str) -> Iterator[Any]:
    if kind == "sqlite":
        yield lambda folder: f"sqlite:///{folder}/stock.db"
        return
    with postgres() as server:
        yield lambda folder: server.new_database()


def _measured(form: str, number: int, new_database: Any) -> float:
    """The seconds of one run in which the machine did not stand still."""
    seconds = 0.0
    for attempt in range(REPEATS_MAX):
        with tempfile.TemporaryDirectory() as name, watcher() as stall:
            folder = Path(name)
            seconds = asyncio.run(run(form, folder, new_database(folder)))
            stood = stall()
        if stood <= STALL_SECONDS:
            return seconds
        say(
            f"{form} {number}: {seconds:.2f} s, and the machine stood still for {stood:.2f} s"
            + ("; repeated" if attempt + 1 < REPEATS_MAX else ""),
        )
    return seconds


# --- one run ----------------------------------------------------------------------------------------------------------


async def run(form: str, folder: Path, database_url: str) -> float:
    """Kill a worker that holds commands, and return how many seconds later the last one is answered."""
    sagas = [f"held-{number}" for number in range(HELD)]
    async with play(folder, ack_wait_seconds=PARTICIPANT_ACK_WAIT_SECONDS) as playing:
        for saga in sagas:
            await playing.do(saga)
        async with (
            process(playing, database_url, "survivor") as survivor,
            process(playing, database_url, "holder") as holder,
        ):
            await go(holder)
            await _line(holder)  # it has all of them in hand
            if form == "running":
                await go(survivor)
                await asyncio.sleep(2 * STARTING_LOOKS * STARTING_LOOK_SECONDS)  # it is no longer just starting
            killed_ns = time.time_ns()
            holder.kill()
            began_ns = killed_ns
            if form == "restarted":
                await holder.wait()
                began_ns = await go(survivor)
            for saga in sagas:
                await playing.answer(saga, "stock-reserved")
            stored = [each.stored_ns async for each in playing.administrator.scan(EVENTS, EVENTS_FILTER)]
            return (max(stored) - began_ns) / 1e9


@asynccontextmanager
async def process(playing: Play, database_url: str, role: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker's process that has opened its database, and waits."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.recovery", role, playing.up.servers, database_url),
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _line(child)
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def go(child: asyncio.subprocess.Process) -> int:
    """Let a worker begin to pull; gives the moment at which it did."""
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    return int(await _line(child))


async def _line(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None
    return await child.stdout.readline()


async def hang(tx: Transaction) -> None:
    """Never come to an end."""
    await asyncio.Event().wait()


async def work(role: str, servers: str, database_url: str) -> None:
    """The main coroutine of such a process."""
    plain_logs(sys.stderr)
    stock = Stock(on_reserve=hang) if role == "holder" else Stock()
    database = open_database(database_url)
    await database.open(stock.participant.tables)
    link = await Link.connect(servers, name="stock")
    worker = Worker(stock.participant, link, database, notes=open_notes(database_url, "stock", role), instance=role)
    say("opened")
    await asyncio.to_thread(sys.stdin.readline)
    await worker.start()
    say(str(time.time_ns()))
    if role == "holder":
        while worker.held < HELD:
            await asyncio.sleep(0.01)
        await asyncio.sleep(NOTED_SECONDS)
        say("held")
    await asyncio.Event().wait()


# --- the machine ------------------------------------------------------------------------------------------------------


@contextmanager
def watcher() -> Iterator[Any]:
    """Look at the clock in a process of its own; gives a function that ends it, and says how long it did not run."""
    here, there = multiprocessing.Pipe()
    watching = multiprocessing.Process(target=_watch, args=(there,), daemon=True)
    watching.start()
    here.recv()

    def stall() -> float:
        here.send(None)
        found: float = here.recv()
        return found

    try:
        yield stall
    finally:
        watching.kill()
        watching.join()


def _watch(pipe: Any) -> None:
    pipe.send(None)
    longest, before = 0.0, time.monotonic()
    while not pipe.poll(0.01):
        now = time.monotonic()
        longest, before = max(longest, now - before - 0.01), now
    pipe.send(longest)


if __name__ == "__main__":
    if sys.argv[1:2] in (["holder"], ["survivor"]):
        asyncio.run(work(*sys.argv[1:4]))
    else:
        raise SystemExit(main(sys.argv[1:]))
