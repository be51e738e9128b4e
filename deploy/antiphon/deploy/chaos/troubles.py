"""When who had trouble, as a test made it: for the invariants about time."""

from __future__ import annotations

import time

from msgspec.structs import replace

from .evidence import Trouble


class Troubles:
    """The troubles of a run, by this machine's clock, which is that of its servers."""

    def __init__(self) -> None:
        self._ended: list[Trouble] = []
        self.last_ns = 0
        """When the last fault began or ended; 0 before any."""
        self._begun: dict[str, Trouble] = {}

    def begin(self, what: str, participant: str = "", *, planned: bool = False, at_ns: int = 0) -> None:
        """Note that something is harmed from now on; what is harmed already goes on being so.

        Args:
            what: the process or the way.
            participant: whose trouble it is; empty where it may be everybody's.
            planned: whether it is a planned restart, which is to cost nobody an attempt. One of a process that is
                harmed already is none, and nor is one in which the process is harmed.
            at_ns: when; now when 0.
        """
        self.last_ns = at_ns or time.time_ns()
        names = frozenset({participant} if participant else ())
        begun = self._begun.setdefault(what, Trouble(names, self.last_ns, 0, what if planned else ""))
        if begun.restarted and not planned:
            self._begun[what] = replace(begun, restarted="")

    def end(self, what: str) -> None:
        """Note that something is well again, if it was harmed."""
        if (begun := self._begun.pop(what, None)) is not None:
            self.last_ns = time.time_ns()
            self._ended.append(replace(begun, to_ns=self.last_ns))

    def add(self, from_ns: int, to_ns: int) -> None:
        """Note that everybody was harmed for a time that is over."""
        self._ended.append(Trouble(frozenset(), from_ns, to_ns))

    def all(self) -> list[Trouble]:
        """All of them; those that go on until now."""
        now_ns = time.time_ns()
        return [*self._ended, *(replace(begun, to_ns=now_ns) for begun in self._begun.values())]
