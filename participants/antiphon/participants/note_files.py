"""Notes in files beside a SQLite database: one for each process, locked by it for as long as it lives."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import structlog

from .notes import Left

log = structlog.get_logger()

FOLDER_SUFFIX: Final = "-held"
"""The folder beside `inventory.db` is `inventory.db-held`."""
NEW_SUFFIX: Final = ".new"
"""A note that its process may not have locked yet."""
HEAD: Final = b"%020d %010d %010d\n"
"""When it was written (nanoseconds), the length and the checksum of what follows."""
HEAD_BYTES: Final = len(HEAD % (0, 0, 0))
TRIES_MAX: Final = 10
MODE: Final = 0o600


def beside(database_url: str, participant: str, instance: str) -> NoteFiles | None:
    """The notes beside a SQLite file; None for a database that has none, and where files cannot be locked."""
    try:
        locks: Any = import_module("fcntl")
    except ModuleNotFoundError:
        return None
    path = import_module("sqlalchemy").make_url(database_url).database
    if not path or path == ":memory:":
        return None
    return NoteFiles(Path(f"{path}{FOLDER_SUFFIX}"), participant, instance, locks)


class NoteFiles:
    """The notes of one participant's processes, in one folder.

    Args:
        folder: is made where it is missing.
        participant: its processes only look at each other's notes.
        instance: the name of this process.
        locks: Python's module for locks on files.
    """

    def __init__(self, folder: Path, participant: str, instance: str, locks: Any) -> None:
        self._folder, self._prefix, self._name = folder, f"{participant}.", f"{participant}.{instance}"
        self._locks = locks
        self._file: int | None = None
        self._taken: dict[str, int] = {}
        """By their instances: the open files of the dead, whose locks are held here."""
        self._is_failing = False

    async def open(self) -> None:
        """Make the file under another name, lock it, and only then give it its own: nobody finds it unlocked."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES_MAX):
            new = self._folder / f"{self._name}{NEW_SUFFIX}"
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, MODE)
            if self._locked(file):
                with contextlib.suppress(FileNotFoundError):  # somebody took it for one that a dead process has left
                    new.rename(self._folder / self._name)
                    self._file = file
                    self.write(())
                    return
            os.close(file)
        raise OSError(f"no note can be begun in {self._folder}")

    def write(self, replies: Sequence[str]) -> None:
        """One write to the page cache; what it held before and is shorter stays behind it unread."""
        if self._file is None:
            return
        text = "\n".join(replies).encode()
        try:
            os.pwrite(self._file, HEAD % (time.time_ns(), len(text), zlib.crc32(text)) + text, 0)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                log.warning("held.unnoted", reason=str(error))
            self._is_failing = True

    async def dead(self, is_starting: bool) -> list[Left]:
        """The notes whose locks can be had. A lock on a file goes with its process and with nothing else."""
        return [left for name in self._others() if (left := self._take(name)) is not None]

    async def forget(self, left: Left) -> None:
        """Remove the file, then the lock: who waited for that lock finds a file that is gone."""
        file = self._taken.pop(left.instance)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{self._prefix}{left.instance}").unlink()
        os.close(file)

    async def close(self) -> None:
        """Remove the own file."""
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / self._name).unlink()
            os.close(self._file)
            self._file = None
        for file in self._taken.values():
            os.close(file)
        self._taken.clear()

    def _others(self) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries]
            yield from (name for name in names if name.startswith(self._prefix) and name != self._name)

    def _take(self, name: str) -> Left | None:
        instance = name.removeprefix(self._prefix)
        if instance in self._taken:
            os.close(self._taken.pop(instance))  # it could not be handed back the last time
        try:
            file = os.open(self._folder / name, os.O_RDWR)
        except FileNotFoundError:
            return None
        if not self._locked(file) or os.fstat(file).st_nlink == 0:
            os.close(file)
            return None
        if name.endswith(NEW_SUFFIX):
            (self._folder / name).unlink()
            os.close(file)
            return None
        self._taken[instance] = file
        return _read(instance, os.pread(file, os.fstat(file).st_size, 0))

    def _locked(self, file: int) -> bool:
        try:
            self._locks.flock(file, self._locks.LOCK_EX | self._locks.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _read(instance: str, note: bytes) -> Left:
    """What a note says; nothing where its process died while it wrote."""
    try:
        written, size, checksum = map(int, note[:HEAD_BYTES].split())
    except ValueError:
        return Left(instance, (), 0.0)
    text = note[HEAD_BYTES : HEAD_BYTES + size]
    replies = tuple(text.decode().split("\n")) if text and zlib.crc32(text) == checksum else ()
    return Left(instance, replies, (time.time_ns() - written) / 1e9)
