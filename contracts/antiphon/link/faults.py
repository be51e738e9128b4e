"""What was raised where nothing may be raised, as a line of the log."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

from .lines import Lines

log = structlog.get_logger()


def settle_tracebacks() -> None:
    """Have tracebacks tell frames only, where nobody has set structlog up. By itself it draws each frame with its
    source and the values of its variables: payloads among them, and half a second of the event loop."""
    if structlog.is_configured():
        return
    *before, _ = structlog.get_config()["processors"]
    render = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    lines = cast("TextIO", Lines(sys.stdout))
    structlog.configure(processors=[*before, render], logger_factory=structlog.WriteLoggerFactory(lines))


def say(event: str, error: BaseException, subject: str = "", **values: object) -> None:
    """Log an error with its traceback, whatever its own methods raise when they are asked for a text."""
    known = {"subject": subject, **values} if subject else values
    try:
        log.error(event, error=class_of(error), exc_info=error, **known)
    except BaseException:
        with suppress(BaseException):
            log.error(event, error=class_of(error), **known)


def class_of(error: BaseException) -> str:
    """The name of an error's class, with its module where it is not Python's own. Its text may hold what is private."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
