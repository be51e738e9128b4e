"""What an exporter has not handed over yet, as far as it knows: what it holds, what it has put off, and what waits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import msgspec

from antiphon.contracts.stored import Delivered

PUT_OFF_SECONDS: Final = 60.0
"""What was put off and does not come back within so long after it was due has gone to another exporter."""


class PutOff(msgspec.Struct, frozen=True):
    """An entry that was handed back."""

    stored_ns: int
    back_by: float
    """By this time of the clock it is here again, or with somebody else."""


class Backlog:
    """The entries that one exporter knows of and no backend has."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}
        self._put_off: dict[int, PutOff] = {}
        self._pending = 0

    def came(self, entry: Delivered, pending: int) -> None:
        """An entry was delivered, and so many more wait behind it."""
        self._put_off.pop(entry.sequence, None)
        self._held[entry.sequence] = entry.stored_ns
        self._pending = pending

    def done(self, entry: Delivered) -> None:
        """An entry was acked."""
        self._held.pop(entry.sequence, None)

    def put_off(self, entry: Delivered, seconds: float) -> None:
        """An entry was handed back for so long."""
        self._held.pop(entry.sequence, None)
        self._put_off[entry.sequence] = PutOff(entry.stored_ns, time.time() + seconds + PUT_OFF_SECONDS)

    def entries(self) -> int:
        """How many there are: those that wait as of the last delivery."""
        self._forget()
        return self._pending + len(self._held) + len(self._put_off)

    def oldest_seconds(self) -> float:
        """How long ago the oldest of them was stored; 0 where there is none."""
        self._forget()
        return age_seconds((*self._held.values(), *(each.stored_ns for each in self._put_off.values())))

    def _forget(self) -> None:
        now = time.time()
        for sequence in [sequence for sequence, each in self._put_off.items() if each.back_by < now]:
            del self._put_off[sequence]


def age_seconds(stored_ns: Iterable[int]) -> float:
    """How long ago the oldest of these was stored, in seconds; 0 where there is none."""
    oldest = min(stored_ns, default=None)
    return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1e9)
