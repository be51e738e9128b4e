"""The start of a process: its settings, its log, its main coroutine, and the sentence that it ends with."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from antiphon.contracts.errors import AntiphonError, DefinitionError

from .. import exit_codes
from ..render.plain import warn, warn_fault
from .declared import FILE, SERVICES, Service, credentials_of
from .settings import Mistaken, Setting, Values, read_file, resolve
from .variables import unknown_variables


def _import_log() -> None:
    """Import structlog without rich, with which it could draw tracebacks: no process that stays does, and rich would
    take 3 MB of its memory and a tenth of the time until it is ready."""
    if "rich" in sys.modules or "structlog" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # Python's own way to have an import fail
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]


class _Unread(Exception):
    """The command line is not as it should be."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Unread(message)


def options_of(service: Service, arguments: Sequence[str]) -> dict[str, Any] | None:
    """What a command line gives, by the keys of settings; None where it asks for help, or is not as it should be, which
    the command line's own library tells better."""
    parser = _Parser(prog=service.name, add_help=False, allow_abbrev=False)
    for setting in service.settings:
        _add(parser, setting)
    try:
        found = parser.parse_args(arguments)
    except (_Unread, argparse.ArgumentError):
        return None
    return vars(found)


def _add(parser: argparse.ArgumentParser, setting: Setting) -> None:
    if not setting.has_option:
        return
    if setting.is_argument:
        parser.add_argument(setting.key, nargs="?")
        return
    names = [f"--{setting.name}", *([setting.short] if setting.short else [])]
    if setting.kind is bool:
        parser.add_argument(*names, dest=setting.key, action="store_true", default=None)
    elif setting.kind is list:
        parser.add_argument(*names, dest=setting.key, action="append")
    else:
        parser.add_argument(*names, dest=setting.key)


def settings_of(
    service: Service, options: Mapping[str, Any], environment: Mapping[str, str], *, is_complete: bool = True
) -> Values:
    """The settings of a process as they hold, by its command line, its environment and its file.

    Args:
        service: the process.
        options: what its command line gave.
        environment: variables.
        is_complete: whether it is a mistake that a setting which must be given is not.

    Raises:
        Mistaken: some cannot hold.
    """
    path = options.get(FILE.key) or environment.get(FILE.variable, "")
    known = [setting for each in SERVICES.values() for setting in each.settings]
    file, mistakes = read_file(path, SERVICES, service.name, known) if path else ({}, [])
    return resolve(service.settings, options, environment, file, is_complete=is_complete, mistakes=mistakes)


def run(service: Service, options: Mapping[str, Any]) -> None:
    """Run a process until it ends.

    Raises:
        SystemExit: it failed; a sentence is on stderr.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_before_it_began)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without an umlaut shall show the rest
    try:
        _run(service, options)
    except Mistaken as error:
        _fail(str(error), exit_codes.USAGE)
    except DefinitionError as error:
        _fail(str(error), exit_codes.UNSOUND)
    except AntiphonError as error:
        _fail(str(error))
    except Exception as error:  # a fault of ours, whose text may quote what somebody else wrote
        warn_fault(error)
        raise SystemExit(1) from None


def _run(service: Service, options: Mapping[str, Any]) -> None:
    _import_log()
    import structlog
    import uvloop

    from antiphon.link.process import until_told
    from antiphon.tracing.telemetry.logs import LEVELS, configure

    given = settings_of(service, options, os.environ)
    configure({"": None, "text": True, "json": False}[given["log"]], LEVELS[given["log_level"]])
    for variable, sentence in unknown_variables(os.environ).items():
        structlog.get_logger().warning("settings.unknown", variable=variable, why=sentence)
    if not uvloop.run(until_told(service.start(given, credentials_of(given)))):
        structlog.get_logger().info("process.ended", process=service.name, why="told to end before it was ready")


def _end_before_it_began(number: int, frame: FrameType | None) -> NoReturn:
    """Take a signal while modules are still imported."""
    warn("antiphon: told to end before it had begun.")
    raise SystemExit(0)


def _fail(sentence: str, code: int = 1) -> NoReturn:
    first, *more = sentence.split("\n")
    warn(f"antiphon: {first}", *more)
    raise SystemExit(code)
