"""Faults that are planned for running processes: kills at a point, and calls of handlers that fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.subjects import Direction
from antiphon.contracts.topology import EXPORTER, READMODEL
from antiphon.link.killpoints import FAULTS, POINTS, call_name, planned_name
from antiphon.participants.participant import Participant

PARTICIPANT_POINTS: Final = {
    "on_delivery": "worker.pulled",
    "before_effect": "worker.claimed",
    "after_effect": "worker.outside_done",
    "before_commit": "worker.in_transaction",
    "after_commit": "worker.committed",
    "after_answer": "worker.event_stored",
}
"""Where a participant may die, in plain words: a command is held and its handler was not called; the same of a handler
with effects outside the database; such a handler has run; a handler has run and nothing is committed; its effect is
durable and nobody was told; the answer is durable and the command is not acked."""

OUTSIDE_POINTS: Final = ("before_effect", "after_effect")
"""Those of them that only a participant with handlers outside the database comes by."""

COORDINATOR_POINTS: Final = {
    "on_delivery": "coordinator.pulled",
    "between_appends": "coordinator.between_appends",
    "after_append": "coordinator.appended",
}
"""The same of a coordinator: a fact is held and nothing was decided; one of several entries is durable; all are, and
the fact is not acked."""

EXPORTER_POINTS: Final = {
    "on_delivery": "exporter.pulled",
    "before_send": "exporter.projected",
    "after_send": "exporter.exported",
}
"""The same of the exporter: it holds entries of journals; their spans are made; the backend has the spans, and no entry
is acked."""

READMODEL_POINTS: Final = {
    "after_read": "readmodel.read",
    "before_commit": "readmodel.written",
    "after_commit": "readmodel.committed",
}
"""The same of the read model: a page of the streams is read; rows are written and not committed; they are."""


def points_of(owner: str, participant: Participant | None = None) -> dict[str, str]:
    """Where a process may die, in plain words.

    Args:
        owner: what it is: `coordinator`, `exporter`, `readmodel`, or else a participant.
        participant: that one; without handlers that act outside the database its workers come by fewer points.
    """
    others = {COORDINATOR: COORDINATOR_POINTS, EXPORTER: EXPORTER_POINTS, READMODEL: READMODEL_POINTS}
    if owner in others:
        return others[owner]
    if participant is None or acts_outside(participant):
        return PARTICIPANT_POINTS
    return {word: point for word, point in PARTICIPANT_POINTS.items() if word not in OUTSIDE_POINTS}


def acts_outside(participant: Participant) -> bool:
    """Whether any of its handlers has effects outside the database."""
    parts = (participant.handlers.values(), participant.compensations.values(), participant.reactions)
    return any(each.is_outside for part in parts for each in part)


def variables(*planned: Faults) -> dict[str, str]:
    """What tells a process of the faults that are planned for it."""
    return {FAULTS: os.pathsep.join(str(faults.folder) for faults in planned)}


class Faults:
    """What is planned for one process, or for several alike.

    Args:
        folder: where it is planned.
        points: what their points are called in plain words.
    """

    def __init__(self, folder: Path, points: dict[str, str]) -> None:
        self.folder, self._points, self._count = folder, points, 0
        folder.mkdir(parents=True, exist_ok=True)

    def kill_at(self, point: str, times: int) -> None:
        """Have whoever reaches a point be killed, so many times.

        Raises:
            PlatformError: there is no such point, or whoever it is planned for never comes by it.
        """
        known = self._points.get(point, point)
        if known not in POINTS - self._missed():
            if point in OUTSIDE_POINTS or known in self._missed():
                raise PlatformError(
                    f"nobody here comes by {point!r}: no handler has effects outside the database (outside=True). The "
                    f"points are {', '.join(self._points)}."
                )
            raise PlatformError(f"there is no point {point!r}: {', '.join(self._points)}.")
        self._plan(known, times)

    def _missed(self) -> set[str]:
        """Points of others' handlers, which nobody here comes by."""
        outside = {PARTICIPANT_POINTS[word] for word in OUTSIDE_POINTS}
        return outside - {*self._points.values()}

    def fail(self, step: str, direction: Direction, times: int, how: str = "") -> None:
        """Have so many calls of a step's handler fail, or do what `antiphon.link.killpoints` says otherwise."""
        self._plan(call_name(step, direction), times, how)

    @property
    def left(self) -> list[str]:
        """What is planned and has not come about."""
        words = {name: word for word, name in self._points.items()}
        planned = [path.name.rpartition("@")[0] for path in sorted(self.folder.iterdir())]
        return [words.get(name, name) for name in planned]

    def _plan(self, what: str, times: int, how: str = "") -> None:
        for _ in range(times):
            self._count += 1
            written = self.folder.with_suffix(".new")
            written.write_text(how)
            written.rename(self.folder / planned_name(what, self._count))  # at once: nobody reads half of it
