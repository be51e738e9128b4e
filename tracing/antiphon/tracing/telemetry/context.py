"""What a handler runs in: its command, for log lines, and the attempt's span, for spans of the team's own.

Nothing here is imported or made for a process that does not trace: OpenTelemetry is asked only where somebody else has
loaded it, and a log line takes what it needs when it is written.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final

from antiphon.contracts.subjects import CommandAddress

current: Final[ContextVar[CommandAddress | None]] = ContextVar("antiphon_command", default=None)
"""The command that this task performs."""


def enter(address: CommandAddress, traceparent: str) -> None:
    """Say what this task does from now on until it ends; a task has a context of its own, so nothing is taken back."""
    current.set(address)
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is not None and traceparent:
        with suppress(ValueError):  # a command from elsewhere may say anything there, and is performed all the same
            _enter_span(trace, traceparent)


def _enter_span(trace: Any, traceparent: str) -> None:
    from opentelemetry import context

    _, trace_id, span_id, flags = traceparent.split("-")
    attempt = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
    context.attach(trace.set_span_in_context(trace.NonRecordingSpan(attempt)))
