"""The two systems that are compared: the floor, and Antiphon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from . import floor, ours
from .load import Load, Seen

Ready = Callable[[], None]


@dataclass(frozen=True)
class System:
    """Something that runs sagas, as one coordinator and three workers.

    Args:
        workers: the names of its workers.
        set_up: creates its streams and consumers.
        serve: runs a role (`coordinator` or a worker's name) for ever, and calls back once it serves.
        client: runs a load.
    """

    name: str
    workers: tuple[str, ...]
    set_up: Callable[[str], Awaitable[None]]
    serve: Callable[[str, str, Ready], Awaitable[None]]
    client: Callable[[str, Load], Awaitable[Seen]]

    @property
    def roles(self) -> tuple[str, ...]:
        """All its processes but the client."""
        return ("coordinator", *self.workers)


FLOOR: Final = System("floor", floor.WORKERS, floor.set_up, floor.serve, floor.client)
ANTIPHON: Final = System("antiphon", ours.WORKERS, ours.set_up, ours.serve, ours.client)
SYSTEMS: Final = {system.name: system for system in (FLOOR, ANTIPHON)}
