"""How every process logs: one fact a line on stderr, as JSON, or readable where a person looks on; never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN: Final = "…"

_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|nkey|seed", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w://[^\s/:@]*:)[^\s/@]+@")


def configure(readable: bool | None = None, level: int = logging.INFO) -> None:
    """Set structlog up for this process.

    Args:
        readable: lines for a person instead of JSON; None asks whether stderr is a terminal.
        level: the least severe level that is written, as `logging` numbers them.
    """
    for_people = sys.stderr.isatty() if readable is None else readable
    structlog.configure(
        processors=_processors(for_people),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def hide_secrets(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Blank every value whose name promises a secret, and passwords inside URLs, however deep they lie."""
    return {name: HIDDEN if _SECRET_NAME.search(name) else _cleaned(value) for name, value in line.items()}


def _processors(for_people: bool) -> list[Processor]:
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # A traceback may quote a secret, so it becomes text before secrets are hidden; and it shows no local variables.
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    if for_people:
        plain = structlog.dev.plain_traceback
        return [*first, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [*first, structlog.processors.JSONRenderer(default=repr)]


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _URL_PASSWORD.sub(rf"\1{HIDDEN}@", value)
    if isinstance(value, dict):
        pairs = cast("Mapping[Any, Any]", value)
        return {name: HIDDEN if _SECRET_NAME.search(str(name)) else _cleaned(v) for name, v in pairs.items()}
    if isinstance(value, list | tuple):
        items = cast("Iterable[Any]", value)
        return [_cleaned(item) for item in items]
    return value
