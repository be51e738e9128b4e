"""Named places at which a test may have this process killed, and handlers that it may have fail. Environment variables
switch them on.

`ANTIPHON_KILL_AT=worker.committed:3` sends SIGKILL to the process when it reaches that point for the third time.

`ANTIPHON_FAULTS=/folder` names a folder, or several with `:` between them, in which a test plans faults while processes
run, each by an empty file that whoever meets it takes away: `worker.committed@1` kills the first process that reaches
the point, and `do.charge_customer@1` has one call of that step's handler fail. A process that was killed and is started
again meets the next file, so several files of one name are the first delivery, the second, and so on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

VARIABLE: Final = "ANTIPHON_KILL_AT"
FAULTS: Final = "ANTIPHON_FAULTS"

POINTS: Final = frozenset(
    {
        "worker.pulled",  # a command is held, its handler was not called
        "worker.claimed",  # the claim of a run outside is durable, its handler was not called
        "worker.outside_done",  # such a handler has run, nothing of its second transaction is committed
        "worker.in_transaction",  # the handler has run, nothing is committed
        "worker.released",  # the command has ended in its group, which is not committed
        "worker.committed",  # effect and inbox row are durable, the event was not sent
        "worker.event_stored",  # the event is durable, the command is not acked
        "coordinator.pulled",  # a fact is held, nothing was decided
        "coordinator.between_appends",  # one of several writes is durable
        "coordinator.before_tell",  # the entries are durable, what others wait for is not
        "coordinator.lock_appended",  # a lock was granted or freed, and nobody was told
        "coordinator.halt_appended",  # it is durable that something stands still or goes on, and nobody was told
        "coordinator.halt_told",  # the others know that a saga type goes on, its sagas were not looked at
        "coordinator.halt_walking",  # a page of its sagas was looked at, the next was not
        "coordinator.appended",  # every write is durable, the fact is not acked
        "retention.archived",  # the archive has an old saga, nothing of it was purged
        "retention.first_entry_deleted",  # the journal has lost its first entry
        "retention.journal_purged",  # of its journal the end alone is left, its events are there
        "retention.beside_purged",  # its entry in PARKED and its timer are gone as well
        "retention.events_purged",  # nothing but its end is left
        "retention.end_events_purged",  # an end is old, what came after it was purged, the end was not
        "forget.end_replaced",  # the end says that the saga was forgotten, everything else is there
        "forget.journal_purged",  # nothing but that end is left in SAGA
        "forget.parked_purged",  # PARKED has nothing of it, EVENTS has everything
        "readmodel.read",  # a page of the streams is here, nothing was written
        "readmodel.written",  # rows and position are written, nothing is committed
        "readmodel.committed",  # rows and position are durable
        "readmodel.built",  # the new model holds everything, readers still see the old one
        "exporter.pulled",  # journal entries are held, nothing was read
        "exporter.projected",  # their spans are made, none was sent
        "exporter.exported",  # the backend has all spans, no entry is acked
    }
)


class PlannedFailure(Exception):
    """A test has this call of a handler fail."""


def planned_name(what: str, number: int) -> str:
    """The name of a file that plans a fault.

    Args:
        what: a point, or the call of a step's handler as `call_name` writes it.
        number: tells files of one fault apart.
    """
    return f"{what}@{number}"


def call_name(step: str, direction: str) -> str:
    """What the calls of a step's handler are called in names of files."""
    return f"{direction}.{step}"


def _armed() -> Callable[[str], None]:
    wanted, _, count = os.environ.get(VARIABLE, "").partition(":")
    if not wanted:
        return _killed_if_planned(folders) if (folders := _folders()) else lambda point: None
    if wanted not in POINTS:
        raise SystemExit(f"{VARIABLE}={wanted}: no such point; known are {', '.join(sorted(POINTS))}.")
    left = int(count or "1")

    def reach(point: str) -> None:
        nonlocal left
        if point == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


def _folders() -> list[str]:
    return [folder for folder in os.environ.get(FAULTS, "").split(os.pathsep) if folder]


def _killed_if_planned(folders: list[str]) -> Callable[[str], None]:
    def reach(point: str) -> None:
        if _take(folders, point):
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


def _failing() -> Callable[[str, str], None]:
    folders = _folders()
    if not folders:
        return lambda step, direction: None

    def call(step: str, direction: str) -> None:
        if _take(folders, call_name(step, direction)):
            raise PlannedFailure("a test has this attempt fail")

    return call


def _take(folders: list[str], what: str) -> bool:
    """Take a planned fault away, so that nobody else meets it; whether there was one."""
    for folder in folders:
        for name in os.listdir(folder):
            if name.rpartition("@")[0] == what:
                with suppress(FileNotFoundError):  # another process was quicker
                    os.unlink(os.path.join(folder, name))
                    return True
    return False


reached: Final = _armed()
"""Say that a named point was reached. Does nothing unless a test switched the point on."""

calling: Final = _failing()
"""Say that the handler of a step is called now, in a direction.

Raises:
    PlannedFailure: a test has this call fail.
"""
