"""Locks on SQLite databases that another process holds, as a backup or somebody's shell does."""

from __future__ import annotations

import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from typing import Final

from antiphon.contracts.errors import PlatformError

from ..local.children import end_with_parent
from .holder import HELD

SQLITE: Final = "sqlite:///"


class Locks:
    """Locks by the names of those whose databases they are on, each held by a process of its own."""

    def __init__(self) -> None:
        self._holders: dict[str, Process] = {}

    @property
    def held(self) -> list[str]:
        """Whose databases are locked."""
        return sorted(self._holders)

    async def hold(self, name: str, url: str) -> None:
        """Have a process take the write lock of a database, and return once it has it.

        Args:
            name: whose database it is.
            url: `sqlite:///path`.

        Raises:
            PlatformError: it did not get the lock.
        """
        if name in self._holders:
            return
        command = [sys.executable, "-m", "antiphon.deploy.chaos.holder", url.removeprefix(SQLITE)]
        holder = await create_subprocess_exec(*command, stdin=PIPE, stderr=PIPE, preexec_fn=end_with_parent)
        assert holder.stderr is not None
        if (said := (await holder.stderr.readline()).decode().strip()) != HELD:
            raise PlatformError(f"the database of {name} could not be locked: {said}")
        self._holders[name] = holder

    async def release(self, name: str) -> None:
        """Have the lock on a database released, if there is one."""
        if (holder := self._holders.pop(name, None)) is not None:
            assert holder.stdin is not None
            holder.stdin.close()
            await holder.wait()
