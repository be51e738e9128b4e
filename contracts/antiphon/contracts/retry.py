"""How often and how far apart something is tried: a value that travels with the command it is for."""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import Final

import msgspec

from .bounds import NUMBER_MAX
from .errors import SECONDS_MAX, DefinitionError, WrongShape

LONGEST: Final = timedelta(seconds=SECONDS_MAX)
"""The longest time that anything may be waited for."""


class Retry(msgspec.Struct, frozen=True):
    """Capped exponential backoff with jitter.

    Full jitter (a uniform draw from zero up to the capped step) spreads retries of many sagas best; see "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015. Less of it keeps a distance that the other side asks for.

    Args:
        attempts: how often a handler is called for one command before its answer is `exhausted`.
        first_seconds: the upper bound of the first wait.
        factor: by how much each further bound grows.
        cap_seconds: the largest bound, up to a hundred years.
        jitter: the share of each wait that is drawn by lot: 1 for all of it, 0 to wait up to the bound every time.
    """

    attempts: int = 5
    first_seconds: float = 0.2
    factor: float = 2.0
    cap_seconds: float = 30.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        is_bounded = 0 < self.first_seconds <= self.cap_seconds <= SECONDS_MAX
        is_sound = self.attempts >= 1 and is_bounded and 1 <= self.factor < inf
        if not (is_sound and 0 <= self.jitter <= 1):  # asked this way round, because no comparison holds for nan
            raise DefinitionError(
                f"{self}: attempts count from 1, first_seconds is above 0, factor at least 1, cap_seconds at least "
                f"first_seconds and at most {SECONDS_MAX}, which is a hundred years, jitter from 0 to 1."
            )

    def bound_seconds(self, attempt: int) -> float:
        """The longest wait after the given attempt, counted from 1."""
        try:
            return min(self.cap_seconds, self.first_seconds * self.factor ** (attempt - 1))
        except OverflowError:
            return self.cap_seconds

    def wait_seconds(self, attempt: int, chance: float) -> float:
        """The wait after the given attempt; `chance` is in [0, 1) and comes from the caller."""
        return self.bound_seconds(attempt) * (1 - self.jitter + self.jitter * chance)

    def encode(self) -> str:
        """As it travels in a command: `5/0.2/2/30` for attempts, first, factor and cap in seconds.

        Jitter follows only where it is not full, so that participants which do not know of it read all others.
        """
        jitter = "" if self.jitter == 1 else f"/{self.jitter:g}"
        return f"{self.attempts}/{self.first_seconds:g}/{self.factor:g}/{self.cap_seconds:g}{jitter}"


def parse_retry(text: str) -> Retry:
    """Read what `Retry.encode` wrote; an empty text means one attempt.

    Raises:
        WrongShape: the text has another form.
    """
    if not text:
        return Retry(attempts=1)
    try:
        attempts, first, factor, cap, *jitter = text.split("/")
        # Commands of earlier releases may say more than may be said now.
        bounds = (min(float(first), SECONDS_MAX), float(factor), min(float(cap), SECONDS_MAX))
        return Retry(min(int(attempts), NUMBER_MAX), *bounds, *(float(share) for share in jitter))
    except (ValueError, TypeError, DefinitionError):
        raise WrongShape(f"retry {text[:40]!r} is not attempts/first/factor/cap or …/cap/jitter") from None
