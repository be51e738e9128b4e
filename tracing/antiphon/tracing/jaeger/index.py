"""Which saga has a trace id, and which sagas began last. Pure.

A trace id is a hash and cannot be turned back, so the names of sagas are kept in memory in the order of their starts,
in segments that are packed once they are full: 22 bytes a saga, and its type and id.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Final

from antiphon.contracts.identity import SagaKey, digest

SEGMENT_SAGAS: Final = 16_384
"""Sagas of a segment. Packing one takes 10 ms, and a look into one a microsecond."""
SEGMENTS_MAX: Final = 305
"""Five million sagas, in some 220 MB. Those that began before them are found by `saga.id`, but no more by trace id."""

LATEST_NS: Final = 2**64 - 1
TYPES_MAX: Final = 1_000
"""Of how many saga types the newest sagas are remembered; whoever may start sagas may invent types."""
SAMPLE: Final = 20
"""How many of each type."""


class Index:
    """The sagas that have begun, by trace id and by time."""

    def __init__(self, segment_sagas: int = SEGMENT_SAGAS, segments_max: int = SEGMENTS_MAX) -> None:
        self._segment_sagas = segment_sagas
        self._packed: deque[_Segment] = deque(maxlen=segments_max)
        self._fresh = _Fresh()
        self._samples: dict[str, deque[SagaKey]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._packed)) + len(self._fresh)

    def add(self, key: SagaKey, began_ns: int) -> None:
        """A saga began. It may be added twice, as when a program and a parent saga start the same."""
        self._fresh.add(key, began_ns)
        if len(self._fresh) == self._segment_sagas:
            self._packed.append(_Segment(self._fresh))
            self._fresh = _Fresh()
        if key.type in self._samples or len(self._samples) < TYPES_MAX:
            self._samples.setdefault(key.type, deque(maxlen=SAMPLE)).append(key)

    def find(self, trace_id: bytes) -> SagaKey | None:
        """The saga with this trace id (16 bytes), if it is known."""
        for part in self._parts():
            for name in part.named(trace_id):
                key = SagaKey.of(*name.split("/"))
                if digest(key.type, key.id)[:16] == trace_id:
                    return key
        return None

    def newest(self, since_ns: int, until_ns: int, saga_type: str = "") -> Iterator[Iterator[SagaKey]]:
        """The sagas that began within a time, the newest first, and in portions that do not take long.

        Args:
            since_ns, until_ns: nanoseconds since 1970; both belong to the time.
            saga_type: only those of this type; all if it is empty.
        """
        prefix = f"{saga_type}/" if saga_type else ""
        for part in self._parts():
            yield part.newest(since_ns, until_ns, prefix)

    def _parts(self) -> list[_Fresh | _Segment]:
        return [self._fresh, *reversed(self._packed)]

    def samples(self, most: int) -> list[SagaKey]:
        """Some of the newest sagas of each type, as many of one as of another, and then the newest of all; at most so
        many."""
        each = max(1, most // max(1, len(self._samples)))
        found = dict.fromkeys(key for newest in self._samples.values() for key in list(newest)[-each:])
        newest_of_all = chain.from_iterable(self.newest(0, LATEST_NS))
        while len(found) < most and (key := next(newest_of_all, None)) is not None:
            found[key] = None
        return list(found)[:most]


class _Fresh:
    """The sagas that began last."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.began_ns = array("Q")
        self._places: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def add(self, key: SagaKey, began_ns: int) -> None:
        self._places[digest(key.type, key.id)[:16]] = len(self.names)
        self.names.append(str(key))
        self.began_ns.append(began_ns)

    def named(self, trace_id: bytes) -> list[str]:
        place = self._places.get(trace_id)
        return [] if place is None else [self.names[place]]

    def newest(self, since_ns: int, until_ns: int, prefix: str) -> Iterator[SagaKey]:
        for place in range(len(self.names) - 1, -1, -1):
            name = self.names[place]
            if since_ns <= self.began_ns[place] <= until_ns and name.startswith(prefix):
                yield SagaKey.of(*name.split("/"))


class _Segment:
    """Sagas in arrays, sorted by the first half of their trace ids for one purpose, by time for the other."""

    __slots__ = ("_began_ns", "_ends", "_first_ns", "_halves", "_last_ns", "_names", "_places")

    def __init__(self, fresh: _Fresh) -> None:
        halves = [int.from_bytes(digest(*name.split("/"))[:8]) for name in fresh.names]
        places = sorted(range(len(halves)), key=halves.__getitem__)
        self._halves = array("Q", (halves[place] for place in places))
        self._places = array("H", places)
        self._began_ns = fresh.began_ns
        self._first_ns, self._last_ns = min(fresh.began_ns), max(fresh.began_ns)
        self._names = "".join(fresh.names).encode()
        self._ends = array("I", [0])
        for name in fresh.names:
            self._ends.append(self._ends[-1] + len(name))

    def __len__(self) -> int:
        return len(self._places)

    def named(self, trace_id: bytes) -> list[str]:
        """The names whose trace ids begin as this one does: rarely more than one, but ids can be made to fit."""
        half = int.from_bytes(trace_id[:8])
        found = list[str]()
        index = bisect_left(self._halves, half)
        while index < len(self._halves) and self._halves[index] == half:
            found.append(self._name(self._places[index]))
            index += 1
        return found

    def newest(self, since_ns: int, until_ns: int, prefix: str) -> Iterator[SagaKey]:
        if self._last_ns < since_ns or self._first_ns > until_ns:
            return
        begins = prefix.encode()
        for place in range(len(self) - 1, -1, -1):
            if since_ns <= self._began_ns[place] <= until_ns and self._names.startswith(begins, self._ends[place]):
                yield SagaKey.of(*self._name(place).split("/"))

    def _name(self, place: int) -> str:
        return self._names[self._ends[place] : self._ends[place + 1]].decode()
