"""The way back: what of a saga that is being compensated is to be undone next. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from ..definition.definition import StepDefinition, element
from .history import History, StepRecord

NOTHING_TO_UNDO: Final = frozenset({"waiting", "skipped", "awaiting", "refused", "undone"})


class WayBack(msgspec.Struct, frozen=True, gc=False):
    """Steps and elements all of whose dependents are settled, the last first."""

    undoing: tuple[str, ...]
    """Those whose compensation was sent."""
    first: tuple[str, ...]
    """Those whose compensation is to be sent."""
    is_over: bool
    """Whether nothing is left to undo."""


def way_back(history: History) -> WayBack:
    """Look at every step whose dependents are settled; at none while the saga runs forward."""
    if not history.turned:
        return WayBack((), (), is_over=False)
    settled: set[str] = set()
    undoing, first = list[str](), list[str]()
    definitions = history.definition.steps
    for definition in reversed(definitions.values()):  # dependents stand behind what they depend on
        if not all(later in settled for later in definition.dependents):
            continue
        left = [(name, step) for name, step in _parts(history, definition) if not _needs_nothing(definition, step)]
        if not left:
            settled.add(definition.name)
        for name, step in left:
            (undoing if step.phase == "undoing" else first).append(name)
    return WayBack(tuple(undoing), tuple(first), len(settled) == len(definitions))


def _needs_nothing(definition: StepDefinition, step: StepRecord) -> bool:
    return step.phase in NOTHING_TO_UNDO or (definition.is_kept and step.phase in ("done", "unknown"))


def _parts(history: History, definition: StepDefinition) -> list[tuple[str, StepRecord]]:
    """What a step consists of: its elements, or itself."""
    if definition.kind != "list":
        return [(definition.name, history.steps[definition.name])]
    names = [element(definition.name, number) for number in range(history.steps[definition.name].elements)]
    return [(name, history.steps[name]) for name in names]
