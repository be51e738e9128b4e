"""The databases of participants: reachable, of this release, with room, and what stands in them in doubt. They are only
read."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import PlatformError
from antiphon.participants.engines import FOR_PARTICIPANTS, first_line, open_engine, require_driver

from .findings import Deployment, Finding, Grade

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

DOUBT: Final = timedelta(minutes=10)
"""For how long after its time a run outside is left to the worker that ends or repeats it."""
ROWS_MAX: Final = 1_000_000
"""So many rows of an inbox are pointed out: they cost room, and nobody looks at them any more."""
ROOM_BYTES: Final = 1_000_000_000
"""Less room than this on SQLite's disk is pointed out; less than a tenth of it is a fault."""


async def databases(found: Deployment) -> list[Finding]:
    """The participants' databases."""
    if not found.databases:
        said = "the participants' databases were not named"
        return [Finding("databases", "unknown", said, "--database NAME=URL, once for each participant")]
    return [finding for name, url in found.databases.items() for finding in await _inbox(name, url)]


async def _inbox(name: str, url: str) -> list[Finding]:
    what = f"the database of {name}"
    remedy = (
        f"look whether it is there, and whether it is that of {name}: antiphon participant MODULE:{name} --database"
    )
    if url == "memory:":
        said = f"{what} is in memory: a process that ends forgets what it has done, and does it again"
        return [Finding("databases", "warning", said, "a database that stays: sqlite:///path or postgresql://…")]
    try:
        async with read_only(url) as connection:
            tables = await connection.run_sync(tables_in)
            if "antiphon_inbox" not in tables:
                said = f"{what} holds no inbox"
                return [Finding("databases", "fault", said, f"start a worker, which makes it; or {remedy}")]
            findings = [await _version(what, connection, has_version="antiphon_schema" in tables)]
            if findings[0].grade == "fine":
                findings += await _rows(name, what, connection)
            return [*findings, *await settings_of("databases", what, connection)]
    except PlatformError as error:
        return [Finding("databases", "fault", f"{what} cannot be read: {error}", remedy)]


async def _version(what: str, connection: AsyncConnection, *, has_version: bool) -> Finding:
    from sqlalchemy import select

    from antiphon.participants.tables import PART, VERSION, schema

    wanted = select(schema.c.version).where(schema.c.part == PART)
    version: int = (await connection.scalar(wanted) or 1) if has_version else 1
    if version == VERSION:
        return Finding("databases", "fine", f"{what} can be read, and its tables have version {VERSION}")
    said = f"the tables of {what} have version {version}, and this release has {VERSION}"
    if version > VERSION:
        return Finding("databases", "fault", said, "run antiphon of the release that the workers have, or a newer one")
    return Finding("databases", "warning", said, "start a worker of this release, which brings them to it")


async def _rows(name: str, what: str, connection: AsyncConnection) -> list[Finding]:
    from sqlalchemy import func, select

    from antiphon.participants.tables import inbox

    rows, oldest = (await connection.execute(select(func.count(), func.min(inbox.c.written_at)))).one()
    late = datetime.now(UTC) - DOUBT
    doubtful = await connection.execute(
        select(inbox.c.saga_type, inbox.c.saga_id, inbox.c.step)
        .where(inbox.c.state == "claimed", inbox.c.due_at < late)
        .order_by(inbox.c.due_at)
        .limit(3)
    )
    findings = [
        Finding(
            "databases",
            "warning",
            f"step {step} of saga {saga_type}/{saga_id} may have happened outside of {name}: its run began, and nobody "
            "knows how it ended",
            f"is a worker of {name} running? Else antiphon show {saga_type}/{saga_id}, then retry or resolve",
        )
        for saga_type, saga_id, step in doubtful
    ]
    since = f", the oldest of {oldest:%Y-%m-%d}" if oldest else ""
    grade: Grade = "warning" if rows > ROWS_MAX else "fine"
    remedy = f"antiphon purge-inbox --database {name}=URL --older-than 30d" if grade == "warning" else ""
    return [*findings, Finding("databases", grade, f"the inbox of {name} has {counted(rows, 'row')}{since}", remedy)]


# --- of either --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def read_only(url: str) -> AsyncGenerator[AsyncConnection]:
    """A connection in which nothing is written.

    Raises:
        PlatformError: the database cannot be opened or read.
    """
    require_driver(url, *FOR_PARTICIPANTS)
    from sqlalchemy.exc import SQLAlchemyError

    engine = open_engine(url, writes=False)
    if engine.dialect.name == "sqlite":
        _require_file(engine.url.database or "")
    try:
        async with engine.connect() as connection:
            yield connection
    except (OSError, SQLAlchemyError) as error:
        raise PlatformError(first_line(getattr(error, "orig", None) or error)) from None
    finally:
        await engine.dispose()


def _require_file(path: str) -> None:
    """Refuse a path at which SQLite would make a new, empty file."""
    if not path.startswith("file:") and not Path(path).is_file():
        raise PlatformError(f"there is no file {path}.")


def tables_in(connection: Any) -> set[str]:
    """The names of a database's tables."""
    from sqlalchemy import inspect

    return {*inspect(connection).get_table_names()}


async def settings_of(check: str, what: str, connection: AsyncConnection) -> list[Finding]:
    """Whether a database keeps what was committed, and has room.

    Args:
        check: of which check the findings are.
        what: what the database is called in sentences.
        connection: to it.
    """
    if connection.dialect.name == "sqlite":
        return await _of_sqlite(check, what, connection)
    from sqlalchemy import text

    commit = await connection.scalar(text("SHOW synchronous_commit"))
    if commit != "off":
        return [Finding(check, "fine", f"{what} has synchronous_commit = {commit}")]
    said = f"{what} has synchronous_commit = off: a crash of its server loses what was committed last"
    return [Finding(check, "warning", said, "ALTER DATABASE … SET synchronous_commit = on")]


async def _of_sqlite(check: str, what: str, connection: AsyncConnection) -> list[Finding]:
    from sqlalchemy import text

    mode = await connection.scalar(text("PRAGMA journal_mode"))
    findings = list[Finding]()
    if mode == "wal":
        said = f"{what} is in WAL mode; each process sets synchronous for itself, and workers take FULL"
        findings.append(Finding(check, "fine", said))
    else:
        said = f"{what} has journal_mode = {mode}: who reads and who writes wait for each other"
        remedy = "start a process of this release on it, which sets WAL; a file system in the network cannot have it"
        findings.append(Finding(check, "warning", said, remedy))
    free = _free(connection.engine.url.database or "")
    grade: Grade = "fine" if free >= ROOM_BYTES else "warning" if free >= ROOM_BYTES / 10 else "fault"
    said = f"{what} has {free / 1e9:.3g} GB left on its disk"
    remedy = "" if grade == "fine" else "make room, or move the file while no process has it open"
    return [*findings, Finding(check, grade, said, remedy)]


def _free(path: str) -> int:
    """How many bytes are left where a file is."""
    return shutil.disk_usage(Path(path.removeprefix("file:").partition("?")[0]).absolute().parent).free
