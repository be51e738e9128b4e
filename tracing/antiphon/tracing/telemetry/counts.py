"""What a process counts while it works: plain numbers, which cost next to nothing whether or not anybody asks for them.

`metrics` makes OpenTelemetry's instruments of them, in processes that are asked to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

import msgspec


class Instrument(msgspec.Struct, frozen=True):
    """A number that can be looked at: what it is called, what it counts, and by what it is told apart."""

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()


What = Literal[
    "sagas_started",
    "sagas_ended",
    "sagas_purged",
    "sagas_parked",
    "messages_parked",
    "conflicts",
    "redeliveries",
    "duplicates",
    "attempts",
    "requests_shed",
    "entries_exported",
    "spans_exported",
    "export_failures",
    "messages_projected",
    "projection_failures",
]
Span = Literal["saga_seconds", "step_seconds", "handler_seconds"]

COUNTERS: Final[dict[What, Instrument]] = {
    "sagas_started": Instrument(
        "antiphon.sagas.started", "{saga}", "Sagas whose first entry this coordinator wrote.", ("saga.type",)
    ),
    "sagas_ended": Instrument(
        "antiphon.sagas.ended", "{saga}", "Sagas whose end this coordinator wrote.", ("saga.type", "saga.outcome")
    ),
    "sagas_purged": Instrument(
        "antiphon.sagas.purged", "{saga}", "Ended sagas that were old enough and were purged.", ("saga.type",)
    ),
    "sagas_parked": Instrument(
        "antiphon.sagas.parked", "{time}", "Times that a saga came to wait for a person.", ("saga.type",)
    ),
    "messages_parked": Instrument(
        "antiphon.messages.parked", "{message}", "Messages set aside, because they could not be used.", ("saga.kind",)
    ),
    "conflicts": Instrument(
        "antiphon.conflicts", "{write}", "Writes that found another coordinator's entry; they are decided anew."
    ),
    "redeliveries": Instrument(
        "antiphon.redeliveries", "{delivery}", "Deliveries that were not the first.", ("messaging.consumer.group.name",)
    ),
    "duplicates": Instrument(
        "antiphon.duplicates.suppressed",
        "{message}",
        "Messages that changed nothing, because they were in the journal, or answered from the inbox.",
        ("messaging.consumer.group.name",),
    ),
    "attempts": Instrument(
        "antiphon.attempts",
        "{attempt}",
        "Calls of handlers that came to an end, and how.",
        ("saga.participant", "saga.command", "saga.outcome"),
    ),
    "requests_shed": Instrument(
        "antiphon.requests.shed",
        "{request}",
        "Requests that were not looked at, because their source had no place left.",
        ("saga.source",),
    ),
    "entries_exported": Instrument(
        "antiphon.export.entries", "{entry}", "Journal entries whose spans the backend has, or that have none to send."
    ),
    "spans_exported": Instrument("antiphon.export.spans", "{span}", "Spans that the backend has taken."),
    "export_failures": Instrument(
        "antiphon.export.failures",
        "{failure}",
        "Times that spans could not be made, or the backend did not take them.",
        ("saga.failure",),
    ),
    "messages_projected": Instrument(
        "antiphon.readmodel.messages",
        "{message}",
        "Messages that this process has read, and whose rows are in the database.",
        ("messaging.destination.name",),
    ),
    "projection_failures": Instrument(
        "antiphon.readmodel.failures",
        "{failure}",
        "Times that streams or the database gave no answer, or an entry could not be read.",
        ("saga.failure",),
    ),
}

SPANS: Final[dict[Span, Instrument]] = {
    "saga_seconds": Instrument(
        "antiphon.saga.duration", "s", "From a saga's start to its end.", ("saga.type", "saga.outcome")
    ),
    "step_seconds": Instrument(
        "antiphon.step.duration",
        "s",
        "From a command in the journal to its answer.",
        ("saga.type", "saga.step", "saga.direction", "saga.outcome"),
    ),
    "handler_seconds": Instrument(
        "antiphon.handler.duration",
        "s",
        "From the call of a handler to its durable answer.",
        ("saga.participant", "saga.command", "saga.outcome"),
    ),
}


class Counts:
    """The numbers of one process."""

    __slots__ = ("record", "totals")

    def __init__(self) -> None:
        self.totals: Counter[tuple[What, tuple[str, ...]]] = Counter()
        self.record: Callable[[Span, tuple[str, ...], float], None] | None = None
        """Who wants to know how long something took, if anybody does."""

    def add(self, what: What, *labels: str) -> None:
        """Count one, under the values of the instrument's labels."""
        self.totals[what, labels] += 1

    def add_many(self, what: What, count: int, *labels: str) -> None:
        """Count several, under the values of the instrument's labels."""
        self.totals[what, labels] += count

    def took(self, what: Span, seconds: float, *labels: str) -> None:
        """Say how long something took. Two clocks may be part of it, so that it can come out below zero."""
        if self.record is not None:
            self.record(what, labels, max(0.0, seconds))
