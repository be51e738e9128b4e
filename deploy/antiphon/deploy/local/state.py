"""What runs below a folder: the file in which a local platform says which processes are its own, and who may read it.

Others may then look at the platform, or harm it. No process gets a signal here that is not its platform's own: it must
be a child of the platform's process at the moment of the signal.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from antiphon.contracts.bounds import NUMBER_MAX, Number
from antiphon.contracts.errors import PlatformError

from ..files import write_private

STATE: Final = "platform.json"
CLAIM: Final = "running"
"""The file that is locked for as long as a platform runs in a folder."""
HAS_HANDLES: Final = hasattr(os, "pidfd_open")
"""Whether this system, Linux, can hold on to a process, whoever gets its number later."""


Pid = Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
"""Of one process: a signal to 0 or less would reach many."""


class Process(msgspec.Struct, frozen=True):
    """A process in its present life, or in its last one.

    Args:
        owner: the participant that it is of, or `coordinator`, `exporter`, `readmodel`.
        pid: its id.
        life: which of its lives it is.
        serves: whether it has said in this life that it serves.
    """

    owner: str
    pid: Pid
    life: Number
    serves: bool


class ServerProcess(msgspec.Struct, frozen=True):
    """A nats-server.

    Args:
        pid: its id.
        name: what it calls itself.
        port: where it listens.
    """

    pid: Pid
    name: str
    port: Number


class State(msgspec.Struct, frozen=True):
    """A platform that runs.

    Args:
        pid: the process that has started all others.
        url: where clients connect.
        sagas: definitions, as `module:attribute`.
        participants: the same, by their names.
        databases: the URLs of the participants' databases, by their names. They may hold passwords.
        servers: by name.
        processes: the others, by name.
    """

    pid: Pid
    url: str
    sagas: Sequence[str]
    participants: Mapping[str, str]
    databases: Mapping[str, str]
    servers: Mapping[str, ServerProcess]
    processes: Mapping[str, Process]


def write_state(folder: Path, state: State) -> None:
    """Say what runs in a folder. Whoever reads it meanwhile reads the old one, or the new one."""
    written = folder / f"{STATE}.new"
    write_private(written, msgspec.json.encode(state).decode())
    written.rename(folder / STATE)


def read_state(folder: Path) -> State:
    """What runs in a folder.

    Raises:
        PlatformError: nothing does, or it does not say what.
    """
    if not _is_claimed(folder):
        raise PlatformError(f"no platform runs in {folder}. Start one: antiphon up --folder {folder}")
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError) as error:
        raise PlatformError(
            f"the platform in {folder} does not say what runs there ({error}): it is starting, or of another release."
        ) from None


def send_signal(pid: int, parent: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is the child of another one.

    Raises:
        PlatformError: it is not there, is somebody else's, or must not get signals from this user.
    """
    try:
        if HAS_HANDLES:
            handle = os.pidfd_open(pid)
            try:
                _require_child(pid, parent)
                signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
        else:
            _require_child(pid, parent)
            os.kill(pid, number)
    except ProcessLookupError:
        raise PlatformError(f"process {pid} is not there any more") from None
    except PermissionError:
        raise PlatformError(
            f"this user may not send signals to process {pid}: run as the user who has started it"
        ) from None


def is_child(pid: int, parent: int) -> bool:
    """Whether a process is there, and the child of another one."""
    return _parent_of(pid) == parent


def _require_child(pid: int, parent: int) -> None:
    if not is_child(pid, parent):
        raise PlatformError(f"process {pid} is none of the platform's: process {parent} is not its parent")


def _parent_of(pid: int) -> int:
    """The id of a process's parent; 0 where it is not there, or has ended."""
    if HAS_HANDLES:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return 0
        state, parent = stat.rpartition(")")[2].split()[:2]  # the name before it may hold anything
        return 0 if state in ("Z", "X") else int(parent)
    told = subprocess.run(["ps", "-o", "ppid=", "-p", f"{pid}"], capture_output=True, text=True, check=False)
    return int(told.stdout.strip() or 0)


def _is_claimed(folder: Path) -> bool:
    """Whether a platform runs in a folder: it keeps a lock there, which ends with its process."""
    try:
        with (folder / CLAIM).open("rb") as claim:
            fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
