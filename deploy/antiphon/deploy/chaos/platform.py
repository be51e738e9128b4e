"""A platform for chaos tests: a team's coordinators and participants as processes, with a network that can be cut."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.subjects import Direction
from antiphon.contracts.topology import ADMINISTRATOR, EXPORTER, READMODEL
from antiphon.coordinator import Antiphon
from antiphon.coordinator.definition.definition import Definition, StepDefinition
from antiphon.coordinator.definition.versions import by_type
from antiphon.coordinator.views.timeline import Timeline, spoken
from antiphon.link import Link
from antiphon.link.killpoints import HANGS, RAISED, call_name
from antiphon.link.setup import api
from antiphon.participants import Participant
from antiphon.participants.worker import HANDLER_SECONDS_MAX

from ..local.children import Child
from ..local.platform import LocalPlatform, worker_names
from ..local.up import databases_of, parts_of
from ..modules import CannotLoad, load, load_saga
from .background import Background
from .disks import Disk, enter
from .evidence import BOUND_SECONDS, Effect, Evidence
from .faults import Faults, points_of, variables
from .gathering import (
    Ledger,
    Settling,
    read_failed,
    read_inbox,
    read_ledger,
    read_listed,
    read_streams,
    read_timelines,
    readable,
    untouched,
)
from .invariants import TIMELINES_MAX, Violation, check, report
from .locks import SQLITE, Locks
from .network import CLIENT, SERVER, Network, Way, server_names
from .poison import Message, Planted, messages_of, publish
from .proxy import Proxy
from .schedule import BACKEND, POSTGRES, Targets
from .troubles import Troubles
from .witness import Told, witness

if TYPE_CHECKING:
    from ..local.postgres import Postgres
    from .backend import TracingBackend

Audit = Callable[[Mapping[str, str]], Awaitable[Iterable[str]]]
"""Is given the databases' URLs by participant, and says in sentences what is wrong in them."""

TIMELINES_SECONDS: Final = 20.0
"""How long a failed test may take to read what its report shows."""
WATCHERS: Final = (EXPORTER, READMODEL)
"""Processes that look at the sagas, and for which none waits."""
READY_SECONDS: Final = 120.0
LEADER_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.02
STALL_SECONDS: Final = 1.0
"""A machine that stands still for longer may have leases run out, of three seconds each."""
LOG_LINES: Final = 40
"""How much of each log a failed test's report has."""


@dataclass(frozen=True)
class Settings:
    """What a platform consists of.

    Args:
        apps: sagas and participants as `antiphon up --app` takes them: a package, a module, or `module:attribute`.
        participants: more of them, as `module:attribute`.
        servers: 3 for a cluster; then every stream has three replicas.
        streams: over how many pairs of streams sagas are spread.
        coordinators: how many processes.
        workers: how many processes a participant has; one where it is not named.
        handler_seconds: how long a handler may run before it is cancelled; as their own settings say when 0.
        exporter: whether an exporter runs, with a tracing backend of its own, which is held against the journals.
        readmodel: whether a read model is kept, which is held against the journals as well.
        small_disks: whether each participant's SQLite database has a small disk of its own, which a test may fill.
        postgres: the PostgreSQL in which `databases` are, where a test may kill it.
        databases: the URLs of databases by participant; SQLite in the platform's folder for the others.
    """

    apps: Sequence[str]
    participants: Sequence[str] = ()
    servers: Literal[1, 3] = 1
    coordinators: int = 1
    workers: Mapping[str, int] = field(default_factory=dict[str, int])
    databases: Mapping[str, str] = field(default_factory=dict[str, str])
    handler_seconds: float = 0.0
    exporter: bool = False
    readmodel: bool = False
    postgres: Postgres | None = None
    small_disks: bool = False
    streams: int = 1


class Verdict(msgspec.Struct, frozen=True):
    """What a check of the invariants found; as a text empty if all is well.

    Args:
        left: faults that did not come about, or that nobody ended, in sentences.
        violations: what must not be.
        told: the violations in sentences, with the timelines of the first sagas that they are about.
    """

    left: list[str]
    violations: list[Violation] = []
    told: str = ""

    def __str__(self) -> str:
        return "\n".join([*self.left, *([self.told] if self.told else [])])


class ChaosPlatform:
    """My platform, to be harmed. Names are those of processes: `billing`, `coordinator-1`, `nats-server`; of one of
    several workers `billing-1`, of one of three servers `nats-server-1`, and `client` for all clients of the test. The
    name without a number means all of a kind. Where they run there are `exporter`, `backend`, to which it sends,
    `readmodel`, and `postgres`.

    What dies is started again, as an orchestrator would, unless it is to stay dead.

    Args:
        folder: holds the servers' stores, the databases and all logs.
        settings: what it consists of.

    Raises:
        CannotLoad: that names nothing, or what cannot be imported.
        DefinitionError: a definition is unsound.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        if not settings.apps and not settings.participants:
            raise CannotLoad(
                "it is not said what the platform consists of. Name sagas and participants with antiphon_apps in the "
                'settings of pytest, or with the mark of a test: @pytest.mark.chaos("shop").'
            )
        self.sagas, found = parts_of(settings.apps)
        self.participants = {**found, **{load(path, Participant).name: path for path in settings.participants}}
        databases = databases_of([f"{name}={url}" for name, url in settings.databases.items()], self.participants)
        self.definitions = [load_saga(path).definition for path in self.sagas]
        self.told = Told()
        self.troubles = Troubles()
        self._hung, self._hang_numbers = Troubles(), count(1)
        self._beside = set[asyncio.Task[None]]()
        self.notes: list[str] = []
        """What became of the processes, in order."""
        self.environment = dict[str, str]()
        """Variables that coordinators and participants get beside the usual ones, from `start` on."""
        self._settings, self._folder, self._databases = settings, folder.resolve(), databases
        self._disks = dict[str, Disk]()
        if settings.small_disks:
            disks = {name: Disk(self._folder / "disks" / name) for name in self.participants if name not in databases}
            self._databases |= {name: f"{SQLITE}{disk.folder / name}.db" for name, disk in disks.items()}
            self._disks = disks
        self._owners = self._processes()
        self._faults = self._planned()
        self._network = Network(self._folder / "nats", self._folder / "logs", settings.servers)
        self._platform: LocalPlatform | None = None
        self._ready_lives: dict[str, int] = {}
        self._stopped = set[str]()
        self._ledgers: list[tuple[str, Ledger]] = []
        self._audits: list[Audit] = []
        self._planted = Planted()
        self._locks, self._postgres_lives = Locks(), 1
        self._led = count()
        self._postgres_coming: asyncio.Task[None] | None = None
        self._backend = _new_backend() if settings.exporter else None
        self._readmodel = f"sqlite:///{self._folder / READMODEL}.db" if settings.readmodel else ""

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and wait until all processes serve.

        Raises:
            PlatformError: something does not start, or no small disk can be mounted; the sentence says why.
        """
        if self._disks:
            enter()  # before the thread is started that shall see them
        self._background.run(self._start())

    def close(self) -> None:
        """End everything."""
        try:
            self._background.run(self._close())
        finally:
            self._background.stop()

    async def ready(self) -> None:
        """Wait until all processes serve.

        Raises:
            PlatformError: one cannot, or does not within two minutes; the sentence says which.
        """
        await self._background.ask(self._wait_ready(list(self._running.children)))

    @cached_property
    def _background(self) -> Background:
        """What starts all processes, and talks to the servers."""
        return Background()

    @property
    def is_own(self) -> bool:
        """Whether this test has started it, so that nobody else needs what it holds."""
        return True

    @property
    def databases(self) -> Mapping[str, str]:
        """The URL of each participant's database, by its name."""
        return self._running.databases

    @property
    def processes(self) -> Mapping[str, Child]:
        """The coordinators and participants, by their names."""
        return self._running.children

    @property
    def url(self) -> str:
        """Where the test's clients connect."""
        return self._network.urls(CLIENT)

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Antiphon]:
        """The ordinary client, connected for the length of an `async with` block. What it is told is checked, too."""
        async with witness(self.url, CLIENT, self.told) as antiphon:
            yield antiphon

    # --- what is checked ----------------------------------------------------------------------------------------------

    def ledger(self, participant: str, rows: Ledger) -> None:
        """Have a participant's own books checked: that no effect is there twice, none is lost, and that what was
        compensated was taken back.

        Args:
            participant: whose database it is in.
            rows: a query, or an async function that is given the database's URL. Each row is a saga as `type/id`, a
                step, `do` or `undo`, and what was done, such as a charge's number; an account and an amount may follow,
                which is negative where something is taken back.

        Raises:
            PlatformError: there is no such participant, or its database cannot be read by another process.
        """
        if participant not in readable(self.databases):
            known = ", ".join(readable(self.databases)) or "there is none"
            raise PlatformError(f"{participant!r} has no database here that could be read: {known}.")
        self._ledgers.append((participant, rows))

    def audit(self, audit: Audit) -> None:
        """Have more checked: an async function that is given the databases' URLs by participant, and says in sentences
        what is wrong."""
        self._audits.append(audit)

    async def assert_invariants(self, *, within_seconds: float = BOUND_SECONDS, still_open: Iterable[str] = ()) -> None:
        """Wait until nothing moves any more, and check that no effect is lost or doubled, every saga has ended or is
        parked, and journals, inboxes, ledgers, traces and what clients were told agree.

        Args:
            within_seconds: within what time after the last fault all sagas must have ended.
            still_open: sagas that may be under way still, as `type/id`, because they wait for a person or for time.

        Raises:
            AssertionError: they do not, or a fault that was planned has not come about; with the sagas' timelines.
        """
        __tracebackhide__ = True
        verdict = await self.judge(within_seconds=within_seconds, still_open=still_open)
        if wrong := str(verdict):
            raise AssertionError(wrong)

    async def judge(self, *, within_seconds: float = BOUND_SECONDS, still_open: Iterable[str] = ()) -> Verdict:
        """The same for a program: what does not hold, instead of an error.

        Args:
            within_seconds, still_open: as of `assert_invariants`.
        """
        return await self._background.ask(self._check(within_seconds, frozenset(still_open)))

    # --- faults of processes ------------------------------------------------------------------------------------------

    def kill(self, name: str, *, stays_dead: bool = False) -> None:
        """SIGKILL.

        Args:
            name: of a process, a participant, `coordinator`, or a server.
            stays_dead: whether nobody starts it again before `restart`.
        """
        self._begin_trouble(name)
        if name == POSTGRES:
            self._background.run(self._kill_postgres(stays_dead))
        for child in self._children(name):
            if stays_dead:
                self._background.call(child.stay_away)
            self._background.call(child.kill)
            self._ready_lives.pop(child.name, None)
        for server in self._servers(name):
            if stays_dead:
                self._background.call(self._network.servers[server].kill)
            else:
                self._network.servers[server].send_signal(signal.SIGKILL)
        self._stopped -= set(self._names(name))

    def stop(self, name: str) -> None:
        """SIGSTOP: it stands still, with its connections open, until `go_on`. A stopped `backend` refuses what it is
        sent."""
        self._begin_trouble(name)
        self._send(name, signal.SIGSTOP)
        self._stopped |= set(self._names(name))

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self._send(name, signal.SIGCONT)
        self._stopped -= set(self._names(name))
        for each in self._names(name):
            self.troubles.end(each)

    async def restart(self, name: str) -> None:
        """Have it drain and be started again, or start what stayed dead; wait until it serves.

        Raises:
            PlatformError: it does not come to.
        """
        self._begin_trouble(name, planned=True)
        await self._background.ask(self._restart(name))

    async def lock(self, name: str) -> None:
        """Have another process hold the write lock of an SQLite database, until `unlock`.

        Args:
            name: of a participant, or `readmodel`.

        Raises:
            PlatformError: it has no SQLite database, or others do not let go of the lock within half a minute.
        """
        if (url := self._sqlite.get(name)) is None:
            raise PlatformError(f"{name!r} has no SQLite database to lock: {', '.join(self._sqlite) or 'nobody has'}.")
        self.troubles.begin(f"the database of {name}", name)
        await self._background.ask(self._locks.hold(name, url))

    async def unlock(self, name: str) -> None:
        """Have the lock on a database released."""
        await self._background.ask(self._locks.release(name))
        self.troubles.end(f"the database of {name}")

    def fill(self, name: str) -> None:
        """Leave no room on the disk of a participant's database, until `free`.

        Args:
            name: of a participant.

        Raises:
            PlatformError: its database has no small disk.
        """
        disk = self._disk_of(name)
        self.troubles.begin(f"the disk of {name}", name)
        disk.fill()

    def free(self, name: str) -> None:
        """Give the room back."""
        self._disk_of(name).free()
        self.troubles.end(f"the disk of {name}")

    def at(self, name: str, point: str, times: int = 1) -> None:
        """Have it die when it reaches a point, and again when that is reached once more: with `times=2` on the first
        delivery of a command and on the second.

        Args:
            name: a participant, `coordinator`, or one process of them.
            point: of a participant `on_delivery`, `before_commit`, `after_commit` or `after_answer`; where its handler
                has effects outside the database `before_effect` or `after_effect`, too. Of a coordinator
                `on_delivery`, `between_appends` or `after_append`.
            times: how often.

        Raises:
            PlatformError: there is no such point, or the participant has no handler with effects outside the database.
        """
        self._faults_of(name).kill_at(point, times)

    def fail_next(self, step: str, times: int = 1, *, direction: Direction = "do") -> None:
        """Have the next calls of a step's handler raise an error, each of which is a failed attempt.

        Args:
            step: as the definition calls it; an element of a list is `step-0`.
            times: how many.
            direction: `undo` for its compensation.

        Raises:
            PlatformError: no saga has such a step, or no participant performs it.
        """
        self._plan_calls(step, direction, times, "")

    def raise_next(self, step: str, error: str = "SystemExit", times: int = 1, *, direction: Direction = "do") -> None:
        """Have the next calls of a step's handler raise what is no Exception, each of which is a failed attempt.

        Args:
            step, times, direction: as of `fail_next`.
            error: `SystemExit`, `KeyboardInterrupt`, `GeneratorExit`, `CancelledError` or `PlannedPanic`, which is
                no other's subclass.

        Raises:
            PlatformError: there is no such error, no saga has such a step, or no participant performs it.
        """
        if error not in RAISED:
            raise PlatformError(f"a handler cannot be made to raise {error!r}: {', '.join(RAISED)}.")
        self._plan_calls(step, direction, times, f"raise {error}")

    def hang_next(
        self, step: str, how: str = "wait", times: int = 1, *, seconds: float = 0.0, direction: Direction = "do"
    ) -> None:
        """Have the next calls of a step's handler hang before they do anything.

        Args:
            step, times, direction: as of `fail_next`.
            how: `wait` until it is cancelled, be `deaf` and go on although it is cancelled, or `block` the whole
                process.
            seconds: for how long; for ever when 0. Who blocks must say. The platform's `handler_seconds` say when
                handlers are cancelled.

        Raises:
            PlatformError: there is no such way to hang, no saga has such a step, or no participant performs it.
        """
        if how not in HANGS or (how == "block" and not seconds):
            raise PlatformError(f"a handler hangs in one of the ways {', '.join(HANGS)}, the last for some seconds.")
        self._plan_calls(step, direction, times, f"{how} {seconds:g}")
        self._background.call(lambda: self._watch_hang(step, direction, how, seconds))

    async def poison(self, user: str, message: str = "", times: int = 1, *, sagas: Sequence[SagaKey] = ()) -> None:
        """Publish what a hostile user may, and nobody can use. `assert_invariants` then asks for all of it in PARKED,
        and for nothing else.

        Args:
            user: `client`, or a participant's name.
            message: which message; of a client `noise`, `oversize`, `deep`, `orphan`, `unknown`, `start` or `question`,
                of a participant `noise`, `oversize`, `deep`, `forged`, `unknown`, `lock`, `answer` or `heard`. All of
                them when left out.
            times: how many of each.
            sagas: those that the messages are about, in turn; sagas that were never started when left out.

        Raises:
            PlatformError: there is no such user or message, or the server does not store it.
        """
        if user != CLIENT and user not in self.participants:
            raise PlatformError(f"there is no user {user!r} here: {', '.join([CLIENT, *self.participants])}.")
        messages = [*messages_of(user, message, times, sagas, self.definitions, self._planted)]
        await self._background.ask(self._publish(user, messages))

    def deaths(self, name: str) -> int:
        """How often it died of SIGKILL."""
        return sum(child.exits.count(-signal.SIGKILL) for child in self._children(name))

    def serves(self, name: str) -> bool:
        """Whether all processes of a name are there and serve, as far as they said; one that stands still does."""
        if name == POSTGRES and self._settings.postgres is not None:
            return self._postgres_coming is None and self._settings.postgres.answers
        servers = all(self._network.servers[each].answers for each in self._servers(name))
        return servers and all(map(self._is_ready, self._children(name)))

    def pids(self, name: str) -> frozenset[int]:
        """The process ids of a name: none of them is there again when all have ended and were started again."""
        if name == POSTGRES:
            return frozenset({self._postgres_lives})  # a life's number tells lives apart as well
        servers = (self._network.servers[each].process for each in self._servers(name))
        own = {child.pid for child in self._children(name)}
        return frozenset(own | {process.pid for process in servers if process is not None})

    def to_come(self) -> list[str]:
        """The faults that are planned and have not come about, as `participant point` or `participant do.step`."""
        return [f"{name} {what}" for name, faults in self._faults.items() for what in faults.left]

    async def leader(self) -> str:
        """The server that leads stream SAGA now; of several pairs of streams each in turn.

        Raises:
            PlatformError: none does within half a minute.
        """
        return await self._background.ask(self._find_leader())

    @property
    def targets(self) -> Targets:
        """What can be harmed here."""
        return self.targets_of(self.definitions)

    def targets_of(self, definitions: Sequence[Definition]) -> Targets:
        """The same where only these sagas run: a fault where none of them comes by would never come about."""
        steps = [step for each in definitions for step in each.steps.values() if step.participant in self.participants]
        calls = dict[tuple[str, Direction], None]()
        for step in steps:
            name = f"{step.name}-0" if step.elements_max else step.name
            calls |= {(name, "do"): None} if step.do is not None else {}
            calls |= {(name, "undo"): None} if step.undo is not None else {}
        owned = {name: [each for each, owner in self._owners.items() if owner == name] for name in self.participants}
        return Targets(
            owned,
            [each for each, owner in self._owners.items() if owner == COORDINATOR],
            server_names(self._settings.servers),
            [*calls],
            outside=sorted({step.participant for step in steps if self._acts_outside(step)}),
            has_branches=any(map(_has_branches, definitions)),
            watchers=[each for each, owner in self._owners.items() if owner in WATCHERS],
            sqlite=[*self._sqlite],
            has_postgres=self._settings.postgres is not None,
            disks=[*self._disks],
        )

    # --- faults of the network ----------------------------------------------------------------------------------------

    def partition(self, one: str, other: str = "") -> None:
        """Let nothing pass between two, until `heal`: connections stay open, and nothing arrives.

        Args:
            one: a process, a participant, `coordinator`, `client`, or a server.
            other: where one is a process, the server that it is cut off from, and the other way round; everybody by
                default.

        Raises:
            PlatformError: there is no way between these two: processes talk to servers alone.
        """
        for way, proxy in self._between(one, other).items():
            self._background.call(proxy.cut)
            self.troubles.begin(" and ".join(way))

    def heal(self, one: str = "", other: str = "") -> None:
        """Let everything pass again between two, what was sent meanwhile, too; everywhere by default.

        Args:
            one, other: as of `partition`.
        """
        for way, proxy in (self._between(one, other) if one else self._network.ways).items():
            self._background.call(proxy.mend)
            self.troubles.end(" and ".join(way))

    def slow(self, one: str, other: str = "", *, seconds: float) -> None:
        """Have everything between two arrive so much later, in both directions. 0 ends it.

        Args:
            one, other: as of `partition`.
            seconds: how much later.
        """
        for way, proxy in self._between(one, other).items():
            proxy.delay_seconds = seconds
            if seconds:
                self.troubles.begin(" and ".join(way))
            else:
                self.troubles.end(" and ".join(way))

    # --- what a failed test shows -------------------------------------------------------------------------------------

    def timelines(self) -> Iterator[tuple[str, str]]:
        """What happened in the sagas that have not ended, and in those that were started last, by their names."""
        for each in self._background.run(self._read_timelines()):
            yield f"{each.type}/{each.id}: {each.state}", "\n".join(map(spoken, each.lines))

    def logs(self) -> Iterator[tuple[str, str]]:
        """The last lines of each process's log, by its name."""
        for path in sorted((self._folder / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            yield path.stem, "\n".join(lines[-LOG_LINES:])

    # --- helpers ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _link(self) -> AsyncGenerator[Link]:
        """An administrator's connection, past the network that can be cut."""
        link = await Link.connect(self._running.url, name=ADMINISTRATOR)
        link.spread_over(self._running.pairs)
        try:
            yield link
        finally:
            await link.close()

    async def _publish(self, user: str, messages: Iterable[Message]) -> None:
        what = f"the messages of {user}"
        self.troubles.begin(what, user)
        try:
            async with self._link() as link:
                await publish(link, messages, self._planted)
        finally:
            self.troubles.end(what)

    async def _find_leader(self) -> str:
        by_name = {server.name: name for name, server in self._network.servers.items()}
        if len(by_name) == 1:
            return next(iter(by_name.values()))
        stream = self._running.pairs.saga[next(self._led) % self._running.pairs.count]
        with suppress(TimeoutError):
            async with asyncio.timeout(LEADER_SECONDS):
                while True:
                    with suppress(PlatformError, Ambiguous):
                        async with self._link() as link:
                            info = await api(link, f"STREAM.INFO.{stream}")
                        if found := by_name.get(info.get("cluster", {}).get("leader", "")):
                            return found
                    await asyncio.sleep(LOOK_SECONDS)
        raise PlatformError(f"no server leads {stream} within {LEADER_SECONDS:g} s.")

    async def _read_timelines(self) -> list[Timeline]:
        async with asyncio.timeout(TIMELINES_SECONDS), self._link() as link:
            return await read_timelines(link, TIMELINES_MAX)

    async def _check(self, within_seconds: float, still_open: frozenset[str]) -> Verdict:
        """What is wrong once nothing moves any more."""
        if all(server.process is None for server in self._network.servers.values()):
            return Verdict(self._left())  # nobody can say more
        async with self._link() as link:
            exports, readmodel = self._backend is not None, self._readmodel
            allowed = still_open | self._planted.sagas
            await Settling(link, allowed, exports=exports, readmodel=readmodel).wait(within_seconds)
            evidence = Evidence(
                definitions=by_type(self.definitions),
                told_started=frozenset(self.told.started),
                told_outcomes=dict(self.told.outcomes),
                troubles=self.troubles.all(),
                hung=self._hung.all(),
                last_fault_ns=self.troubles.last_ns,
                bound_seconds=within_seconds,
                open=still_open,
                traces=untouched(self._backend.traces, self._planted) if self._backend is not None else None,
                encode=self._backend.encode if self._backend is not None else None,
            )
            await read_streams(link, evidence, self._planted)
        if readmodel:
            evidence.listed = await read_listed(readmodel, self._planted)
        databases = readable(self.databases)
        evidence.inboxes = {name: await read_inbox(url) for name, url in databases.items()}
        evidence.failed = {
            message: count for url in databases.values() for message, count in (await read_failed(url)).items()
        }
        evidence.ledgers = await self._read_ledgers()
        evidence.books = [sentence for audit in self._audits for sentence in await audit(self.databases)]
        violations = check(evidence)
        return Verdict(self._left(), violations, report(evidence, violations) if violations else "")

    async def _read_ledgers(self) -> dict[str, list[Effect]]:
        found = dict[str, list[Effect]]()
        for participant, rows in self._ledgers:
            found.setdefault(participant, []).extend(await read_ledger(self.databases[participant], rows))
        return found

    def _left(self) -> list[str]:
        return [f"{name} is left: {what}" for name, what in self._lasting()]

    def _lasting(self) -> Iterator[tuple[str, str]]:
        """Faults that were planned and did not come about, and those that nobody has ended."""
        for name, faults in self._faults.items():
            for what in faults.left:
                yield name, f"a fault was planned that did not come about, {what}"
        for name in (name for name, disk in self._disks.items() if disk.is_full):
            yield name, "its disk is full: `chaos.free` ends that"
        for name in self._locks.held:
            yield name, "its database is locked: `await chaos.unlock` ends that"
        for name in sorted(self._stopped):
            yield name, "it is stopped: `chaos.go_on` has it go on"
        dead = [child.name for child in self._running.children.values() if child.is_away]
        dead += [name for name, server in self._network.servers.items() if server.process is None]
        for name in dead:
            yield name, "it stays dead: `await chaos.restart` starts it"
        for way, proxy in self._network.ways.items():
            if proxy.is_cut:
                yield " and ".join(way), "nothing passes between them: `chaos.heal` ends that"

    @property
    def _running(self) -> LocalPlatform:
        assert self._platform is not None, "the platform was not started"
        return self._platform

    def _processes(self) -> dict[str, str]:
        """The processes by name, each with the participant that it is of, or `coordinator`."""
        coordinators = [f"{COORDINATOR}-{number}" for number in range(1, self._settings.coordinators + 1)]
        found = dict.fromkeys(coordinators, COORDINATOR)
        for participant in self.participants:
            names = worker_names(participant, self._settings.workers.get(participant, 1))
            found |= dict.fromkeys(names, participant)
        found |= {EXPORTER: EXPORTER} if self._settings.exporter else {}
        return found | ({READMODEL: READMODEL} if self._settings.readmodel else {})

    def _planned(self) -> dict[str, Faults]:
        """Where faults are planned, for each process and for all of a kind."""
        owners = self._owners | {owner: owner for owner in self._owners.values()}
        return {
            name: Faults(self._folder / "faults" / name, points_of(owner, self._declared(owner)))
            for name, owner in owners.items()
        }

    def _declared(self, owner: str) -> Participant | None:
        """The participant of that name; None for a coordinator, exporter or read model."""
        return load(self.participants[owner], Participant) if owner in self.participants else None

    async def _start(self) -> None:
        for disk in self._disks.values():
            disk.mount()
        await self._network.start(self._owners)
        if self._backend is not None:
            self._backend.start()
        self._platform = LocalPlatform(
            self._folder,
            self.sagas,
            self.participants,
            self._hear,
            self._note,
            databases=self._databases,
            coordinators=self._settings.coordinators,
            servers=list(self._network.servers.values()),
            workers=self._settings.workers,
            variables=self._variables,
            exporter=self._settings.exporter,
            readmodel=self._readmodel,
            pairs=self._settings.streams,
        )
        await self._platform.start()
        await self._wait_ready(list(self._platform.children))
        self._keep(self._watch_machine())

    @property
    def _sqlite(self) -> dict[str, str]:
        """The SQLite databases by whose they are."""
        given = self._databases
        found = {name: f"{SQLITE}{self._folder / name}.db" for name in self.participants} | given
        found |= {READMODEL: self._readmodel} if self._readmodel else {}
        return {name: url for name, url in found.items() if url.startswith(SQLITE)}

    async def _kill_postgres(self, stays_dead: bool) -> None:
        assert self._settings.postgres is not None, "it has a name"
        await asyncio.to_thread(self._settings.postgres.kill)
        if not stays_dead:
            self._postgres_coming = asyncio.create_task(self._start_postgres())

    async def _start_postgres(self) -> None:
        assert self._settings.postgres is not None, "it has a name"
        try:
            await asyncio.to_thread(self._settings.postgres.start_again)
        finally:
            self._postgres_coming = None
        self._postgres_lives += 1
        self.troubles.end(POSTGRES)

    async def _close(self) -> None:
        for name in self._locks.held:
            await self._locks.release(name)
        for disk in self._disks.values():
            disk.free()
        if self._settings.postgres is not None and not self._settings.postgres.postmaster:
            await self._start_postgres()
        for proxy in self._network.ways.values():
            proxy.mend()
            proxy.delay_seconds = 0.0
        for name in self._stopped:
            self._send(name, signal.SIGCONT)
        if self._platform is not None:
            await self._platform.stop()
        await self._network.stop()
        if self._backend is not None:
            self._backend.stop()
        for disk in self._disks.values():
            disk.unmount()

    def _variables(self, name: str) -> dict[str, str]:
        """What one process is told: its own ways, the faults planned for it, and where the test's modules are."""
        planned = {id(faults): faults for faults in (self._faults[name], self._faults[self._owners[name]])}
        return {
            **self.environment,
            "NATS_URL": self._network.urls(name),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **({"ANTIPHON_HANDLER_SECONDS": f"{limit:g}"} if (limit := self._settings.handler_seconds) else {}),
            "ANTIPHON_LOG_LEVEL": "debug" if os.environ.get("ANTIPHON_LOG_LEVEL") == "debug" else "info",
            **(self._backend.variables if name == EXPORTER and self._backend is not None else {}),
            **variables(*planned.values()),
        }

    def _hear(self, name: str, line: str) -> None:
        """Notice that a process is ready in its present life."""
        owner = self._owners[name]
        if f"{'participant' if owner in self.participants else owner}.ready" in line:
            self._ready_lives[name] = self._running.children[name].lives
            self.troubles.end(name)

    def _note(self, name: str, line: str) -> None:
        """Keep what becomes of the processes; one may die without this platform's doing, at a point, or of itself."""
        self.notes.append(f"{name}: {line}")
        if name in self._owners and line.startswith(("was killed", "ended with")):
            self._begin_trouble(name)

    async def _wait_ready(self, names: Sequence[str]) -> None:
        """Wait until processes say that they serve, and the server that they do."""
        children = waiting = [self._running.children[name] for name in names]
        try:
            async with asyncio.timeout(READY_SECONDS):
                while waiting := [child for child in children if not self._is_ready(child)]:
                    self._require_able(waiting)
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise PlatformError(
                f"{', '.join(child.name for child in waiting)} did not come to serve within {READY_SECONDS:g} s. The "
                f"logs in {self._running.logs} say why."
            ) from None

    def _is_ready(self, child: Child) -> bool:
        return child.is_running and self._ready_lives.get(child.name) == child.lives

    def _require_able(self, children: Sequence[Child]) -> None:
        """Refuse to wait for what does not come."""
        for child in children:
            if child.is_unsound:
                raise PlatformError(f"{child.name} cannot start: {child.last_line}")
            if child.is_away:
                raise PlatformError(f"{child.name} is to stay dead: `await chaos.restart({child.name!r})` starts it.")
            if child.name in self._stopped:
                raise PlatformError(f"{child.name} is stopped: `chaos.go_on({child.name!r})` has it go on.")

    async def _restart(self, name: str) -> None:
        if name == POSTGRES and self._settings.postgres is not None:
            if self._postgres_coming is not None:
                await self._postgres_coming
            await asyncio.to_thread(self._settings.postgres.stop)
            await self._start_postgres()
        for server in self._servers(name):
            await asyncio.to_thread(self._network.servers[server].stop)
            self._network.servers[server].launch()  # by this thread, with which the system ends it
            await asyncio.to_thread(self._network.servers[server].wait_ready)
        children = self._children(name)
        for child in children:
            if child.is_away:
                child.come_back()
            else:
                child.send_signal(signal.SIGTERM)
            self._ready_lives.pop(child.name, None)
        await self._wait_ready([child.name for child in children])

    def _send(self, name: str, number: signal.Signals) -> None:
        if name == BACKEND and self._backend is not None:
            self._backend.refuses = number == signal.SIGSTOP
        for child in self._children(name):
            child.send_signal(number)
        for server in self._servers(name):
            self._network.servers[server].send_signal(number)

    def _between(self, one: str, other: str) -> dict[Way, Proxy]:
        """The ways between two."""
        everybody = [*self._owners, *self._network.servers, CLIENT]
        found = self._network.between(self._names(one), self._names(other) if other else everybody)
        if not found:
            raise PlatformError(f"there is no way between {one} and {other}: one of them must be a server.")
        return found

    def _begin_trouble(self, name: str, *, planned: bool = False) -> None:
        """Note that something is done to processes or servers: it is the own trouble of participants, and of those for
        which no saga waits. Only restarts of processes are planned ones: a server that ends takes deliveries with it
        that are on their way."""
        for each in self._names(name):
            owner = BACKEND if each == BACKEND else self._owners.get(each, "")
            if each == POSTGRES and len(theirs := self._in_postgres) == 1:
                owner = theirs[0]
            whose = owner if owner in (*self.participants, *WATCHERS, BACKEND) else ""
            self.troubles.begin(each, whose, planned=planned and each in self._owners)

    @property
    def _in_postgres(self) -> list[str]:
        """The participants whose databases are in the PostgreSQL that may be killed."""
        return [name for name, url in self._databases.items() if url.startswith("postgresql")]

    def _children(self, name: str) -> list[Child]:
        return [self._running.children[each] for each in self._names(name) if each in self._owners]

    def _servers(self, name: str) -> list[str]:
        return [each for each in self._names(name) if each in self._network.servers]

    def _names(self, name: str) -> list[str]:
        """All that a name means.

        Raises:
            PlatformError: nothing.
        """
        known = [*self._owners, *self._network.servers, CLIENT, *self._others]
        found = [
            each
            for each in known
            if name in (each, self._owners.get(each)) or (name == SERVER and each in self._network.servers)
        ]
        if not found:
            raise PlatformError(f"there is no {name!r} here: {', '.join(known)}.")
        return found

    @property
    def _others(self) -> list[str]:
        """What is neither a process of the platform nor a server of NATS."""
        backend = [BACKEND] if self._backend is not None else []
        return [*backend, *([POSTGRES] if self._settings.postgres is not None else [])]

    def _disk_of(self, name: str) -> Disk:
        if name not in self._disks:
            known = ", ".join(self._disks) or "nobody has"
            raise PlatformError(f"{name!r} has no small disk: {known}. With small_disks each SQLite database has one.")
        return self._disks[name]

    def _faults_of(self, name: str) -> Faults:
        if name not in self._faults:
            raise PlatformError(f"no fault can be planned for {name!r}, only for {', '.join(sorted(self._faults))}.")
        return self._faults[name]

    def _acts_outside(self, step: StepDefinition) -> bool:
        """Whether the handler of a step's command has effects outside the database."""
        handlers = load(self.participants[step.participant], Participant).handlers
        handler = handlers.get(step.do.contract.type) if step.do is not None else None
        return handler is not None and handler.is_outside

    def _plan_calls(self, step: str, direction: Direction, times: int, how: str) -> None:
        self._faults_of(self._owner_of(step, direction)).fail(step, direction, times, how)

    def _watch_hang(self, step: str, direction: Direction, how: str, seconds: float) -> None:
        """Note how long calls may hang: from now on, until none is planned any more and the last one is over, which one
        that is deaf to its cancellation may never be."""
        owner, what = self._owner_of(step, direction), call_name(step, direction)
        number = next(self._hang_numbers)

        async def watch() -> None:
            self._hung.begin(f"hang {number}", owner)
            while what in self._faults_of(owner).left:
                await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(seconds or self._settings.handler_seconds or HANDLER_SECONDS_MAX)
            if seconds or how != "deaf":
                self._hung.end(f"hang {number}")

        self._keep(watch())

    async def _watch_machine(self) -> None:
        """Note when this machine stands still: then leases of what workers hold run out."""
        before_ns = time.time_ns()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now_ns = time.time_ns()
            if now_ns - before_ns > STALL_SECONDS * 1e9:
                self._hung.add(before_ns, now_ns)
            before_ns = now_ns

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside, in the loop of the platform."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _owner_of(self, step: str, direction: Direction) -> str:
        """The participant that performs a step."""
        for definition in self.definitions:
            found = definition.steps.get(step) or definition.steps.get(step.rpartition("-")[0])
            if found is not None and found.participant in self.participants:
                if (found.do if direction == "do" else found.undo) is None:
                    raise PlatformError(f"step {step} has nothing that could fail in the direction {direction}.")
                return found.participant
        known = ", ".join(name for definition in self.definitions for name in definition.steps)
        raise PlatformError(f"no participant of this platform performs a step {step!r}. There are {known}.")


def _has_branches(definition: Definition) -> bool:
    """Whether some of its steps run at once."""
    roots = [step for step in definition.steps.values() if not step.after]
    several = any(len(step.dependents) > 1 or step.elements_max > 1 for step in definition.steps.values())
    return several or len(roots) > 1


def can_export() -> bool:
    """Whether an exporter can run here, and a tracing backend: the extra `otlp` is installed."""
    return _is_installed("opentelemetry.exporter.otlp.proto.http")


def can_list() -> bool:
    """Whether a read model can be kept in SQLite here: the extra `sqlite` is installed."""
    return _is_installed("aiosqlite")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is what it would be in
        return False


def _new_backend() -> TracingBackend:
    """A tracing backend.

    Raises:
        CannotLoad: this installation has none.
    """
    try:
        from .backend import TracingBackend
    except ImportError:
        raise CannotLoad("an exporter needs the extra `otlp`: pip install 'antiphon[otlp]'.") from None
    return TracingBackend()
