"""How fast orders were run before the kills and after, and how long everything stood still because of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

STILL_SECONDS: Final = 0.25
"""Nothing ended for longer: a kill's doing, since in between orders end every few milliseconds."""


@dataclass(frozen=True)
class Pace:
    """The two rates, and what is left out of the second.

    Args:
        before: sagas a second until the first kill.
        after: sagas a second from then on, the pauses apart.
        pause_seconds: how long the pauses after the first kill were together.
    """

    before: float
    after: float
    pause_seconds: float

    def __str__(self) -> str:
        if not self.after and not self.pause_seconds:
            return f"{self.before:.1f} sagas/s; nothing was left to run after the kills"
        stood = f"{self.pause_seconds:.1f} s in which nothing ended"
        return f"{self.before:.1f} sagas/s before the kills, {self.after:.1f} after them, and {stood}"


def pace(began: float, ends: Sequence[float], killed: float) -> Pace:
    """What a run looks like from outside.

    Args:
        began: when it began, in seconds of any clock.
        ends: when each saga ended, by the same clock, in order.
        killed: when the first process was killed.
    """
    before = [end for end in ends if end <= killed]
    gaps = [later - earlier for earlier, later in pairwise([killed, *(end for end in ends if end > killed)])]
    # What ends a pause is left out with it: it was not run in the time that is left.
    moving = [gap for gap in gaps if gap <= STILL_SECONDS]
    return Pace(_rate(len(before), killed - began), _rate(len(moving), sum(moving)), sum(gaps) - sum(moving))


def _rate(sagas: int, seconds: float) -> float:
    return sagas / seconds if seconds > 0 else 0.0
