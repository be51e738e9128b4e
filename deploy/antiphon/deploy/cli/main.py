"""The command line. Commands import what they need themselves, so that a coordinator starts quickly and stays small."""

from __future__ import annotations

import enum
import errno
import io
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import typer
import typer.core

from antiphon.contracts.bounds import NUMBER_MAX
from antiphon.contracts.errors import AntiphonError, PlatformError, Undecided
from antiphon.contracts.pairs import PAIRS_MAX
from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import PARTICIPANT_ACK_WAIT_SECONDS

from .. import exit_codes
from ..local.styles import Style
from ..modules import WrongValue
from ..services.declared import SERVICES
from .flow_commands import contracts, flow
from .help import App, InPanels
from .service_commands import add_service
from .values import value_of

if TYPE_CHECKING:
    from antiphon.contracts.identity import SagaKey
    from antiphon.contracts.payloads import Request
    from antiphon.coordinator.client.operator import MessageVerbs, PauseVerbs, SagaVerbs
    from antiphon.link import Link

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"
TIMEOUT_SECONDS: Final = 15.0
SLOW_SECONDS: Final = 10.0
SECONDS_MAX: Final = 1e9
"""Thirty years."""

app = App(
    name="antiphon",
    cls=InPanels,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Sagas on NATS JetStream.

Begin: **antiphon new shop** writes a project of your own, which runs at once.
**antiphon up** starts a whole platform on this machine, and in another terminal
**antiphon list** and **antiphon show order-0001** look at its sagas. **antiphon demo** shows sagas survive kills.

Who connects comes from the environment only: NATS_USER, and NATS_PASSWORD, NATS_CREDS or NATS_NKEY (files).
Processes log JSON to stderr, and lines for people where that is a terminal; ANTIPHON_LOG=json or text decides.
ANTIPHON_LOG_LEVEL=debug, info, warning or error says how much; info by default.
""",
)

app.add_typer(flow)
app.add_typer(contracts)

Server = Annotated[
    str, typer.Option("--server", "-s", envvar="NATS_URL", metavar="URL[,URL…]", help="NATS servers to connect to.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str, typer.Option("--name", help="The name of the connection, as the server's monitoring shows it.")]
As = Annotated[
    str,
    typer.Option("--as", metavar="NAME", help="Who asks; by default NATS_USER, or the name you are logged in with."),
]
Decided = Annotated[float, typer.Option("--timeout", min=0.1, help="How many seconds to wait for the decision.")]
IntoJaeger = Annotated[
    str,
    typer.Option(
        "--jaeger",
        envvar="ANTIPHON_JAEGER_URL",
        metavar="URL",
        help="The page of a Jaeger that runs already: every trace is exported to it (OTLP, port 4318 of its host).",
    ),
]
OfType = Annotated[str, typer.Option("--type", metavar="TYPE", help="All sagas of this type.")]
OfParticipant = Annotated[str, typer.Option("--participant", metavar="NAME", help="A participant.")]
ParkedNumber = Annotated[
    int, typer.Argument(min=1, metavar="NUMBER", help="Where PARKED holds the message, as `antiphon parked` lists it.")
]
FromArchive = Annotated[
    Path | None,
    typer.Option("--archive", metavar="FOLDER", help="Read it from this archive instead of from the server."),
]
MaybeSagaId = Annotated[str, typer.Argument(metavar="[ID]", help="A saga's id, or type/id.")]
SagaId = Annotated[str, typer.Argument(metavar="ID", help="A saga's id, or type/id where several types share it.")]


def _seconds(value: float) -> float:
    """Reject infinity, NaN and out-of-range seconds."""
    if not 0 <= value <= SECONDS_MAX:
        raise typer.BadParameter(f"give a number of seconds from 0 to {SECONDS_MAX:.0f}.")
    return value


Slow = Annotated[
    float,
    typer.Option(
        "--slow", metavar="SECONDS", callback=_seconds, help="Export sagas that take at least so long, sampled or not."
    ),
]


Incompatible = Annotated[
    bool,
    typer.Option(
        "--incompatible-contracts",
        help="Run although sagas in flight began with messages that do not fit; park what cannot be read.",
    ),
]


LocalStreams = Annotated[
    int,
    typer.Option(
        "--streams",
        min=0,
        max=PAIRS_MAX,
        metavar="NUMBER",
        help="Over how many pairs of streams sagas are spread; as many as the folder has, and at first one.",
    ),
]


class ShowByDefault(typer.core.TyperGroup):
    """Commands of which `show` need not be named: `antiphon trace order-42`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name it where the first word is no command."""
        if args and args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = ["show", *args]
        return super().parse_args(ctx, args)


class FaultKind(enum.Enum):
    """Kinds of faults of `antiphon chaos`."""

    KILL = "kill"
    STOP = "stop"
    RESTART = "restart"
    PARTITION = "partition"
    SLOW = "slow"
    FAIL = "fail"
    RAISE = "raise"
    HANG = "hang"
    POINT = "point"
    POISON = "poison"
    LOCK = "lock"
    FILL = "fill"
    OUTAGE = "outage"


class Format(enum.Enum):
    """How a trace is told."""

    PICTURE = "picture"
    JAEGER = "jaeger"
    OTLP = "otlp"


def main() -> None:
    """Run the command line; what Antiphon noticed is a sentence on stderr and exit code 1, not a traceback. A value
    that an option cannot have is exit code 2; what an operator asked for and nobody has decided yet is exit code 3;
    that a process cannot run before its author has mended something is exit code 4."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without an umlaut shall show the rest
    try:
        _run()
    except Exception as error:  # a fault of ours, whose text may quote what somebody else wrote
        from ..render.plain import warn_fault

        warn_fault(error)
        raise SystemExit(1) from None


def _run() -> None:
    from antiphon.tracing.telemetry.logs import configure, level_of

    try:
        configure(_is_readable(os.environ.get("ANTIPHON_LOG", "")), level_of(os.environ))
        _tell_unknown_variables()
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a full disk can still be told
    except WrongValue as error:
        fail(str(error), exit_codes.USAGE)
    except Undecided as error:
        fail(str(error), exit_codes.UNDECIDED)
    except AntiphonError as error:
        fail(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter tries once more, and would complain
        fail(f"the output could not be written: {error.strerror}.")


def _tell_unknown_variables() -> None:
    """Name the variables that nothing reads. `antiphon settings` does so itself, as mistakes."""
    if sys.argv[1:2] == ["settings"]:
        return
    from ..render.plain import warn
    from ..services.variables import unknown_variables

    for sentence in unknown_variables(os.environ).values():
        warn(f"antiphon: note: {sentence}")


def _is_readable(form: str) -> bool | None:
    """Whether lines of the log are for people, as ANTIPHON_LOG says; None where it says nothing.

    Raises:
        PlatformError: there is no such form.
    """
    forms = {"": None, "text": True, "json": False}
    if form not in forms:
        raise PlatformError(f"ANTIPHON_LOG is {form!r}; give text or json.")
    return forms[form]


def _databases(texts: list[str]) -> dict[str, str]:
    """The URLs of databases by participant, of `NAME=URL`."""
    found: dict[str, str] = {}
    for each in texts:
        name, equals, url = each.partition("=")
        if not (name and equals and url) or "://" in name:
            raise typer.BadParameter("--database: give a participant's name and a URL: billing=sqlite:///b.db.")
        found[name] = url
    return found


def fail(sentence: str, code: int = 1) -> NoReturn:
    """End with a sentence on stderr."""
    from ..render.plain import warn

    warn(f"antiphon: {sentence}")
    raise SystemExit(code)


# --- the first project ------------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon new shop && cd shop && make run")
def new(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A new folder, or an empty one. The project is called as it is.")
    ],
) -> None:
    """Write a project to begin with: messages, a saga, two participants, and tests. It runs and passes at once."""
    from .new_project import new_project

    new_project(folder)


# --- processes that stay ----------------------------------------------------------------------------------------------

for service in SERVICES.values():
    add_service(app, service)


@app.command(epilog="Example: antiphon settings participant")
def settings(
    process: Annotated[
        list[str] | None, typer.Argument(metavar="[PROCESS]…", help="coordinator, participant, exporter, …; or all.")
    ] = None,
    file: Annotated[
        str, typer.Option("--settings", metavar="FILE", help="A TOML file with settings; or ANTIPHON_SETTINGS.")
    ] = "",
    json: Json = False,
) -> None:
    """Show the settings of processes: what holds here, where it comes from, and how it can be given.

    Secrets are not shown.
    """
    from .settings import list_settings

    list_settings(process or [], file, json=json)


@app.command(epilog="Example: antiphon doctor --server nats://nats-1,nats://nats-2 --monitor http://nats-1:8222")
def doctor(
    server: Server = DEFAULT_SERVER,
    monitor: Annotated[
        list[str],
        typer.Option(
            "--monitor",
            metavar="URL",
            help="Where a server shows its monitoring pages (http: in its configuration); once for each server.",
        ),
    ] = [],  # noqa: B006
    rights: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Try the rights of each user whose credentials are in this folder, which antiphon rights wrote. "
            "Nothing is stored.",
        ),
    ] = None,
    client: Annotated[
        list[str],
        typer.Option(metavar="NAME=TYPE[:VERB,…]", help="What a client in that folder may do, as for antiphon rights."),
    ] = [],  # noqa: B006
    operator: Annotated[list[str], typer.Option(metavar="NAME", help="An operator in that folder.")] = [],  # noqa: B006
    participant: Annotated[
        list[str],
        typer.Option(metavar="NAME=TYPE[,TYPE…]", help="The types of sagas that a participant's program starts."),
    ] = [],  # noqa: B006
    database: Annotated[
        list[str], typer.Option(metavar="NAME=URL", help="Look at a participant's database, too; once for each.")
    ] = [],  # noqa: B006
    readmodel: Annotated[str, typer.Option(metavar="URL", help="Look at the read model's database, too.")] = "",
    json: Json = False,
) -> None:
    """Check a deployment, with an administrator's rights: the servers, encryption and passwords, streams and their
    copies, room, clocks, who works and keeps up, and what waits for a person; and where they are named, the rights of
    each role and the databases. Each finding comes with what mends it.

    It changes nothing. Exit code 1 where there is a fault, or this user may not look at everything; 2 where something
    is named that is not there.
    """
    import asyncio

    from .administration import granted, started
    from .doctor import Asked, diagnose

    with value_of("--client"):
        clients = granted(client)
    with value_of("--participant"):
        starts = started(participant)
    asked = Asked(
        monitors=tuple(monitor),
        rights_folder=str(rights or ""),
        clients=clients,
        operators=tuple(operator),
        starts=starts,
        databases=_databases(database),
        readmodel=readmodel,
    )
    if not asyncio.run(diagnose(server, asked, json)):
        raise typer.Exit(1)


@app.command(epilog="Example: antiphon up --app shop -- pytest tests/integration")
def up(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND]",
            help="Run this once all processes serve, with NATS_URL set to the server, and end with its exit code. The "
            "processes' lines are then in their logs; the terminal has why sagas stand still.",
            show_default=False,
        ),
    ] = None,
    app: Annotated[
        list[str],
        typer.Option(
            "--app",
            metavar="PACKAGE|MODULE[:SAGA]",
            help="A saga, or all sagas and participants that a module, or a package with its modules, has; the order "
            "example's by default.",
        ),
    ] = [],  # noqa: B006
    participant: Annotated[
        list[str],
        typer.Option(
            "--participant", metavar="MODULE:PARTICIPANT", help="Participants; the order example's by default."
        ),
    ] = [],  # noqa: B006
    database: Annotated[
        list[str],
        typer.Option(
            "--database",
            metavar="NAME=URL",
            help="The database of a participant, by its name; SQLite in the folder by default. Give it once for each.",
        ),
    ] = [],  # noqa: B006
    coordinators: Annotated[int, typer.Option(min=1, help="How many coordinators.")] = 2,
    folder: Annotated[
        Path, typer.Option(help="Streams, databases and logs; it survives, and the next `up` goes on from there.")
    ] = Path(".antiphon/up"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the server listens; 0 for a free port.")] = 4222,
    jaeger: IntoJaeger = "",
    http: Annotated[
        str,
        typer.Option(
            "--http",
            envvar="ANTIPHON_HTTP",
            metavar="HOST:PORT",
            help="Where the first process answers /livez, /readyz, /version and /metrics; the others get the free "
            "ports after it.",
        ),
    ] = "",
    incompatible_contracts: Incompatible = False,
    streams: LocalStreams = 0,
) -> None:
    """Run the local platform: a server, coordinators and participants as processes. Ctrl-C drains them all.

    With `-- COMMAND` it runs that on the platform, and ends.
    """
    import asyncio

    from ..local.up import run_platform

    coming = run_platform(
        app,
        participant,
        coordinators,
        folder,
        port,
        jaeger,
        http,
        databases=database,
        incompatible_contracts=incompatible_contracts,
        command=command or [],
        pairs=streams,
    )
    raise SystemExit(asyncio.run(coming))


@app.command(epilog="Example: antiphon wait --app shop --timeout 120 && antiphon start shop.saga:order …")
def wait(
    app: Annotated[
        list[str],
        typer.Option(
            "--app",
            metavar="PACKAGE|MODULE[:THING]",
            help="Wait for these sagas, the participants that they need, and these participants.",
        ),
    ] = [],  # noqa: B006
    type: Annotated[
        list[str], typer.Option("--type", metavar="TYPE", help="Wait for a coordinator of sagas of this type.")
    ] = [],  # noqa: B006
    participant: Annotated[
        list[str], typer.Option("--participant", metavar="NAME", help="Wait for this participant.")
    ] = [],  # noqa: B006
    server: Server = DEFAULT_SERVER,
    timeout: Annotated[
        float,
        typer.Option(min=0.0, help="How many seconds to wait; 0 looks once. Exit code 1 if it is not ready then."),
    ] = 60.0,
    json: Json = False,
) -> None:
    """Wait until a platform can run sagas: the server, the streams, coordinators and participants; say what is missing.

    Without --app, --type and --participant it waits for a coordinator, and for the participants that its sagas need.
    Processes say themselves that they are there; one that was killed is still counted for up to 90 seconds.
    """
    import asyncio

    from .readiness import wait_until_ready

    if not asyncio.run(wait_until_ready(server, app, type, participant, timeout, json)):
        raise typer.Exit(1)


@app.command()
def demo(
    orders: Annotated[int, typer.Option(min=1, max=300, help="How many orders of the file to run.")] = 300,
    folder: Annotated[
        Path | None, typer.Option(help="Streams, databases and logs; a new folder below .antiphon/ by default.")
    ] = None,
    style: Annotated[Style, typer.Option(help="Who decides what comes next.")] = Style.ORCHESTRATED,
    jaeger: IntoJaeger = "",
    jwt: Annotated[
        bool, typer.Option("--jwt", help="With accounts and users as in NATS' operator mode, instead of passwords.")
    ] = False,
    streams: LocalStreams = 0,
) -> None:
    """Run a file of orders through a local platform, kill two of its processes on the way, and audit the books."""
    import asyncio

    from ..local.demo import run_demo

    raise SystemExit(asyncio.run(run_demo(orders, folder, style, jaeger, jwt, streams)))


@app.command(epilog="Example: antiphon chaos --app shop --payload orders.jsonl --minutes 5")
def chaos(
    app: Annotated[
        list[str],
        typer.Option(
            "--app",
            metavar="PACKAGE|MODULE[:SAGA]",
            help="A saga, or all sagas and participants that a module, or a package with its modules, has; the order "
            "system by default.",
        ),
    ] = [],  # noqa: B006
    participant: Annotated[
        list[str], typer.Option("--participant", metavar="MODULE:PARTICIPANT", help="More participants.")
    ] = [],  # noqa: B006
    payload: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What your sagas begin with: a JSON object in each line. They are used in turn; ids are made up.",
        ),
    ] = None,
    load: Annotated[
        str,
        typer.Option(
            metavar="MODULE:CLASS",
            help="In the place of --payload: a subclass of antiphon.deploy.chaos.Load, which is made of the seed and "
            "says what is started, what its client does meanwhile, and which books are checked.",
        ),
    ] = "",
    saga: Annotated[str, typer.Option(metavar="TYPE", help="Which sagas to run, where there are several types.")] = "",
    style: Annotated[Style, typer.Option(help="Of the order system: who decides what comes next.")] = (
        Style.ORCHESTRATED
    ),
    minutes: Annotated[
        float, typer.Option(min=0.0, help="How long it goes on; a minute by default, and as long as the faults need.")
    ] = 0.0,
    faults: Annotated[int, typer.Option(min=0, help="How many faults; as many as fit by default.")] = 0,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long after a fault the next one comes, about.")
    ] = 3.0,
    only: Annotated[
        list[FaultKind],
        typer.Option(help="Only faults of this kind; all by default. Give it once for each."),
    ] = [],  # noqa: B006
    without: Annotated[
        list[FaultKind],
        typer.Option(
            help="No faults of this kind. One that is not possible here and was not left out fails the run. Give it "
            "once for each."
        ),
    ] = [],  # noqa: B006
    seed: Annotated[
        int, typer.Option(min=0, help="What all choices are made from; the same schedule again. Drawn by default.")
    ] = 0,
    schedule: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Carry out the faults of this file, TOML or .json: of an earlier run, which leaves faults.toml in its "
            "folder, or written by hand (deploy/docs/chaos.md).",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print the schedule, as it stands in a file.")] = False,
    servers: Annotated[
        int, typer.Option(min=1, max=3, help="How many nats-servers: 3, with streams of three replicas, or 1.")
    ] = 3,
    streams: Annotated[
        int,
        typer.Option(min=1, max=PAIRS_MAX, metavar="NUMBER", help="Over how many pairs of streams sagas are spread."),
    ] = 1,
    coordinators: Annotated[int, typer.Option(min=1, help="How many coordinators.")] = 2,
    workers: Annotated[int, typer.Option(min=1, help="How many processes each participant has.")] = 2,
    database: Annotated[
        list[str],
        typer.Option(
            "--database",
            metavar="NAME=URL",
            help="The database of a participant, by its name, or NAME=postgres for one of a PostgreSQL that is started "
            "for this; SQLite by default.",
        ),
    ] = [],  # noqa: B006
    ledger: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=QUERY",
            help="Books of a participant to be checked, as `chaos.ledger` takes them: a query for saga, step, do or "
            "undo, and what was done. The order system has its own.",
        ),
    ] = [],  # noqa: B006
    handler_seconds: Annotated[
        float,
        typer.Option(
            min=1.0, metavar="SECONDS", help="How long a handler may run; one that hangs for ever is cancelled then."
        ),
    ] = 10.0,
    exporter: Annotated[
        bool | None,
        typer.Option(
            help="An exporter, which is harmed too, and its backend, which is held against the journals; by default "
            "where the extra otlp is installed."
        ),
    ] = None,
    readmodel: Annotated[
        bool | None,
        typer.Option(
            help="A read model, whose process is harmed too, and which is held against the journals; by default "
            "where the extra sqlite is installed."
        ),
    ] = None,
    small_disks: Annotated[
        bool | None,
        typer.Option(
            help="A small disk for each SQLite database of a participant, so that it can be full (--only fill); by "
            "default where this user may mount one."
        ),
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, help="How many sagas are under way at a time.")] = 10,
    within: Annotated[
        float,
        typer.Option(
            min=1.0, metavar="SECONDS", help="Within what time after the last fault all sagas must have ended."
        ),
    ] = 60.0,
    folder: Annotated[
        Path | None, typer.Option(help="Streams, databases and logs; a new folder below .antiphon/ by default.")
    ] = None,
    running: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Harm a platform that runs already, in the place of one of its own: the processes of the `antiphon "
            "up` with this folder are killed, stopped and restarted, and the sagas that are started here are judged.",
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write what it came to into this file as well, as Markdown, so that it can be kept."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run sagas through a platform of its own, kill and stop its processes and servers, cut and slow its network, and
    check that nothing is lost, doubled or left over. With --running that is done to one that runs already.

    The last line is `chaos: S sagas, F faults, V violations`. Exit code 0 only where nothing is violated, and every
    fault that was asked for came about.
    """
    from .storms import Asked, run_storm

    if servers == 2:
        raise typer.BadParameter("a cluster has 3 servers; give 1 or 3.", param_hint="--servers")
    if running is not None and (app or participant or database):
        raise typer.BadParameter(
            "the platform that runs says itself what it consists of: leave out --app, --participant and --database.",
            param_hint="--running",
        )
    asked = Asked(
        app=app,
        participant=participant,
        payload=payload,
        load=load,
        saga=saga,
        style=style,
        ledger=ledger,
        database=database,
        servers=1 if servers == 1 else 3,
        streams=streams,
        coordinators=coordinators,
        workers=workers,
        handler_seconds=handler_seconds,
        exporter=exporter,
        readmodel=readmodel,
        small_disks=small_disks,
        minutes=minutes,
        faults=faults,
        every=every,
        only=[each.value for each in only],
        without=[each.value for each in without],
        seed=seed,
        schedule=schedule,
        at_once=at_once,
        within=within,
        folder=folder,
        running=running,
        plan=plan,
        summary=summary,
        json=json,
    )
    raise SystemExit(run_storm(asked))


# --- the administrator ------------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon setup --participant inventory --app shop.billing:billing --replicas 3")
def setup(
    participant: Annotated[
        list[str], typer.Option("--participant", metavar="NAME", help="A participant's name; give it once for each.")
    ] = [],  # noqa: B006
    app: Annotated[
        list[str],
        typer.Option(
            "--app",
            metavar="PACKAGE|MODULE[:PARTICIPANT]",
            help="Where participants are declared; for those that react to events, so that it is known to which.",
        ),
    ] = [],  # noqa: B006
    forget_reactions: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Delete the consumer of a participant that reacts to nothing any more."),
    ] = [],  # noqa: B006
    forget_readmodel: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Have old sagas kept no more for a read model that is gone for good; antiphon doctor names all.",
        ),
    ] = [],  # noqa: B006
    forget_bound: Annotated[
        list[str],
        typer.Option(
            metavar="CLIENT=TYPE",
            help="Take away what --bound made for a client, its streams included, such as of a name that was mistyped. "
            "What sagas are open, or signals wait, is said, and then it is refused.",
        ),
    ] = [],  # noqa: B006
    forget_former_coordinators: Annotated[
        bool, typer.Option("--forget-former-coordinators", help="Delete the consumers that only earlier releases use.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    replicas: Annotated[
        int,
        typer.Option(
            min=0,
            max=5,
            help="Copies of each stream; 3 on a cluster of three. By default (0) as many as before, and at first one.",
        ),
    ] = 0,
    ack_wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=PARTICIPANT_ACK_WAIT_SECONDS,
            help="How long a command waits after its worker died; 30 while workers of an earlier release run.",
        ),
    ] = PARTICIPANT_ACK_WAIT_SECONDS,
    events_max_bytes: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="How much stream EVENTS may take of the server's disk, such as 20GB, so that SAGA always has room. By "
            "default what was set before, and at first half of what the server can set aside.",
        ),
    ] = "",
    parked_max_bytes: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="The same for stream PARKED; at first a gigabyte, or half of what the server can set aside.",
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be created, changed and deleted, and change nothing. Exit code 0: there is nothing to "
            "change; 5: there is; 1: it would be refused.",
        ),
    ] = False,
    allow: Annotated[
        list[Loss],
        typer.Option(
            help="What may become less safe than it is; give it once for each. Without it such a change is refused, "
            "and nothing is changed.",
        ),
    ] = [],  # noqa: B006
    streams: Annotated[
        int,
        typer.Option(
            min=0,
            max=PAIRS_MAX,
            metavar="NUMBER",
            help="Over how many pairs of streams sagas are spread, so that each server of a cluster leads some. It "
            "stays as it was set first; by default (0) as many as there are, and at first one. deploy/docs/scaling.md "
            "says when that helps.",
        ),
    ] = 0,
    bound: Annotated[
        list[str],
        typer.Option(
            "--bound",
            metavar="CLIENT=TYPE:NUMBER",
            help="How many sagas of a type one client may have open; its further starts are refused. Its account needs "
            "antiphon rights --bound, too. A bound that was set stays.",
        ),
    ] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Create or update streams and consumers, once, as administrator. Needed again when a participant comes, and where
    somebody has changed a stream or consumer. It says first what it creates, changes and deletes, and leaves alone what
    is as it must be; then what it did, and what the server lets nobody change. It deletes no message, and makes nothing
    less safe unless --allow names that.
    """
    import asyncio

    from antiphon.contracts.topology import check_participant
    from antiphon.link.preview import Desired

    from .administration import bounds_of, bytes_in, forgotten_bounds
    from .setting_up import asked_for, listeners_of, look_first, once, set_up_platform

    with value_of("--events-max-bytes"):
        events_bytes = bytes_in(events_max_bytes) if events_max_bytes else 0
    with value_of("--parked-max-bytes"):
        parked_bytes = bytes_in(parked_max_bytes) if parked_max_bytes else 0
    with value_of("--bound"):
        client_bounds = bounds_of(bound)
    with value_of("--participant"):
        for name in participant:
            check_participant(name)
    desired = Desired(
        listeners=listeners_of(app, participant),
        replicas=replicas,
        ack_wait_seconds=ack_wait,
        events_bytes=events_bytes,
        parked_bytes=parked_bytes,
        forget_reactions=once(forget_reactions),
        forget_former=forget_former_coordinators,
        client_bounds=client_bounds,
        forget_bounds=once(forgotten_bounds(forget_bound, client_bounds)),
        pairs=streams,
    )
    asked = asked_for(app, desired, allow, json, forget_readmodel)
    if dry_run:
        raise typer.Exit(asyncio.run(look_first(server, asked)))
    asyncio.run(set_up_platform(server, asked))


@app.command(
    epilog="Example: antiphon rights --participant inventory --participant billing=refund --client shop=order "
    "--client fraud=order:signal.fraud-cleared --operator ada --secrets secrets > accounts.conf"
)
def rights(
    participant: Annotated[
        list[str],
        typer.Option(
            "--participant",
            metavar="NAME[=TYPE,…]",
            help="A participant's name, and the types of the sagas that its program starts; give it once for each.",
        ),
    ] = [],  # noqa: B006
    app: Annotated[
        list[str],
        typer.Option(
            "--app",
            metavar="PACKAGE|MODULE[:PARTICIPANT]",
            help="Where participants are declared, with the sagas that they start.",
        ),
    ] = [],  # noqa: B006
    client: Annotated[
        list[str],
        typer.Option(
            "--client",
            metavar="NAME=TYPE[:VERB,…]",
            help="A program, and what it may do with the sagas of a type; give it once for each type. Verbs are start, "
            "cancel, read (how sagas stand, and how they end) and signal.NAME; the first three where none is given.",
        ),
    ] = [],  # noqa: B006
    bound: Annotated[
        list[str],
        typer.Option(
            "--bound",
            metavar="CLIENT=TYPE[:NUMBER]",
            help="A client that may have only so many sagas of a type open as antiphon setup --bound says: what it "
            "stores about them goes to streams of its own. The number is for antiphon setup alone.",
        ),
    ] = [],  # noqa: B006
    former_client: Annotated[
        list[str],
        typer.Option(
            "--former-client",
            metavar="NAME",
            help="A program that still runs the client of an earlier release: it may start, cancel and signal every "
            "saga, and read what everybody starts.",
        ),
    ] = [],  # noqa: B006
    operator: Annotated[
        list[str] | None,
        typer.Option("--operator", metavar="NAME", help="A person who deals with sagas; `operator` by default."),
    ] = None,
    nkey: Annotated[
        list[str], typer.Option("--nkey", metavar="USER=KEY", help="A user's public nkey, instead of a password.")
    ] = [],  # noqa: B006
    streams: Annotated[
        int,
        typer.Option(
            min=1,
            max=PAIRS_MAX,
            metavar="NUMBER",
            envvar="ANTIPHON_STREAMS",
            help="Over how many pairs of streams sagas are spread, as antiphon setup --streams was given it.",
        ),
    ] = 1,
    secrets: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Make passwords and write them there, one file for each user.")
    ] = None,
    jwt: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The same rights in NATS' operator mode, signed: keys, JWTs and a creds file for each user are there. "
            "Keys that are there already are used again. It needs the extra nkeys.",
        ),
    ] = None,
) -> None:
    """Print the accounts for nats.conf: everybody may do what their role needs. The text itself holds no secrets.

    Every participant and every client has an account to itself. A client may do what is named, with the sagas that are
    named, and nobody but operators reads what others have stored. Without --client nobody starts sagas but operators,
    and participants that say so.
    """
    from .administration import print_rights

    print_rights(app, participant, client, former_client, operator or ["operator"], nkey, secrets, jwt, bound, streams)


# --- definitions ------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon diff shop.saga_v1:order shop.saga:order")
def diff(
    before: Annotated[str, typer.Argument(metavar="MODULE:SAGA", help="The older definition.")],
    after: Annotated[str, typer.Argument(metavar="MODULE:SAGA", help="The newer one.")],
    json: Json = False,
) -> None:
    """Compare two definitions, and say what it means for sagas in flight. Exit code 0 if they are the same, else 1."""
    from .definition_diff import print_difference

    if print_difference(before, after, json):
        raise typer.Exit(1)


# --- sagas ------------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon start shop.saga:order --id order-42 --payload @order.json --wait")
def start(
    saga: Annotated[str, typer.Argument(metavar="MODULE:SAGA", help="The saga's definition.")],
    id: Annotated[str, typer.Option(help="Names the saga. The same id again means the same saga.")],
    payload: Annotated[str, typer.Option(metavar="JSON|@FILE", help="The event it begins with; @- reads stdin.")],
    server: Server = DEFAULT_SERVER,
    version: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=NUMBER_MAX,
            metavar="NUMBER",
            help="The version of the definition that it must run with. By default it begins with the newest that a "
            "coordinator has.",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for the outcome; exit code 0 also where it was compensated, as --json says."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="How many seconds to try to start it, and to wait for the outcome, at most.")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Start a saga, once. Where it was started before, with the same payload, it says how that one stands."""
    import asyncio

    from .sagas import start_saga

    asyncio.run(start_saga(server, saga, id, payload, version, wait, timeout, json))


@app.command(
    "list",
    epilog="Example: antiphon list --type order --limit 20. With a read model: antiphon list --database "
    "sqlite:///sagas.db --state running --older-than 10m --key customer_id=c-018 --sort age",
)
def list_(
    server: Server = DEFAULT_SERVER,
    type: Annotated[str, typer.Option(help="Only sagas of this type.")] = "*",
    state: Annotated[
        str, typer.Option(metavar="STATE", help="Only running, compensating, completed or compensated ones.")
    ] = "",
    parked: Annotated[bool, typer.Option("--parked", help="Only sagas that wait for a person.")] = False,
    older_than: Annotated[str, typer.Option(metavar="TIME", help="Only sagas started before: 90s, 10m, 24h, 7d.")] = "",
    key: Annotated[
        list[str], typer.Option("--key", metavar="NAME=VALUE", help="Only sagas with this key; with all, if several.")
    ] = [],  # noqa: B006
    sort: Annotated[
        Literal["age", "started", "changed"],
        typer.Option(help="The oldest first, or those started or changed last first."),
    ] = "started",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    database: Annotated[
        str,
        typer.Option(
            envvar="ANTIPHON_READMODEL",
            metavar="URL",
            help="The read model that `antiphon readmodel` keeps. Without it the streams are scanned, which knows no "
            "filter but the type, and no order.",
        ),
    ] = "",
    archive: FromArchive = None,
    json: Json = False,
) -> None:
    """List sagas, newest first: by the read model in milliseconds, or else from the streams, or from an archive."""
    import asyncio

    from .filters import nanoseconds, pair, require_no_filters, state_of

    with value_of("--state"):
        wanted = state_of(state)
    with value_of("--older-than"):
        older_ns = nanoseconds(older_than) if older_than else 0
    with value_of("--key"):
        keys = [*map(pair, key)]
    by_model = {"state": state, "parked": parked, "older-than": older_than, "key": key, "sort": sort != "started"}
    if archive is not None:
        from .archives import list_archived

        require_no_filters(by_model)
        list_archived(archive, type, limit, json)
        return
    if database:
        from antiphon.participants.engines import require_driver

        require_driver(database)
        from .listing import list_from_model

        asyncio.run(list_from_model(database, type, wanted, parked, older_ns, keys, sort, limit, json))
        return
    from .sagas import list_sagas

    require_no_filters(by_model)
    asyncio.run(list_sagas(server, type, limit, json))


@app.command(epilog="Example: antiphon show order/order-42")
def show(id: SagaId, server: Server = DEFAULT_SERVER, archive: FromArchive = None, json: Json = False) -> None:
    """Show what happened in a saga, as a timeline of its journal."""
    import asyncio

    if archive is not None:
        from .archives import show_archived

        show_archived(archive, id, json)
        return
    from .sagas import show_saga

    asyncio.run(show_saga(server, id, json))


@app.command("archive", epilog="Example: antiphon archive /var/antiphon/archive --type order")
def archive_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files are, or will be.")],
    type: Annotated[str, typer.Option(help="Only sagas of this type.")] = "*",
    server: Server = DEFAULT_SERVER,
    json: Json = False,
) -> None:
    """Write each saga that has ended into a folder, to a file of its own: journal, events and trace. What is there
    stays as it is, so run it as often as you like. `show` and `trace` read the files with --archive."""
    import asyncio

    from .archives import archive_sagas

    asyncio.run(archive_sagas(server, folder, type, json))


@app.command(epilog='Example: antiphon signal order-42 fraud_cleared --app shop.saga:order --payload \'{"by": "Ada"}\'')
def signal(
    id: SagaId,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The message's name with dashes: order-approved for order.approved.")
    ],
    app: Annotated[str, typer.Option("--app", metavar="MODULE:SAGA", help="The saga's definition.")],
    payload: Annotated[str, typer.Option(metavar="JSON|@FILE", help="The event; @- reads stdin.")] = "{}",
    wait_for_start: Annotated[
        bool,
        typer.Option(
            "--wait-for-start", help="Store it also where there is no such saga yet; it counts once that is started."
        ),
    ] = False,
    server: Server = DEFAULT_SERVER,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="How many seconds to try to store it, and to wait until the saga has it.")
    ] = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Send a saga a signal that it waits for, now or later, and say what became of it.

    The first signal counts; the same again changes nothing. It is refused, with exit code 1, where there is no such
    saga, or where nothing can come of it any more. Exit code 3 if it is stored, and no coordinator has taken it in yet.
    """
    import asyncio

    from .sagas import signal_saga

    asyncio.run(signal_saga(server, app, id, name, payload, wait_for_start, timeout, json))


# --- operators --------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: antiphon parked --message 7")
def parked(
    server: Server = DEFAULT_SERVER,
    message: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Show one message with its bytes instead of the list.")
    ] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    page: Annotated[int, typer.Option(min=1, max=1_000_000, help="Which page of so many, the first by default.")] = 1,
    dismissed: Annotated[
        bool, typer.Option("--dismissed", help="What was dismissed or sent again instead, by whom and why.")
    ] = False,
    json: Json = False,
) -> None:
    """List what waits for a person, oldest first: sagas in which something keeps failing, and unusable messages."""
    import asyncio

    from .operating import list_dismissed, list_parked, show_parked

    if message:
        asyncio.run(show_parked(server, message, json))
    elif dismissed:
        asyncio.run(list_dismissed(server, json))
    else:
        asyncio.run(list_parked(server, page, limit, json))


@app.command(epilog="Example: antiphon dismiss 7 --reason 'a forged answer, reported as case 12'")
def dismiss(
    number: ParkedNumber,
    reason: Annotated[str, typer.Option(help="Why nothing is to be done, for whoever looks later.")],
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Have a message that was set aside listed no more. It stays in PARKED, with who dismissed it and why."""
    _ask_of_message(server, user, timeout, json, number, lambda message: message.dismiss(reason))


@app.command(epilog="Example: antiphon resend 7 --reason 'order v3 is deployed now'")
def resend(
    number: ParkedNumber,
    reason: Annotated[str, typer.Option(help="What was mended, for whoever looks later.")],
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Have a coordinator handle a message once more that was set aside. What fails again is set aside again."""
    _ask_of_message(server, user, timeout, json, number, lambda message: message.resend(reason))


@app.command(epilog="Example: antiphon retry order/order-42 --step charge_customer")
def retry(
    id: SagaId,
    step: Annotated[str, typer.Option(help="Only this step; all that wait by default.")] = "",
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Try a failed step again now, instead of after its wait."""
    _operate(server, user, timeout, json, id, lambda saga: saga.retry(step))


@app.command(epilog="Example: antiphon edit order-42 --step refund_customer --payload @refund.json")
def edit(
    id: SagaId,
    step: Annotated[str, typer.Option(help="The step whose command, or compensation, is replaced.")],
    payload: Annotated[str, typer.Option(metavar="JSON|@FILE", help="What to send instead; @- reads stdin.")],
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Send another command in the place of one that fails, checked against its contract."""
    from .payloads import read_payload, require_known_by_journal

    command = read_payload(payload)
    check = partial(require_known_by_journal, step=step, data=command, is_reply=False)
    _operate(server, user, timeout, json, id, lambda saga: saga.edit(step, command), check=check)


@app.command(epilog="Example: antiphon resolve order-42 --step refund_customer --reason 'refunded by hand, slip 7'")
def resolve(
    id: SagaId,
    step: Annotated[str, typer.Option(help="Which step was dealt with by hand.")],
    reason: Annotated[str, typer.Option(help="What was done, for whoever looks later.")],
    payload: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="The reply, where later steps may look at it.")
    ] = None,
    happened: Annotated[
        bool | None,
        typer.Option(
            "--happened/--never-happened",
            help="Of a pivot (the point of no return) or an awaited event: whether it has happened.",
        ),
    ] = None,
    claim: Annotated[
        int,
        typer.Option(
            min=0,
            max=NUMBER_MAX,
            metavar="NUMBER",
            help="Each run of a handler outside=True is a claim with a number, which `antiphon show` and a rejection "
            "name: give that of the last one after which you looked outside.",
        ),
    ] = 0,
    without_participant: Annotated[
        bool, typer.Option("--without-participant", help="Count at once, although an attempt may still run there.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Say what has become of a step that was dealt with by hand. Its participant is asked first, and what it has done
    decides. Exit code 3 if it has not answered yet."""
    from .payloads import read_payload, require_known_by_journal

    if claim and without_participant:
        raise typer.BadParameter("name a claim, which its participant compares, or do not ask it; not both.")
    reply = None if payload is None else read_payload(payload)

    def asks(saga: SagaVerbs) -> Awaitable[Request]:
        return saga.resolve(step, reason, reply, happened, claim=claim, without_participant=without_participant)

    check = None if reply is None else partial(require_known_by_journal, step=step, data=reply, is_reply=True)
    _operate(server, user, timeout, json, id, asks, check=check)


# --- traces -----------------------------------------------------------------------------------------------------------

trace = App(
    cls=ShowByDefault,
    no_args_is_help=True,
    help="Look at the trace of a saga; `show` may be left out.",
    epilog="Example: antiphon trace order/order-42",
)
app.add_typer(trace, name="trace")

WithSends = Annotated[bool, typer.Option("--sends", help="Show the sending of commands, too.")]
Jaeger = Annotated[
    str,
    typer.Option("--jaeger", envvar="ANTIPHON_JAEGER_URL", metavar="URL", help="Where Jaeger is, for a link to it."),
]


@trace.command("show", epilog="Example: antiphon trace order-42 --follow")
def trace_show(
    id: SagaId,
    server: Server = DEFAULT_SERVER,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the saga has ended; one that has not begun is waited for."),
    ] = False,
    format: Annotated[
        Format, typer.Option(help="A picture, or JSON: Jaeger's own, which its page opens, or OTLP.")
    ] = Format.PICTURE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it there.")] = None,
    sends: WithSends = False,
    jaeger: Jaeger = "",
    archive: FromArchive = None,
) -> None:
    """Draw a saga's trace, computed from its journal; no tracing backend is needed."""
    import asyncio

    from .trace import show_archived_trace, show_trace

    if archive is not None:
        show_archived_trace(archive, id, format.value, output, sends, jaeger)
        return
    asyncio.run(show_trace(server, id, format.value, output, sends, jaeger, follow))


@trace.command("diff", epilog="Example: antiphon trace diff order-41 order-42")
def trace_diff(one: SagaId, other: SagaId, server: Server = DEFAULT_SERVER, json: Json = False) -> None:
    """Compare the traces of two sagas, span by span. Exit code 0 if they went the same way, however long, else 1."""
    import asyncio

    from .trace import compare_traces

    if asyncio.run(compare_traces(server, one, other, json)):
        raise typer.Exit(1)


@trace.command("reexport", epilog="Example: antiphon trace reexport --since 2h")
def trace_reexport(
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="A time (2026-11-24T09:00Z; local without a zone), or how long ago (90m, 2h, 3d, 1w)."
        ),
    ],
    server: Server = DEFAULT_SERVER,
    slow: Slow = SLOW_SECONDS,
) -> None:
    """Export the traces of sagas that ended or began since then once more, as when the backend has lost them.

    Give it the OTEL_* variables and the --slow of the exporter, so that both choose the same sagas.
    """
    import asyncio

    from .trace import export_again

    asyncio.run(export_again(server, since, slow))


@app.command(epilog="Example: antiphon cancel order/order-42 --reason 'customer changed their mind'")
def cancel(
    id: SagaId,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")],
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Have a saga undone. Past its point of no return that is only recorded, and the saga goes on."""
    _operate(server, user, timeout, json, id, lambda saga: saga.cancel(reason))


@app.command(epilog="Example: antiphon forget order/order-42 --reason 'request 17' --database billing=sqlite:///b.db")
def forget(
    id: SagaId,
    reason: Annotated[str, typer.Option(help="Why. It stays, with who had it forgotten.")],
    database: Annotated[
        list[str],
        typer.Option(
            "--database",
            metavar="NAME=URL",
            help="The database of a participant, whose inbox forgets the saga as well; give it once for each.",
        ),
    ] = [],  # noqa: B006
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Delete at once, and for good, what was said in a saga that has ended: journal, events, parked messages, the read
    model's row. The outcome stays, so that its id begins nothing anew."""
    import asyncio

    from .retaining import forget_saga

    asyncio.run(forget_saga(server, user, timeout, json, id, reason, _databases(database)))


@app.command(
    epilog="Example: antiphon compare --app shop --database billing=postgresql://shop@db/billing --database "
    "stock=sqlite:///stock.db --pause"
)
def compare(
    app: Annotated[
        list[str],
        typer.Option("--app", metavar="PACKAGE|MODULE[:SAGA]", help="Where sagas are declared; give it once for each."),
    ],
    database: Annotated[
        list[str],
        typer.Option(
            "--database", metavar="NAME=URL", help="The database of a participant; give it once for each of them."
        ),
    ],
    pause: Annotated[
        bool,
        typer.Option(
            "--pause",
            help="Pause the sagas that are named, each in its journal, with the reason: its participant knows more "
            "than its journal.",
        ),
    ] = False,
    server: Server = DEFAULT_SERVER,
    user: As = "",
    json: Json = False,
) -> None:
    """After streams were restored from a backup, and before coordinators run: name the sagas that could go another way
    than what their participants have done since, and those of which only the participants know. As administrator.

    Exit code 1 while a saga is named that is not paused, that could not be read, or of which only participants know.
    """
    import asyncio

    from .comparing import compare_inboxes

    if not asyncio.run(compare_inboxes(server, app, _databases(database), user, pause, json)):
        raise typer.Exit(1)


@app.command("purge-inbox", epilog="Example: antiphon purge-inbox --database sqlite:///inventory.db --older-than 30d")
def purge_inbox(
    database: Annotated[
        str, typer.Option(envvar="DATABASE_URL", metavar="URL", help="The participant's own database.")
    ],
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Rows that were written later stay: 12h, 30d, 52w.")
    ] = "1d",
    ends_gone: Annotated[
        bool,
        typer.Option(
            "--ends-gone",
            help="Delete also the rows of sagas of which the server has nothing, not even the end: for installations "
            "whose coordinators have --keep-ends. Make sure that it is the right server.",
        ),
    ] = False,
    server: Server = DEFAULT_SERVER,
    json: Json = False,
) -> None:
    """Delete what a participant's inbox holds of sagas whose journals were purged. Run it now and then, with an
    operator's rights."""
    import asyncio

    from .retaining import purge_inbox as purge_in

    asyncio.run(purge_in(server, database, older_than, ends_gone, json))


@app.command(epilog="Example: antiphon pause --participant billing --reason 'their database is moved'")
def pause(
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")],
    id: MaybeSagaId = "",
    type: OfType = "",
    participant: OfParticipant = "",
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Have a saga, all sagas of a type, or a participant stand still. What happens is recorded, nothing is sent."""
    whom = _whom(id, type, participant)
    _operate(server, user, timeout, json, whom, lambda one: one.pause(reason), lambda all: all.pause(reason))


@app.command(epilog="Example: antiphon resume --type order")
def resume(
    id: MaybeSagaId = "",
    type: OfType = "",
    participant: OfParticipant = "",
    server: Server = DEFAULT_SERVER,
    user: As = "",
    timeout: Decided = TIMEOUT_SECONDS,
    json: Json = False,
) -> None:
    """Have what was paused go on, at once."""
    whom = _whom(id, type, participant)
    _operate(server, user, timeout, json, whom, lambda one: one.resume(), lambda all: all.resume())


def _ask_of_message(
    server: str,
    user: str,
    timeout: float,
    json: bool,
    number: int,
    ask: Callable[[MessageVerbs], Awaitable[Request]],
) -> None:
    import asyncio

    from .operating import ask_of_message

    if rejected := asyncio.run(ask_of_message(server, user, timeout, json, number, ask)):
        fail(rejected)


def _whom(id: str, saga_type: str, participant: str) -> str | tuple[str, str]:
    """A saga's id, or a saga type or a participant with its name."""
    given = [(kind, name) for kind, name in (("type", saga_type), ("participant", participant)) if name]
    if len(given) + bool(id) != 1:
        raise typer.BadParameter("name one of ID, --type and --participant.")
    return id or given[0]


def _operate(
    server: str,
    user: str,
    timeout: float,
    json: bool,
    whom: str | tuple[str, str],
    one: Callable[[SagaVerbs], Awaitable[Request]],
    all: Callable[[PauseVerbs], Awaitable[Request]] | None = None,
    check: Callable[[Link, SagaKey], Awaitable[None]] | None = None,
) -> None:
    import asyncio

    from .operating import operate

    rejected = asyncio.run(operate(server, user, timeout, json, whom, one, all, check))
    if rejected:
        fail(rejected)
