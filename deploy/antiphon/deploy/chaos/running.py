"""A platform that others have started, to be harmed: the processes of `antiphon up`, which starts them again.

What it consists of stands in its folder. It is not ours: nothing but its processes is harmed, which get signals only as
long as they are its children, and only the sagas that are started here are judged, whatever others run there.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.subjects import EVENTS_FILTER, JOURNALS_FILTER
from antiphon.contracts.topology import ADMINISTRATOR
from antiphon.coordinator import Antiphon
from antiphon.coordinator.definition.versions import by_type
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.views.timeline import child_ids
from antiphon.link import Link
from antiphon.link.pairs import find_pairs
from antiphon.link.setup import info_of

from ..local.server import server_info
from ..local.state import Process, ServerProcess, State, is_child, read_state, send_signal
from ..modules import load_saga
from .evidence import BOUND_SECONDS, Effect, Evidence, SagaEvidence
from .gathering import Ledger, Settling, read_inbox, read_ledger, readable
from .invariants import check, report
from .network import CLIENT, SERVER
from .platform import Audit, Verdict
from .schedule import Kind, Targets
from .troubles import Troubles
from .witness import Told, witness

POSSIBLE: Final[tuple[Kind, ...]] = ("kill", "stop", "restart")
"""The faults that a platform comes back from by itself, without knowing of them."""
LOOK_SECONDS: Final = 0.05
LEADER_SECONDS: Final = 30.0
READY_SECONDS: Final = 60.0
"""Within what time a process serves again; its pauses between two lives grow up to ten seconds."""


class RunningPlatform:
    """Somebody else's platform. Names are those of its processes, as of a `ChaosPlatform`.

    Args:
        folder: the one that `antiphon up` was given.

    Raises:
        PlatformError: no platform runs there.
        CannotLoad: its sagas cannot be imported here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        state = self._state
        self.sagas, self.participants = list(state.sagas), dict(state.participants)
        self.definitions = [load_saga(path).definition for path in state.sagas]
        self.databases: Mapping[str, str] = state.databases
        self.url = state.url
        self.told, self.troubles = Told(), Troubles()
        self._harmed = dict[str, int]()
        """The process ids of those that are harmed, as they were before."""
        self._stopped = set[str]()
        self._ledgers: list[tuple[str, Ledger]] = []
        self._audits: list[Audit] = []
        self._since: dict[str, int] = {}

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Wait until all of it serves, and see from where on its streams are ours to judge.

        Raises:
            PlatformError: something does not come to serve.
        """
        asyncio.run(self._start())

    def close(self) -> None:
        """Have whatever stands still go on."""
        for name in [*self._stopped]:
            with suppress(PlatformError):  # it has ended
                self.go_on(name)

    @property
    def is_own(self) -> bool:
        """Whether this test has started it."""
        return False

    @property
    def processes(self) -> Mapping[str, Process]:
        """The coordinators and participants, by their names."""
        return self._state.processes

    @property
    def targets(self) -> Targets:
        """What can be harmed here."""
        state = self._state
        owned = {
            participant: [name for name, each in state.processes.items() if each.owner == participant]
            for participant in state.participants
        }
        coordinators = [name for name, each in state.processes.items() if each.owner == COORDINATOR]
        return Targets(owned, coordinators, [*state.servers], kinds=POSSIBLE)

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Antiphon]:
        """The ordinary client, connected for the length of an `async with` block. What it is told is checked, too."""
        async with witness(self.url, CLIENT, self.told) as antiphon:
            yield antiphon

    # --- what is checked ----------------------------------------------------------------------------------------------

    def ledger(self, participant: str, rows: Ledger) -> None:
        """As of a `ChaosPlatform`; lines about sagas of others are left alone.

        Raises:
            PlatformError: there is no such participant, or its database cannot be read by another process.
        """
        if participant not in readable(self.databases):
            known = ", ".join(readable(self.databases)) or "there is none"
            raise PlatformError(f"{participant!r} has no database here that could be read: {known}.")
        self._ledgers.append((participant, rows))

    def audit(self, audit: Audit) -> None:
        """As of a `ChaosPlatform`."""
        self._audits.append(audit)

    async def judge(self, *, within_seconds: float = BOUND_SECONDS, still_open: Iterable[str] = ()) -> Verdict:
        """What does not hold of the sagas that were started here.

        Not said are: what consumers have before them, which may be of others; that nothing was erased, since retention
        may run; traces and rows of read models, which are elsewhere; and whether restarts cost attempts, because
        nobody knows what else has happened to this platform meanwhile.

        Args:
            within_seconds, still_open: as of `ChaosPlatform.assert_invariants`.
        """
        allowed = frozenset(still_open)
        async with self._link() as link:
            await Settling(link, allowed, since=self._since, only=self.told.asked).wait(within_seconds)
            evidence = Evidence(
                definitions=by_type(self.definitions),
                told_started=frozenset(self.told.started),
                told_outcomes=dict(self.told.outcomes),
                troubles=self.troubles.all(),
                last_fault_ns=self.troubles.last_ns,
                bound_seconds=within_seconds,
                open=allowed,
            )
            await self._read(link, evidence)
        known = {str(key) for key in evidence.sagas}
        databases = readable(self.databases)
        evidence.inboxes = {
            name: [row for row in await read_inbox(url) if row.saga in evidence.sagas]
            for name, url in databases.items()
        }
        ledgers = dict[str, list[Effect]]()
        for participant, rows in self._ledgers:
            found = await read_ledger(self.databases[participant], rows)
            ledgers.setdefault(participant, []).extend(each for each in found if each.saga in known)
        evidence.ledgers = ledgers
        evidence.books = [sentence for audit in self._audits for sentence in await audit(self.databases)]
        violations = check(evidence)
        left = [f"{name} is left: it is stopped" for name in sorted(self._stopped)]
        return Verdict(left, violations, report(evidence, violations) if violations else "")

    async def _read(self, link: Link, evidence: Evidence) -> None:
        """Read what both streams hold since the beginning, of the sagas of ours and of those that they have started."""
        for streams, subject_filter, take in (
            (link.pairs.events, EVENTS_FILTER, evidence.take_event),
            (link.pairs.saga, JOURNALS_FILTER, evidence.take_entry),
        ):
            for stream in streams:
                async for message in link.scan(stream, subject_filter, self._since.get(stream, 1)):
                    take(message)
        evidence.sagas = _family(evidence.sagas, self.told.asked)
        listed = await waiting(link)
        names = {str(key) for key in evidence.sagas}
        evidence.parked = frozenset(SagaKey.of(*each.saga.split("/")) for each in listed if each.kind == "saga")
        evidence.set_aside = [
            f"PARKED holds a message of {each.source or 'nobody knows whom'} ({each.kind}): {each.reason}"
            for each in listed
            if each.kind not in ("saga", "paused") and each.saga in names
        ]

    # --- faults -------------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL.

        Raises:
            PlatformError: there is no such process, or it is none of the platform's any more.
        """
        self._harm(name, signal.SIGKILL)
        self._stopped -= set(self._names(name))

    def stop(self, name: str) -> None:
        """SIGSTOP: it stands still, with its connections open, until `go_on`."""
        self._harm(name, signal.SIGSTOP)
        self._stopped |= set(self._names(name))

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        state = self._state
        for each in self._names(name):
            if is_child(pid := self._found(state, each).pid, state.pid):  # it may have been killed meanwhile
                send_signal(pid, state.pid, signal.SIGCONT)
            self._stopped.discard(each)
            self._well(each)

    async def restart(self, name: str) -> None:
        """Have it drain; it is started again, which is waited for.

        Raises:
            PlatformError: it is not.
        """
        before = self.pids(name)
        self._harm(name, signal.SIGTERM)
        what = f"{name} did not end and come to serve again"
        await _until(lambda: not before & self.pids(name) and self.serves(name), READY_SECONDS, what)

    def serves(self, name: str) -> bool:
        """Whether all processes of a name are there and serve, as far as they said; one that stands still does."""
        state = self._state
        found = [(each, self._found(state, each)) for each in self._names(name)]
        if not all(is_child(process.pid, state.pid) and _serves(process) for _, process in found):
            return False
        for each, process in found:
            if self._harmed.get(each, process.pid) != process.pid:
                self._well(each)
        return True

    def pids(self, name: str) -> frozenset[int]:
        """The process ids of a name: none of them is there again when all have ended and were started again."""
        state = self._state
        return frozenset(self._found(state, each).pid for each in self._names(name))

    async def leader(self) -> str:
        """The server that leads stream SAGA now.

        Raises:
            PlatformError: none does within half a minute.
        """
        servers = self._state.servers
        if len(servers) == 1:
            return next(iter(servers))
        by_name = {each.name: name for name, each in servers.items()}
        gives_up = time.monotonic() + LEADER_SECONDS
        while time.monotonic() < gives_up:
            with suppress(PlatformError, Ambiguous):
                async with self._link() as link:
                    info = await info_of(link, f"STREAM.INFO.{link.pairs.saga[0]}") or {}
                if found := by_name.get(info.get("cluster", {}).get("leader", "")):
                    return found
            await asyncio.sleep(LOOK_SECONDS)
        raise PlatformError(f"no server leads stream SAGA within {LEADER_SECONDS:g} s.")

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        for name in self._known:
            await _until(partial(self.serves, name), READY_SECONDS, f"{name} in {self._folder} did not come to serve")
        self._since = await self._last_sequences()

    @property
    def _state(self) -> State:
        """What runs there now."""
        return read_state(self._folder)

    @property
    def _known(self) -> list[str]:
        state = self._state
        return [*state.processes, *state.servers]

    def _found(self, state: State, name: str) -> Process | ServerProcess:
        return state.processes[name] if name in state.processes else state.servers[name]

    def _names(self, name: str) -> list[str]:
        """All that a name means.

        Raises:
            PlatformError: nothing.
        """
        state = self._state
        found = [each for each, process in state.processes.items() if name in (each, process.owner)]
        found += [each for each in state.servers if name in (each, SERVER)]
        if not found:
            raise PlatformError(f"there is no {name!r} here: {', '.join([*state.processes, *state.servers])}.")
        return found

    def _harm(self, name: str, number: signal.Signals) -> None:
        state = self._state
        for each in self._names(name):
            process = self._found(state, each)
            owner = process.owner if isinstance(process, Process) else ""
            before_ns = time.time_ns()
            send_signal(process.pid, state.pid, number)
            self.troubles.begin(each, owner if owner in state.participants else "", at_ns=before_ns)
            self._harmed[each] = process.pid

    def _well(self, name: str) -> None:
        self._harmed.pop(name, None)
        self.troubles.end(name)

    @asynccontextmanager
    async def _link(self) -> AsyncGenerator[Link]:
        link = await Link.connect(self.url, name=ADMINISTRATOR)
        try:
            await find_pairs(link)
            yield link
        finally:
            await link.close()

    async def _last_sequences(self) -> dict[str, int]:
        """The sequence that each stream gives next."""
        found = dict[str, int]()
        async with self._link() as link:
            for stream in (*link.pairs.events, *link.pairs.saga):
                info = await info_of(link, f"STREAM.INFO.{stream}")
                if info is None:
                    raise PlatformError(f"the platform in {self._folder} has no stream {stream}.")
                found[stream] = info["state"]["last_seq"] + 1
        return found


def _serves(process: Process | ServerProcess) -> bool:
    if isinstance(process, Process):
        return process.serves
    return server_info(process.port).get("server_name") == process.name


def _family(sagas: Mapping[SagaKey, SagaEvidence], asked: Iterable[SagaKey]) -> dict[SagaKey, SagaEvidence]:
    """Those of sagas that were asked for, with those that they have started, and those that these have."""
    by_id = {key.id: key for key in sagas}
    found, left = dict[SagaKey, SagaEvidence](), [key for key in asked if key in sagas]
    while left:
        key = left.pop()
        if key not in found:
            found[key] = sagas[key]
            left += [by_id[each] for each in child_ids(key, sagas[key].entries) if each in by_id]
    return found


async def _until(holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
    gives_up = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        if time.monotonic() > gives_up:
            raise PlatformError(f"{otherwise} within {seconds:g} s.")
        await asyncio.sleep(LOOK_SECONDS)
