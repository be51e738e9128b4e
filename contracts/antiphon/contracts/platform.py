"""The payloads that Antiphon itself writes: a wish to cancel, what a journal records, how a saga stands."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

CANCEL_TYPE: Final = "saga.cancel.v1"
RECORD_TYPE: Final = "saga.recorded.v1"
END_TYPE: Final = "saga.ended.v1"
TIMER_TYPE: Final = "saga.timer.v1"

COORDINATOR_SOURCE: Final = "coordinator"

Ending = Literal["completed", "compensated"]
"""How a saga ends; there is no third way."""


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A client's wish that the saga be undone."""

    reason: str


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An accepted fact that sends nothing. `fault` says why the saga cannot go on by itself, where that is so."""

    fault: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of a saga, and why it was compensated."""

    outcome: Ending
    reason: str = ""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a saga waits for, and when (RFC 3339, UTC)."""

    what: str
    at: str


class Timer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the saga's one schedule: all that is due, for whoever looks."""

    due: tuple[Due, ...]


StepPhase = Literal["waiting", "sent", "done", "refused", "unknown", "undoing", "undone"]
"""Where a step stands; `unknown` may or may not have happened."""

SagaState = Literal["running", "compensating", "completed", "compensated"]


class StepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One step as a status answer shows it."""

    name: str
    phase: StepPhase
    attempts: int


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a saga stands."""

    type: str
    id: str
    state: SagaState
    definition: str
    started: str
    reason: str = ""
    parked: str = ""
    steps: tuple[StepStatus, ...] = ()


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A coordinator's answer to a status request; without a status there is no such saga (or it was not read)."""

    status: Status | None = None
    error: str = ""
