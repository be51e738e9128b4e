"""Whether what was sampled over time grows: a straight line through the samples, and when its slope counts. Pure.

A slope counts as growth only where it says more than chance and more than one unit of waste:

- The line is that of the second half of the time, by least squares: before that caches fill, and what is kept for a
  while has not reached its height.
- Along that half it must rise by more than twice the spread of the samples around it. Memory and files go up and down
  as garbage is collected and blocks are emptied, and a line through that is never quite level.
- The last quarter of the time must rise as well: what comes to rest late is no leak.
- An hour must add more than a tolerance, which is given for each saga: it is chosen below the smallest thing that a
  saga could leave behind, so that one thing left behind by each saga is always more.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, linear_regression, pstdev
from typing import Final

import msgspec

HOUR: Final = 3600.0
SPREADS: Final = 2.0
"""How many spreads of the samples a line must rise by."""
JUDGED_SECONDS: Final = 300.0
"""A shorter half says nothing: what an hour would add is many times what was seen, and so is every mistake in it."""
SAMPLES_MIN: Final = 3


class Series(msgspec.Struct):
    """What was sampled of one thing.

    Args:
        name: of the thing.
        unit: of the values.
        tolerance: how much an hour may add.
        values: one for each time.
    """

    name: str
    unit: str
    tolerance: float
    values: list[float]


class Slope(msgspec.Struct, frozen=True):
    """How one thing went.

    Args:
        name, unit, tolerance: as of `Series`.
        first: the first sample.
        mean: of the second half.
        last: the last sample.
        an_hour: what an hour adds by the second half.
        of_last_quarter: the same by the last quarter, which tells what comes to rest from what does not.
        spread: of the samples around the line of the second half: their standard deviation.
        grows: whether it grows; None where the time was too short to say.
    """

    name: str
    unit: str
    tolerance: float
    first: float
    mean: float
    last: float
    an_hour: float
    of_last_quarter: float
    spread: float
    grows: bool | None

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.grows is None:
            return "not judged"
        return "grows" if self.grows else "steady"


def slope_of(series: Series, seconds: Sequence[float]) -> Slope:
    """How a thing went.

    Args:
        series: what was sampled.
        seconds: when, in order; at least three times.

    Raises:
        ValueError: there are not as many times as values, or too few.
    """
    values, count = series.values, len(series.values)
    if count != len(seconds) or count < SAMPLES_MIN:
        raise ValueError(f"{series.name} has {count} samples for {len(seconds)} times, and needs {SAMPLES_MIN}.")
    half, quarter = _last(count, 2), _last(count, 4)
    line = linear_regression(seconds[half:], values[half:])
    spread = pstdev(
        value - line.slope * at - line.intercept for at, value in zip(seconds[half:], values[half:], strict=True)
    )
    lasted, an_hour = seconds[-1] - seconds[half], line.slope * HOUR
    of_last_quarter = linear_regression(seconds[quarter:], values[quarter:]).slope * HOUR
    grows = min(an_hour, of_last_quarter) > series.tolerance and line.slope * lasted > SPREADS * spread
    return Slope(
        name=series.name,
        unit=series.unit,
        tolerance=series.tolerance,
        first=values[0],
        mean=fmean(values[half:]),
        last=values[-1],
        an_hour=an_hour,
        of_last_quarter=of_last_quarter,
        spread=spread,
        grows=grows if lasted >= JUDGED_SECONDS else None,
    )


def _last(count: int, part: int) -> int:
    """Where the last part of so many samples begins: two of them at least, which a line needs."""
    return min(count - count // part, count - 2)
