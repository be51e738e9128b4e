"""Steps and sagas whose time is over before another worker can have answered in the place of one that died."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from antiphon.coordinator.definition import haste
from antiphon.coordinator.definition.definition import Definition

from .check import Finding


def hasty(definitions: Iterable[Definition]) -> Iterator[Finding]:
    """What gives up earlier.

    Args:
        definitions: of sagas that coordinators lead; choreographies are only late.
    """
    for saga in definitions:
        for step, sentence in haste.hasty(saga):
            yield Finding("hasty", f"{saga.name}.{step}" if step else saga.name, sentence)
