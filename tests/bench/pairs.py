"""What more pairs of streams bring and cost, on one server and on a cluster of three: by turns, with all else alike."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil
from msgspec.structs import replace
from rich.table import Table

from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.pairs import Pairs
from antiphon.deploy.local.server import Server, seats
from antiphon.link import Link, set_up
from antiphon.link.pairs import VARIABLE
from antiphon.link.setup import api

from .load import Load
from .measure import WARM_UP, cpu_seconds, drive
from .ours import WORKERS
from .programs import Program, serving
from .report import IN_FLIGHT
from .systems import ANTIPHON, CLIENT, COORDINATOR

LOOK_SECONDS: Final = 0.01
RESTART_SECONDS: Final = 120.0
MB: Final = 1e6


@dataclass
class Measured:
    """One platform, and what was seen of it.

    Args:
        streams: its pairs of streams.
        servers: how many servers it has; with three each stream has three replicas.
    """

    streams: int
    servers: int
    rates: list[float] = field(default_factory=list[float])
    cpu_us: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Microseconds of CPU a saga: of all servers together, of the coordinator, and of one worker."""
    rss_mb: float = 0.0
    """Of one server, after all loads."""
    coordinator_mb: float = 0.0
    sagas: int = 0
    restart_seconds: float = 0.0
    """From the start of all servers, which were killed together, until every stream has a leader and answers."""


class Platform:
    """A platform that is up."""

    def __init__(self, found: Measured, nodes: Sequence[Server], client: Program, others: dict[str, psutil.Process]):
        self.found, self._nodes, self._client, self._others = found, nodes, client, others

    def measure(self, load: Load) -> None:
        """Put a load on it."""
        before = self._cpu_seconds()
        seen = drive(self._client, load)
        for name, seconds in self._cpu_seconds().items():
            self.found.cpu_us.setdefault(name, []).append((seconds - before[name]) / seen.sagas * 1e6)
        self.found.rates.append(seen.sagas_per_second)
        self.found.sagas += seen.sagas

    def look(self) -> None:
        """See how much memory is used, then kill all servers, and time how long it takes to have them again."""
        self.found.rss_mb = statistics.mean(each.memory_info().rss for each in self._servers()) / MB
        self.found.coordinator_mb = self._others[COORDINATOR].memory_info().rss / MB
        for node in self._nodes:
            node.kill()
        began = time.monotonic()
        for node in self._nodes:
            node.launch()
        for node in self._nodes:
            node.wait_ready()
        asyncio.run(_answered(_url(self._nodes), self.found.streams))
        self.found.restart_seconds = time.monotonic() - began
        drive(self._client, replace(WARM_UP, name="after the restart"))

    def _servers(self) -> list[psutil.Process]:
        return [psutil.Process(node.process.pid) for node in self._nodes if node.process is not None]

    def _cpu_seconds(self) -> dict[str, float]:
        workers = statistics.mean(cpu_seconds(self._others[name]) for name in WORKERS)
        servers = sum(map(cpu_seconds, self._servers()))
        return {"servers": servers, COORDINATOR: cpu_seconds(self._others[COORDINATOR]), "worker": workers}


def compare(streams: Sequence[int], servers: int, rounds: int, sagas: int) -> list[Measured]:
    """Platforms of several numbers of pairs, load by load by turns, so that none has the machine's better minute."""
    load = Load(IN_FLIGHT, 0, sagas=sagas, in_flight=300)
    with ExitStack() as stack:
        there = [stack.enter_context(running(Measured(count, servers))) for count in streams]
        for number in range(rounds):
            for each in there:
                each.measure(replace(load, round=number))
        for each in there:
            each.look()
    return [each.found for each in there]


@contextmanager
def running(found: Measured) -> Iterator[Platform]:
    """Start a platform, warm it up, and end it after the block."""
    with TemporaryDirectory(prefix="antiphon-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        places = seats(found.servers) if found.servers > 1 else [None]
        nodes = [Server(folder / f"nats-{number}", sync_interval="2m", seat=each) for number, each in enumerate(places)]
        for node in nodes:
            node.launch()
            stack.callback(node.stop)
        for node in nodes:
            node.wait_ready()
        url, told = _url(nodes), {VARIABLE: str(found.streams)}
        asyncio.run(_set_up(url, found))
        programs = {role: _program(role, url, told) for role in ANTIPHON.roles}
        client = _program(CLIENT, url, told)
        platform = Platform(found, nodes, client, stack.enter_context(serving(programs, folder)))
        drive(client, WARM_UP)
        yield platform


def table(found: Sequence[Measured]) -> Table:
    """A line for each platform."""
    title = f"Pairs of streams: {found[0].servers} server(s), 300 sagas in flight, {found[0].sagas} sagas each"
    made = Table(title=title, title_justify="left")
    columns = ("pairs", "sagas/s p50", "least", "most", "CPU µs: servers", "coordinator", "a worker")
    for column in (*columns, "server MB", "coordinator MB", "restart s"):
        made.add_column(column, justify="right")
    for each in found:
        cpu = [f"{statistics.median(each.cpu_us[name]):.0f}" for name in ("servers", COORDINATOR, "worker")]
        rates = (statistics.median(each.rates), min(each.rates), max(each.rates))
        memory = (f"{each.rss_mb:.0f}", f"{each.coordinator_mb:.0f}", f"{each.restart_seconds:.2f}")
        made.add_row(str(each.streams), *(f"{rate:,.0f}" for rate in rates), *cpu, *memory)
    return made


def _url(nodes: Sequence[Server]) -> str:
    return ",".join(node.url for node in nodes)


def _program(role: str, url: str, told: dict[str, str]) -> Program:
    return Program([sys.executable, "-m", "tests.bench.process", ANTIPHON.name, role, url], told)


async def _set_up(url: str, found: Measured) -> None:
    link = await Link.connect(url, name="bench-setup")
    await set_up(link, WORKERS, found.servers, pairs=found.streams)
    await link.close()


async def _answered(url: str, streams: int) -> None:
    """Wait until every stream has a leader and answers."""
    link = await Link.connect(url, name="bench-restart")
    link.spread_over(Pairs(streams))
    async with asyncio.timeout(RESTART_SECONDS):
        for stream in (*link.pairs.saga, *link.pairs.events):
            while not await _leads(link, stream):
                await asyncio.sleep(LOOK_SECONDS)
    await link.close()


async def _leads(link: Link, stream: str) -> bool:
    try:
        info: dict[str, Any] = await api(link, f"STREAM.INFO.{stream}")
    except (Ambiguous, PlatformError):
        return False
    return "state" in info and bool((info.get("cluster") or {"leader": "itself"}).get("leader"))
