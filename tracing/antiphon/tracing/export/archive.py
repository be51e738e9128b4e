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


def path_of(folder: Path, key: SagaKey) -> Path:
    """Where a saga's file is: `order/37/order-0001.jsonl`, below its type and its partition."""
    partition, saga_type, saga_id = key.path.split(".")
    return folder / saga_type / partition / f"{saga_id}{SUFFIX}"


def is_archived(folder: Path, key: SagaKey) -> bool:
    """Whether a saga's file is there; then it is whole."""
    return path_of(folder, key).exists()


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
    path = path_of(folder, key)
    if path.exists():
        return False
    if is_purged(entries, events):
        raise NotArchived(f"saga {key} was purged, so that there is nothing to archive of it")
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in _lines(key, entries, events))
    try:
        _make_folder(path.parent)
        _write(path, lines)
    except OSError as error:
        raise NotArchived(f"saga {key} cannot be archived at {path}: {error.strerror}") from None
    return True


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
    path = path_of(folder, key)
    try:
        lines = path.read_bytes().splitlines()
        version = msgspec.json.decode(lines[0], type=Head).archive
        if version > FORMAT:
            raise NotArchived(f"{path} has format {version}, and this release reads none above {FORMAT}.")
        messages = [msgspec.json.decode(line, type=Line) for line in lines[1:-1]]
    except FileNotFoundError:
        raise NotArchived(f"there is no saga {key} in the archive {folder}.") from None
    except (OSError, msgspec.MsgspecError, IndexError, UnicodeDecodeError) as error:
        raise NotArchived(f"{path} cannot be read: {error}.") from None
    return Archived(key, _of(SAGA, messages), _of(EVENTS, messages))


def _of(stream: str, lines: Iterable[Line]) -> list[StoredMessage]:
    return [
        StoredMessage(each.subject, each.sequence, each.stored_ns, base64.b64decode(each.base64) or each.data.encode())
        for each in lines
        if each.stream == stream
    ]


def archived_ids(folder: Path, saga_id: str) -> list[SagaKey]:
    """The sagas with an id, of whatever type, that an archive has.

    Raises:
        NotArchived: there is no archive.
    """
    require_archive(folder)
    found = sorted(folder.glob(f"*/*/{saga_id}{SUFFIX}"))
    return [SagaKey.of(path.parent.parent.name, saga_id) for path in found]
