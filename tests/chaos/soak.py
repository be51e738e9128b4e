"""An hour under a steady load, and what has grown then: `python -m tests.chaos.soak` (`make soak`).

A server, two coordinators, two processes for each of three participants, which share an SQLite database, an exporter
and a read model run orders as fast as they can for a minute. Then they run them at six tenths of that rate for an hour,
or as long as `--minutes` says, while everything is sampled every ten seconds: memory and descriptors of each process,
the server's disk and what its streams hold, the sizes and rows of the databases.

Old sagas are purged, and inboxes with them, so that nothing is kept for ever: each thing that is sampled comes to a
height and stays there. At its end stands a table with what an hour adds to each, by the second half of the time
(`slopes.py`), and the exit code is 1 if anything grows, a saga has ended wrongly or not at all, or a process has died.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform as machine
import signal
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean, quantiles
from typing import Final

import msgspec
import psutil
import uvloop
from rich.table import Table

from antiphon.contracts.identity import OPERATOR
from antiphon.contracts.topology import EVENTS, EXPORTER, PARKED, READMODEL, SAGA
from antiphon.coordinator import Antiphon
from antiphon.coordinator.runtime.cache import SAGAS_MAX
from antiphon.deploy.chaos.platform import can_export
from antiphon.deploy.chaos.summary import table as markdown_table
from antiphon.deploy.local.platform import worker_names
from antiphon.deploy.render.terminal import console
from antiphon.link import Link
from antiphon.link.setup import api
from tests.bench.measure import sink
from tests.support.processes import Child, supervised
from tests.support.server import PARTICIPANTS, Platform, platform, until

from .keeping import order_of, plain
from .retention import PATIENCE_SECONDS, Load, insist, is_ready, linked
from .slopes import HOUR, JUDGED_SECONDS, SAMPLES_MIN, Series, Slope, slope_of

SHARE: Final = 0.6
"""Of the rate that was measured: a platform that is busy, and has room for what comes by chance."""
AT_ONCE: Final = 64
"""How many sagas are under way while the rate is measured."""
WARM_UP_SHARE: Final = 1 / 3
"""Of the time in which the rate is measured: what is not counted, since caches fill and nothing is purged yet."""
SAMPLE_SECONDS: Final = 10.0
SAMPLES_WANTED: Final = 24
"""A short run is sampled more often, so that there are as many."""
KEEP_SECONDS: Final = 60
"""How long an ended saga is kept, and after that its end; a twelfth of a short run."""
KEEP_SHARE: Final = 1 / 12
PURGES_PER_SECOND: Final = 1000
"""More than sagas end, so that a coordinator is never behind because of a bound."""
TOLD_MAX: Final = 20
INTERRUPTED: Final = 130

MEMORY_OF_A_SAGA: Final = 8
"""Bytes of memory that each saga may leave behind. The smallest object of Python has 16 and the place that refers to it
8 more, and of two processes alike each has half of the sagas: one object left behind by each saga is always more."""
DISK_OF_A_SAGA: Final = 32
"""Bytes of disk: a stored message of the server has more for its subject alone, and so has a row of an inbox."""
COUNT_OF_A_SAGA: Final = 0.01
"""Messages and rows: one that one of a hundred sagas leaves behind."""
MEMORY_MIN: Final = 4.0
"""MB of memory that an hour may add where sagas are few: what an allocator scatters."""
DISK_MIN: Final = 4.0
DESCRIPTORS: Final = 4.0
"""Files and connections that an hour may add: fewer than one of a thousand operations would leave open."""
MB: Final = 1e6


class Soaked(msgspec.Struct):
    """What a run came to.

    Args:
        seconds: how long it was sampled.
        capacity: sagas a second at the greatest rate, as it was measured.
        rate: sagas a second that were started.
        sagas: how many were.
        p50_ms, p99_ms: how long they took, as the mean of what was seen between two samples.
        wrong: what is wrong of sagas and processes, in sentences.
        slopes: how everything went that was sampled.
        times: when it was sampled, in seconds.
        samples: what was, by name.
        interrupted: whether it was told to end before its time.
    """

    seconds: float = 0.0
    capacity: float = 0.0
    rate: float = 0.0
    sagas: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    wrong: list[str] = []
    slopes: list[Slope] = []
    times: list[float] = []
    samples: dict[str, list[float]] = {}
    interrupted: bool = False

    @property
    def growing(self) -> list[Slope]:
        """What grows."""
        return [each for each in self.slopes if each.grows]

    @property
    def is_good(self) -> bool:
        """Nothing grows, and nothing is wrong."""
        return not self.growing and not self.wrong

    @property
    def last_line(self) -> str:
        """The verdict."""
        judged = "" if any(each.grows is not None for each in self.slopes) else ", which was too short to judge"
        return (
            f"soak: {self.seconds / 60:.0f} minutes{judged}, {self.sagas} sagas, {len(self.growing)} things grow, "
            f"{len(self.wrong)} are wrong"
        )


def main(arguments: Sequence[str]) -> int:
    """Run it and print what was seen; 1 if something grows or is wrong, 130 if it was told to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long")
    parser.add_argument("--measure", type=float, default=60.0, help="for how many seconds the rate is measured before")
    parser.add_argument("--rate", type=float, default=0.0, help="sagas a second, in the place of what is measured")
    parser.add_argument("--folder", type=Path, help="where logs, streams and databases stay; nowhere by default")
    parser.add_argument("--summary", type=Path, help="write what it came to into this file as well, as Markdown")
    parser.add_argument("--json", action="store_true", help="print JSON, with all samples, and the progress to stderr")
    chosen = parser.parse_args(arguments)
    with _folder(chosen.folder) as folder:
        soaked = uvloop.run(Soak(chosen, folder).run())
    if chosen.summary is not None:
        chosen.summary.write_text(as_markdown(soaked))
    if chosen.json:
        sys.stdout.write(f"{msgspec.json.encode(soaked).decode()}\n")
    else:
        _print(soaked)
    return INTERRUPTED if soaked.interrupted else 0 if soaked.is_good else 1


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory(prefix="antiphon-soak-") as name:
            yield Path(name)
        return
    given.mkdir(parents=True, exist_ok=True)
    yield given.resolve()


class Soak:
    """One run.

    Args:
        chosen: the options.
        folder: where everything is.
    """

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self._chosen, self._folder = chosen, folder
        self._seconds = chosen.minutes * 60
        self._keep_seconds = max(1, round(min(KEEP_SECONDS, self._seconds * KEEP_SHARE)))
        self._every = min(SAMPLE_SECONDS, self._seconds / SAMPLES_WANTED)
        self._databases = {name: folder / f"{name}.db" for name in PARTICIPANTS}
        self._readmodel = folder / f"{READMODEL}.db"
        self._began, self._told = time.monotonic(), asyncio.Event()
        self._soaked = Soaked()

    async def run(self) -> Soaked:
        """Run it until its time is over, or a signal."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._told.set)
        with platform(self._folder, "accounts") as up, sink() as backend:
            await up.set_up()
            children = self._children(up, backend)
            with supervised(children):
                await until(lambda: all(map(is_ready, children.values())), what="processes that are ready")
                await self._run_on(up, children)
                self._soaked.wrong += [
                    f"{name} has died, with exit codes {child.exits}" for name, child in children.items() if child.exits
                ]
        return self._soaked

    def _children(self, up: Platform, backend: str) -> dict[str, Child]:
        module, keep = "tests.chaos.keeping", f"{self._keep_seconds}s"
        coordinator = ["coordinator", "--app", f"{module}:plain", "--retention", f"{plain.name}={keep}"]
        coordinator += ["--keep-ends", keep, "--purge-rate", f"{PURGES_PER_SECOND}"]
        commands = {f"coordinator-{number}": ("coordinator", coordinator) for number in (1, 2)}
        for name, path in self._databases.items():
            words = ["participant", f"{module}:{name}", "--database", f"sqlite:///{path}"]
            commands |= dict.fromkeys(worker_names(name, 2), (name, words))
        commands[READMODEL] = (READMODEL, ["readmodel", "--database", f"sqlite:///{self._readmodel}"])
        if can_export():
            commands[EXPORTER] = (EXPORTER, ["exporter"])
        return {
            role: Child(
                role,
                ["antiphon.deploy", *words, "--name", role],
                up.environment(user) | _exporting(backend),
                self._folder / f"{role}.log",
            )
            for role, (user, words) in commands.items()
        }

    async def _run_on(self, up: Platform, children: Mapping[str, Child]) -> None:
        credentials = up.credentials("client")
        async with Antiphon.connect(up.servers, credentials=credentials) as client, linked(up) as link:
            purging = asyncio.create_task(self._keep_purging(up))
            try:
                rate = self._chosen.rate or SHARE * await self._measure(client)
                load = Load(client, max(1.0, rate))
                self._soaked.rate = load.rate
                await self._pace(load, Sampler(up, link, children, self._databases, self._readmodel))
            finally:
                purging.cancel()
                await asyncio.gather(purging, return_exceptions=True)

    # --- sagas --------------------------------------------------------------------------------------------------------

    async def _measure(self, client: Antiphon) -> float:
        """How many sagas end in a second where there are always as many under way."""
        numbers, ends = count(), list[float]()
        over = asyncio.Event()

        async def place() -> None:
            while not over.is_set() and not self._told.is_set():
                name = f"measured-{(number := next(numbers))}"
                handle = await client.start(plain, order_of(number, name), id=name, timeout=PATIENCE_SECONDS)
                await handle.result(timeout=PATIENCE_SECONDS)
                ends.append(time.monotonic())

        self._say(f"measuring how fast sagas are for {self._chosen.measure:g} s, {AT_ONCE} at a time")
        began = time.monotonic()
        async with asyncio.TaskGroup() as places:
            for _ in range(AT_ONCE):
                places.create_task(place())
            await self._pause(self._chosen.measure)
            until_when = time.monotonic()
            over.set()
        since = began + self._chosen.measure * WARM_UP_SHARE
        counted = sum(since < each <= until_when for each in ends)
        self._soaked.capacity = counted / max(until_when - since, 1.0)
        self._say(f"{self._soaked.capacity:.1f} sagas a second")
        return self._soaked.capacity

    async def _pace(self, load: Load, sampler: Sampler) -> None:
        """Have sagas come at a steady rate, and sample meanwhile."""
        self._say(
            f"{load.rate:.1f} sagas a second for {self._seconds / 60:g} minutes; what has ended is kept for "
            f"{self._keep_seconds} s, and its end for as long"
        )
        coming, began = asyncio.create_task(load.come()), time.monotonic()
        took = list[tuple[float, float]]()
        try:
            for number in count(1):
                due = min(number * self._every, self._seconds)
                await self._pause(began + due - time.monotonic())
                if self._told.is_set():
                    break
                took.append(_spread_of(load))
                await sampler.sample(time.monotonic() - began, len(load.under_way))
                self._say(f"{load.begun} sagas, {_told(took[-1])}, {sampler.told()}")
                if due >= self._seconds:
                    break
        finally:
            coming.cancel()
        soaked = self._soaked
        soaked.interrupted = self._told.is_set()
        soaked.seconds, soaked.sagas = time.monotonic() - began, load.begun
        soaked.p50_ms, soaked.p99_ms = (fmean(each) * 1e3 for each in zip(*(took or [(0.0, 0.0)]), strict=True))
        soaked.times, soaked.samples = sampler.times, {each.name: each.values for each in sampler.series(load.rate)}
        if len(sampler.times) >= SAMPLES_MIN:
            soaked.slopes = [slope_of(each, sampler.times) for each in sampler.series(load.rate)]
        self._say("waiting for the sagas that are under way")
        if load.under_way and not soaked.interrupted:
            await asyncio.wait(load.under_way, timeout=PATIENCE_SECONDS)
        soaked.wrong += load.wrong
        if unheard := load.failed + len(load.under_way) * (not soaked.interrupted):
            soaked.wrong.append(f"{unheard} sagas have not ended, as far as their client was told")

    async def _keep_purging(self, up: Platform) -> None:
        """Purge the inboxes again and again, as an operator does, until cancelled."""
        words = ["purge-inbox", "--older-than", f"{self._keep_seconds}s", "--ends-gone"]
        while True:
            await asyncio.sleep(self._keep_seconds)
            for name, path in self._databases.items():
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "antiphon.deploy", *words, "--database", f"{name}=sqlite:///{path}"),
                    env={**os.environ, **up.environment(OPERATOR)},
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                out, _ = await process.communicate()
                if process.returncode:
                    self._soaked.wrong.append(f"the inbox of {name} was not purged: {out.decode().strip()}")

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, or until it is told to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._told.wait()

    def _say(self, line: str) -> None:
        out = sys.stderr if self._chosen.json else sys.stdout
        out.write(f"{time.monotonic() - self._began:7.0f} s  {line}\n")
        out.flush()


def _exporting(backend: str) -> dict[str, str]:
    """What tells an exporter to send every span to a backend."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_TRACES_SAMPLER": "always_on",
    }


def _spread_of(load: Load) -> tuple[float, float]:
    """How long those sagas took that have ended since this was asked last: the median, and the 99th percentile."""
    taken, load.taken = [seconds for _, seconds in load.taken], []
    if len(taken) < 2:
        return (taken[0], taken[0]) if taken else (0.0, 0.0)
    cut = quantiles(taken, n=100)
    return cut[49], cut[98]


def _told(spread: tuple[float, float]) -> str:
    return f"p50 {spread[0] * 1e3:.0f} ms, p99 {spread[1] * 1e3:.0f} ms"


# --- samples ----------------------------------------------------------------------------------------------------------


class Sampler:
    """Looks at everything that could grow.

    Args:
        up: the server.
        link: an administrator's.
        children: the processes.
        databases: the participants' files.
        readmodel: the read model's file.
    """

    def __init__(
        self, up: Platform, link: Link, children: Mapping[str, Child], databases: Mapping[str, Path], readmodel: Path
    ) -> None:
        self._up, self._link, self._children = up, link, children
        self._databases, self._readmodel = databases, readmodel
        self.times = list[float]()
        self._found = defaultdict[tuple[str, str], list[float]](list)

    async def sample(self, at: float, under_way: int) -> None:
        """Take a sample of everything.

        Args:
            at: when, in seconds.
            under_way: how many sagas are under way, as their client knows.
        """
        processes = await asyncio.to_thread(self._processes)
        files = await asyncio.to_thread(self._files)
        streams = await self._streams()
        self.times.append(at)
        for (name, unit), value in (processes | files | streams | {("sagas under way", "sagas"): under_way}).items():
            self._found[name, unit].append(value)

    def told(self) -> str:
        """The last sample in a few words."""
        sums = defaultdict[str, float](float)
        for (name, unit), values in self._found.items():
            sums[f"{name.split(' of ')[0]} {unit}"] += values[-1]
        return (
            f"{sums['sagas under way sagas']:.0f} under way, memory {sums['memory MB']:.0f} MB, "
            f"{sums['descriptors descriptors']:.0f} descriptors, disk {sums['disk MB']:.0f} MB, "
            f"{sums['messages messages']:.0f} messages, {sums['rows rows']:.0f} rows"
        )

    def series(self, rate: float) -> list[Series]:
        """All that was sampled, with what an hour may add where so many sagas are started in a second."""
        sagas = rate * HOUR
        tolerances: dict[str, float] = {
            "memory": max(MEMORY_MIN, MEMORY_OF_A_SAGA * sagas / MB),
            "descriptors": DESCRIPTORS,
            "disk": max(DISK_MIN, DISK_OF_A_SAGA * sagas / MB),
        }
        return [
            Series(name, unit, tolerances.get(name.split(" of ")[0], COUNT_OF_A_SAGA * sagas), values)
            for (name, unit), values in self._found.items()
        ]

    def _processes(self) -> dict[tuple[str, str], float]:
        server = self._up.server.process
        pids = {name: child.process.pid for name, child in self._children.items() if child.process is not None}
        pids |= {"nats-server": server.pid} if server is not None else {}
        pids["the client"] = os.getpid()
        found = dict[tuple[str, str], float]()
        for what, unit, asked in (
            ("memory", "MB", lambda process: process.memory_info().rss / MB),
            ("descriptors", "descriptors", lambda process: process.num_fds()),
        ):
            found |= {(f"{what} of {name}", unit): _asked(pid, asked) for name, pid in pids.items()}
        return found

    def _files(self) -> dict[tuple[str, str], float]:
        paths = {**self._databases, READMODEL: self._readmodel}
        rows = dict.fromkeys(self._databases, ("antiphon_inbox", "antiphon_attempts"))
        tables = {**rows, READMODEL: ("antiphon_sagas_v1",)}
        found = {("disk of nats-server", "MB"): _disk_mb(self._up.server.store.rglob("*"))}
        for name, path in paths.items():
            found[f"disk of {name}", "MB"] = _disk_mb(_beside(path))
        return found | {(f"rows of {name}", "rows"): _rows(path, tables[name]) for name, path in paths.items()}

    async def _streams(self) -> dict[tuple[str, str], float]:
        found = dict[tuple[str, str], float]()
        for stream in (SAGA, EVENTS, PARKED):
            info = await insist(partial(api, self._link, f"STREAM.INFO.{stream}"))
            found[f"messages of {stream}", "messages"] = info["state"]["messages"]
        if EXPORTER in self._children:
            info = await insist(partial(api, self._link, f"CONSUMER.INFO.{SAGA}.{EXPORTER}"))
            found["messages before the exporter", "messages"] = info["num_pending"] + info["num_ack_pending"]
        return found


def _asked(pid: int, ask: Callable[[psutil.Process], float]) -> float:
    """What is to be known of a process; nothing of one that has just ended."""
    with suppress(psutil.NoSuchProcess):
        return ask(psutil.Process(pid))
    return 0.0


def _beside(path: Path) -> Iterator[Path]:
    """A database's files, with its log, and the notes of what its workers hold."""
    for each in path.parent.glob(f"{path.name}*"):
        yield each
        yield from each.rglob("*")


def _disk_mb(paths: Iterator[Path]) -> float:
    """What files take of the disk, of which some may go meanwhile."""
    blocks = 0
    for path in paths:
        with suppress(OSError):
            blocks += path.stat().st_blocks
    return blocks * 512 / MB


def _rows(path: Path, tables: Sequence[str]) -> int:
    """How many rows tables have."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as database:
        found = sum(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    database.close()
    return int(found)


# --- what it came to --------------------------------------------------------------------------------------------------

HEADINGS: Final = ("", "unit", "first", "second half", "last", "an hour adds", "last quarter", "may add", "spread", "")


def _row(slope: Slope) -> tuple[str, ...]:
    digits = 1 if slope.unit == "MB" else 0
    values = (slope.first, slope.mean, slope.last)
    hours = (slope.an_hour, slope.of_last_quarter)
    return (
        slope.name,
        slope.unit,
        *(f"{value:.{digits}f}" for value in values),
        *(f"{value:+.{digits}f}" for value in hours),
        f"{slope.tolerance:.{digits}f}",
        f"{slope.spread:.{digits}f}",
        slope.verdict,
    )


def _facts(soaked: Soaked) -> list[tuple[str, str]]:
    return [
        ("duration", f"{soaked.seconds / 60:.1f} minutes, {len(soaked.times)} samples"),
        ("greatest rate", f"{soaked.capacity:.1f} sagas/s" if soaked.capacity else "not measured"),
        ("rate", f"{soaked.rate:.1f} sagas/s"),
        ("sagas", f"{soaked.sagas}"),
        ("a saga, p50 / p99", f"{soaked.p50_ms:.0f} / {soaked.p99_ms:.0f} ms, as the mean of what each sample saw"),
        ("machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"),
        ("Python", machine.python_version()),
    ]


def about(soaked: Soaked) -> str:
    """How to read the table."""
    return (
        "An hour adds what the line through the second half says, and the one through the last quarter. A thing grows "
        "where both are more than it may add, and the line rises by more than twice the spread of the samples about "
        f"it. Each saga may leave {MEMORY_OF_A_SAGA} bytes of memory and {DISK_OF_A_SAGA} of disk, and a hundred of "
        "them one message or row, which is less than the smallest thing that a saga could leave behind. A half of less "
        f"than {JUDGED_SECONDS / 60:g} minutes is not judged. A coordinator's memory rises until its cache is full, "
        f"which has {SAGAS_MAX} sagas: a run must be long enough for that."
    )


def as_markdown(soaked: Soaked) -> str:
    """The same as a document to be kept."""
    parts = [
        "# A soak",
        "\n".join(markdown_table(("what", "value"), _facts(soaked))),
        "## What has grown",
        about(soaked),
        "\n".join(markdown_table(HEADINGS, map(_row, soaked.slopes))),
        *(["## What is wrong", "\n".join(f"- {each}" for each in soaked.wrong)] if soaked.wrong else []),
        f"`{soaked.last_line}`",
    ]
    return "\n\n".join(parts) + "\n"


def _print(soaked: Soaked) -> None:
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading not in ("", "unit") else "left")
    for each in soaked.slopes:
        table.add_row(*_row(each))
    out = console()
    out.print(table)
    out.print(about(soaked), soft_wrap=True)
    for name, value in _facts(soaked):
        out.print(f"{name}: {value}", soft_wrap=True)
    for sentence in soaked.wrong[:TOLD_MAX]:
        out.print(sentence, soft_wrap=True)
    if len(soaked.wrong) > TOLD_MAX:
        out.print(f"and {len(soaked.wrong) - TOLD_MAX} more")
    out.print(soaked.last_line, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
