"""How many messages PARKED had no room for: the count of the rest, said now and then and not with every message."""

from __future__ import annotations

from collections import Counter
from typing import Final

from antiphon.contracts.payloads import More
from antiphon.contracts.subjects import more_subject

SUBJECTS_MAX: Final = 10_000
"""For so many subjects one process counts. PARKED has few that are full, unless somebody makes up sources."""


class Overflow:
    """Counts, for one process, the messages that PARKED refused because their subject is full.

    The count of a subject is told with the first such message, and each time that it has doubled: so a flood of any
    length makes a few dozen messages, and at least half of it is told. A count that PARKED, too full for anything, does
    not take is not told again.
    """

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()
        self._told: Counter[str] = Counter()

    def add(self, parked: str) -> tuple[str, bytes] | None:
        """Count one message that was refused at a subject; what is to be stored now to tell of it, if anything is.

        Args:
            parked: the subject in PARKED.
        """
        if parked not in self._counted and len(self._counted) >= SUBJECTS_MAX:
            return None
        self._counted[parked] += 1
        counted, told = self._counted[parked], self._told[parked]
        if counted < 2 * told:
            return None
        self._told[parked] = counted
        return more_subject(parked), More(count=counted - told).encode()
