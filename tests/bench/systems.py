"""What a system is, and two of those that are compared: the floor, and Antiphon with its effects in memory."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from . import floor, ours
from .load import Load, Seen
from .programs import Program

Ready = Callable[[], None]

COORDINATOR: Final = "coordinator"
CLIENT: Final = "client"


class System(Protocol):
    """Something that runs sagas, as several processes."""

    @property
    def name(self) -> str:
        """What it is called in the tables."""
        ...

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of the processes that perform commands; each performs one of a plain saga."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """All its processes but the client, in the order in which they are started."""
        ...

    async def set_up(self, url: str) -> None:
        """Create its streams and consumers on a fresh server."""
        ...

    def program(self, role: str, url: str) -> Program:
        """How the process of a role is started, or that of its client, which takes its load as one more argument."""
        ...


@dataclass(frozen=True)
class Coroutines:
    """A system whose roles are coroutines of this package: one coordinator and three workers.

    Args:
        create: creates its streams and consumers.
        serve: runs a role (`coordinator` or a worker's name) for ever, and calls back once it serves.
        client: runs a load.
    """

    name: str
    workers: tuple[str, ...]
    create: Callable[[str], Awaitable[None]]
    serve: Callable[[str, str, Ready], Awaitable[None]]
    client: Callable[[str, Load], Awaitable[Seen]]

    @property
    def roles(self) -> tuple[str, ...]:
        return (COORDINATOR, *self.workers)

    async def set_up(self, url: str) -> None:
        await self.create(url)

    def program(self, role: str, url: str) -> Program:
        return Program([sys.executable, "-m", "tests.bench.process", self.name, role, url])


FLOOR: Final = Coroutines("floor", floor.WORKERS, floor.set_up, floor.serve, floor.client)
ANTIPHON: Final = Coroutines("antiphon", ours.WORKERS, ours.set_up, ours.serve, ours.client)
SYSTEMS: Final = {system.name: system for system in (FLOOR, ANTIPHON)}
