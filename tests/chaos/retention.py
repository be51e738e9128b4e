"""Old sagas purged under load: `python -m tests.chaos.retention` (`make retention`).

Some ten thousand sagas end and grow old. Then two coordinators purge them while others run at a steady rate, and are
killed in turn by SIGKILL and started again. A read model is away from the half of the old sagas on, so that the other
half has to wait for it. Meanwhile old sagas, whatever is left of them, are asked how they ended, started again with the
same payload and with another one, and cancelled.

Printed are how fast sagas were purged, how long the others took before and meanwhile, how many answers were wrong and
how many sagas the read model has missed, both of which must be none, and how much of the server's memory an end takes
that is left of a purged saga: of many copies of one, on a server of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Final, TypeVar

from msgspec.structs import replace

from antiphon.contracts import AlreadyStarted, SagaKey, TooLate, subjects
from antiphon.contracts.errors import Ambiguous, AntiphonError
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.client import Antiphon, Outcome
from antiphon.deploy.readmodel.model import Query, opened
from antiphon.link import Link
from antiphon.link.setup import api
from tests.support.processes import Child, supervised
from tests.support.server import PARTICIPANTS, Platform, platform, until

from .keeping import ending_of, order_of, plain

AT_ONCE: Final = 200
"""How many old sagas are under way at once while they are made, and how many are read at once."""
READ_MAX: Final = 500
"""How many subjects are asked for in one read."""
ASKS_PER_SECOND: Final = 20
STORED_AT_ONCE: Final = 200
PATIENCE_SECONDS: Final = 600.0
KEPT_MAX: Final = 10
"""So many sagas may stay: that of the last event, and those by which the read model knows the streams again."""
KILLS_AT: Final = (0.8, 0.65, 0.2)
"""At which shares of old sagas that are left a coordinator is killed."""
STALLED_SECONDS: Final = 10.0
"""After so long without a purge the read model is waited for."""


def main(arguments: Sequence[str]) -> int:
    """Run the campaign and print what was seen; 1 if an answer was wrong, or the read model missed a saga."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.retention", description=__doc__)
    parser.add_argument("--sagas", type=int, default=10_000, help="how many old ones")
    parser.add_argument("--rate", type=float, default=200.0, help="how many others begin in a second")
    parser.add_argument(
        "--age", type=int, default=60, help="after how many seconds a saga is old; 3600 waits that long"
    )
    parser.add_argument("--before", type=float, default=20.0, help="for how many seconds the others run before that")
    parser.add_argument("--ends", type=int, default=100_000, help="how many ends are weighed")
    parser.add_argument("--form", choices=("plain", "accounts"), default="accounts")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        seen = asyncio.run(_campaign(chosen, Path(name)))
    return 1 if seen.wrong or seen.missed else 0


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass
class Seen:
    """What was seen of a campaign."""

    wrong: list[str] = field(default_factory=list[str])
    asked: Counter[str] = field(default_factory=Counter[str])
    missed: int = 0


async def _campaign(chosen: argparse.Namespace, folder: Path) -> Seen:
    seen = Seen()
    with platform(folder, chosen.form, participants=PARTICIPANTS) as up:
        await up.set_up()
        async with linked(up) as link:
            children = _children(up, folder, chosen.age)
            with supervised(children):
                await until(lambda: all(map(is_ready, children.values())), seconds=120, what="processes that are ready")
                async with Antiphon.connect(up.servers, credentials=up.credentials("client")) as client:
                    outcomes = await _grow_old(client, chosen.sagas // 2, 0)
                    children["readmodel"].stay_away()
                    outcomes |= await _grow_old(client, chosen.sagas - len(outcomes), len(outcomes))
                    await _purge_under_load(link, client, children, outcomes, chosen, seen, folder)
                    await _check_all(client, outcomes, seen)
                ends = [subjects.end_subject(_key(next(iter(outcomes))))]
                (end,) = await insist(partial(link.read_all, SAGA, ends))
        await _weigh(folder / "ends", end, chosen.ends)
    say(f"asked: {dict(seen.asked)}; wrong answers: {len(seen.wrong)}; missed by the read model: {seen.missed}")
    for each in seen.wrong[:20]:
        say(f"  {each}")
    return seen


@asynccontextmanager
async def linked(up: Platform) -> AsyncIterator[Link]:
    """An administrator's link."""
    link = await up.connect("administrator")
    try:
        yield link
    finally:
        await link.close()


def _children(up: Platform, folder: Path, age: int) -> dict[str, Child]:
    module = "tests.chaos.keeping"
    coordinator = ("coordinator", "--app", f"{module}:plain", "--retention", f"{plain.definition.name}={age}s")
    commands: dict[str, tuple[str, tuple[str, ...]]] = {
        "coordinator-1": ("coordinator", coordinator),
        "coordinator-2": ("coordinator", coordinator),
        "readmodel": ("readmodel", ("readmodel", "--database", f"sqlite:///{folder}/sagas.db")),
        **{name: (name, ("participant", f"{module}:{name}", "--database", "memory:")) for name in PARTICIPANTS},
    }
    return {
        role: Child(role, ["antiphon.deploy", *words], up.environment(user), folder / f"{role}.log")
        for role, (user, words) in commands.items()
    }


def is_ready(child: Child) -> bool:
    """Whether a process has ever said that it serves."""
    ready = re.compile(r"\b(coordinator|participant|readmodel|exporter)\.ready")
    return bool(child.log.exists() and ready.search(child.log.read_text()))


# --- the old sagas ----------------------------------------------------------------------------------------------------


async def _grow_old(client: Antiphon, sagas: int, first: int) -> dict[str, Outcome]:
    """Have sagas end, and how each did."""
    outcomes: dict[str, Outcome] = {}
    places, began = asyncio.Semaphore(AT_ONCE), time.monotonic()

    async def one(number: int) -> None:
        async with places:
            name = f"old-{number}"
            handle = await client.start(plain, order_of(number, name), id=name, timeout=PATIENCE_SECONDS)
            outcomes[name] = await handle.result(timeout=PATIENCE_SECONDS)

    await asyncio.gather(*(one(number) for number in range(first, first + sagas)))
    seconds = time.monotonic() - began
    ended = Counter(each.outcome for each in outcomes.values())
    say(f"{len(outcomes)} sagas have ended in {seconds:.0f} s ({len(outcomes) / seconds:.0f} a second): {dict(ended)}")
    return outcomes


async def _left(link: Link, names: Sequence[str]) -> set[str]:
    """Those of the old sagas whose start is still there, which is what is purged last."""
    found = set[str]()
    for first in range(0, len(names), READ_MAX):
        part = [_key(name) for name in names[first : first + READ_MAX]]
        starts = await insist(partial(link.read_all, EVENTS, [subjects.start_subject(key) for key in part]))
        found |= {key.id for each in starts if (key := subjects.saga_in(each.subject)) is not None}
    return found


T = TypeVar("T")


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """What a call gives, once the server has answered."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(Ambiguous):
                return await call()
            await asyncio.sleep(0.2)


def _key(name: str) -> SagaKey:
    return SagaKey.of(plain.definition.name, name)


# --- the others, meanwhile --------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Sagas that begin at a steady rate, and how long each took from when it was due."""

    client: Antiphon
    rate: float
    taken: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    under_way: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    failed: int = 0
    wrong: list[str] = field(default_factory=list[str])
    begun: int = 0

    async def come(self) -> None:
        """Begin until cancelled."""
        began = time.monotonic()
        while True:
            due = began + self.begun / self.rate
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.ensure_future(self._one(self.begun, due))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)
            self.begun += 1

    async def _one(self, number: int, due: float) -> None:
        name = f"new-{number}"
        try:
            handle = await self.client.start(plain, order_of(number, name), id=name, timeout=PATIENCE_SECONDS)
            told = await handle.result(timeout=PATIENCE_SECONDS)
        except AntiphonError:
            self.failed += 1
            return
        if told.outcome != ending_of(number):
            self.wrong.append(f"{name} has ended as {told.outcome}, and must be {ending_of(number)}")
        self.taken.append((time.monotonic(), time.monotonic() - due))

    def say(self, what: str, since: float) -> None:
        """Print how long those took that have ended since."""
        seconds = [taken for ended, taken in self.taken if ended >= since] or [0.0, 0.0]
        cut = quantiles(seconds, n=100) if len(seconds) > 1 else [seconds[0]] * 99
        rate = len(seconds) / (time.monotonic() - since)
        spread = f"p50 {cut[49] * 1e3:.0f} ms, p99 {cut[98] * 1e3:.0f} ms"
        say(f"{what}: {rate:.0f} sagas a second, {spread}; without an end: {self.failed}")


async def _purge_under_load(
    link: Link,
    client: Antiphon,
    children: dict[str, Child],
    outcomes: dict[str, Outcome],
    chosen: argparse.Namespace,
    seen: Seen,
    folder: Path,
) -> None:
    load = Load(client, chosen.rate)
    coming = asyncio.ensure_future(load.come())
    began = time.monotonic()
    await asyncio.sleep(chosen.before)
    load.say("others, before", began)
    asking = asyncio.ensure_future(_keep_asking(client, outcomes, seen))
    first, began = len(outcomes), 0.0
    kills, victim, left, moved_at = list(KILLS_AT), 0, {*outcomes}, time.monotonic()
    while len(left) > KEPT_MAX:
        before, left = len(left), await _left(link, list(left))
        began = began or (time.monotonic() if len(left) < first else 0.0)
        moved_at = time.monotonic() if len(left) < before or not began else moved_at
        if kills and len(left) < kills[0] * first:
            kills.pop(0)
            victim = 1 + victim % 2
            children[f"coordinator-{victim}"].kill()
            say(f"  {time.monotonic() - began:.0f} s: {len(left)} are left; coordinator-{victim} is killed")
        if children["readmodel"].is_away and time.monotonic() - moved_at > STALLED_SECONDS:
            say(f"  {time.monotonic() - began:.0f} s: {len(left)} wait for the read model, which comes back")
            children["readmodel"].come_back()
        await asyncio.sleep(0.5)
    seconds = time.monotonic() - began
    purged = first - len(left)
    say(f"{purged} old sagas were purged in {seconds:.0f} s ({purged / seconds:.0f} a second), {len(left)} are kept")
    load.say("others, meanwhile", began)
    for task in (coming, asking):
        task.cancel()
    await asyncio.wait(load.under_way or {coming})
    seen.wrong += load.wrong
    async with opened(f"sqlite:///{folder}/sagas.db") as model:
        rows = {row.id: row for row in await model.find(Query(type=plain.definition.name, limit=10**6))}
    known = [name for name in outcomes if (row := rows.get(name)) is not None and row.definition and row.started_ns]
    seen.missed = len(outcomes) - len(known)


async def _keep_asking(client: Antiphon, outcomes: dict[str, Outcome], seen: Seen) -> None:
    """Ask old sagas, whatever is left of them, until cancelled."""
    dice, names = random.Random(1), list(outcomes)
    while True:
        asked = [
            asyncio.ensure_future(_ask(client, dice.choice(names), outcomes, seen)) for _ in range(ASKS_PER_SECOND)
        ]
        await asyncio.gather(*asked, asyncio.sleep(1.0))


async def _ask(client: Antiphon, name: str, outcomes: dict[str, Outcome], seen: Seen) -> None:
    """All that can be asked of one saga; answers that are none, such as 'try again', count apart."""
    number, before = int(name.removeprefix("old-")), outcomes[name]
    handle, order = client.handle(plain, name), order_of(number, name)
    try:
        seen.asked["result"] += 1
        if (told := await handle.result(timeout=PATIENCE_SECONDS)) != before:
            seen.wrong.append(f"{name} has ended as {told}, and before as {before}")
        seen.asked["start again"] += 1
        if (again := await (await client.start(plain, order, id=name)).result(timeout=PATIENCE_SECONDS)) != before:
            seen.wrong.append(f"{name}, started again, has ended as {again}, and before as {before}")
        seen.asked["start another"] += 1
        with suppress(AlreadyStarted):
            other = await client.start(plain, replace(order, quantity=9), id=name)
            told = await other.result(timeout=PATIENCE_SECONDS)
            seen.wrong.append(f"{name}, started with another order, was taken, and has ended as {told}")
        seen.asked["cancel"] += 1
        with suppress(TooLate):
            await handle.cancel("too late")
            seen.wrong.append(f"{name} took a cancel")
        seen.asked["status"] += 1
        if (status := await handle.status()).state != before.outcome:
            seen.wrong.append(f"{name} is {status.state}, and has ended as {before.outcome}")
    except AntiphonError as error:
        seen.asked[f"no answer ({type(error).__name__})"] += 1


async def _check_all(client: Antiphon, outcomes: dict[str, Outcome], seen: Seen) -> None:
    """Ask every old saga how it ended."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, before: Outcome) -> None:
        async with places:
            seen.asked["result at the end"] += 1
            if (told := await client.handle(plain, name).result(timeout=PATIENCE_SECONDS)) != before:
                seen.wrong.append(f"in the end {name} has ended as {told}, and before as {before}")

    await asyncio.gather(*(one(*each) for each in outcomes.items()))


# --- what is left -----------------------------------------------------------------------------------------------------


async def _weigh(folder: Path, end: StoredMessage, count: int) -> None:
    """Store many ends like one of them on a server of their own, and say what they take."""
    with platform(folder, participants=()) as up:
        await up.set_up()
        async with linked(up) as link:
            before = await _memory_mb(up)
            for first in range(0, count, STORED_AT_ONCE):
                names = [f"end-{number}" for number in range(first, min(count, first + STORED_AT_ONCE))]
                wanted = [subjects.end_subject(_key(name)) for name in names]
                await asyncio.gather(*(insist(partial(link.store, each, end.data)) for each in wanted))
            state = (await insist(partial(api, link, f"STREAM.INFO.{SAGA}")))["state"]
        after = await _memory_mb(up)
    each = (after - before) * 2**20 / count
    say(
        f"{count} ends: {state['bytes'] / count:.0f} bytes of the stream and {each:.0f} of the server's memory each "
        f"({before:.1f} MB without them, {after:.1f} MB with them, both just started)"
    )


async def _memory_mb(up: Platform) -> float:
    """Memory of a server that was ended and started again, and so holds what it needs."""
    await asyncio.to_thread(up.server.stop)
    await asyncio.to_thread(up.server.start)
    async with linked(up) as link:
        await insist(partial(api, link, f"STREAM.INFO.{SAGA}"))
    assert up.server.process is not None
    status = await asyncio.to_thread(Path(f"/proc/{up.server.process.pid}/status").read_text)
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(resident) / 1024


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
