"""Logs as tests write them: with plain tracebacks.

By itself structlog draws the source and the variables of every frame, which takes half a second and more for one
traceback, and keeps an event loop that long. A hundred tests have handlers fail many times each.
"""

from __future__ import annotations

from typing import TextIO

import structlog


def plain_logs(out: TextIO | None = None) -> None:
    """Write lines as structlog does by default, but for the drawings; to stdout unless another place is given."""
    structlog.reset_defaults()
    *before, _ = structlog.get_config()["processors"]
    render = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*before, render], logger_factory=structlog.PrintLoggerFactory(out))
