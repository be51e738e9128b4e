"""Named places at which a test may have this process killed, switched on by one environment variable.

`ANTIPHON_KILL_AT=worker.committed:3` sends SIGKILL to the process when it reaches that point for the third time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "ANTIPHON_KILL_AT"

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


def _armed() -> Callable[[str], None]:
    wanted, _, count = os.environ.get(VARIABLE, "").partition(":")
    if not wanted:
        return lambda point: None
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


reached: Final = _armed()
"""Say that a named point was reached. Does nothing unless a test switched the point on."""
