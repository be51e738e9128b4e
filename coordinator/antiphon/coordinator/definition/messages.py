"""The messages of a definition, and their schemas: what tells two declarations of one definition apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from antiphon.contracts.compat.schema import Contracts, Described, contracts_of, describe, kind_of
from antiphon.contracts.identity import CLIENT
from antiphon.contracts.messages import Message

from .definition import Definition, StepDefinition

COORDINATORS: Final = "coordinators"
CLIENTS: Final = "clients"
"""Who writes or reads a message, in sentences about what a change breaks."""


def schemas_of_messages(definition: Definition) -> Contracts:
    """All messages of a definition, with their schemas. Those of a child are the child's own."""
    messages = {each.__contract__.type: each for each in _messages(definition)}
    return contracts_of({messages[type_]: _described(messages[type_]) for type_ in sorted(messages)})


def _messages(definition: Definition) -> Iterator[type[Message]]:
    yield definition.start_shape
    for step in definition.steps.values():
        yield from _of_step(step)
    for heard in definition.events.values():
        yield heard.shape


def _of_step(step: StepDefinition) -> Iterator[type[Message]]:
    sent: list[Any] = [template.shape for template in (step.do, step.undo) if template is not None]
    yield from sent if step.kind != "child" else ()
    yield from (each for each in (step.reply, step.signal) if each is not None)
    yield from step.unless


def _described(message: type[Message]) -> Described:
    owner = message.__contract__.owner
    if kind_of(message) == "event":
        return describe(message, [CLIENTS if owner == CLIENT else owner], [COORDINATORS])
    return describe(message, [COORDINATORS], [owner])
