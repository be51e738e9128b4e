"""Named places at which a test may have this process killed, and handlers that it may have fail. Environment variables
switch them on.

`ANTIPHON_KILL_AT=worker.committed:3` sends SIGKILL to the process when it reaches that point for the third time.

`ANTIPHON_FAULTS=/folder` names a folder, or several with `:` between them, in which a test plans faults while processes
run, each by a file that whoever meets it takes away: `worker.committed@1` kills the first process that reaches the
point, and `do.charge_customer@1` harms one call of that step's handler. How stands in the file: nothing has the call
fail, `raise SystemExit` has it raise that, `wait 5` has it wait for so many seconds before it does anything, `wait 0`
has it wait for ever, `deaf 0` the same without heeding a cancel, and `block 5` has it keep the process from everything
else. A process that was killed and is started again meets the next file, so several files of one name are the first
delivery, the second, and so on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

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


T = TypeVar("T")


class PlannedFailure(Exception):
    """A test has this call of a handler fail."""


class PlannedPanic(BaseException):
    """A test has this call of a handler raise what is no Exception, as an extension in another language may."""


RAISED: Final[dict[str, type[BaseException]]] = {
    each.__name__: each for each in (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, PlannedPanic)
}
"""What a planned call may raise, beside a plain failure."""
FOR_EVER_SECONDS: Final = 86_400.0
HANGS: Final = ("wait", "deaf", "block")
"""How a planned call may hang: until it is cancelled, although it is cancelled, and with the whole process."""


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
        if _take(folders, point) is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


def calling(step: str, direction: str, code: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """A call of the handler of a step, as a test has planned it: the call itself where nothing is planned.

    Args:
        step: whose handler.
        direction: in which it is called.
        code: calls it.
    """
    if not _CALL_FOLDERS or (how := _take(_CALL_FOLDERS, call_name(step, direction))) is None:
        return code

    async def harmed() -> T:
        await _harm(how)
        return await code()

    return harmed


async def _harm(how: str) -> None:
    """Do what stands in the file of a planned call."""
    word, _, rest = how.partition(" ")
    if word == "raise":
        raise RAISED[rest]("a test has this attempt raise it")
    if word not in HANGS:
        raise PlannedFailure("a test has this attempt fail")
    seconds = float(rest)
    if word == "block":
        time.sleep(seconds)  # noqa: ASYNC251  # as a handler does that calls what waits
    elif word == "wait":
        await asyncio.sleep(seconds or FOR_EVER_SECONDS)
    else:
        ends = time.monotonic() + (seconds or FOR_EVER_SECONDS)
        while (left := ends - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(left)


def _take(folders: list[str], what: str) -> str | None:
    """Take a planned fault away, so that nobody else meets it: what stands in its file; None if there was none."""
    for folder in folders:
        for name in os.listdir(folder):
            if name.rpartition("@")[0] == what:
                with suppress(FileNotFoundError):  # another process was quicker
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as file:
                        how = file.read()
                    os.unlink(path)
                    return how
    return None


reached: Final = _armed()
"""Say that a named point was reached. Does nothing unless a test switched the point on."""

_CALL_FOLDERS: Final = _folders()
