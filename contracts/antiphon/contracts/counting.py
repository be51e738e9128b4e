"""How many of something, for a sentence."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """A number with what it counts: `1 saga`, `2 sagas`, and `1 message waits`, `2 messages wait`.

    Args:
        number: how many.
        one: what stands behind 1.
        several: what stands behind every other number; `one` with an s when left out.
    """
    return f"{number} {one if number == 1 else several or f'{one}s'}"
