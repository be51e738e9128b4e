"""All processes that stay, each with its settings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .settings import Setting, Values

if TYPE_CHECKING:
    from antiphon.link import Credentials

SECONDS_MAX: Final = 1e9
"""Thirty years."""
OPEN_MAX: Final = 100_000
"""Each coordinator remembers so many sagas of a bounded type, about 0.3 kB each."""

Start = Callable[[Values, "Credentials"], Coroutine[Any, Any, None]]


class Service(msgspec.Struct, frozen=True):
    """A process that stays until it is told to end."""

    name: str
    """The command."""
    help: str
    epilog: str
    own: tuple[Setting, ...]
    start: Start
    """Makes its main coroutine. What it needs is imported there."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All of its settings."""
        return (*self.own, *COMMON)


def _address(text: str) -> None:
    from antiphon.link.probes import address_of

    address_of(text)


SERVER: Final = Setting(
    name="server",
    short="-s",
    variable="NATS_URL",
    default="nats://127.0.0.1:4222",
    metavar="URL[,URL…]",
    help="NATS servers to connect to; tls:// where they must encrypt.",
)
FILE: Final = Setting(
    name="settings",
    variable="ANTIPHON_SETTINGS",
    metavar="FILE",
    help="A TOML file with settings; see antiphon settings.",
)
COMMON: Final = (
    SERVER,
    Setting(
        name="name",
        variable="ANTIPHON_NAME",
        metavar="NAME",
        help="The name of the connection, as the server's monitoring shows it.",
    ),
    Setting(
        name="http",
        variable="ANTIPHON_HTTP",
        metavar="HOST:PORT",
        check=_address,
        help="Where it answers /livez, /readyz, /version and /metrics; nowhere by default.",
    ),
    FILE,
    Setting(name="user", variable="NATS_USER", has_option=False, help="Who connects; its inboxes have this name, too."),
    Setting(name="password", variable="NATS_PASSWORD", has_option=False, is_secret=True, help="The user's password."),
    Setting(name="creds", variable="NATS_CREDS", has_option=False, help="A file with a user's JWT and key."),
    Setting(name="nkey", variable="NATS_NKEY", has_option=False, help="A file with the seed of a user's key."),
    Setting(
        name="ca", variable="NATS_CA", has_option=False, help="A file with the certificates that vouch for the server."
    ),
    Setting(name="cert", variable="NATS_CERT", has_option=False, help="A file with the certificate of the process."),
    Setting(name="key", variable="NATS_KEY", has_option=False, help="A file with the key of that certificate."),
    Setting(
        name="log",
        variable="ANTIPHON_LOG",
        has_option=False,
        choices=("text", "json"),
        help="Lines for people or for programs; by default text on a terminal, JSON elsewhere.",
    ),
    Setting(
        name="log-level",
        variable="ANTIPHON_LOG_LEVEL",
        has_option=False,
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="The least severe lines that are written.",
    ),
)

ERROR_TEXTS: Final = Setting(
    name="error-texts",
    variable="ANTIPHON_ERROR_TEXTS",
    kind=bool,
    default=False,
    help="Let the texts of errors travel into journals and traces. They may hold names and card numbers, so by default "
    "only their classes do, and the texts are in the log.",
)


def bound(text: str) -> tuple[str, int]:
    """A saga type and how many of it may be open.

    Raises:
        ValueError: it is not that.
    """
    saga_type, equals, number = text.partition("=")
    if not (equals and saga_type and number.isascii() and number.isdigit() and 0 < int(number) <= OPEN_MAX):
        raise ValueError(f"{text!r}: give a type and a number from 1 to {OPEN_MAX}, such as order=1000")
    return saga_type, int(number)


def _bounds(texts: list[str]) -> dict[str, int]:
    return dict(map(bound, texts))


def _retentions(texts: list[str]) -> Any:
    from antiphon.coordinator.definition.retention import read_overrides

    return read_overrides(texts)


def _seconds(text: str) -> float | None:
    from antiphon.coordinator.definition.retention import seconds_of

    return seconds_of(text, "how long outcomes stay")


async def _coordinator(given: Values, credentials: Credentials) -> None:
    from antiphon.coordinator.runtime.retention import Keeping
    from antiphon.coordinator.runtime.serve import serve

    from ..modules import load_sagas

    await serve(
        given["server"],
        [saga for path in given["app"] for saga in load_sagas(path)],
        name=given["name"] or "coordinator",
        credentials=credentials,
        http=given["http"],
        error_texts=given["error_texts"],
        incompatible_contracts=given["incompatible_contracts"],
        open_max=_bounds(given["open_max"]),
        keeping=Keeping(
            overrides=_retentions(given["retention"]),
            ends_seconds=_seconds(given["keep_ends"]),
            per_second=given["purge_rate"],
            archive=Path(given["archive"]) if given["archive"] else None,
        ),
    )


async def _participant(given: Values, credentials: Credentials) -> None:
    from antiphon.participants import Participant, serve

    from ..modules import load

    found = load(given["participant"], Participant)
    await serve(
        found,
        given["server"],
        given["database"],
        name=given["name"] or found.name,
        credentials=credentials,
        http=given["http"],
        concurrency=given["concurrency"],
        undo_concurrency=given["undo_concurrency"] or None,
        reaction_concurrency=given["reaction_concurrency"] or None,
        handler_seconds=given["handler_seconds"],
        grace_seconds=given["grace_seconds"],
        error_texts=given["error_texts"],
    )


async def _exporter(given: Values, credentials: Credentials) -> None:
    from antiphon.tracing.export.serve import serve
    from antiphon.tracing.telemetry.exporting import exporter_metrics

    await serve(
        given["server"],
        name=given["name"] or "exporter",
        credentials=credentials,
        http=given["http"],
        slow_seconds=given["slow"],
        metrics=exporter_metrics,
    )


async def _readmodel(given: Values, credentials: Credentials) -> None:
    from antiphon.participants.engines import require_driver

    require_driver(given["database"])
    from ..readmodel.projector import serve

    await serve(
        given["server"],
        given["database"],
        rebuild=given["rebuild"],
        once=given["once"],
        name=given["name"] or "readmodel",
        credentials=credentials,
        http=given["http"],
    )


async def _jaeger_storage(given: Values, credentials: Credentials) -> None:
    from antiphon.tracing.jaeger.serve import serve

    await serve(
        given["server"],
        listen=given["listen"],
        name=given["name"] or "jaeger-storage",
        credentials=credentials,
        http=given["http"],
    )


COORDINATOR: Final = Service(
    "coordinator",
    """Run a coordinator until SIGTERM. Run two or more: they share the work, and survive each other.

    It ends with exit code 4 where messages have changed, under the same version of a saga, so that sagas under way
    could not go on.
    """,
    "Example: antiphon coordinator --app shop.saga:order",
    (
        Setting(
            name="app",
            variable="ANTIPHON_APP",
            kind=list,
            default=None,
            metavar="PACKAGE|MODULE[:SAGA]",
            help="A saga's definition, or all that a module, or a package with its modules, has; once for each.",
        ),
        ERROR_TEXTS,
        Setting(
            name="incompatible-contracts",
            variable="ANTIPHON_INCOMPATIBLE_CONTRACTS",
            kind=bool,
            default=False,
            help="Run although sagas in flight began with messages that do not fit; park what cannot be read.",
        ),
        Setting(
            name="open-max",
            variable="ANTIPHON_OPEN_MAX",
            kind=list,
            default=[],
            metavar="TYPE=NUMBER",
            check=_bounds,
            help="How many sagas of a type that clients started may be open; further ones are refused. Give it to all "
            "coordinators alike.",
        ),
        Setting(
            name="retention",
            variable="ANTIPHON_RETENTION",
            kind=list,
            default=[],
            metavar="TYPE[:OUTCOME]=TIME",
            check=_retentions,
            help="How long sagas of a type are kept once they have ended, 90m, 12h, 30d, 52w or forever, in the place "
            "of what their definition says. Then journal and events are purged, and the outcome stays. Give it to all "
            "coordinators alike.",
        ),
        Setting(
            name="keep-ends",
            variable="ANTIPHON_KEEP_ENDS",
            default="forever",
            metavar="TIME",
            check=_seconds,
            help="How long the outcome of a purged saga stays. Afterwards its id may begin another one.",
        ),
        Setting(
            name="purge-rate",
            variable="ANTIPHON_PURGE_RATE",
            kind=float,
            default=100.0,
            least=0.1,
            most=10_000,
            metavar="NUMBER",
            help="Sagas that it purges in a second at most.",
        ),
        Setting(
            name="archive",
            variable="ANTIPHON_ARCHIVE",
            metavar="FOLDER",
            help="Where an old saga is written before it is purged; what is not there is not purged.",
        ),
    ),
    _coordinator,
)
PARTICIPANT: Final = Service(
    "participant",
    """Run a participant until SIGTERM, which drains it. Any number may run over the same database.

    Spans that its handlers make hang under the saga's trace, and go where OTEL_EXPORTER_OTLP_ENDPOINT says.
    """,
    "Example: antiphon participant shop.stock:stock --database sqlite:///stock.db",
    (
        Setting(
            name="participant",
            variable="ANTIPHON_PARTICIPANT",
            default=None,
            metavar="MODULE:PARTICIPANT",
            is_argument=True,
            help="The participant to run.",
        ),
        Setting(
            name="database",
            variable="DATABASE_URL",
            default=None,
            metavar="URL",
            is_secret=True,
            help="Its own database: sqlite:///file.db, postgresql://user@host/name, or memory: (which forgets).",
        ),
        Setting(
            name="concurrency",
            variable="ANTIPHON_CONCURRENCY",
            kind=int,
            default=16,
            least=1,
            most=10_000,
            metavar="NUMBER",
            help="How many commands it performs at once.",
        ),
        Setting(
            name="undo-concurrency",
            variable="ANTIPHON_UNDO_CONCURRENCY",
            kind=int,
            default=0,
            least=0,
            most=10_000,
            metavar="NUMBER",
            help="How many compensations it performs at once, besides; 0 for half as many as commands.",
        ),
        Setting(
            name="reaction-concurrency",
            variable="ANTIPHON_REACTION_CONCURRENCY",
            kind=int,
            default=0,
            least=0,
            most=10_000,
            metavar="NUMBER",
            help="How many reactions run at once, besides; 0 for as many as commands.",
        ),
        Setting(
            name="handler-seconds",
            variable="ANTIPHON_HANDLER_SECONDS",
            kind=float,
            default=600.0,
            least=1,
            most=SECONDS_MAX,
            metavar="SECONDS",
            help="How long a handler may run; then it is cancelled, and the attempt failed.",
        ),
        Setting(
            name="grace-seconds",
            variable="ANTIPHON_GRACE_SECONDS",
            kind=float,
            default=10.0,
            least=0,
            most=SECONDS_MAX,
            metavar="SECONDS",
            help="How long handlers may still run once it was told to end.",
        ),
        ERROR_TEXTS,
    ),
    _participant,
)
EXPORTER: Final = Service(
    "exporter",
    """Export traces over OTLP until SIGTERM. The standard OTEL_* variables say where to (by default
    http://localhost:4318), and how many are sampled.

    What is not sampled is exported all the same at its end if it was compensated, retried, parked or slow.
    """,
    "Example: OTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318 antiphon exporter",
    (
        Setting(
            name="slow",
            variable="ANTIPHON_SLOW",
            kind=float,
            default=10.0,
            least=0,
            most=SECONDS_MAX,
            metavar="SECONDS",
            help="Export sagas that take at least so long, sampled or not.",
        ),
    ),
    _exporter,
)
JAEGER_STORAGE: Final = Service(
    "jaeger-storage",
    """Serve Jaeger as its storage until SIGTERM. Every saga is there, also one that still runs.

    Nothing is stored: traces are made from the journals when Jaeger asks. An operator's rights are enough.
    """,
    "Example: antiphon jaeger-storage --listen 127.0.0.1:17271",
    (
        Setting(
            name="listen",
            variable="ANTIPHON_LISTEN",
            default="127.0.0.1:17271",
            metavar="HOST:PORT",
            help="Where to answer. Whoever gets there can read all sagas.",
        ),
    ),
    _jaeger_storage,
)
READMODEL: Final = Service(
    "readmodel",
    "Keep the read model of all sagas in step with the streams until SIGTERM, for `antiphon list` and others.",
    "Example: antiphon readmodel --database sqlite:///sagas.db",
    (
        Setting(
            name="database",
            variable="ANTIPHON_READMODEL",
            default=None,
            metavar="URL",
            is_secret=True,
            help="Where: sqlite:///sagas.db or postgresql://user@host/name.",
        ),
        Setting(
            name="rebuild",
            variable="ANTIPHON_REBUILD",
            kind=bool,
            default=False,
            help="Build it from nothing first; readers see the old one until it is done.",
        ),
        Setting(
            name="once",
            variable="ANTIPHON_ONCE",
            kind=bool,
            default=False,
            help="End as soon as it is in step with the streams.",
        ),
    ),
    _readmodel,
)

SERVICES: Final = {each.name: each for each in (COORDINATOR, PARTICIPANT, EXPORTER, JAEGER_STORAGE, READMODEL)}


def credentials_of(given: Values) -> Credentials:
    """Who connects, by these settings."""
    from antiphon.link import Credentials

    return Credentials(
        user=given["user"] or None,
        password=given["password"] or None,
        creds_file=given["creds"] or None,
        nkey_file=given["nkey"] or None,
        ca_file=given["ca"] or None,
        cert_file=given["cert"] or None,
        key_file=given["key"] or None,
    )
