"""The systems that are compared over databases: sagas of this release and of the kept one, and the choreography."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats

from tests.bench.programs import Program
from tests.bench.systems import CLIENT, COORDINATOR

WORKERS: Final = ("inventory", "payment", "shipping")
CONCURRENCY: Final = 64
"""As many commands as the peer's services handle events at once."""
STREAM: Final = "ORDERS"

PEER_ENVIRONMENT: Final = Path(sys.prefix) / "peer"
"""Where `make bench` installs `requirements.lock` of this folder: below the environment that it runs in."""


def is_peer_there() -> bool:
    """Whether that is done."""
    return (PEER_ENVIRONMENT / ".ready").exists()


@dataclass(frozen=True)
class Sagas:
    """Antiphon as its users run it: processes of the command line, each worker with a database of its own.

    Args:
        databases: of each worker, as a URL.
        environment: variables of the workers'.
        python: whose Antiphon.
    """

    name: str
    databases: Mapping[str, str]
    environment: Mapping[str, str]
    python: str = sys.executable
    workers: tuple[str, ...] = WORKERS

    @property
    def roles(self) -> tuple[str, ...]:
        return (COORDINATOR, *self.workers)

    async def set_up(self, url: str) -> None:
        names = [word for worker in self.workers for word in ("--participant", worker)]
        self._antiphon("setup", url, *names).run()

    def program(self, role: str, url: str) -> Program:
        match role:
            case _ if role == CLIENT:
                return Program([self.python, "-m", "tests.bench.databases.client", url])
            case _ if role == COORDINATOR:
                return self._antiphon("coordinator", url, "--app", "tests.bench.databases.shop:order")
            case _:
                where = ("--database", self.databases[role], "--concurrency", str(CONCURRENCY))
                return self._antiphon(
                    "participant", url, f"tests.bench.databases.shop:{role}", *where, **self.environment
                )

    def _antiphon(self, command: str, url: str, *arguments: str, **environment: str) -> Program:
        words = [self.python, "-m", "antiphon.deploy", command, *arguments, "--server", url]
        return Program(words, {"ANTIPHON_LOG": "json", **environment}, f"{command}.ready")


@dataclass(frozen=True)
class Choreography:
    """The peer, as it was written by hand.

    Args:
        databases: of each service, as a URL.
        environment: variables of the services'.
        synchronous: SQLite's, FULL or NORMAL.
        python: that of its own environment.
    """

    name: str
    databases: Mapping[str, str]
    environment: Mapping[str, str]
    synchronous: str = "FULL"
    python: str = str(PEER_ENVIRONMENT / "bin/python")
    workers: tuple[str, ...] = WORKERS

    @property
    def roles(self) -> tuple[str, ...]:
        return self.workers

    async def set_up(self, url: str) -> None:
        connection = await nats.connect(url)
        await connection.jetstream().add_stream(name=STREAM, subjects=["order.>"])
        await connection.close()

    def program(self, role: str, url: str) -> Program:
        if role == CLIENT:
            return Program([sys.executable, "-m", "tests.bench.databases.buyer", url])
        arguments = [role, url, self.databases[role], self.synchronous]
        return Program([self.python, "-m", "tests.bench.databases.choreography", *arguments], self.environment)
