"""What a person may have meant who wrote a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def meant(found: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean 'x'?` with the known name that is closest, or all that are known.

    Args:
        found: what was written.
        known: what there is.
        otherwise: how the list of all begins, where none is close: `there is`.
    """
    names = sorted(set(known))
    near = get_close_matches(found, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(names) or 'nothing'}."
