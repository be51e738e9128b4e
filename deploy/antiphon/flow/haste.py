"""Steps whose time is over before another worker can have answered in the place of one that died."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from antiphon.contracts.topology import RECOVERY_SECONDS
from antiphon.coordinator.definition.definition import Definition

from .check import Finding


def hasty(definitions: Iterable[Definition]) -> Iterator[Finding]:
    """The steps that give up earlier: each death of a worker turns their sagas, or parks them past the pivot.

    Args:
        definitions: of sagas that coordinators lead. What they start has definitions of its own.
    """
    for saga in definitions:
        for step in saga.steps.values() if saga.is_led else ():
            seconds = step.timeout_ns / 1e9
            if step.kind in ("command", "list") and 0 < seconds < RECOVERY_SECONDS:
                yield Finding(
                    "hasty",
                    f"{saga.name}.{step.name}",
                    f"step {step.name} of {saga.name} waits for {seconds:g} s, and a command whose worker dies is "
                    f"answered by another one within {RECOVERY_SECONDS:g} s. Give the step a longer timeout, or each "
                    "such death makes its outcome unknown.",
                )
