"""The command line. Commands import what they need themselves, so that a coordinator starts quickly and stays small."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from antiphon.contracts.errors import AntiphonError

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"

app = typer.Typer(
    name="antiphon",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Sagas on NATS JetStream.

Try it: **antiphon up** starts a whole platform on this machine, and in another terminal
**antiphon list** and **antiphon show order-0001** look at its sagas. **antiphon demo** shows sagas survive kills.

Who connects comes from the environment only: NATS_USER, and NATS_PASSWORD, NATS_CREDS or NATS_NKEY (files).
Processes log JSON to stderr, and lines for people where that is a terminal; ANTIPHON_LOG=json or text decides.
""",
)

Server = Annotated[
    str, typer.Option("--server", "-s", envvar="NATS_URL", metavar="URL[,URL…]", help="NATS servers to connect to.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Apps = Annotated[
    list[str], typer.Option("--app", metavar="MODULE:SAGA", help="A saga's definition; give it once for each.")
]
Name = Annotated[str, typer.Option("--name", help="The name of the connection, as the server's monitoring shows it.")]
SagaId = Annotated[str, typer.Argument(metavar="ID", help="A saga's id, or type/id where several types share it.")]


def main() -> None:
    """Run the command line; what Antiphon noticed is a sentence on stderr and exit code 1, not a traceback."""
    try:
        app()
    except AntiphonError as error:
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    """End with a sentence on stderr."""
    sys.stderr.write(f"antiphon: {sentence}\n")
    raise SystemExit(1)


# --- processes that stay ----------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon coordinator --app shop.sagas:order --app shop.sagas:returns")
def coordinator(app: Apps, server: Server = DEFAULT_SERVER, name: Name = "coordinator") -> None:
    """Run a coordinator until SIGTERM. Run two or more: they share the work, and survive each other."""
    from antiphon.coordinator.saga import Saga
    from antiphon.coordinator.serve import serve

    from .modules import load

    sagas: list[Saga[Any]] = [load(path, Saga) for path in app]
    _run_service(serve(server, sagas, name=name))


@app.command(epilog="Example: antiphon participant shop.stock:inventory --database sqlite:///inventory.db")
def participant(
    path: Annotated[str, typer.Argument(metavar="MODULE:PARTICIPANT", help="The participant to run.")],
    database: Annotated[
        str,
        typer.Option(
            envvar="DATABASE_URL",
            metavar="URL",
            help="Its own database: sqlite:///file.db, postgresql://user@host/name, or memory: (which forgets).",
        ),
    ],
    server: Server = DEFAULT_SERVER,
    concurrency: Annotated[int, typer.Option(min=1, help="How many commands it performs at once.")] = 16,
    name: Name = "",
) -> None:
    """Run a participant until SIGTERM, which drains it. Any number may run over the same database."""
    from antiphon.participants import Participant, serve

    from .modules import load

    found = load(path, Participant)
    _run_service(serve(found, server, database, concurrency=concurrency, name=name or found.name))


@app.command(epilog="Example: antiphon up --app shop.sagas:order --participant shop.stock:inventory")
def up(
    app: Annotated[
        list[str], typer.Option("--app", metavar="MODULE:SAGA", help="Sagas; the order example's by default.")
    ] = [],  # noqa: B006
    participant: Annotated[
        list[str],
        typer.Option(
            "--participant", metavar="MODULE:PARTICIPANT", help="Participants; the order example's by default."
        ),
    ] = [],  # noqa: B006
    coordinators: Annotated[int, typer.Option(min=1, help="How many coordinators.")] = 2,
    folder: Annotated[
        Path, typer.Option(help="Streams, databases and logs; it survives, and the next `up` goes on from there.")
    ] = Path(".antiphon/up"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the server listens; 0 for a free port.")] = 4222,
) -> None:
    """Run the local platform: a server, coordinators and participants as processes. Ctrl-C drains them all."""
    import asyncio

    from .up import run_platform

    asyncio.run(run_platform(app, participant, coordinators, folder, port))


@app.command()
def demo(
    orders: Annotated[int, typer.Option(min=1, max=300, help="How many orders of the file to run.")] = 300,
    folder: Annotated[
        Path | None, typer.Option(help="Streams, databases and logs; a new folder below .antiphon/ by default.")
    ] = None,
) -> None:
    """Run a file of orders through a local platform, kill two of its processes on the way, and audit the books."""
    import asyncio

    from .demo import run_demo

    raise SystemExit(asyncio.run(run_demo(orders, folder)))


# --- the administrator ------------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon setup --participant inventory --participant billing --replicas 3")
def setup(
    participant: Annotated[
        list[str], typer.Option("--participant", metavar="NAME", help="A participant's name; give it once for each.")
    ] = [],  # noqa: B006
    server: Server = DEFAULT_SERVER,
    replicas: Annotated[int, typer.Option(min=1, max=5, help="Copies of each stream; 3 on a cluster of three.")] = 1,
    json: Json = False,
) -> None:
    """Create or update streams and consumers, once, as administrator. Needed again when a participant comes."""
    import asyncio

    from .administration import set_up_platform

    asyncio.run(set_up_platform(server, participant, replicas, json))


@app.command(
    epilog="Example: antiphon rights --participant inventory --participant billing --secrets secrets > accounts.conf"
)
def rights(
    participant: Annotated[
        list[str], typer.Option("--participant", metavar="NAME", help="A participant's name; give it once for each.")
    ],
    client: Annotated[
        list[str] | None,
        typer.Option("--client", metavar="NAME", help="A program that starts sagas; `client` by default."),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option("--operator", metavar="NAME", help="A person who deals with sagas; `operator` by default."),
    ] = None,
    nkey: Annotated[
        list[str], typer.Option("--nkey", metavar="USER=KEY", help="A user's public nkey, instead of a password.")
    ] = [],  # noqa: B006
    secrets: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Make passwords and write them there, one file for each user.")
    ] = None,
) -> None:
    """Print the accounts for nats.conf: everybody may do what their role needs. The text itself holds no secrets."""
    from .administration import print_rights

    print_rights(participant, client or ["client"], operator or ["operator"], nkey, secrets)


# --- sagas ------------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon start shop.sagas:order --id order-42 --payload @order.json --wait")
def start(
    saga: Annotated[str, typer.Argument(metavar="MODULE:SAGA", help="The saga's definition.")],
    id: Annotated[str, typer.Option(help="Names the saga. The same id again means the same saga.")],
    payload: Annotated[str, typer.Option(metavar="JSON|@FILE", help="The event it begins with; @- reads stdin.")],
    server: Server = DEFAULT_SERVER,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome.")] = False,
    timeout: Annotated[float, typer.Option(min=0.0, help="How many seconds to wait at most.")] = 60.0,
    json: Json = False,
) -> None:
    """Start a saga, once."""
    import asyncio

    from .sagas import start_saga

    asyncio.run(start_saga(server, saga, id, payload, timeout if wait else None, json))


@app.command("list")
def list_(
    server: Server = DEFAULT_SERVER,
    type: Annotated[str, typer.Option(help="Only sagas of this type.")] = "*",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    json: Json = False,
) -> None:
    """List the sagas that were started last, newest first."""
    import asyncio

    from .sagas import list_sagas

    asyncio.run(list_sagas(server, type, limit, json))


@app.command()
def show(id: SagaId, server: Server = DEFAULT_SERVER, json: Json = False) -> None:
    """Show what happened in a saga, as a timeline of its journal."""
    import asyncio

    from .sagas import show_saga

    asyncio.run(show_saga(server, id, json))


@app.command(epilog="Example: antiphon cancel order/order-42 --reason 'customer changed their mind'")
def cancel(
    id: SagaId,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")],
    server: Server = DEFAULT_SERVER,
) -> None:
    """Ask for a saga to be undone. It is compensated, unless it ends first."""
    import asyncio

    from .sagas import cancel_saga

    asyncio.run(cancel_saga(server, id, reason))


def _run_service(service: Coroutine[Any, Any, None]) -> None:
    import os

    import uvloop

    from antiphon.tracing.logs import configure

    wanted = {"text": True, "json": False}
    configure(wanted.get(os.environ.get("ANTIPHON_LOG", "")))
    uvloop.run(service)
