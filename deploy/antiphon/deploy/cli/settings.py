"""`antiphon settings`: what holds for processes, and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final, cast

import typer
from rich import box
from rich.table import Table

from .. import exit_codes
from ..render.plain import warn
from ..render.terminal import console, foreign, say, say_json
from ..services.declared import COMMON, FILE, SERVICES
from ..services.running import settings_of
from ..services.settings import DEFAULT, FILE_SUFFIX, Mistaken, Value
from ..services.variables import unknown_variables

ALL: Final = "all"
"""What stands where a setting is one of every process."""


def list_settings(names: list[str], path: str, *, json: bool) -> None:
    """Show what holds for processes, and where it comes from.

    Args:
        names: the processes; all when empty.
        path: the file with settings; what ANTIPHON_SETTINGS names when empty.
        json: whether for programs.

    Raises:
        SystemExit: some cannot hold, or variables are set that nothing reads.
    """
    if unknown := sorted({*names} - SERVICES.keys()):
        raise typer.BadParameter(f"there is no process {unknown[0]!r}; there are {', '.join(SERVICES)}.")
    strange = [*unknown_variables(os.environ).values()]
    rows = list[tuple[str, Value]]()
    for service in [SERVICES[name] for name in names] or SERVICES.values():
        try:
            given = settings_of(service, {FILE.key: path or None}, os.environ, is_complete=False)
        except Mistaken as error:
            warn(*f"antiphon: {error}".splitlines(), *strange)
            raise SystemExit(exit_codes.USAGE) from None
        rows += [(ALL if each.setting in COMMON else service.name, each) for each in given]
    once = {(process, value.setting.key): value for process, value in rows}
    if json:
        say_json([_described(process, value) for (process, _), value in once.items()])
    else:
        _draw([(process, value) for (process, _), value in once.items()])
    if strange:
        warn(*(f"antiphon: {sentence}" for sentence in strange))
        raise SystemExit(exit_codes.USAGE)


def _described(process: str, value: Value) -> dict[str, Any]:
    setting = value.setting
    return {
        "process": process,
        "setting": setting.key,
        "value": value.shown,
        "origin": value.origin,
        "default": setting.default,
        "variable": setting.variable,
        "file_variable": setting.variable + FILE_SUFFIX if setting.is_secret else None,
        "help": setting.help,
    }


def _draw(rows: Iterable[tuple[str, Value]]) -> None:
    """Draw each setting with what holds, where that comes from, and where it can be given.

    Args:
        rows: by whose setting it is.
    """
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("process", "setting", "value", "from", "variable"):
        drawn.add_column(title, overflow="fold")
    for process, value in rows:
        style = "dim" if value.origin == DEFAULT else "bold"
        texts = (process, value.setting.key, _text(value.shown), _origin(value), value.setting.variable)
        drawn.add_row(*(foreign(text, style) for text in texts))
    console().print(drawn)
    say(
        "Options of a command hold before variables, those before a file in TOML, which ANTIPHON_SETTINGS names.",
        "Keys at its top are for all processes, those in a table such as [participant] for processes of one kind.",
    )


def _origin(value: Value) -> str:
    return "nobody: it has to be given" if value.value is None else value.origin


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, cast("list[object]", value)))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
