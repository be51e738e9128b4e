"""The commands of a step over a list, in the journal before the first of them is sent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from antiphon.contracts.payloads import Record

SPREAD_BYTES_MAX: Final = 128 * 1024
"""How much of a list's commands one entry holds, or one command if that is larger: half of what a message may have."""


def spread(name: str, commands: list[msgspec.Raw]) -> Iterator[Record]:
    """Write down the commands of a list, before any of them is sent: whoever goes on with it must not ask again."""
    first = 0
    for part in _parts_of(commands):
        behind = first + len(part)
        yield Record(step=name, commands=part, first=first, elements=behind if behind == len(commands) else -1)
        first = behind


def _parts_of(commands: Iterable[msgspec.Raw]) -> Iterator[tuple[msgspec.Raw, ...]]:
    """Commands, as many at a time as fit into one entry."""
    part: list[msgspec.Raw] = []
    size = 0
    for command in commands:
        length = len(memoryview(command))
        if part and size + length > SPREAD_BYTES_MAX:
            yield tuple(part)
            part, size = [], 0
        part.append(command)
        size += length
    yield tuple(part)


def is_unfinished(record: Record) -> bool:
    """Whether a list goes on in the next entry."""
    return bool(record.commands) and record.elements < 0
