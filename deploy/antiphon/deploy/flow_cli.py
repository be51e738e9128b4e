"""The commands about the flow: `antiphon flow`, `flow who` and `flow check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Literal["mermaid", "dot", "json", "svg"]

Parts = Annotated[
    list[str],
    typer.Option(
        "--app",
        metavar="MODULE[:THING]",
        help="A saga, a choreography or a participant, or all that a module has; give it once for each.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

flow = typer.Typer(name="flow", invoke_without_command=True, no_args_is_help=True, rich_markup_mode="markdown")


@flow.callback(epilog="Example: antiphon flow --app shop.sagas --app shop.stock --format svg --output flow.svg")
def draw(
    context: typer.Context,
    app: Parts = [],  # noqa: B006
    format: Annotated[Format, typer.Option(help="What to draw with; an SVG needs no other program.")] = "mermaid",
    saga: Annotated[str, typer.Option(metavar="TYPE", help="Only what belongs to sagas of this type.")] = "",
    output: Annotated[Path | None, typer.Option(help="Where to write it; the terminal by default.")] = None,
) -> None:
    """Draw who says what to whom, who handles it and what follows, before anything runs."""
    if context.invoked_subcommand is None:
        from .flows import draw_flow

        draw_flow(app, format, saga, output)


@flow.command(epilog="Example: antiphon flow who inventory.reserve.failed --app shop.sagas --app shop.stock")
def who(
    message: Annotated[str, typer.Argument(metavar="SUBJECT-OR-NAME", help="A message's name, type or subject.")],
    app: Parts,
    json: Json = False,
) -> None:
    """Say who emits and who handles a message, what follows, and what takes it back."""
    from .flows import tell_who

    tell_who(app, message, json)


@flow.command(epilog="Example: antiphon flow check --app shop.sagas --app shop.stock --app shop.billing")
def check(app: Parts, json: Json = False) -> None:
    """Find what nobody handles, emits, ends or takes back. Exit code 1 if there is something."""
    from .flows import check_flow

    raise SystemExit(check_flow(app, json))
