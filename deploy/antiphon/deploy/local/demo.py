"""`antiphon demo`: a file of orders, two processes killed on the way, and an audit of what is left.

The audit takes nobody's word: outcomes are read from the streams, effects from the three databases, after all is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from antiphon.contracts import subjects
from antiphon.contracts.envelope import decode, unpack, unpack_raw
from antiphon.contracts.errors import StillRunning
from antiphon.contracts.identity import CLIENT, OPERATOR, SagaKey
from antiphon.contracts.payloads import END_TYPE, End, Ending
from antiphon.contracts.topology import EVENTS, EXPORTER, SAGA
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.definition.choreography import AnySaga
from antiphon.coordinator.reading.sagas import timeline
from antiphon.link import Link
from antiphon.order.data import load_orders
from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import Ended, Report, reconcile

from ..admin.logins import by_creds, by_password
from ..admin.rights import Grant, Rights
from ..files import told_if_unwritable
from ..modules import load_saga
from ..render.tables import print_timeline
from ..render.terminal import console, foreign, parts
from .children import Say
from .pace import Pace, pace
from .platform import LocalPlatform
from .styles import Style

IN_FLIGHT_MAX: Final = 60
"""Sagas under way at once: enough to keep everybody busy, few enough that the kills come in the middle."""
PATIENCE_SECONDS: Final = 90.0
KILLS: Final = ((1 / 3, "billing"), (2 / 3, "coordinator-1"))
"""Who is killed after which part of the orders."""


@dataclass(frozen=True)
class Audit:
    """What the streams and the databases say after the run."""

    started: dict[str, OrderPlaced]
    ends: dict[str, End]
    books: Report

    @property
    def is_good(self) -> bool:
        """Every saga has ended, and the books balance."""
        return not self.open and self.books.is_balanced

    @property
    def open(self) -> int:
        """Sagas that have begun and not ended."""
        return len(self.started.keys() - self.ends.keys())

    def count(self, outcome: str) -> int:
        """Sagas that ended like this."""
        return sum(end.outcome == outcome for end in self.ends.values())

    def last_line(self) -> str:
        """The verdict."""
        ledgers = "ledgers balance" if self.books.is_balanced else "ledgers do not balance"
        started = len(self.started)
        return (
            f"demo: {started} saga{'' if started == 1 else 's'}, {self.count('completed')} completed, "
            f"{self.count('compensated')} compensated, {self.open} open, {ledgers}"
        )


async def run_demo(
    orders: int, folder: Path | None, style: Style, jaeger: str = "", is_signed: bool = False, pairs: int = 0
) -> int:
    """Run the demo in one of the styles and return its exit code: 0 if every saga has ended and the books balance.

    Args:
        orders: how many.
        folder: for streams, databases and logs.
        style: who decides what comes next.
        jaeger: the page of a Jaeger that runs, which gets every trace.
        is_signed: whether the accounts are those of NATS' operator mode, and users have creds files.
        pairs: over how many pairs of streams sagas are spread, one when 0; in a folder that has seen a run as many as
            then.

    Raises:
        PlatformError: `jaeger` is no address of a page, or a process does not start.
        CannotWrite: creds files cannot be written to the folder.
    """
    out = console()
    folder = folder or Path(".antiphon") / f"demo-{_now():%Y%m%d-%H%M%S}"
    saga = load_saga(style.saga)
    # With the accounts of production: nobody here has a right that it would lack there.
    clients = {CLIENT: [Grant(saga.name, ("start", "read"))]}
    rights = Rights(tuple(style.participants), clients, pairs=pairs or 1)
    with told_if_unwritable("creds files", folder):
        logins = by_creds(rights, folder / "creds") if is_signed else by_password(rights)
    platform = LocalPlatform(
        folder, [style.saga], style.participants, _nobody, _noter(out), jaeger=jaeger, logins=logins, pairs=pairs
    )
    placed = _orders(orders, run_before=platform.server.store.exists())
    try:
        await platform.start()
        out.print(foreign(f"Streams, databases and logs stay in {platform.folder}"), soft_wrap=True)
        run = await _run(out, platform, saga, placed)
        audit = await _audit(platform)
        await _report(out, platform, audit, run, jaeger)
    finally:
        await platform.stop()
    if missing := {f"{saga.name}/{order_id}" for order_id in placed} - audit.started.keys():
        out.print(foreign(f"orders that became no saga: {', '.join(sorted(missing))}", "red"), soft_wrap=True)
    out.print(foreign(str(run.pace)), soft_wrap=True)
    good = audit.is_good and not missing
    out.print(foreign(audit.last_line(), "bold green" if good else "bold red"), soft_wrap=True)
    return 0 if good else 1


def _orders(count: int, run_before: bool) -> dict[str, OrderPlaced]:
    """The first orders of the file by saga id. In a folder that has seen a run they get ids of their own."""
    suffix = f"-{_now():%H%M%S}" if run_before else ""
    placed = [replace(each, order_id=f"{each.order_id}{suffix}") for each in load_orders()[:count]]
    return {each.order_id: each for each in placed}


def _now() -> datetime:
    return datetime.now().astimezone()


def _nobody(name: str, line: str) -> None:
    """What the processes log is in their files; here it would bury the demo."""


def _noter(out: Console) -> Say:
    return lambda name, line: out.print(parts((f"{name:<14}", "dim"), " ", line), soft_wrap=True)


# --- the run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """When the orders were run, in seconds of the monotonic clock: from its beginning over the ends and the kills."""

    began: float
    ends: list[float]
    kills: list[float]

    @property
    def pace(self) -> Pace:
        """How fast it was."""
        return pace(self.began, self.ends, self.kills[0])

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ends[-1] - self.began


async def _run(out: Console, platform: LocalPlatform, saga: AnySaga, placed: Mapping[str, OrderPlaced]) -> Run:
    """Run all orders, and kill on the way."""
    victims = defaultdict[int, list[str]](list)
    for part, name in KILLS:
        victims[max(1, round(part * len(placed)))].append(name)
    places = asyncio.Semaphore(IN_FLIGHT_MAX)
    ran = Run(time.monotonic(), [], [])
    with _progress(out, len(placed)) as advance:
        async with Antiphon.connect(
            platform.url, credentials=platform.credentials(CLIENT), streams=platform.pairs.count
        ) as antiphon:

            async def run(order_id: str, event: OrderPlaced) -> None:
                async with places:
                    start = msgspec.convert(msgspec.to_builtins(event), saga.start)
                    handle = await antiphon.start(saga, start, id=order_id)
                    with suppress(StillRunning):  # the audit finds it open, and says so
                        await handle.result(timeout=PATIENCE_SECONDS)
                ran.ends.append(time.monotonic())
                advance()
                for name in victims.get(len(ran.ends), ()):
                    platform.children[name].kill()
                    ran.kills.append(time.monotonic())

            await asyncio.gather(*(run(order_id, event) for order_id, event in placed.items()))
    return ran


@contextmanager
def _progress(out: Console, total: int) -> Generator[Callable[[], None]]:
    """A progress bar; where there is no terminal, a line for every tenth."""
    if out.is_terminal:
        columns = (TextColumn("orders"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=out) as bar:
            task = bar.add_task("orders", total=total)
            yield lambda: bar.advance(task)
        return
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            out.print(f"orders: {done} of {total} ended")

    yield advance


# --- the audit --------------------------------------------------------------------------------------------------------


async def _audit(platform: LocalPlatform) -> Audit:
    """Read both streams from the beginning, and the books of all participants."""
    link = await _operator(platform)
    try:
        started = {
            str(subjects.parse_fact(message.subject).saga): unpack_raw(
                decode(message.data, message.subject).data, OrderPlaced
            )
            async for message in link.scan(EVENTS, subjects.STARTS_FILTER)
        }
        ends = {
            str(subjects.parse_entry(message.subject).saga): unpack(
                decode(message.data, message.subject), END_TYPE, End
            )
            async for message in link.scan(SAGA, subjects.ENDS_FILTER)
        }
    finally:
        await link.close()
    outcomes: dict[str, Ending] = {saga: end.outcome for saga, end in ends.items()}
    return Audit(started, ends, await reconcile(platform.databases, Ended(outcomes, started)))


async def _report(out: Console, platform: LocalPlatform, audit: Audit, run: Run, jaeger: str) -> None:
    out.print(_outcomes(audit, run.seconds))
    if jaeger and not await platform.wait_exported(PATIENCE_SECONDS):
        out.print(
            foreign(f"not every trace is in Jaeger; {platform.logs / EXPORTER}.log says why", "red"), soft_wrap=True
        )
    for saga in _examples(audit):
        saga_type, _, saga_id = saga.partition("/")
        link = await _operator(platform)
        try:
            key = SagaKey.of(saga_type, saga_id)
            print_timeline(await timeline(link, key), jaeger or None)
        finally:
            await link.close()
        out.print()
    out.print(_ledgers(audit.books))
    for sentence in audit.books.discrepancies:
        out.print(foreign(sentence, "red"), soft_wrap=True)


async def _operator(platform: LocalPlatform) -> Link:
    link = await Link.connect(platform.url, name=OPERATOR, credentials=platform.credentials(OPERATOR))
    link.spread_over(platform.pairs)
    return link


def _outcomes(audit: Audit, seconds: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="orders by outcome", title_justify="left", show_footer=True)
    table.add_column("outcome", "all")
    table.add_column("because", f"{seconds:.1f} s, {len(audit.ends) / seconds:.1f} sagas/s")
    table.add_column("orders", str(len(audit.started)), justify="right")
    counts = Counter((end.outcome, _cause(end.reason)) for end in audit.ends.values())
    for (outcome, cause), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
        table.add_row(foreign(outcome), foreign(cause), str(count))
    if audit.open:
        table.add_row("open", "", str(audit.open))
    return table


def _cause(reason: str) -> str:
    """What the reasons of many orders have in common: what stands before the particulars."""
    parts = reason.split(": ")
    return ": ".join(parts[: 2 if parts[0].endswith("was refused") else 1])


def _ledgers(books: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="the three ledgers against the outcomes", title_justify="left")
    for heading in ("ledger", "unit", "done", "undone", "stays", "completed sagas say"):
        table.add_column(heading, justify="left" if heading in ("ledger", "unit") else "right")
    for total in books.totals:
        stays = total.done - total.undone
        colour = "green" if stays == total.expected else "red"
        numbers = (f"{number:,}" for number in (total.done, total.undone, stays))
        table.add_row(total.service.name, total.service.unit, *numbers, Text(f"{total.expected:,}", colour))
    return table


def _examples(audit: Audit) -> list[str]:
    """One saga that completed, and of the compensated ones one that had the most to take back."""
    completed = [saga for saga, end in audit.ends.items() if end.outcome == "completed"]
    compensated = [saga for saga, end in audit.ends.items() if end.outcome == "compensated"]
    late = [saga for saga in compensated if "undeliverable" in audit.ends[saga].reason]
    return [*completed[:1], *(late or compensated)[:1]]
