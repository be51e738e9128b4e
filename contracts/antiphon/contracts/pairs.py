"""Pairs of streams: over how many of them sagas are spread, and which pair holds which saga. Pure.

With one pair the streams are called SAGA and EVENTS. With several, pair `j` of `n` is `SAGA-<j>of<n>` and
`EVENTS-<j>of<n>`, and holds the sagas whose partition `<k>` leaves the rest `j` when it is divided by `n`. So the names
say how many there are, and whoever takes that for another number finds no stream, instead of a part of the sagas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from .errors import DefinitionError, PlatformError
from .identity import PARTITIONS, SagaKey
from .subjects import SCHEMAS_FILTER, event_partition_filter, partition_in, saga_partition_filter
from .topology import EVENTS, SAGA, STREAMS, Consumer, Stream

PAIRS_MAX: Final = 8
"""Each has eight partitions then, so that all are of about the same size; and what a read model says of its place in
all of them fits where it says that."""

SPREAD: Final = (SAGA, EVENTS)
"""The streams of which there may be several. What they hold belongs to sagas, and all of a saga is in one pair."""

_NAME: Final = re.compile(r"(SAGA|EVENTS)-(\d{1,2})of(\d{1,2})")


class Pairs:
    """The pairs of one platform.

    Args:
        count: how many there are.

    Raises:
        DefinitionError: there cannot be so many.
    """

    __slots__ = ("_names", "count")

    def __init__(self, count: int) -> None:
        if not 0 < count <= PAIRS_MAX:
            raise DefinitionError(f"there cannot be {count} pairs of streams; give a number from 1 to {PAIRS_MAX}.")
        self.count = count
        self._names = {base: tuple(stream_name(base, pair, count) for pair in range(count)) for base in SPREAD}

    @property
    def saga(self) -> tuple[str, ...]:
        """The streams of journals, one a pair."""
        return self._names[SAGA]

    @property
    def events(self) -> tuple[str, ...]:
        """The streams of events, one a pair."""
        return self._names[EVENTS]

    def names(self, stream: str) -> tuple[str, ...]:
        """All streams that SAGA or EVENTS stands for; of any other stream its own name."""
        return self._names.get(stream, (stream,))

    def pair_of(self, key: SagaKey) -> int:
        """The pair of a saga."""
        return key.partition % self.count

    def stream_of(self, stream: str, key: SagaKey) -> str:
        """The stream that holds what SAGA or EVENTS is to hold of a saga."""
        return stream if self.count == 1 else self._names[stream][self.pair_of(key)]

    def stream_at(self, stream: str, subject: str) -> str | None:
        """The stream that holds a subject, or what a filter matches; None where several do."""
        names = self.names(stream)
        if len(names) == 1:
            return names[0]
        partition = partition_in(subject)
        return None if partition is None else names[partition % self.count]

    def parts(self, stream: str, filters: Iterable[str]) -> dict[str, list[str]]:
        """Filters, by the streams that hold what they match."""
        found: dict[str, list[str]] = {}
        for each in filters:
            held_by = self.stream_at(stream, each)
            for name in self.names(stream) if held_by is None else (held_by,):
                found.setdefault(name, []).append(each)
        return found

    def streams(self) -> tuple[Stream, ...]:
        """The streams of the platform."""
        if self.count == 1:
            return STREAMS
        return tuple(each for stream in STREAMS for each in self._each(stream))

    def _each(self, stream: Stream) -> Sequence[Stream]:
        if stream.name not in SPREAD:
            return (stream,)
        held = [_subjects(stream.name, pair, self.count) for pair in range(self.count)]
        return [
            replace(stream, name=name, subjects=those)
            for name, those in zip(self.names(stream.name), held, strict=True)
        ]

    def shared(self, places: int) -> list[int]:
        """So many places, shared between the pairs: each has one at least."""
        each, rest = divmod(places, self.count)
        return [max(1, each + (pair < rest)) for pair in range(self.count)]

    def spread(self, consumers: Iterable[Consumer]) -> list[Consumer]:
        """Consumers of SAGA and EVENTS, one for each stream of theirs; the others as they are."""
        return [
            each if name == each.stream else replace(each, stream=name)
            for each in consumers
            for name in self.names(each.stream)
        ]


def stream_name(base: str, pair: int, count: int) -> str:
    """What SAGA or EVENTS of one pair is called."""
    return base if count == 1 else f"{base}-{pair}of{count}"


@lru_cache(maxsize=64)
def base_of(name: str) -> str:
    """SAGA or EVENTS where a stream is that of a pair; the name itself of any other stream."""
    found = _NAME.fullmatch(name)
    return found[1] if found else name


def pair_in(name: str) -> int:
    """The pair of a stream; 0 where there is one pair, or it belongs to none."""
    found = _NAME.fullmatch(name)
    return int(found[2]) if found else 0


def count_in(names: Iterable[str]) -> int:
    """How many pairs there are by the names of streams; 0 where none of these belongs to a pair.

    Raises:
        PlatformError: the names do not agree.
    """
    counts = {
        int(found[3]) if (found := _NAME.fullmatch(name)) else 1
        for name in names
        if name in SPREAD or _NAME.fullmatch(name)
    }
    if len(counts) > 1:
        raise PlatformError(
            f"the streams of this server belong to platforms of {' and of '.join(map(str, sorted(counts)))} pairs. "
            "Delete those that a failed restore has left, after a backup."
        )
    return next(iter(counts), 0)


def _subjects(base: str, pair: int, count: int) -> tuple[str, ...]:
    """The subjects of one stream: those of its partitions, and in the first pair what belongs to no saga."""
    held = range(pair, PARTITIONS, count)
    if base == EVENTS:
        return tuple(map(event_partition_filter, held))
    return (*map(saga_partition_filter, held), *([SCHEMAS_FILTER] if pair == 0 else []))


ONE_PAIR: Final = Pairs(1)
