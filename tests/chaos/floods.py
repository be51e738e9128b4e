"""Whether one user's flood slows, blinds or robs anybody else: `python -m tests.chaos.floods` (`make floods`).

Each kind of flood gets a server with accounts of its own, two coordinators, three participants and an exporter, as
real processes. A client's orders come at a constant rate. Then another user, a client or a participant with nothing but
the rights of one, publishes as many messages as it was told, as fast as the server takes them. Printed is how long the
orders took that began in the minute before, in the minute that begins with the flood, and in the minute after; what
the coordinators' memory is; whether every saga of others has ended, all evidence is there, and the exporter has caught
up. Each line says whether the aim is met.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import nats
from msgspec.structs import replace

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.errors import Ambiguous, AntiphonError
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest
from antiphon.contracts.stored import AlreadyStored
from antiphon.contracts.topology import EXPORTER, PARKED, SAGA, Bound
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.deploy.admin import rights
from antiphon.deploy.admin.rights import Rights
from antiphon.link import Link
from antiphon.link.setup import api
from antiphon.order.data import load_orders
from antiphon.order.messages import ORCHESTRATED, ChargeCustomer, OrderPlaced, PaymentCharged, PointsGranted
from antiphon.order.saga import order
from tests.support.processes import Child, supervised
from tests.support.receiver import receiver
from tests.support.server import Platform, platform, until

from .flooded import Nudged, Rested, rests

COUNT: Final = 60_000
SECONDS: Final = 60.0
RATE: Final = 8.0
"""Orders a second."""
PATIENCE_SECONDS: Final = 180.0
"""How long after its start an order counts as one that has not ended."""
WARM_ORDERS: Final = 4_200
"""How many orders end before anything is measured, a few more than the keys that a coordinator remembers: one that has
just begun has no caches yet, which strangers' sagas fill as those of everybody do."""
WARM_PLACES: Final = 32
WARM_SECONDS: Final = 5.0

DURING_SECONDS_MAX: Final = 3.0
AFTER_TIMES_MAX: Final = 2.0
MEMORY_TIMES_MAX: Final = 1.1
BACKLOG_MAX: Final = 500
"""Entries that the exporter may have before it at any time: what a few seconds of orders write."""
OPEN_MAX: Final = 20
"""How many orders the client that floods may have open."""

PARTICIPANTS: Final = ("inventory", "billing", "shipping", "loyalty")
CLIENT, STRANGER, MEMBER = "client", "stranger", "loyalty"
"""Whose orders are measured; the client that floods; the participant that floods."""


def accounts(given: Rights) -> Rights:
    """Two clients, each with what a client of these sagas has."""
    import dataclasses

    grant: Any = getattr(rights, "Grant", None)
    if grant is None:
        clients: Any = (CLIENT, STRANGER)
    else:  # rights by client, type and verb
        every = [grant(saga.name, ("start", "cancel", "read")) for saga in (order, rests)]
        own = grant(rests.name, ("start", "cancel", "read", f"signal.{Nudged.__contract__.token}"))
        clients = {CLIENT: every, STRANGER: [every[0], own]}
    if hasattr(given, "bounds"):  # the stranger's starts of orders, above which the server refuses them
        given = dataclasses.replace(given, clients=clients, bounds={STRANGER: [order.name]})
    return dataclasses.replace(given, clients=clients)


# --- what is published ------------------------------------------------------------------------------------------------

Message = tuple[str, bytes]
"""Subject and body."""


def orphan_cancel(number: int, victim: SagaKey) -> Message:
    """A wish to cancel an order that never was."""
    subject = subjects.cancel_subject(SagaKey.of(ORCHESTRATED, f"nobody-{number}"))
    return subject, _said(subject, "client", CANCEL_TYPE, CancelRequest(reason="no reason"))


def forged_fact(number: int, victim: SagaKey) -> Message:
    """What only billing may say."""
    key, contract = SagaKey.of(ORCHESTRATED, f"forged-{number}"), PaymentCharged.__contract__
    subject = subjects.event_subject(key.path, MEMBER, contract.token, "charge_customer", 1)
    return subject, _said(subject, MEMBER, contract.type, PaymentCharged(charge_id="c", customer_id="c", amount=1), "1")


def unknown_signal(number: int, victim: SagaKey) -> Message:
    """In turn a signal that somebody else's saga does not know, and one that it does to a saga that never was."""
    contract = Nudged.__contract__
    if number % 2:
        subject = subjects.signal_subject(victim, f"x{number}")
    else:
        subject = subjects.signal_subject(SagaKey.of(victim.type, f"nobody-{number}"), contract.token)
    return subject, _said(subject, "client", contract.type, Nudged())


def note(number: int, victim: SagaKey) -> Message:
    """An event that a saga of somebody else records."""
    contract = PointsGranted.__contract__
    subject = subjects.event_subject(victim.path, MEMBER, contract.token, f"on-x{number}", 1)
    return subject, _said(subject, MEMBER, contract.type, PointsGranted(customer_id="c", points=1))


def poison_lock(number: int, victim: SagaKey) -> Message:
    """A word about a lock, of which nobody but coordinators has one."""
    key = SagaKey.of("lock", f"any-{number}")
    return f"{subjects.events_filter(key, MEMBER).removesuffix('>')}ask.x.1", b"x"


@cache
def _second_order() -> OrderPlaced:
    return load_orders()[1]


def start(number: int, victim: SagaKey) -> Message:
    """The start of an order that nobody wants."""
    placed = replace(_second_order(), order_id=f"flood-{number}")
    subject = subjects.start_subject(SagaKey.of(ORCHESTRATED, placed.order_id))
    return subject, _said(subject, "client", placed.__contract__.type, placed)


def status_request(number: int, victim: SagaKey) -> Message:
    """The question how a saga stands; in turn one that is there, and one that never was."""
    return subjects.status_subject(victim if number % 2 else SagaKey.of(victim.type, f"nobody-{number}")), b""


def _said(subject: str, source: str, type_: str, payload: msgspec.Struct, command: str = "") -> bytes:
    now = datetime.now(UTC)
    return encode(Envelope(id=subject, source=source, type=type_, time=now, data=pack(payload), command=command))


@dataclass(frozen=True)
class Kind:
    """A kind of flood: who publishes, and what."""

    user: str
    message: Callable[[int, SagaKey], Message]
    asks: bool = False
    """Whether each message is a request."""


KINDS: Final = {
    "orphan-cancels": Kind(STRANGER, orphan_cancel),
    "forged-facts": Kind(MEMBER, forged_fact),
    "unknown-signals": Kind(STRANGER, unknown_signal),
    "notes": Kind(MEMBER, note),
    "poison-locks": Kind(MEMBER, poison_lock),
    "starts-of-another-client": Kind(STRANGER, start),
    "status-requests": Kind(STRANGER, status_request, asks=True),
}


class Published(msgspec.Struct):
    """What came of a flood: how long it took, and how many messages the server refused."""

    seconds: float
    refused: int


async def flood(name: str, count: int, victim: SagaKey, servers: str, user: str, password: str) -> Published:
    """Publish a flood over a plain connection, as an adversary's program would."""
    kind, refused = KINDS[name], 0

    async def on_error(error: Exception) -> None:
        nonlocal refused
        refused += "permissions violation" in str(error).lower()

    connection = await nats.connect(
        servers, user=user, password=password, inbox_prefix=f"_INBOX_{user}", error_cb=on_error, name=user
    )
    began = time.monotonic()
    for number in range(count):
        subject, data = kind.message(number, victim)
        await connection.publish(subject, data, reply=f"_INBOX_{user}.{number}" if kind.asks else "")
    await connection.flush(timeout=120)
    seconds = time.monotonic() - began
    await connection.close()
    return Published(seconds, refused)


async def flooding(up: Platform, name: str, count: int, victim: SagaKey) -> Published:
    """The same from a process of its own."""
    user = KINDS[name].user
    password = up.credentials(user).password or ""
    arguments = [name, str(count), victim.type, victim.id, up.servers, user, password]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.floods", "flood", *arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return msgspec.json.decode(out, type=Published)


# --- the platform under it --------------------------------------------------------------------------------------------


@dataclass
class Running:
    """A platform whose processes run."""

    up: Platform
    administrator: Link
    children: dict[str, Child]

    @property
    def coordinators(self) -> list[Child]:
        """The processes that decide."""
        return [child for role, child in self.children.items() if role.startswith("coordinator")]

    @property
    def memory_mb(self) -> float:
        """What the coordinators have in memory, together."""
        return sum(_resident_mb(child) for child in self.coordinators)

    @property
    def died(self) -> list[str]:
        """Who has ended by itself."""
        return [role for role, child in self.children.items() if child.exits]

    async def backlog(self) -> int:
        """Entries that the exporter has before it."""
        info = await patiently(lambda: api(self.administrator, f"CONSUMER.INFO.{SAGA}.{EXPORTER}"))
        return int(info["num_pending"]) + int(info["num_ack_pending"])

    async def evidence(self) -> set[tuple[str, int]]:
        """What PARKED holds, by subject and sequence."""
        return await patiently(self._held)

    async def _held(self) -> set[tuple[str, int]]:
        held = self.administrator.scan(PARKED, subjects.PARKED_FILTER)
        return {(stored.subject, stored.sequence) async for stored in held}


T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What the server says, asked again while it is too busy to answer."""
    for _ in range(20):
        with suppress(Ambiguous):
            return await ask()
    return await ask()


@asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Running]:
    """A server with accounts, two coordinators, three participants and an exporter with a backend."""
    with platform(folder, "accounts", participants=PARTICIPANTS, rights=accounts) as up, receiver() as (_, backend):
        await up.set_up(client_bounds=[Bound(STRANGER, order.name, OPEN_MAX)])
        administrator = await up.connect("administrator")
        children = {child.role: child for child in _children(up, folder, backend)}
        try:
            with supervised(children):
                await until(lambda: all(map(_is_ready, children.values())), seconds=60, what="processes that are ready")
                yield Running(up, administrator, children)
        finally:
            await administrator.close()


def _children(up: Platform, folder: Path, backend: dict[str, str]) -> Iterator[Child]:
    sagas = ("--app", "antiphon.order.saga:order", "--app", "tests.chaos.flooded:rests")
    commands: dict[str, tuple[str, tuple[str, ...]]] = {
        "coordinator-1": ("coordinator", ("coordinator", *sagas)),
        "coordinator-2": ("coordinator", ("coordinator", *sagas)),
        EXPORTER: (EXPORTER, (EXPORTER,)),
    }
    for name in PARTICIPANTS[:3]:
        database = f"sqlite:///{folder}/{name}.db"
        commands[name] = (name, ("participant", f"antiphon.order.{name}:{name}", "--database", database))
    for role, (user, arguments) in commands.items():
        environment = {**up.environment(user), **(backend if role == EXPORTER else {"OTEL_SDK_DISABLED": "true"})}
        yield Child(role, ["antiphon.deploy", *arguments], environment, folder / f"{role}.log")


def _is_ready(child: Child) -> bool:
    return bool(child.log.exists() and re.search(r"\b(coordinator|participant|exporter)\.ready", child.log.read_text()))


def _resident_mb(child: Child) -> float:
    with suppress(OSError, AttributeError):
        status = Path(f"/proc/{child.process.pid}/status").read_text()  # type: ignore[union-attr]
        if found := re.search(r"VmRSS:\s+(\d+) kB", status):
            return int(found[1]) / 1024
    return 0.0


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass
class Orders:
    """A client's orders, and how long each took from when it was due to its end."""

    antiphon: Antiphon
    taken: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """When an order was due, and how long it took; for ever if it did not end."""
    under_way: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def warm_up(self) -> None:
        """Have many orders end, as in a platform that has run for a while."""
        places = asyncio.Semaphore(WARM_PLACES)

        async def one(number: int) -> None:
            placed = replace(load_orders()[1], order_id=f"w-{number}")
            async with places:
                await (await self.antiphon.start(order, placed, id=placed.order_id)).result(PATIENCE_SECONDS)

        await asyncio.gather(*map(one, range(WARM_ORDERS)))

    async def come(self) -> None:
        """Begin one order after the other, until this is cancelled. A slow one keeps no other waiting."""
        began = time.monotonic()
        for number in range(10**9):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.begin(number, due)

    def begin(self, number: int, due: float) -> None:
        """Begin one."""
        task = asyncio.create_task(self._one(number, due))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _one(self, number: int, due: float) -> None:
        placed = replace(load_orders()[1], order_id=f"o-{number}")
        took = float("inf")
        with suppress(AntiphonError, TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                handle: Handle = await self.antiphon.start(order, placed, id=placed.order_id)
                await handle.result()
            took = time.monotonic() - due
        self.taken.append((due, took))

    def of(self, begin: float, end: float) -> list[float]:
        """How long those took that were due in some time, the quickest first."""
        return sorted(took for due, took in self.taken if begin <= due < end)


def percentile(taken: Sequence[float], share: float) -> float:
    """The value below which a share of the others lie."""
    return taken[min(len(taken) - 1, int(len(taken) * share))] if taken else float("inf")


@asynccontextmanager
async def buying(there: Running) -> AsyncIterator[Orders]:
    """The client whose orders are measured."""
    up = there.up
    async with Antiphon.connect(up.servers, name=CLIENT, credentials=up.credentials(CLIENT)) as antiphon:
        yield Orders(antiphon)


async def complain(there: Running, who: str, number: int) -> None:
    """Have a participant store something forged, which PARKED will hold as its own."""
    key, contract = SagaKey.of(ORCHESTRATED, f"evidence-{number}"), ChargeCustomer.__contract__
    subject = subjects.event_subject(key.path, who, "no-such-event", "charge_customer", 1)
    data = _said(subject, who, contract.type, Rested(), "1")
    while True:  # a server in a flood may take a while
        with suppress(AntiphonError):
            link = await there.up.connect(who)
            try:
                await link.store(subject, data)
                return
            except AlreadyStored:
                return
            finally:
                await link.close()
        await asyncio.sleep(0.2)


async def parked(there: Running, source: str) -> None:
    """Wait until PARKED holds something of a source."""
    while not any(subject.endswith(source) for subject, _ in await there.evidence()):
        await asyncio.sleep(0.2)


@dataclass
class Seen:
    """What was seen of one flood."""

    published: Published
    before: list[float]
    during: list[float]
    after: list[float]
    memory_before_mb: float
    memory_after_mb: float
    backlog: int
    victim: str
    """How the saga of somebody else ended that the flood was about; empty if it did not."""
    lost: int
    """Pieces of evidence that are gone."""
    unseen: list[str]
    """Whose evidence of the time of the flood never came."""
    died: list[str]


async def seen_of(name: str, count: int, seconds: float, folder: Path) -> Seen:
    """Flood a platform, and look on."""
    async with running(folder) as there, buying(there) as orders:
        await orders.warm_up()
        coming = asyncio.create_task(orders.come())
        await complain(there, "billing", 1)
        await parked(there, ".billing")
        evidence = await there.evidence()
        await asyncio.sleep(WARM_SECONDS)
        first = time.monotonic()
        await asyncio.sleep(seconds)
        memory_before = there.memory_mb
        victim = await orders.antiphon.start(rests, Rested(), id="victim")
        begun = time.monotonic()
        publishing = asyncio.create_task(flooding(there.up, name, count, victim.key))
        await asyncio.sleep(seconds / 20)
        complaining = asyncio.create_task(complain(there, "shipping", 2))
        await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
        backlog = await there.backlog()
        await asyncio.sleep(max(0.0, begun + 2 * seconds - time.monotonic()))
        memory_after, over = there.memory_mb, time.monotonic()
        coming.cancel()
        await asyncio.gather(*orders.under_way)
        await complaining
        unseen = await _in_time(parked(there, ".shipping"), "", "shipping")
        return Seen(
            published=await publishing,
            before=orders.of(first, begun),
            during=orders.of(begun, begun + seconds),
            after=orders.of(begun + seconds, over),
            memory_before_mb=memory_before,
            memory_after_mb=memory_after,
            backlog=backlog,
            victim=await _in_time(_ending(victim), None, ""),
            lost=len(evidence - await there.evidence()),
            unseen=[unseen] if unseen else [],
            died=there.died,
        )


async def _ending(victim: Handle) -> str:
    return (await victim.result()).outcome


async def _in_time(waiting: Any, found: Any, otherwise: str) -> str:
    """What is waited for, or what stands in its place; otherwise a word of its absence."""
    try:
        async with asyncio.timeout(120):
            result = await waiting
    except TimeoutError:
        return otherwise
    return str(result if found is None else found)


def told(name: str, seen: Seen) -> Iterator[tuple[str, bool]]:
    """A sentence for each aim, and whether it is met."""
    spread = {
        when: (percentile(taken, 0.5), percentile(taken, 0.99))
        for when, taken in (("before", seen.before), ("during", seen.during), ("after", seen.after))
    }
    (p50, p99), before = spread["during"], spread["before"][1]
    yield f"before: p50 {spread['before'][0]:.2f} s, p99 {before:.2f} s", before < float("inf")
    yield f"during: p50 {p50:.2f} s, p99 {p99:.2f} s (at most {DURING_SECONDS_MAX:g})", p99 <= DURING_SECONDS_MAX
    p50, p99 = spread["after"]
    most = AFTER_TIMES_MAX * before
    yield f"after: p50 {p50:.2f} s, p99 {p99:.2f} s (at most {most:.2f})", p99 <= most
    grown = seen.memory_after_mb / seen.memory_before_mb if seen.memory_before_mb else float("inf")
    memory = f"coordinators have {seen.memory_before_mb:.0f} MB before and {seen.memory_after_mb:.0f} MB after"
    yield f"{memory} (at most {MEMORY_TIMES_MAX:g} times)", grown <= MEMORY_TIMES_MAX
    everybody = [*seen.before, *seen.during, *seen.after]
    ended = sum(took < float("inf") for took in everybody)
    yield f"{ended} of {len(everybody)} orders ended", ended == len(everybody)
    yield f"the saga that the flood was about: {seen.victim or 'not ended'}", bool(seen.victim)
    yield f"{seen.lost} pieces of evidence are gone", not seen.lost
    yield f"evidence of {', '.join(seen.unseen) or 'nobody'} never came", not seen.unseen
    yield f"the exporter has {seen.backlog:,} entries before it (at most {BACKLOG_MAX})", seen.backlog <= BACKLOG_MAX
    yield f"{', '.join(seen.died) or 'no process'} died", not seen.died


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run the campaign and print what was seen; 1 if an aim was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.floods", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="how many messages each flood has")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each of the three times is")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind; once for each")
    chosen = parser.parse_args(arguments)
    missed = 0
    for name in chosen.kind or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            seen = asyncio.run(seen_of(name, chosen.count, chosen.seconds, Path(folder)))
        published = seen.published
        say(f"{name}: {chosen.count:,} in {published.seconds:.1f} s, {published.refused:,} refused by the server")
        for sentence, is_met in told(name, seen):
            missed += not is_met
            say(f"  {'met   ' if is_met else 'MISSED'} {sentence}")
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["flood"]:
        _, _, kind, count, saga_type, saga_id, *connection = sys.argv
        done = asyncio.run(flood(kind, int(count), SagaKey.of(saga_type, saga_id), *connection))
        sys.stdout.write(msgspec.json.encode(done).decode())
    else:
        raise SystemExit(main(sys.argv[1:]))
