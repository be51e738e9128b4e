"""The commands about the flow (`flow`, `flow who`, `flow check`) and contracts (`contracts export`, `check`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .help import App

Format = Literal["mermaid", "dot", "json", "svg"]

Parts = Annotated[
    list[str],
    typer.Option(
        "--app",
        metavar="PACKAGE|MODULE[:THING]",
        help="A saga, a choreography or a participant, or all that a module, or a package with its modules, has; give "
        "it once for each.",
    ),
]
SomeParts = Annotated[
    list[str],
    typer.Option(
        "--app",
        metavar="PACKAGE|MODULE[:THING]",
        help="A saga, a choreography or a participant in the source, or all that a module, or a package with its "
        "modules, has; once for each.",
    ),
]
Server = Annotated[
    str,
    typer.Option(
        "--server",
        "-s",
        metavar="URL[,URL…]",
        help="Look at what runs there, instead of the source or, with --app, beside it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

flow = App(name="flow", invoke_without_command=True, no_args_is_help=True, rich_markup_mode="markdown")


@flow.callback(epilog="Example: antiphon flow --app shop --format svg --output flow.svg")
def draw(
    context: typer.Context,
    app: SomeParts = [],  # noqa: B006
    server: Server = "",
    format: Annotated[Format, typer.Option(help="What to draw with; an SVG needs no other program.")] = "mermaid",
    saga: Annotated[str, typer.Option(metavar="TYPE", help="Only what belongs to sagas of this type.")] = "",
    output: Annotated[Path | None, typer.Option(help="Where to write it; the terminal by default.")] = None,
) -> None:
    """Draw who says what to whom, who handles it and what follows: before anything runs, or as it runs."""
    if context.invoked_subcommand is None:
        from .flows import draw_flow

        draw_flow(app, server, format, saga, output)


@flow.command(epilog="Example: antiphon flow who inventory.reserve.failed --app shop")
def who(
    message: Annotated[str, typer.Argument(metavar="SUBJECT-OR-NAME", help="A message's name, type or subject.")],
    app: SomeParts = [],  # noqa: B006
    server: Server = "",
    json: Json = False,
) -> None:
    """Say who emits and who handles a message, what follows, and what takes it back."""
    from .flows import tell_who

    tell_who(app, server, message, json)


@flow.command(epilog="Example: antiphon flow check --app shop")
def check(
    app: SomeParts = [],  # noqa: B006
    server: Server = "",
    json: Json = False,
) -> None:
    """Find what nobody handles, emits, ends or takes back, and with both --app and --server where they differ.

    Exit code 1 if there is something.
    """
    from .flows import check_flow

    raise SystemExit(check_flow(app, server, json))


contracts = App(name="contracts", no_args_is_help=True, help="Write down what travels, and see what a change breaks.")


@contracts.command(epilog="Example: antiphon contracts export --app shop --output contracts")
def export(
    app: Parts,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write asyncapi.json and a JSON Schema for each message there. Of other files in it only the schemas "
            "are deleted that an earlier export wrote, as its asyncapi.json says, for messages that are gone.",
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="What the platform is called.")] = "Sagas",
    version: Annotated[str, typer.Option(help="The document's own version.")] = "1",
) -> None:
    """Print the platform's messages as an AsyncAPI 3.0 document, or write it to a folder."""
    from .contracts import export_contracts

    export_contracts(app, output, title, version)


@contracts.command("check", epilog="Example: antiphon contracts check --against contracts --app shop")
def check_contracts(
    app: Parts,
    against: Annotated[
        Path,
        typer.Option(metavar="OLD", help="What `contracts export` wrote before: the folder, or its asyncapi.json."),
    ],
    json: Json = False,
) -> None:
    """Name each incompatible change since an export, and whom it breaks. Exit code 1 if there is one."""
    from .contracts import check_contracts

    raise SystemExit(check_contracts(app, against, json))
