"""The help of a command in two plain columns, which eighty characters are enough for. Tables with a column for each
kind of thing leave twenty characters for the sentences, and cut long options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., Any])


PANELS: Final[dict[str, tuple[str, ...]]] = {
    "First steps": ("new", "up", "demo", "wait"),
    "Sagas": ("start", "list", "show", "trace", "signal", "cancel"),
    "What waits for a person": ("parked", "retry", "edit", "resolve", "resend", "dismiss", "pause", "resume"),
    "What is written down": ("flow", "contracts", "diff"),
    "Processes": ("coordinator", "participant", "exporter", "jaeger-storage", "readmodel", "settings"),
    "The platform": ("setup", "rights", "doctor", "compare", "chaos"),
    "What is kept, and deleted": ("archive", "forget", "purge-inbox"),
}
"""The commands as the list of them shows them: what is used first stands first."""


class PlainCommand(TyperCommand):
    """A command whose help is plain."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As click writes it."""
        self.rich_markup_mode = None
        super().format_help(ctx, formatter)


class InPanels(TyperGroup):
    """The list of all commands, in panels."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the panels."""
        return [name for names in PANELS.values() for name in names if name in self.commands]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As typer writes it, each command in its panel."""
        for title, names in PANELS.items():
            for name in names:
                cast("Any", self.commands[name]).rich_help_panel = title
        super().format_help(ctx, formatter)


class App(typer.Typer):
    """Commands with plain help. The list of commands stays a table, which has room for their whole first sentence."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Declare a command, as `typer.Typer.command` does."""
        options.setdefault("cls", PlainCommand)
        return super().command(name, **options)
