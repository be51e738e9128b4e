"""What `antiphon list` is asked for: the values of its options, and which of them only the read model can answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, get_args

from antiphon.contracts.payloads import SagaState

from ..modules import CannotLoad

STATES: Final[tuple[SagaState, ...]] = get_args(SagaState)
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def state_of(text: str) -> SagaState | None:
    """The state of that name; none where no name is given.

    Raises:
        CannotLoad: there is no such state.
    """
    if text and text not in STATES:
        raise CannotLoad(f"{text!r} is no state of a saga; they are {', '.join(STATES)}.")
    return next((state for state in STATES if state == text), None)


def nanoseconds(text: str) -> int:
    """A length of time as people write it.

    Raises:
        CannotLoad: it is none.
    """
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise CannotLoad(f"{text!r} is no time. Give a number with s, m, h or d behind it: 90s, 10m, 24h, 7d.")
    return int(found[1]) * UNITS[found[2]] * 1_000_000_000


def pair(text: str) -> tuple[str, str]:
    """A key's name and value.

    Raises:
        CannotLoad: it is not name=value.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise CannotLoad(f"{text!r} is no key. Give name=value, for instance customer_id=c-018.")
    return name, value


def require_no_filters(filters: Mapping[str, object]) -> None:
    """Refuse what only the read model can answer.

    Raises:
        CannotLoad: one of the options was given.
    """
    given = [f"--{name}" for name, value in filters.items() if value]
    if given:
        raise CannotLoad(
            f"{', '.join(given)} needs the read model. Name its database with --database or ANTIPHON_READMODEL; "
            "`antiphon readmodel --database URL` fills it."
        )


def more_than(limit: int, total: int = 0) -> str:
    """That there are more sagas than are shown, and how to see them.

    Args:
        limit: how many are shown.
        total: how many there are; 0 where that was not counted.
    """
    of = f"the {limit:,} that were started last, of {total:,}" if total else f"the first {limit:,}, and there are more"
    return f"these are {of}. Show more with --limit, at most 10,000, or fewer with --type."
