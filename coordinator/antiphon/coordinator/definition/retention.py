"""How long what an ended saga leaves behind is kept: by its author, and by an operator in the author's place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, cast, get_args

import msgspec

from antiphon.contracts.errors import DefinitionError, PlatformError
from antiphon.contracts.payloads import Ending

Declared = timedelta | Mapping[Ending, timedelta] | None
"""What an author says: one time, or one for each outcome; None, and an outcome that is left out, mean for ever."""

ENDINGS: Final[tuple[Ending, ...]] = get_args(Ending)
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
FOR_EVER: Final = "forever"
DAYS_MAX: Final = 36_500

Overrides = Mapping[str, Mapping[Ending, float | None]]
"""What an operator says: seconds by saga type and outcome, None for ever."""


class Retention(msgspec.Struct, frozen=True):
    """For how many seconds after its end a saga's journal and events are kept; None is for ever."""

    completed: float | None = None
    compensated: float | None = None

    def seconds(self, outcome: Ending) -> float | None:
        """How long a saga that ended so is kept."""
        return self.completed if outcome == "completed" else self.compensated

    @property
    def shortest(self) -> float | None:
        """The least of all; None if everything is kept for ever."""
        return min((each for each in (self.completed, self.compensated) if each is not None), default=None)

    def overridden(self, said: Mapping[Ending, float | None]) -> Retention:
        """The same, but for what an operator says."""
        return Retention(said.get("completed", self.completed), said.get("compensated", self.compensated))


def compiled(declared: Declared) -> Retention:
    """What an author says, as data."""
    if declared is None:
        return Retention()
    if isinstance(declared, timedelta):
        declared = dict.fromkeys(ENDINGS, declared)
    seconds: dict[Ending, float | None] = {outcome: kept.total_seconds() for outcome, kept in declared.items()}
    return Retention().overridden(seconds)


def check_retention(where: str, declared: object) -> None:
    """Refuse a retention that makes no sense.

    Raises:
        DefinitionError: it is no time, or for an outcome that there is not.
    """
    times = cast("Mapping[object, object]", declared) if isinstance(declared, Mapping) else {"": declared}
    for outcome, kept in times.items():
        if outcome not in ("", *ENDINGS):
            raise DefinitionError(f"{where}: retention is given for {outcome!r}; a saga ends {' or '.join(ENDINGS)}.")
        if kept is None and not isinstance(declared, Mapping):
            return
        if not isinstance(kept, timedelta) or not timedelta(0) < kept <= timedelta(days=DAYS_MAX):
            raise DefinitionError(
                f"{where}: its retention is {kept!r}; say for how long it is kept once it has ended, for instance "
                "timedelta(days=30), or leave it out for ever."
            )


def read_overrides(texts: Iterable[str]) -> dict[str, dict[Ending, float | None]]:
    """What an operator says on the command line: `order=30d`, `order:compensated=90d`, `order=forever`.

    Raises:
        PlatformError: a text says something else.
    """
    found: dict[str, dict[Ending, float | None]] = {}
    for text in texts:
        what, _, kept = text.partition("=")
        saga_type, colon, outcome = what.partition(":")
        named: list[Ending] = [each for each in ENDINGS if each == outcome or not colon]
        if not saga_type or not named:
            raise PlatformError(
                f"{text!r} is no retention. Give TYPE=TIME or TYPE:OUTCOME=TIME, {' or '.join(ENDINGS)}."
            )
        seconds = seconds_of(kept, text)
        found.setdefault(saga_type, {}).update(dict.fromkeys(named, seconds))
    return found


def seconds_of(text: str, where: str) -> float | None:
    """A length of time in words, `90m`, `30d`, `52w`; None for `forever`.

    Raises:
        PlatformError: it is none, or more than a hundred years.
    """
    if text == FOR_EVER:
        return None
    said = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    seconds = int(said.group(1)) * UNITS[said.group(2)] if said else 0
    if not 0 < seconds <= DAYS_MAX * UNITS["d"]:
        raise PlatformError(
            f"{where}: {text!r} is no time. Give a whole number above 0 and a unit, up to a hundred years, such as "
            f"90m, 12h, 30d or 52w; or {FOR_EVER}."
        )
    return float(seconds)


def retentions(declared: Mapping[str, Retention], said: Overrides) -> dict[str, Retention]:
    """For each saga type that is not kept for ever, for how long it is kept.

    Args:
        declared: what the definitions say, by saga type.
        said: what an operator says in their place.

    Raises:
        PlatformError: the operator speaks of a type that is not here.
    """
    if strangers := sorted(said.keys() - declared.keys()):
        raise PlatformError(
            f"a retention is given for sagas of type {strangers[0]!r}, and this coordinator has none; it has those of "
            f"type {', '.join(sorted(declared))}."
        )
    every = {saga_type: kept.overridden(said.get(saga_type, {})) for saga_type, kept in declared.items()}
    return {saga_type: kept for saga_type, kept in every.items() if kept.shortest is not None}
