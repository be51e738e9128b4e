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
        self._held: dict[tuple[str, int], int] = {}
        """When each entry was stored, by stream and sequence."""
        self._put_off: dict[tuple[str, int], PutOff] = {}
        self._pending: dict[str, int] = {}
        """How many wait, by stream."""

    def came(self, entry: Delivered, pending: int) -> None:
        """An entry was delivered, and so many more wait behind it."""
        self._put_off.pop(_place(entry), None)
        self._held[_place(entry)] = entry.stored_ns
        self._pending[entry.stream] = pending

    def done(self, entry: Delivered) -> None:
        """An entry was acked."""
        self._held.pop(_place(entry), None)

    def put_off(self, entry: Delivered, seconds: float) -> None:
        """An entry was handed back for so long."""
        self._held.pop(_place(entry), None)
        self._put_off[_place(entry)] = PutOff(entry.stored_ns, time.time() + seconds + PUT_OFF_SECONDS)

    def entries(self) -> int:
        """How many there are: those that wait as of the last delivery."""
        self._forget()
        return sum(self._pending.values()) + len(self._held) + len(self._put_off)

    def oldest_seconds(self) -> float:
        """How long ago the oldest of them was stored; 0 where there is none."""
        self._forget()
        return age_seconds((*self._held.values(), *(each.stored_ns for each in self._put_off.values())))

    def _forget(self) -> None:
        now = time.time()
        for place in [place for place, each in self._put_off.items() if each.back_by < now]:
            del self._put_off[place]


def _place(entry: Delivered) -> tuple[str, int]:
    return entry.stream, entry.sequence


def age_seconds(stored_ns: Iterable[int]) -> float:
    """How long ago the oldest of these was stored, in seconds; 0 where there is none."""
    oldest = min(stored_ns, default=None)
    return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1e9)
