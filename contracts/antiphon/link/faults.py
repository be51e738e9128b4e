"""What was raised where nothing may be raised, as a line of the log."""

from __future__ import annotations

from contextlib import suppress

import structlog

log = structlog.get_logger()


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
