"""Times that are over before another worker can have answered in the place of one that died, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from antiphon.contracts.topology import RECOVERY_SECONDS

from .definition import Definition, StepKind

WORKED_ON: Final[tuple[StepKind, ...]] = ("command", "list", "event", "child")
"""Steps that wait for a worker: of their own, or of the saga that they start."""


def hasty(definition: Definition) -> Iterator[tuple[str, str]]:
    """What gives up too early in a saga that is led: a step by its name, or with an empty name the saga itself; and the
    sentence. What its steps start has a definition of its own."""
    if not definition.is_led:
        return
    if why := hasty_deadline(definition.name, definition.deadline_ns / 1e9):
        yield "", why
    for step in definition.steps.values():
        if why := hasty_step(definition.name, step.name, step.kind, step.timeout_ns / 1e9):
            yield step.name, why


def hasty_step(saga: str, step: str, kind: StepKind, seconds: float) -> str:
    """Why a step gives up too early; empty where it does not.

    Args:
        saga: the saga's name.
        step: the step's.
        kind: what the step does.
        seconds: how long it is waited for; 0 where only the saga's deadline ends it.
    """
    if kind not in WORKED_ON or not 0 < seconds < RECOVERY_SECONDS:
        return ""
    return f"step {step} of {saga} waits for {seconds:g} s, {_recovery('the step a longer time')}"


def hasty_deadline(saga: str, seconds: float) -> str:
    """Why a saga gives up too early; empty where it does not."""
    if seconds >= RECOVERY_SECONDS:
        return ""
    return f"saga {saga} has a deadline of {seconds:g} s, {_recovery('the saga a later deadline')}"


def _recovery(remedy: str) -> str:
    return (
        f"and what a worker that dies had in hand is done by another one within {RECOVERY_SECONDS:g} s. Give {remedy}: "
        "each such death compensates a healthy saga, or parks one that is past its pivot."
    )
