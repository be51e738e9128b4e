"""Sagas that have ended, kept as files: one of JSON lines for each, which any program can read.

The first line says which saga it is and how it ended. A line for each message of its journal and of its events follows,
as the streams hold them, and at the end one with the trace as OTLP has it in JSON.

A file appears whole or not at all, and what is archived twice is there once: it is written beside its place, synced,
and moved there.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import msgspec

from antiphon.contracts.bounds import Number, Sequence
from antiphon.contracts.clock import rfc3339
from antiphon.contracts.envelope import decode, unpack
from antiphon.contracts.errors import AntiphonError, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import END_TYPE, End
from antiphon.contracts.reader import is_purged
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import EVENTS, SAGA

from ..projection.project import Projection, project
from .formats import otlp

FORMAT: Final = 1
"""The version of the files. One with a higher version is not read."""
SUFFIX: Final = ".jsonl"
LINES_MIN: Final = 3
"""The first one, the end of the saga, the trace."""
WHOLE: Final = b"}\n"
"""How a whole file ends."""


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line of a file."""

    archive: Number
    type: str
    id: str
    outcome: str
    started: str
    ended: str
    reason: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as a stream held it. What is no UTF-8 stands in base64."""

    stream: str
    subject: str
    sequence: Sequence
    stored_ns: Sequence
    data: str = ""
    base64: str = ""


class Archived(msgspec.Struct, frozen=True):
    """A saga as an archive has it."""

    key: SagaKey
    entries: list[StoredMessage]
    events: list[StoredMessage]

    def projection(self) -> Projection:
        """Its trace."""
        return project(self.key, self.entries, self.events)


class NotArchived(AntiphonError):
    """An archive has no such saga, or cannot be read or written."""


class AlreadyPurged(NotArchived):
    """Nothing is left of a saga that could be archived."""


def path_of(folder: Path, key: SagaKey, sequence: int = 0) -> Path:
    """Where a saga's file is: `order/37/order-0001.jsonl`, below its type and its partition.

    Args:
        folder: the archive.
        key: the saga.
        sequence: that of its end in SAGA, where another saga with its id has the file of that name.
    """
    partition, saga_type, saga_id = key.path.split(".")
    return folder / saga_type / partition / f"{saga_id}{f'.{sequence}' if sequence else ''}{SUFFIX}"


def is_archived(folder: Path, key: SagaKey, end: StoredMessage) -> bool:
    """Whether the file of a saga is there, going by its first line and its end.

    Args:
        folder: the archive.
        key: the saga.
        end: its end. An id may begin another saga once the end of the first one was purged.
    """
    ended = rfc3339(end.stored_ns)
    return any(_ended_of(path) == ended for path in (path_of(folder, key), path_of(folder, key, end.sequence)))


def _ended_of(path: Path) -> str:
    """When the saga ended that a file holds; empty where there is none, or not the whole of it."""
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), path.open("rb") as file:
        head = msgspec.json.decode(file.readline(), type=Head)
        file.seek(-len(WHOLE), os.SEEK_END)
        return head.ended if file.read() == WHOLE else ""
    return ""


def archive(folder: Path, key: SagaKey, entries: list[StoredMessage], events: list[StoredMessage]) -> bool:
    """Write a saga's file; when this returns the disk has it.

    Args:
        folder: the archive.
        key: the saga, which has ended.
        entries: its whole journal.
        events: all that EVENTS holds of it, what the journal names at least.

    Returns:
        Whether it was written now, and not before.

    Raises:
        NotArchived: it has not ended or was purged, or the file cannot be written.
    """
    if is_purged(entries, events):
        raise AlreadyPurged(f"saga {key} was purged, so that there is nothing to archive of it")
    lines = [msgspec.json.encode(each) for each in _lines(key, entries, events)]
    path = path_of(folder, key)
    if path.exists():
        if _has(path, lines):
            return False
        # Another saga with this id, or not the whole of this one: what is there may be all that is left of it.
        path = path_of(folder, key, entries[-1].sequence)
        if _has(path, lines):
            return False
    try:
        _make_folder(path.parent)
        _write(path, b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise NotArchived(f"saga {key} cannot be archived at {path}: {error.strerror}") from None
    return True


def _has(path: Path, lines: list[bytes]) -> bool:
    """Whether a file holds a saga: its first line, and all messages; there may be more, and another trace."""
    try:
        there = path.read_bytes().splitlines()
    except OSError:
        return False
    return there[:1] == lines[:1] and {*lines[1:-1]} <= {*there[1:-1]}


def _lines(key: SagaKey, entries: list[StoredMessage], events: list[StoredMessage]) -> Iterator[object]:
    try:
        end = unpack(decode(entries[-1].data, entries[-1].subject), END_TYPE, End)
    except (Unusable, IndexError):
        raise NotArchived(f"saga {key} has not ended") from None
    yield Head(
        archive=FORMAT,
        type=key.type,
        id=key.id,
        outcome=end.outcome,
        started=rfc3339(min(each.stored_ns for each in (*entries, *events))),
        ended=rfc3339(entries[-1].stored_ns),
        reason=end.reason,
    )
    for stream, messages in ((SAGA, entries), (EVENTS, events)):
        yield from (_line(stream, message) for message in messages)
    yield {"trace": _trace(key, entries, events)}


def _line(stream: str, message: StoredMessage) -> Line:
    line = Line(stream=stream, subject=message.subject, sequence=message.sequence, stored_ns=message.stored_ns)
    try:
        return msgspec.structs.replace(line, data=message.data.decode())
    except UnicodeDecodeError:
        return msgspec.structs.replace(line, base64=base64.b64encode(message.data).decode())


def _trace(key: SagaKey, entries: list[StoredMessage], events: list[StoredMessage]) -> dict[str, Any] | None:
    """The trace; none of a journal that nobody can make one of, whose messages are worth keeping all the same."""
    with suppress(Exception):
        found = project(key, entries, events)
        return otlp([*found.spans, *found.open])
    return None


def _write(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves all of it or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that the disk has them."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def require_writable(folder: Path) -> None:
    """Make the folder of an archive, and find out whether files can be written there.

    Raises:
        NotArchived: they cannot.
    """
    try:
        _make_folder(folder)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NotArchived(f"no archive can be written at {folder}: {error.strerror}.") from None


def require_archive(folder: Path) -> None:
    """Refuse to read from what is no folder.

    Raises:
        NotArchived: it is none.
    """
    if not folder.is_dir():
        raise NotArchived(f"there is no archive at {folder}: it is no folder.")


def read_archived(folder: Path, key: SagaKey) -> Archived:
    """Read a saga's file.

    Raises:
        NotArchived: there is none, or it cannot be read.
    """
    require_archive(folder)
    path = _newest(folder, key)
    try:
        lines = path.read_bytes().splitlines()
        if len(lines) < LINES_MIN:
            raise NotArchived(f"{path} cannot be read: it is cut off.")
        version = msgspec.json.decode(lines[0], type=Head).archive
        if version > FORMAT:
            raise NotArchived(f"{path} has format {version}, and this release reads none above {FORMAT}.")
        messages = [msgspec.json.decode(line, type=Line) for line in lines[1:-1]]
    except FileNotFoundError:
        raise NotArchived(f"there is no saga {key} in the archive {folder}.") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotArchived(f"{path} cannot be read: {error}.") from None
    return Archived(key, _of(SAGA, messages), _of(EVENTS, messages))


def _newest(folder: Path, key: SagaKey) -> Path:
    """The file of the saga that ended last, of those with the same id; of two of one saga that which was written later
    and has more."""
    first = path_of(folder, key)
    return max([first, *first.parent.glob(f"{key.id}.*{SUFFIX}")], key=lambda path: (_ended_of(path), path != first))


def _of(stream: str, lines: Iterable[Line]) -> list[StoredMessage]:
    return [
        StoredMessage(each.subject, each.sequence, each.stored_ns, base64.b64decode(each.base64) or each.data.encode())
        for each in lines
        if each.stream == stream
    ]


def archived(folder: Path, saga_type: str = "*") -> Iterator[Head | Path]:
    """The first line of each file of an archive, or the path of one that has none that can be read.

    Args:
        folder: the archive.
        saga_type: of which sagas; `*` for all.

    Raises:
        NotArchived: there is no archive.
    """
    require_archive(folder)
    for path in folder.glob(f"{saga_type}/*/*{SUFFIX}"):
        try:
            with path.open("rb") as file:
                yield msgspec.json.decode(file.readline(), type=Head)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            yield path


def archived_ids(folder: Path, saga_id: str) -> list[SagaKey]:
    """The sagas with an id, of whatever type, that an archive has.

    Raises:
        NotArchived: there is no archive.
    """
    require_archive(folder)
    found = [*folder.glob(f"*/*/{saga_id}{SUFFIX}"), *folder.glob(f"*/*/{saga_id}.*{SUFFIX}")]
    return [SagaKey.of(saga_type, saga_id) for saga_type in sorted({path.parent.parent.name for path in found})]
