"""Two traces compared span by span: where they took longer, and where they went another way. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .spans import Span
from .tree import Row, label, rows


class Difference(msgspec.Struct, frozen=True):
    """One span of two traces; where a trace lacks it, its part is None."""

    name: str
    one: Span | None
    other: Span | None

    @property
    def change_ns(self) -> int:
        """By how much it took longer in the other."""
        return _length(self.other) - _length(self.one)

    @property
    def is_another_way(self) -> bool:
        """Whether the two did not go the same way here."""
        return self.one is None or self.other is None or _result(self.one) != _result(self.other)


def differences(one: Iterable[Span], other: Iterable[Span]) -> list[Difference]:
    """Two traces side by side: of the first in its order, then what only the second has."""
    first, second = _by_name(rows(one)), _by_name(rows(other))
    return [Difference(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]


def _by_name(drawn: Iterable[Row]) -> dict[str, Span]:
    """Spans by names that the same spans of another saga have, too."""
    found: dict[str, Span] = {}
    for row in drawn:
        name, number = _called(row.span), 1
        while (numbered := f"{name} ({number})" if number > 1 else name) in found:
            number += 1
        found[numbered] = row.span
    return found


def _called(span: Span) -> str:
    attributes = span.attributes
    if not span.parent_id:
        return "saga"
    if "saga.attempt" not in attributes:
        return label(span)
    if "saga.direction" not in attributes:
        return span.name  # at which entry another saga came there says nothing
    direction = "" if attributes["saga.direction"] == "do" else f"{attributes['saga.direction']} "
    return f"{direction}{attributes['saga.step']}: {label(span)}"


def _result(span: Span) -> tuple[object, object]:
    return span.attributes.get("saga.outcome"), span.attributes.get("saga.answer")


def _length(span: Span | None) -> int:
    return span.end_ns - span.start_ns if span else 0
