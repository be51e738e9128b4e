"""The inbox's tables: their columns, their version, and how an older database is brought to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    case,
    insert,
    inspect,
    select,
    text,
    update,
)

from antiphon.contracts.errors import PlatformError

from .databases import new_number
from .engines import lock_tables
from .inbox import Spent

if TYPE_CHECKING:
    from sqlalchemy import Connection

SCHEMA_LOCK: Final = 0x616E7469
"""The advisory lock under which PostgreSQL's tables are created and altered: workers that start together would
collide."""

LOCK_WAIT_MS: Final = 1000
"""How long the tables are waited for."""

VERSION: Final = 2
"""The version of these tables. The kept release has 1, and no table that says so."""
PART: Final = "inbox"
"""What `antiphon_schema` calls these tables."""

NUMBER: Final = "number"
"""The row of `antiphon_schema` with the database's number in the place of a version: earlier releases pass over it."""

inbox_tables = MetaData()

schema = Table(
    "antiphon_schema",
    inbox_tables,
    Column("part", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

inbox = Table(
    "antiphon_inbox",
    inbox_tables,
    Column("saga_type", String(64), primary_key=True),
    Column("saga_id", String(64), primary_key=True),
    Column("step", String(64), primary_key=True),
    Column("element", Integer, primary_key=True, autoincrement=False),  # always 0: an element is a step of its own
    Column("state", String(8), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("answer_type", Text),
    Column("answer", Text),
    Column("written_at", DateTime(timezone=True), nullable=False),  # so that old rows can be found and purged
    # Version 2. With defaults, because workers of version 1 insert without them.
    Column("claim", Integer, nullable=False, server_default="0"),
    Column("runs", Text, nullable=False, server_default=""),
    Column("due_at", DateTime(timezone=True)),
    Column("digest", Text),
    Column("closed", Text),
)

# A statement, because with a condition of PostgreSQL's an index of SQLAlchemy loads that dialect into every worker.
_INDEX_RUNS: Final = text(f"CREATE INDEX IF NOT EXISTS antiphon_inbox_runs ON {inbox.name} (runs) WHERE runs <> ''")

deliveries = Table(  # version 1 counted by stream sequence, which names no message for sure
    "antiphon_deliveries",
    inbox_tables,
    Column("command", BigInteger, primary_key=True, autoincrement=False),
    Column("failed", Integer, nullable=False),
    Column("returned", Integer, nullable=False),
    Column("alone", Integer, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
)

attempts = Table(
    "antiphon_attempts",
    inbox_tables,
    Column("message", Text, primary_key=True),
    Column("failed", Integer, nullable=False),
    Column("returned", Integer, nullable=False),
    Column("alone", Integer, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
)


# --- statements -------------------------------------------------------------------------------------------------------

KEY: Final = inbox.primary_key.columns
ROW: Final = ("state", "attempt", "answer_type", "answer", "claim", "runs", "due_at", "digest", "closed")
"""The columns of a row beside its key and its time."""
SPENT: Final = Spent.__struct_fields__

read = select(*(inbox.c[name] for name in ROW)).where(*(column == bindparam(column.name) for column in KEY))
read_spent = select(*(attempts.c[name] for name in SPENT)).where(attempts.c.message == bindparam("message"))

read_runs = (
    select(*KEY, inbox.c.runs).where(inbox.c.runs != "", inbox.c.runs.like(bindparam("of_instance"))).with_for_update()
)
"""Rows with a run of one process, locked; those of others may be held for as long as a handler takes."""
KEY_NAMES: Final = tuple(column.name for column in KEY)
end_runs = (
    update(inbox)
    .where(*(column == bindparam(f"its_{column.name}") for column in KEY))
    .values(
        runs=bindparam("left"),
        due_at=case((inbox.c.due_at.is_(None), None), else_=bindparam("due", type_=inbox.c.due_at.type)),
    )
)
"""What is left of a row's runs once a process is gone."""

# The two dialects spell these alike, but SQLAlchemy has an insert for each.
Insert = Callable[[Table], Any]


def upsert(insert: Insert) -> Any:
    """Write a row."""
    new = insert(inbox)
    return new.on_conflict_do_update(
        index_elements=list(KEY), set_={name: new.excluded[name] for name in (*ROW, "written_at")}
    )


def add(insert: Insert) -> Any:
    """Add to the counts of a message, and return them."""
    new = insert(attempts)
    more = {name: attempts.c[name] + new.excluded[name] for name in SPENT}
    statement = new.on_conflict_do_update(
        index_elements=[attempts.c.message], set_={**more, "written_at": new.excluded.written_at}
    )
    return statement.returning(*(attempts.c[name] for name in SPENT))


# --- the version ------------------------------------------------------------------------------------------------------


def migrate(connection: Connection, tables: MetaData | None = None) -> int:
    """Bring the inbox's tables to this version, and create the given ones where they are missing.

    Workers of the version before go on beside that: columns are added with defaults, and no row is rewritten.

    Args:
        connection: in a transaction that may write.
        tables: the participant's own.

    Returns:
        The number of this database, by which it is told from another one; drawn where it has none.

    Raises:
        PlatformError: the tables are newer than this release.
    """
    if connection.dialect.name == "postgresql":
        # Whoever waits for a table has all later transactions wait behind it.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
    lock_tables(connection, SCHEMA_LOCK)
    found = _version(connection)
    if found > VERSION:
        raise PlatformError(
            f"its inbox has version {found}, and this release of antiphon knows no version above {VERSION}. Start the "
            "participant with the release that made it, or a newer one."
        )
    for step in _STEPS[found:]:
        step(connection)
    if found < VERSION:
        say = update(schema).values(version=VERSION).where(schema.c.part == PART)
        if connection.execute(say).rowcount == 0:
            connection.execute(insert(schema).values(part=PART, version=VERSION))
    if tables is not None:
        tables.create_all(connection)
    return _number(connection)


def _number(connection: Connection) -> int:
    found: int | None = connection.scalar(select(schema.c.version).where(schema.c.part == NUMBER))
    if found is None:
        found = new_number()
        connection.execute(insert(schema).values(part=NUMBER, version=found))
    return found


def _version(connection: Connection) -> int:
    """The version of the tables; 0 if there are none."""
    known = inspect(connection)
    if known.has_table(schema.name):
        found: int | None = connection.scalar(select(schema.c.version).where(schema.c.part == PART))
        if found is not None:
            return found
    return 1 if known.has_table(inbox.name) else 0


def _create(connection: Connection) -> None:
    inbox_tables.create_all(connection)


def _add_claims(connection: Connection) -> None:
    """From version 1 to 2. After `_create`, which makes them at once, there is nothing left to add."""
    have = {column["name"] for column in inspect(connection).get_columns(inbox.name)}
    time = DateTime(timezone=True).compile(connection.dialect)
    for column in (
        "claim INTEGER NOT NULL DEFAULT 0",
        "runs TEXT NOT NULL DEFAULT ''",
        f"due_at {time}",
        "digest TEXT",
        "closed TEXT",
    ):
        if column.partition(" ")[0] not in have:
            connection.execute(text(f"ALTER TABLE {inbox.name} ADD COLUMN {column}"))
    connection.execute(_INDEX_RUNS)
    inbox_tables.create_all(connection)  # the tables that version 1 does not have


_STEPS: Final = (_create, _add_claims)
"""From each version to the next."""
