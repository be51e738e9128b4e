"""SQL databases by their URLs: the driver, an engine with its settings, and what an error of a database means.

SQLAlchemy is imported only where an engine is opened, so that whoever needs no SQL needs no extra.
"""

from __future__ import annotations

import asyncio
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

from antiphon.contracts.errors import PlatformError

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData
    from sqlalchemy.ext.asyncio import AsyncEngine

BUSY_TIMEOUT_SECONDS: Final = 5.0
"""How long SQLite waits for another process's transaction before it says "database is locked"."""
CONNECT_SECONDS: Final = 5.0
"""How long PostgreSQL may take to accept a connection, and how long a transaction waits for a free one."""
CREATE_TABLES: Final = "Check that it is there and that this user may create tables in it."
"""The remedy where a database cannot be opened."""

FOR_PARTICIPANTS: Final = ("that a participant can use", "sqlite:///path, postgresql://… or memory:")
"""What `require_driver` says of a participant's database: its use, and the URLs that are allowed."""

Dialect = Literal["sqlite", "postgresql"]

DIALECTS: Final[dict[str, Dialect]] = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}
"""By the URL's scheme."""
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}")
"""What may stand before the colon of a URL."""
DRIVERS: Final = {"sqlite": ("sqlite", "aiosqlite"), "postgresql": ("postgres", "asyncpg")}
"""The extra that brings the driver, and the driver."""


# --- URLs and engines -------------------------------------------------------------------------------------------------


def require_driver(
    url: str, use: str = "for a read model", urls: str = "sqlite:///path or postgresql://…"
) -> tuple[Dialect, str]:
    """Check that a database can be opened, before anything imports SQLAlchemy.

    Args:
        url: the database's URL, with or without a driver in its scheme.
        use: what the database is to be, for the error's sentence.
        urls: the URLs that are allowed, for the error's sentence.

    Returns:
        The dialect, and the URL as SQLAlchemy needs it.

    Raises:
        PlatformError: no such kind of database, or the extra that brings its driver is not installed.
    """
    scheme, _, rest = url.partition(":")
    dialect = DIALECTS.get(scheme.partition("+")[0])
    if dialect is None:
        # Without a scheme it may be anything, such as a password that stands in the wrong variable.
        what = repr(scheme) if rest and SCHEME.fullmatch(scheme) else "what was given (not shown, it may be a secret)"
        raise PlatformError(f"{what} is no database {use}. Give {urls}.")
    extra, driver = DRIVERS[dialect]
    try:
        import_module("sqlalchemy")
        import_module(driver)
    except ModuleNotFoundError as error:
        raise PlatformError(
            f"this database needs the package {error.name!r}, which is not installed. "
            f"Run: pip install 'antiphon[{extra}]'"
        ) from None
    return dialect, f"{dialect}+{driver}:{rest}"


def open_engine(
    url: str,
    *,
    writes: bool = True,
    is_synced: bool = True,
    connections: int = 2,
    busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
) -> AsyncEngine:
    """An engine for a database; nothing is connected yet.

    Args:
        url: `sqlite:///path` or `postgresql://user@host/name`.
        writes: SQLite: transactions begin with the write lock, and the file is kept in WAL mode. Else they only read.
        is_synced: SQLite: each commit survives a power failure. Else the last ones may be lost.
        connections: PostgreSQL: how many transactions may be open at once.
        busy_timeout_seconds: SQLite: how long a transaction waits for another process's.

    Raises:
        PlatformError: no such kind of database, no driver for it, or the URL is none.
    """
    dialect, complete = require_driver(url)
    if dialect == "sqlite":
        return _open_sqlite(complete, writes, is_synced, int(busy_timeout_seconds * 1000))
    return _open_postgres(complete, connections)


def _open_sqlite(url: str, writes: bool, is_synced: bool, busy_timeout_ms: int) -> AsyncEngine:
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine

    async def connect() -> Any:
        return await _connect_sqlite(engine)

    def prepare(connection: Any, record: object) -> None:
        # Without this the driver begins transactions by itself, and too late (SQLAlchemy's documentation of pysqlite).
        connection.isolation_level = None
        cursor = connection.cursor()
        # The timeout first: switching to WAL needs a lock that another process may hold.
        cursor.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
        if writes:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
        cursor.close()

    def begin(connection: Connection) -> None:
        # A deferred transaction would fail at once where it turns from reading to writing; an immediate one waits.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    engine: AsyncEngine = create_async_engine(url, async_creator=connect)
    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    return engine


def _open_postgres(url: str, connections: int) -> AsyncEngine:
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.ext.asyncio import create_async_engine

    try:
        return create_async_engine(
            url,
            # Whatever the server's default: a claim must see what it waited for.
            isolation_level="READ COMMITTED",
            pool_size=connections,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            connect_args={"timeout": CONNECT_SECONDS},
        )
    except ArgumentError as error:
        raise PlatformError(f"no database URL: {first_line(error)}. Give postgresql://user@host/name.") from None
    except ValueError:  # a port that is none; its text would have the password
        raise PlatformError("no database URL: its port is no number. Give postgresql://user@host:5432/name.") from None


_CLOSING: Final = set[asyncio.Future[None]]()
"""Connections that are closed for whoever no longer waits; a loop keeps its tasks by weak references."""


async def _connect_sqlite(engine: AsyncEngine) -> Any:
    """Open a connection; where that is cancelled, however often, see it through and close it.

    aiosqlite would leave it to its thread, which then answers an event loop that may be closed by that time.
    """
    driver: Any = import_module("aiosqlite")
    arguments, options = engine.dialect.create_connect_args(engine.url)
    connection = driver.connect(*arguments, **options)
    getattr(connection, "_thread", connection).daemon = True  # as SQLAlchemy has it; before 0.22 it is the thread
    opening = asyncio.ensure_future(connection)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        closing = asyncio.ensure_future(_close_opened(opening))
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)
        await asyncio.shield(closing)
        raise


async def _close_opened(opening: asyncio.Future[Any]) -> None:
    await (await opening).close()


# --- opening a database -----------------------------------------------------------------------------------------------


def probe(engine: AsyncEngine) -> None:
    """Find out that a SQLite file cannot be opened.

    Where aiosqlite cannot open the file it leaves a thread behind, which then disturbs the end of the process.

    Raises:
        sqlite3.Error: it cannot.
    """
    if engine.dialect.name == "sqlite":
        import_module("sqlite3").connect(engine.url.database or "").close()


def create_tables(connection: Connection, lock: int, *collections: MetaData | None) -> None:
    """Create tables where they are missing.

    Args:
        connection: in a transaction.
        lock: PostgreSQL: the number of an advisory lock, since processes that create them together would collide.
        collections: the tables.
    """
    lock_tables(connection, lock)
    for collection in collections:
        if collection is not None:
            collection.create_all(connection)


def lock_tables(connection: Connection, lock: int) -> None:
    """Keep others from creating or altering tables until the transaction ends. SQLite's write lock does so anyway.

    Args:
        connection: in a transaction.
        lock: the number of an advisory lock of PostgreSQL.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")


def unusable(engine: AsyncEngine, error: BaseException, what: str, remedy: str) -> PlatformError:
    """The sentence for a database that fails: which one, why, and what to do."""
    where = engine.url.render_as_string(hide_password=True)
    return PlatformError(f"{what} {where} cannot be used: {first_line(error)}. {remedy}".rstrip(". ") + ".")


# --- errors -----------------------------------------------------------------------------------------------------------

Trouble = Literal["deadlock", "ended", "full", "gone", "locked"]
"""deadlock: or a serialization failure; the transaction was chosen to make way for others, and may succeed next time.
ended: an administrator ended the connection, or the server goes down or comes up. gone: the connection failed.
locked: a lock could not be had in time; the transaction could go on without the statement. full: the disk or the memory
was, or failed; so too, unless SQLite has rolled the transaction back by itself."""

DEADLOCK: Final = ("40001", "40P01")
ENDED: Final = "57P"
GONE: Final = "08"
LOCKED: Final = "55P03"
FULL: Final = ("53100", "53200", "58030")
"""The disk is full, the memory is, or the disk failed."""
POOLED: Final = ("26000", "42P05")
"""No prepared statement has the name, or another one has: a pooler gives each transaction another session."""
SQLITE_LOCKED: Final = (5, 6)
"""SQLITE_BUSY: another process has the lock. SQLITE_LOCKED: another connection of this process has it."""
SQLITE_FULL: Final = (7, 10, 13)
"""SQLITE_NOMEM, SQLITE_IOERR, SQLITE_FULL."""


def trouble_of(error: BaseException | None) -> Trouble | None:
    """Which of the passing troubles an error of a database is, by its SQLSTATE or SQLite's result code."""
    if error is None:
        return None
    state = sqlstate_of(error)
    if state in DEADLOCK:
        return "deadlock"
    if state.startswith(ENDED):
        return "ended"
    if state.startswith(GONE):
        return "gone"
    code = sqlite_code_of(error)
    if state in FULL or code in SQLITE_FULL:
        return "full"
    return "locked" if state == LOCKED or code in SQLITE_LOCKED else None


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE of a database's error, through SQLAlchemy or straight from a driver; empty if it has none."""
    found = getattr(driver_error(error), "sqlstate", None)
    return found if isinstance(found, str) else ""


def sqlite_code_of(error: BaseException) -> int:
    """SQLite's primary result code; 0 if it is no error of SQLite's."""
    found = getattr(driver_error(error), "sqlite_errorcode", None)
    return found & 0xFF if isinstance(found, int) else 0


def driver_error(error: BaseException) -> Any:
    """The driver's error, where SQLAlchemy has wrapped it; else the error itself."""
    return getattr(error, "orig", None) or error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
