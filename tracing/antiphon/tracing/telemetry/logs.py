"""How every process logs: one fact a line on stderr, as JSON, or readable where a person looks on; never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from antiphon.contracts.errors import PlatformError, Unusable
from antiphon.contracts.foreign_text import harmless, harmless_lines
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import CommandAddress, is_command, is_of_sagas, parse_command, saga_in
from antiphon.link.lines import Lines

from ..projection.ids import trace_id
from ..projection.links import jaeger_link
from . import context

HIDDEN: Final = "…"
OF_SEVERAL_LINES: Final = ("exception", "stack")

_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|nkey|seed", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w://[^\s/:@]*:)[^\s/@]+@")


LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def level_of(environment: Mapping[str, str]) -> int:
    """The least severe level that is written, as ANTIPHON_LOG_LEVEL says; `info` where it says nothing.

    Raises:
        PlatformError: there is no such level.
    """
    name = environment.get("ANTIPHON_LOG_LEVEL", "") or "info"
    level = LEVELS.get(name.lower())
    if level is None:
        raise PlatformError(
            f"ANTIPHON_LOG_LEVEL is {name!r}; give {', '.join(list(LEVELS)[:-1])} or {list(LEVELS)[-1]}."
        )
    return level


def configure(readable: bool | None = None, level: int = logging.INFO) -> None:
    """Set structlog and the standard library's logging up for this process, so that all lines are of one form.

    Where a team's module has given `logging` a handler already, that stays as it is.

    Args:
        readable: lines for a person instead of JSON; None asks whether stderr is a terminal.
        level: the least severe level that is written, as `logging` numbers them.
    """
    for_people = sys.stderr.isatty() if readable is None else readable
    render = _renderer(for_people)
    structlog.configure(
        processors=[*_processors(), render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # A line in one write: threads, and lines that come through `logging`, cannot get in between.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Lines(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    if not logging.root.handlers:
        _take_in_logging(render, level)


def _take_in_logging(render: Processor, level: int) -> None:
    """Write what libraries and handlers log by `logging`, and warnings, as our own lines are."""
    about: list[Processor] = [structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()]
    handler = logging.StreamHandler(Lines(sys.stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=[*about, *_processors()],
        )
    )
    logging.root.addHandler(handler)
    logging.root.setLevel(level)
    logging.captureWarnings(True)


def hide_secrets(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Blank every value whose name promises a secret, and passwords inside URLs, however deep they lie."""
    return {name: HIDDEN if _SECRET_NAME.search(name) else _cleaned(value) for name, value in line.items()}


def add_saga(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Say on every line which saga, step and attempt it is about, and where its trace is.

    The line may say so itself, by `saga` or by the subject of a message; else it is about the command of this task.
    """
    address = context.current.get()
    key = _saga_of(line, address)
    if key is None:
        return line
    line.setdefault("saga", str(key))
    if address is not None and address.saga == key:
        line.setdefault("step", address.step)
        line.setdefault("attempt", address.attempt)
    line.setdefault("trace_id", trace_id(key))
    if link := jaeger_link(key):
        line.setdefault("trace", link)
    return line


def _saga_of(line: EventDict, address: CommandAddress | None) -> SagaKey | None:
    """The saga that a line names, in one way or another."""
    saga, subject = line.get("saga"), str(line.get("subject", ""))
    try:
        if isinstance(saga, str):
            return SagaKey.of(*saga.split("/"))
        if not is_of_sagas(subject):
            return address.saga if address else None
        if is_command(subject):
            command = parse_command(subject)
            line.setdefault("step", command.step)
            line.setdefault("attempt", command.attempt)
        return saga_in(subject)
    except (Unusable, TypeError):
        return None  # a line must be written whatever stands in it


def _processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        add_saga,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # A traceback may quote a secret, so it becomes text before secrets are hidden; and it shows no local variables.
        structlog.processors.format_exc_info,
        hide_secrets,
    ]


def _renderer(for_people: bool) -> Processor:
    if not for_people:
        return structlog.processors.JSONRenderer(default=repr)
    plain = structlog.dev.plain_traceback
    render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return lambda logger, name, line: render(logger, name, make_harmless(logger, name, line))


def make_harmless(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Take from a line for people what a terminal would obey, names included. A traceback keeps its lines."""
    return {harmless(name): _harmless(name, value) for name, value in line.items()}


def _harmless(name: str, value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    text = value if isinstance(value, str) else str(value) if name == "event" else repr(value)
    return harmless_lines(text) if name in OF_SEVERAL_LINES else harmless(text)


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
