"""The help of a command in two plain columns, which eighty characters are enough for. Tables with a column for each
kind of thing leave twenty characters for the sentences, and cut long options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

F = TypeVar("F", bound=Callable[..., Any])


class PlainCommand(TyperCommand):
    """A command whose help is plain."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As click writes it."""
        self.rich_markup_mode = None
        super().format_help(ctx, formatter)


class App(typer.Typer):
    """Commands with plain help. The list of commands stays a table, which has room for their whole first sentence."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Declare a command, as `typer.Typer.command` does."""
        options.setdefault("cls", PlainCommand)
        return super().command(name, **options)
