"""The order system as real processes, which a test may kill: coordinators, participants, and a supervisor for both.

`python -m tests.support.processes ROLE …` is what runs in them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.topology import Listener
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.decision.entries import child_id
from antiphon.coordinator.definition.choreography import AnySaga
from antiphon.coordinator.definition.retention import read_overrides
from antiphon.coordinator.runtime.retention import Keeping
from antiphon.coordinator.runtime.serve import serve as serve_coordinator
from antiphon.deploy.local.styles import Style
from antiphon.deploy.modules import load, load_saga
from antiphon.link.killpoints import VARIABLE
from antiphon.order.billing import billing
from antiphon.order.inventory import inventory
from antiphon.order.messages import OrderPlaced
from antiphon.order.reconciliation import Ended, Report, reconcile
from antiphon.order.saga import order
from antiphon.order.shipping import shipping
from antiphon.participants import Participant
from antiphon.participants.serve import serve as serve_participant

from .logs import plain_logs
from .orders import approved, hurried, parallel, place, purchase
from .server import Platform

PARTICIPANTS: Final = {each.name: each for each in (inventory, billing, shipping)}
SAGAS: Final[dict[str, AnySaga]] = {
    "order": order,
    "parallel": parallel,
    "hurried": hurried,
    "approved": approved,
    "purchase": purchase,
}
ROOT: Final = Path(__file__).parents[2]
IDLE_SECONDS: Final = 2.0
RETENTION: Final = "TEST_RETENTION"
"""The variable that says of a coordinator how long it keeps ended sagas, as the command line's `--retention`."""
ARCHIVE: Final = "TEST_ARCHIVE"
"""The one that names the folder to which it writes them before."""
KEEP_ENDS: Final = "TEST_KEEP_ENDS"
"""The one that says for how many seconds it keeps their ends."""


@dataclass
class Child:
    """One process, started again whenever it dies, as an orchestrator would.

    `arguments` begin with the module that runs in it. `kill_at` has one kill point for its first life, and may have
    more, with blanks between them, for those that follow. `program` is what runs the arguments.
    """

    role: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    kill_at: str = ""
    process: subprocess.Popen[bytes] | None = None
    exits: list[int] = field(default_factory=list)
    is_away: bool = False
    """Whether it stays dead when it dies."""
    program: tuple[str, ...] = (sys.executable, "-m")

    def launch(self) -> None:
        """Start it."""
        environment = {**os.environ, **self.environment}
        environment.pop(VARIABLE, None)
        points = self.kill_at.split()
        if len(self.exits) < len(points):
            environment[VARIABLE] = points[len(self.exits)]
        command = [*self.program, *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def stay_away(self) -> None:
        """SIGKILL, and nobody starts it again."""
        self.is_away = True
        self.kill()
        self.wait()

    def come_back(self) -> None:
        """Be started again."""
        self.is_away = False

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM; to one that was stopped, too."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def wait(self) -> None:
        """Until it has ended, or is made to."""
        if self.process is not None:
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def was_killed(self) -> bool:
        """Whether it ever died of SIGKILL."""
        return -signal.SIGKILL in self.exits


@contextmanager
def supervised(children: Mapping[str, Child]) -> Iterator[None]:
    """Run processes for the length of a block, and start what dies again."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(0.05):
            for child in children.values():
                if child.is_away:
                    continue
                if child.process is not None and (code := child.process.poll()) is not None:
                    child.exits.append(code)
                    child.launch()

    for child in children.values():
        child.launch()
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.wait()


class Fleet:
    """Two coordinators and three participants over one platform."""

    def __init__(self, up: Platform, folder: Path, kill_at: Mapping[str, str], saga: str) -> None:
        self.databases = {name: f"sqlite:///{folder}/{name}.db" for name in PARTICIPANTS}
        self.saga, self.children = saga, dict[str, Child]()
        for role in ("coordinator-1", "coordinator-2", *PARTICIPANTS):
            participant = role in PARTICIPANTS
            arguments = ["participant", role, self.databases[role], saga] if participant else ["coordinator", saga]
            arguments.insert(0, "tests.support.processes")
            user = role if participant else "coordinator"
            child = Child(role, arguments, up.environment(user), folder / f"{role}.log", kill_at.get(role, ""))
            self.children[role] = child

    def is_writing(self) -> bool:
        """Whether the participants have opened their databases."""
        return all(Path(url.removeprefix("sqlite:///")).exists() for url in self.databases.values())

    def logs(self) -> str:
        """The last lines of every process, for a failing test to show."""
        return "\n".join(
            f"--- {role} {child.exits}\n{child.log.read_text()[-2000:]}" for role, child in self.children.items()
        )


@contextmanager
def fleet(up: Platform, folder: Path, kill_at: Mapping[str, str] | None = None, saga: str = "order") -> Iterator[Fleet]:
    """Run the order system for the length of a block. `kill_at` names a kill point by role."""
    running = Fleet(up, folder, kill_at or {}, saga)
    with supervised(running.children):
        yield running


def saga_called(name: str) -> AnySaga:
    """The saga that a fleet runs: one of those above, or the order in the style of that name."""
    return SAGAS[name] if name in SAGAS else load_saga(Style(name).saga)


def participant_called(name: str, saga: str) -> Participant:
    """The participant of that name as it takes part in a saga; its reactions are known where they are imported only."""
    return PARTICIPANTS[name] if saga in SAGAS else load(Style(saga).participants[name], Participant)


def listeners(saga: str) -> list[Listener]:
    """What the participants of a saga hear."""
    return [participant_called(name, saga).listener for name in PARTICIPANTS]


async def run_orders(up: Platform, running: Fleet, orders: list[OrderPlaced], seconds: float = 120.0) -> Report:
    """Start a saga for each order, wait until all have ended, and compare the books with the outcomes."""
    saga, outcomes = saga_called(running.saga), dict[str, str]()
    given, streams = up.credentials("client"), up.pairs.count
    async with Antiphon.connect(up.servers, name="client", credentials=given, streams=streams) as antiphon:

        async def one(placed: OrderPlaced) -> None:
            start = msgspec.convert(msgspec.to_builtins(placed), saga.start)
            handle = await antiphon.start(saga, start, id=placed.order_id)
            outcomes[in_the_books(handle.key)] = (await handle.result(timeout=seconds)).outcome

        await asyncio.gather(*(one(placed) for placed in orders))
    placed = {in_the_books(SagaKey.of(saga.name, each.order_id)): each for each in orders}
    return await reconcile(running.databases, Ended(outcomes, placed))  # type: ignore[arg-type]


def in_the_books(saga: SagaKey) -> str:
    """As which saga the services know an order: a purchase as the child that it leaves the order to."""
    return f"{order.name}/{child_id(saga, place.name, 1)}" if saga.type == purchase.name else str(saga)


def keeping_of(environment: Mapping[str, str]) -> Keeping:
    """How long a coordinator keeps sagas that have ended, looked at often."""
    retention = environment.get(RETENTION, "").split()
    ends = float(environment.get(KEEP_ENDS, "inf"))
    return Keeping(
        overrides=read_overrides(retention),
        ends_seconds=ends if ends < float("inf") else None,
        look_seconds=0.1,
        archive=Path(environment[ARCHIVE]) if ARCHIVE in environment else None,
    )


def main(arguments: list[str]) -> None:
    """The entry point of a child."""
    plain_logs(sys.stderr)
    servers, http = os.environ["NATS_URL"], os.environ.get("ANTIPHON_HTTP", "")
    started = time.monotonic()
    while True:
        try:
            match arguments:
                case ["coordinator", saga, *idle]:
                    idle_seconds = float(idle[0]) if idle else IDLE_SECONDS
                    sagas = [saga_called(saga)]
                    uvloop.run(
                        serve_coordinator(
                            servers, sagas, idle_seconds=idle_seconds, http=http, keeping=keeping_of(os.environ)
                        )
                    )
                case ["participant", name, database, saga]:
                    found = participant_called(name, saga)
                    uvloop.run(serve_participant(found, servers, database, http=http))
                case _:
                    raise SystemExit(f"unknown role {arguments}")
            return
        except Exception as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            if time.monotonic() - started > 120:
                raise SystemExit(1) from None
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1:])
