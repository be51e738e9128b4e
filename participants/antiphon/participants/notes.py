"""What a process of a participant holds, noted where another one can read it when the first is dead.

A note is no record of what happened: it is written without an fsync, it may be old or missing, and all it does is to
spare the ack wait. That its process is dead is proved by a lock that dies with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

import msgspec

from .engines import FOR_PARTICIPANTS, require_driver


class Left(msgspec.Struct, frozen=True):
    """What a dead process has left."""

    instance: str
    """Its name, as its registration has it."""
    replies: tuple[str, ...]
    """The reply subjects of the deliveries that it held."""
    age_seconds: float
    """How long ago it said so last."""


class Notes(Protocol):
    """The notes of all processes of one participant; this one writes its own."""

    async def open(self) -> None:
        """Begin a note, under a lock that dies with this process.

        Raises:
            Exception: that cannot be done here.
        """

    def write(self, replies: Sequence[str]) -> None:
        """Note what is held now. Costs microseconds, waits for nothing, and raises nothing."""

    async def dead(self, is_starting: bool) -> list[Left]:
        """What processes have left that are proved to be dead; nobody else gets it until it is forgotten.

        Args:
            is_starting: whether this process has just begun; one that runs may wait until it is certain.

        Raises:
            Exception: the notes cannot be read now.
        """
        ...

    async def forget(self, left: Left) -> None:
        """Remove the note of a dead process: all that it held was handed back."""

    async def close(self) -> None:
        """Remove the note of this process, which holds nothing any more."""


def open_notes(database_url: str, participant: str, instance: str) -> Notes | None:
    """Where the processes of a participant note what they hold; None where nothing outlives them.

    Args:
        database_url: the participant's database, see `open_database`.
        participant: its name; several may share a database.
        instance: the name of this process.
    """
    if database_url.partition(":")[0] == "memory":
        return None
    dialect, _ = require_driver(database_url, *FOR_PARTICIPANTS)
    if dialect == "sqlite":
        notes: Notes | None = import_module(".note_files", __package__).beside(database_url, participant, instance)
        return notes
    rows: Notes = import_module(".note_rows", __package__).NoteRows(database_url, participant, instance)
    return rows
