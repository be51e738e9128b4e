"""The local platform: a server, coordinators and participants as processes on this machine, below one folder."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import urlsplit

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.pairs import ONE_PAIR
from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import (
    ADMINISTRATOR,
    EXPORTER,
    PARTICIPANT_ACK_WAIT_SECONDS,
    READMODEL,
    STARTS,
    answers_consumer_name,
)
from antiphon.link import Credentials, Link, set_up
from antiphon.link.pairs import VARIABLE as VARIABLE_OF_PAIRS
from antiphon.link.probes import PORT_MAX, address_of
from antiphon.link.setup import api
from antiphon.participants import Participant
from antiphon.tracing.projection.links import VARIABLE, require_page

from ..admin.logins import NOBODY, Logins
from ..files import told_if_unwritable
from ..modules import load
from .children import Child, Say
from .server import Server, free_port, is_free
from .server_keeper import SERVER, keep_server
from .state import CLAIM, STATE, Process, ServerProcess, State, write_state

SERVING_SECONDS: Final = 60.0
"""How long all processes together may take to start; a machine under load needs many times what an idle one does."""

NOT_FOR_CHILDREN: Final = ("NATS_", "ANTIPHON_HTTP", VARIABLE_OF_PAIRS)
"""Variables that are for this process: who connects to another server, and an address that one process can have."""

Variables = Callable[[str], Mapping[str, str]]
"""The variables that a process has beside those of all, by its name."""

OTLP_PORT: Final = 4318
"""Where Jaeger takes OTLP over HTTP by its own default."""


class LocalPlatform:
    """Everything sagas need, started and ended together.

    Args:
        folder: holds the server's store, the participants' databases (SQLite) and all logs; it survives.
        sagas: definitions, as `module:attribute`.
        participants: the same, by their names.
        echo: told every line of every process.
        note: told what becomes of the processes.
        databases: the URLs of databases by participant; SQLite in the folder for the others. They may hold passwords,
            so processes get them by their environment, which other users of the machine cannot read.
        coordinators: how many.
        port: where the server listens; a free port when 0.
        ack_wait_seconds: after how long a command of a participant that died is delivered again.
        jaeger: the page of a Jaeger that runs already; then an exporter sends it every trace, by OTLP to port 4318 of
            the same host unless OTEL_EXPORTER_OTLP_ENDPOINT says otherwise.
        http: `host:port` where the first process answers /livez, /readyz, /version and /metrics; the others get the
            free ports after it. Nowhere when empty.
        incompatible_contracts: whether coordinators run although sagas in flight began with messages that do not fit.
        logins: the users of the server, as on a server of production; then every process connects as its own user, and
            `credentials` has those of everybody else. Whoever comes is let in when it is left out.
        servers: a cluster in the place of one server. Its configuration says itself who may connect.
        workers: how many processes each participant has; one where it is not named.
        variables: what the environment of a process holds beside the usual.
        exporter: whether there is one without Jaeger, too; its `variables` say where it sends to.
        readmodel: the URL of the database in which the read model of all sagas is kept; none is when empty.
        pairs: over how many pairs of streams sagas are spread; with 0 as many as the folder has, and at first one.
    """

    def __init__(
        self,
        folder: Path,
        sagas: Sequence[str],
        participants: dict[str, str],
        echo: Say,
        note: Say,
        *,
        databases: Mapping[str, str] | None = None,
        coordinators: int = 2,
        port: int = 0,
        ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS,
        jaeger: str = "",
        http: str = "",
        incompatible_contracts: bool = False,
        logins: Logins = NOBODY,
        servers: Sequence[Server] = (),
        workers: Mapping[str, int] | None = None,
        variables: Variables = lambda name: {},
        exporter: bool = False,
        readmodel: str = "",
        pairs: int = 0,
    ) -> None:
        self._pairs_asked, self.pairs = pairs, ONE_PAIR
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self._logins = logins
        self.servers = tuple(servers) or (
            Server(
                self.folder / "nats",
                port=port,
                log_file=self.logs / "nats-server.log",
                accounts=logins.config,
                environment=dict(logins.server),
            ),
        )
        self._workers, self._variables = workers or {}, variables
        self.databases = {name: f"sqlite:///{self.folder / name}.db" for name in participants} | dict(databases or {})
        self._sagas, self._participants = sagas, participants
        self._heard_by, self._noted_by = echo, note
        self._owners, self._serving = dict[str, str](), dict[str, int]()
        """Whose each process is, and the last of its lives in which it said that it serves."""
        self._coordinators, self._ack_wait_seconds = coordinators, ack_wait_seconds
        self._incompatible = ["--incompatible-contracts"] if incompatible_contracts else []
        self._environment = _looked_at(jaeger) if jaeger else {}
        self._has_exporter, self._readmodel = exporter or bool(jaeger), readmodel
        self._addresses = _free_addresses(*address_of(http)) if http else None
        self.children: dict[str, Child] = {}
        self._server_keepers: list[asyncio.Task[None]] = []
        self._claim: TextIO | None = None

    @property
    def server(self) -> Server:
        """The server, or the first of the cluster."""
        return self.servers[0]

    @property
    def url(self) -> str:
        """Where clients connect."""
        return ",".join(server.url for server in self.servers)

    def processes_of(self, participant: str) -> list[str]:
        """What the processes of a participant are called."""
        return worker_names(participant, self._workers.get(participant, 1))

    def environment(self) -> dict[str, str]:
        """The variables of this process, with this server in the place of any other."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith(NOT_FOR_CHILDREN)}
        spread = {VARIABLE_OF_PAIRS: str(self.pairs.count)} if self.pairs.count > 1 else {}
        return ours | {"NATS_URL": self.url} | spread

    def credentials(self, user: str) -> Credentials:
        """How a user connects; as nobody in particular where the server has no accounts."""
        return self._logins.users[user] if self._logins.users else Credentials()

    async def start(self) -> None:
        """Start the server, create what it must hold, start the processes, and wait until all of them serve.

        Raises:
            PlatformError: the server or a process does not start; the sentence says why.
        """
        self._make_folder()
        self._claim_folder()
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_ready()
            self._note(SERVER, f"listens on {server.url} and keeps its streams in {server.store}")
            self._server_keepers.append(asyncio.create_task(keep_server(server, self._note)))
        link = await Link.connect(self.url, name=ADMINISTRATOR, credentials=self.credentials(ADMINISTRATOR))
        try:
            listeners = [load(path, Participant).listener for path in self._participants.values()]
            replicas = len(self.servers) if len(self.servers) > 1 else 0
            # Whoever changes reactions between two runs on a machine of their own means that.
            allowed = [Loss.LOST_MESSAGES]
            wait, pairs = self._ack_wait_seconds, self._pairs_asked
            await set_up(link, listeners, replicas, ack_wait_seconds=wait, allowed=allowed, pairs=pairs)
            self.pairs = link.pairs
            await self._start_processes()
            await self.wait_serving(link)
        finally:
            await link.close()

    async def wait_exported(self, seconds: float) -> bool:
        """Wait until the exporter has sent all that is in the journals; whether it has within so many seconds."""
        link = await Link.connect(self.url, name=ADMINISTRATOR, credentials=self.credentials(ADMINISTRATOR))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    infos = [await api(link, f"CONSUMER.INFO.{stream}.{EXPORTER}") for stream in self.pairs.saga]
                    if all(each.get("num_pending") == each.get("num_ack_pending") == 0 for each in infos):
                        return True
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        finally:
            await link.close()

    async def stop(self) -> None:
        """Drain participants, then coordinators, then the server: nobody ends before those who talk to it."""
        workers = {name for participant in self._participants for name in self.processes_of(participant)}
        participants = [child for name, child in self.children.items() if name in workers]
        coordinators = [child for name, child in self.children.items() if name not in workers]
        for group in (participants, coordinators):
            for child in group:
                child.ask_to_end()
            for child in group:
                await child.wait_ended()
        for keeper in self._server_keepers:
            keeper.cancel()
        if self._claim is not None:
            (self.folder / STATE).unlink(missing_ok=True)
        await asyncio.gather(*self._server_keepers, return_exceptions=True)
        for server in self.servers:
            server.stop()
        if self._claim is not None:
            self._claim.close()

    def _make_folder(self) -> None:
        with told_if_unwritable("streams, databases and logs", self.folder):
            self.logs.mkdir(parents=True, exist_ok=True)
            # What is below here is nobody's source, wherever it was put.
            (self.folder / ".gitignore").write_text("*\n")

    def _claim_folder(self) -> None:
        """Keep the folder to this platform, until it has ended: two servers over one store would ruin it.

        Raises:
            PlatformError: another platform runs there.
        """
        claim = (self.folder / CLAIM).open("a")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            claim.close()
            raise PlatformError(
                f"a platform runs in {self.folder} already. End it first, or give another folder: --folder."
            ) from None
        self._claim = claim

    async def _start_processes(self) -> None:
        # On a developer's own machine a reason may say everything.
        for number in range(1, self._coordinators + 1):
            arguments = [part for saga in self._sagas for part in ("--app", saga)]
            name = f"coordinator-{number}"
            options = [*arguments, *self._incompatible, "--error-texts"]
            await self._start_observed(name, COORDINATOR, ["coordinator", *options])
        for participant, path in self._participants.items():
            for name in self.processes_of(participant):
                await self._start_observed(name, participant, ["participant", path, "--error-texts"])
        if self._has_exporter:
            await self._start(EXPORTER, EXPORTER, ["exporter"])
        if self._readmodel:
            await self._start(READMODEL, READMODEL, ["readmodel"])

    async def _start_observed(self, name: str, user: str, arguments: list[str]) -> None:
        if self._addresses is not None:
            address = next(self._addresses)
            arguments = [*arguments, "--http", address]
            self._note(name, f"answers at http://{address}/readyz and /metrics")
        await self._start(name, user, arguments)

    async def _start(self, name: str, user: str, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "antiphon.deploy", *arguments, "--name", name]
        environment = self.environment() | {"ANTIPHON_LOG": "text", "PYTHONUNBUFFERED": "1", **self._environment}
        environment |= self._variables(name)
        if user in self.databases:
            environment["DATABASE_URL"] = self.databases[user]
        if user == READMODEL:
            environment["ANTIPHON_READMODEL"] = self._readmodel
        if self._logins.users:
            environment |= self._logins.environment(user)
        self._owners[name] = user
        child = self.children[name] = Child(name, command, environment, self.logs, self._echo, self._note)
        await child.start()
        self._tell()

    def _echo(self, name: str, line: str) -> None:
        """Hear a line of a process, which may be that it serves."""
        owner = self._owners[name]
        if f"{'participant' if owner in self._participants else owner}.ready" in line:
            self._serving[name] = self.children[name].lives
            self._tell()
        self._heard_by(name, line)

    def _note(self, name: str, line: str) -> None:
        """Hear what becomes of a process or of a server."""
        self._noted_by(name, line)
        self._tell()

    def _tell(self) -> None:
        """Say in the folder which processes are this platform's."""
        servers = {
            SERVER if len(self.servers) == 1 else f"{SERVER}-{number}": ServerProcess(
                server.process.pid, server.name, server.port
            )
            for number, server in enumerate(self.servers, 1)
            if server.process is not None
        }
        processes = {
            name: Process(self._owners[name], child.pid, child.lives, self._serving.get(name) == child.lives)
            for name, child in self.children.items()
            if child.is_running or child.exits
        }
        told = State(os.getpid(), self.url, self._sagas, self._participants, self.databases, servers, processes)
        with suppress(OSError):  # a full disk is no reason to end
            write_state(self.folder, told)

    def _require_sound(self) -> None:
        """Wait no longer where a process cannot come up, whatever time it has."""
        unsound = [child for child in self.children.values() if child.is_unsound]
        if unsound:
            names = " and ".join(child.name for child in unsound)
            raise PlatformError(f"{names} cannot start: {unsound[0].last_line}")

    async def wait_serving(self, link: Link) -> None:
        """Wait until every process has a pull standing at the server.

        Args:
            link: a connection with an administrator's rights.

        Raises:
            PlatformError: one does not come to; the sentence says which, or why.
        """
        heard = [answers_consumer_name(name) for name in self._participants]
        wanted = {f"{each}.{name}": self._coordinators for name in (STARTS, *heard) for each in self.pairs.events}
        sagas = self.pairs.saga
        wanted |= {f"{each}.{name}": len(self.processes_of(name)) for name in self._participants for each in sagas}
        wanted |= {f"{each}.{EXPORTER}": 1 for each in sagas} if self._has_exporter else {}
        try:
            async with asyncio.timeout(SERVING_SECONDS):
                while wanted:
                    self._require_sound()
                    wanted = {name: pulls for name, pulls in wanted.items() if await _pulls(link, name) < pulls}
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise PlatformError(
                f"not all processes came to serve within {SERVING_SECONDS:g} s: nobody pulls {', '.join(wanted)}. "
                f"Their logs in {self.logs} say why."
            ) from None


def worker_names(participant: str, count: int) -> list[str]:
    """What so many processes of a participant are called: one by its name, several by number."""
    return [participant] if count == 1 else [f"{participant}-{number}" for number in range(1, count + 1)]


def _looked_at(jaeger: str) -> dict[str, str]:
    """What tells processes where Jaeger is.

    Raises:
        PlatformError: that is no address of a page.
    """
    require_page(jaeger)
    page = urlsplit(jaeger)
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", f"{page.scheme}://{page.hostname}:{OTLP_PORT}")
    return {VARIABLE: jaeger, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRICS_EXPORTER": "none"}


def _free_addresses(host: str, first: int) -> Iterator[str]:
    """Addresses where nobody listens, from a port on; port 0 begins at any that is free.

    Raises:
        PlatformError: there is none left.
    """
    for port in range(first or free_port(), PORT_MAX + 1):
        if is_free(host, port):
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise PlatformError(f"no port from {first} on is free on {host}. Give a lower one with --http.")


async def _pulls(link: Link, consumer: str) -> int:
    """How many pulls stand at a consumer, given as stream.name."""
    info = await api(link, f"CONSUMER.INFO.{consumer}")
    waiting: int = info.get("num_waiting", 0)
    return waiting
