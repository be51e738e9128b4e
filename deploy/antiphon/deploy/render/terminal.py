"""All that is written to the terminal goes through this file, so that no foreign text gets there as it is."""

from __future__ import annotations

import os
from typing import Any, Final, TextIO

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from antiphon.contracts.foreign_text import harmless, harmless_json

WIDTH_WITHOUT_TERMINAL: Final = 160
"""Files and pipes have no width of their own; lines shall not be cut there, unless COLUMNS says so."""


def console(file: TextIO | None = None) -> Console:
    """The terminal, or what stands in for it; or a file that is written to. It takes no markup out of texts."""
    found = Console(highlight=False, markup=False, emoji=False, file=file)
    if found.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return found
    return Console(highlight=False, markup=False, emoji=False, file=file, width=WIDTH_WITHOUT_TERMINAL)


def foreign(text: str, style: str = "") -> Text:
    """Foreign text for a console: harmless, and in one style."""
    return Text(harmless(text), style)


def parts(*parts: str | tuple[str, str]) -> Text:
    """A line made of texts, some of them with a style, all of them harmless."""
    return Text.assemble(*(harmless(part) if isinstance(part, str) else (harmless(part[0]), part[1]) for part in parts))


def say(*lines: str) -> None:
    """Write lines, each of them harmless; nothing where there are none."""
    if lines:
        typer.echo("\n".join(map(harmless, lines)))


def say_document(text: str) -> None:
    """Write a text of several lines that was made for a program, whose foreign parts are escaped in its language."""
    typer.echo("\n".join(map(harmless, text.split("\n"))), nl=False)


def say_json(value: Any) -> None:
    """Write a value as JSON in one line."""
    say_encoded(msgspec.json.encode(value))


def say_encoded(data: bytes) -> None:
    """Write JSON that is encoded already."""
    typer.echo(harmless_json(data))
