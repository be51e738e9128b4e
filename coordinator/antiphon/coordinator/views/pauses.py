"""What stands still because somebody paused it, as people are told. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec


class Pause(msgspec.Struct, frozen=True):
    """A saga type or participant that stands still: `paused by ada: stocktaking`, since when (RFC 3339)."""

    name: str
    paused: str
    since: str


class Pauses(msgspec.Struct, frozen=True):
    """All that stands still, by name."""

    types: dict[str, Pause] = {}
    participants: dict[str, Pause] = {}

    def of(self, saga_type: str, waits_for: Iterable[str]) -> str:
        """Why a saga stands still that is open: for its type, or for participants that it waits for."""
        of_type = self.types.get(saga_type)
        found = [f"all sagas of its type are {of_type.paused}"] if of_type else []
        names = sorted(self.participants.keys() & set(waits_for))
        return "; ".join([*found, *(f"participant {name} is {self.participants[name].paused}" for name in names)])


NOTHING_PAUSED: Final = Pauses()
