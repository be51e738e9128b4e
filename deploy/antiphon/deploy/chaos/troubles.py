"""When who had trouble, as a test made it: for the invariants about time."""

from __future__ import annotations

import time

from .evidence import Trouble


class Troubles:
    """The troubles of a run, by this machine's clock, which is that of its servers."""

    def __init__(self) -> None:
        self._ended: list[Trouble] = []
        self.last_ns = 0
        """When the last fault began or ended; 0 before any."""
        self._begun: dict[str, tuple[str, int]] = {}

    def begin(self, what: str, participant: str = "") -> None:
        """Note that something is harmed from now on; what is harmed already goes on being so.

        Args:
            what: the process or the way.
            participant: whose trouble it is; empty where it may be everybody's.
        """
        self.last_ns = time.time_ns()
        self._begun.setdefault(what, (participant, self.last_ns))

    def end(self, what: str) -> None:
        """Note that something is well again, if it was harmed."""
        if (begun := self._begun.pop(what, None)) is not None:
            participant, from_ns = begun
            self.last_ns = time.time_ns()
            self._ended.append(_trouble(participant, from_ns, self.last_ns))

    def all(self) -> list[Trouble]:
        """All of them; those that go on until now."""
        now_ns = time.time_ns()
        going_on = (_trouble(participant, from_ns, now_ns) for participant, from_ns in self._begun.values())
        return [*self._ended, *going_on]


def _trouble(participant: str, from_ns: int, to_ns: int) -> Trouble:
    return Trouble(frozenset({participant} if participant else ()), from_ns, to_ns)
