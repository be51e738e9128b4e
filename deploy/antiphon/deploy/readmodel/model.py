"""The read model's tables in SQLite or PostgreSQL: one row a saga, and how far the streams were read.

Whatever one saga holds, the others have their rows. What a database does not take is cleaned (`_clean`), and what is
refused all the same is left out of its saga's row, which then says so.

Rows belong to a generation. Readers look at the one that is live; a rebuild fills another one and takes its place in
one transaction. Rows and position are written in one transaction too, and only by who knows the position that is
there, so that whatever is read twice, by whomever, is applied once.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.payloads import SagaState
from antiphon.coordinator.views.summary import Overview
from antiphon.link import Mark
from antiphon.link.faults import class_of, say
from antiphon.link.killpoints import reached
from antiphon.participants.engines import (
    CREATE_TABLES,
    create_tables,
    driver_error,
    open_engine,
    probe,
    trouble_of,
    unusable,
)

Sort = Literal["age", "started", "changed"]

CONNECTIONS_MAX: Final = 4
"""How many transactions of one process may be open at once in PostgreSQL."""
CREATE_LOCK: Final = 0x616E7472
"""The advisory lock under which PostgreSQL's tables are created: projectors that start together would collide."""
IN_MAX: Final = 500
"""How many sagas are asked for in one statement."""
DELETE_MAX: Final = 5000
"""How many rows of an old generation are deleted in one transaction, so that none takes long."""
NAME_CHARS_MAX: Final = 64
"""The longest name of a key, which is a token."""
VALUE_CHARS_MAX: Final = 500
"""So much of a key's value is searched by, more than twice what a saga may have. Together with name and saga it must
fit a row of an index: 2,704 bytes in PostgreSQL, and a character has up to four."""

# The names have the layout's version: another layout is another set of tables, filled from the streams.
tables = MetaData()

generations = Table(
    "antiphon_generations_v1",
    tables,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("is_live", Boolean, nullable=False),
    Column("saga", Text, nullable=False),  # the last message of each stream that was applied
    Column("events", Text, nullable=False),
)

sagas = Table(
    "antiphon_sagas_v1",
    tables,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("saga", String(129), primary_key=True),  # type/id
    Column("type", String(64), nullable=False),
    Column("state", String(12), nullable=False),
    Column("is_parked", Boolean, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("told", Text, nullable=False),
)

keys = Table(
    "antiphon_keys_v1",
    tables,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("name", String(NAME_CHARS_MAX), primary_key=True),
    Column("value", Text, primary_key=True),
    Column("saga", String(129), primary_key=True),
)

incomplete = Table(
    "antiphon_incomplete_v1",
    tables,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("saga", String(129), primary_key=True),
)
"""The sagas whose rows lack something; why stands in the rows."""

marks = Table(
    "antiphon_marks_v1",
    tables,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("saga", Text, nullable=False),
    Column("events", Text, nullable=False),
)
"""Earlier messages by which the streams are known again, should the last one have been forgotten."""

databases = Table(
    "antiphon_databases_v1",
    tables,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
)
"""A name that no other database has."""

for _name, _columns in {
    "started": ("started_ns",),
    "changed": ("changed_ns",),
    "type": ("type", "started_ns"),
    "state": ("state", "started_ns"),
    "parked": ("is_parked", "started_ns"),
}.items():
    Index(f"antiphon_sagas_v1_by_{_name}", sagas.c.generation, *(sagas.c[column] for column in _columns))


class Places(msgspec.Struct, frozen=True):
    """How far both streams were applied; of several pairs, those of the first one."""

    saga: Mark = Mark()
    events: Mark = Mark()
    earlier_saga: tuple[Mark, ...] = ()
    """Earlier messages by which the stream is known again."""
    earlier_events: tuple[Mark, ...] = ()
    further: tuple[Places, ...] = ()
    """The same of each further pair of streams."""

    @property
    def all(self) -> tuple[Places, ...]:
        """Those of each pair."""
        return (self, *self.further)


class Generation(msgspec.Struct, frozen=True):
    """One edition of the model."""

    number: int
    is_live: bool
    places: Places


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which sagas to list, and in which order. `age` is the oldest first, the others the latest first."""

    type: str = ""
    state: SagaState | None = None
    parked: bool = False
    started_before_ns: int = 0
    keys: dict[str, str] = {}
    sort: Sort = "started"
    limit: int = 50


REFUSALS: Final = (SQLAlchemyError, sqlite3.Error, ValueError, TypeError, OverflowError)
"""What is raised where a database, or its driver, does not take a value; and for other reasons, too."""


class Overtaken(Exception):
    """Somebody else has moved the model on; read where it is."""


class Model:
    """The read model in a database.

    Args:
        url: `sqlite:///sagas.db` (three slashes and a relative path, four and an absolute one), or
            `postgresql://user@host/name`.
        writes: whether it will be written to; who only reads waits for no writer and creates nothing.

    Raises:
        PlatformError: no such kind of database, or the extra that brings its driver is not installed.
    """

    def __init__(self, url: str, *, writes: bool = False) -> None:
        # A power failure may take the last transactions, but then the position goes with them, and they are read again.
        self._engine = open_engine(url, writes=writes, is_synced=False, connections=CONNECTIONS_MAX)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._insert: Any = sqlite.insert if self._is_sqlite else postgresql.insert
        self._file: os.stat_result | None = None

    async def open(self) -> None:
        """Create the tables where they are missing.

        Raises:
            PlatformError: the database cannot be used.
        """
        try:
            probe(self._engine)
            async with self._engine.begin() as connection:
                await connection.run_sync(create_tables, CREATE_LOCK, tables)
            if self._is_sqlite:
                self._file = os.stat(self._engine.url.database or "")
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise self.unusable(error, CREATE_TABLES) from error

    @property
    def is_gone(self) -> bool:
        """Whether the file that was opened is another one, or none, by now: what is written, nobody will read."""
        if self._file is None:
            return False
        try:
            return not os.path.samestat(self._file, os.stat(self._engine.url.database or ""))
        except OSError:
            return True

    def unusable(self, error: BaseException, remedy: str) -> PlatformError:
        """The sentence for a database that fails."""
        return unusable(self._engine, error, "the read model in", remedy)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._engine.dispose()

    # --- generations --------------------------------------------------------------------------------------------------

    async def generations(self) -> list[Generation]:
        """All there are, the oldest first."""
        async with self._engine.begin() as connection:
            known = {row.generation: row for row in await connection.execute(select(marks))}
            found = await connection.execute(select(generations).order_by(generations.c.generation))
            return [_generation(row, known.get(row.generation)) for row in found]

    async def database(self) -> str:
        """A name that this database has, and no other."""
        async with self._engine.begin() as connection:
            mine = {"one": 1, "name": secrets.token_hex(8)}
            await connection.execute(self._insert(databases).on_conflict_do_nothing(), [mine])
            return str((await connection.execute(select(databases.c.name))).scalar_one())

    async def new_generation(self) -> Generation:
        """Begin one from nothing, in the place of whatever was being built."""
        async with self._engine.begin() as connection:
            newest = (await connection.execute(select(func.max(generations.c.generation)))).scalar_one_or_none()
            await connection.execute(delete(generations).where(generations.c.is_live.is_(False)))
            made = Generation((newest or 0) + 1, False, Places())
            await connection.execute(insert(generations).values(_row_of(made)))
            return made

    async def make_live(self, generation: Generation) -> None:
        """Have readers see this generation and no other from now on.

        Raises:
            Overtaken: it is not there any more.
        """
        async with self._engine.begin() as connection:
            which = generations.c.generation
            await connection.execute(delete(generations).where(which < generation.number))
            done = await connection.execute(update(generations).where(which == generation.number).values(is_live=True))
            if done.rowcount != 1:
                raise Overtaken

    async def sweep(self) -> None:
        """Delete the rows of generations that are gone, a few at a time."""
        known = select(generations.c.generation)
        async with self._engine.begin() as connection:
            await connection.execute(delete(marks).where(marks.c.generation.not_in(known)))
        for table in (incomplete, keys, sagas):
            while await self._delete_some(table, table.c.generation.not_in(known)):
                pass

    async def _delete_some(self, table: Table, condition: Any) -> int:
        async with self._engine.begin() as connection:
            columns = list(table.primary_key.columns)
            gone = (await connection.execute(select(*columns).where(condition).limit(DELETE_MAX))).all()
            for generation in {row[0] for row in gone}:
                # All of a generation that is gone: the bound is for how long a writer waits, not for exactness.
                names = [row.saga for row in gone if row[0] == generation]
                for part in _parts(names):
                    which = table.c.saga.in_(part)
                    await connection.execute(delete(table).where(table.c.generation == generation, which))
            return len(gone)

    # --- rows ---------------------------------------------------------------------------------------------------------

    async def rows(self, generation: Generation, names: Sequence[str]) -> dict[str, Overview]:
        """The sagas with these names (type/id) that are there."""
        found: dict[str, Overview] = {}
        async with self._engine.begin() as connection:
            for part in _parts(names):
                which = (sagas.c.generation == generation.number, sagas.c.saga.in_(part))
                read = await connection.execute(select(sagas.c.saga, sagas.c.told).where(*which))
                found |= {name: _overview(name, told) for name, told in read}
        return found

    async def page(self, generation: Generation, after: str, most: int) -> dict[str, int]:
        """The sagas whose names come next behind one, in the order of names, with when each changed last."""
        which = (sagas.c.generation == generation.number, sagas.c.saga > after)
        query = select(sagas.c.saga, sagas.c.changed_ns).where(*which).order_by(sagas.c.saga).limit(most)
        async with self._engine.begin() as connection:
            return {row.saga: row.changed_ns for row in await connection.execute(query)}

    async def forget(self, generation: Generation, gone: Mapping[str, int]) -> None:
        """Delete sagas, by name, that have not changed since the time beside it: one that did was begun anew."""
        async with self._engine.begin() as connection:
            for name, changed_ns in gone.items():
                this = (sagas.c.generation == generation.number, sagas.c.saga == name)
                done = await connection.execute(delete(sagas).where(*this, sagas.c.changed_ns == changed_ns))
                for table in (incomplete, keys) if done.rowcount else ():
                    its = (table.c.generation == generation.number, table.c.saga == name)
                    await connection.execute(delete(table).where(*its))

    async def write(self, generation: Generation, places: Places, changed: Iterable[Overview]) -> Generation:
        """Write rows and the places up to which the streams were read for them, as one.

        Raises:
            Overtaken: the generation is not where it is said to be; nothing was written.
        """
        rows = list(changed)
        try:
            await self._write_all(generation, places, rows)
        except REFUSALS as error:
            if trouble_of(error) is not None:
                raise
            await self._write_each(generation, places, rows)
        reached("readmodel.committed")
        return msgspec.structs.replace(generation, places=places)

    async def _write_all(self, generation: Generation, places: Places, rows: list[Overview]) -> None:
        async with self._engine.begin() as connection:
            await self._move(connection, generation, places)
            if rows:
                await self._upsert(connection, generation.number, rows)
            reached("readmodel.written")

    async def _write_each(self, generation: Generation, places: Places, rows: list[Overview]) -> None:
        """Write row by row. Of one that the database refuses, write what it takes of every saga: if it refuses that as
        well, the fault is not the saga's."""
        async with self._engine.begin() as connection:
            await self._move(connection, generation, places)
            for row in rows:
                try:
                    async with connection.begin_nested():
                        await self._upsert(connection, generation.number, [row])
                except REFUSALS as error:
                    if trouble_of(error) is not None:
                        raise
                    reason = f"the database does not take its row ({class_of(_cause_of(error))})"
                    await self._upsert(connection, generation.number, [bare(row, reason)])
                    say("readmodel.faulty_row", error, saga=name_of(row))

    async def _move(self, connection: AsyncConnection, generation: Generation, places: Places) -> None:
        """First of all, so that whoever comes second waits here and then finds that it is second."""
        before = _row_of(generation)
        after = _row_of(msgspec.structs.replace(generation, places=places))
        done = await connection.execute(
            update(generations)
            .where(*(generations.c[name] == before[name] for name in ("generation", "saga", "events")))
            .values(saga=after["saga"], events=after["events"])
        )
        if done.rowcount != 1:
            raise Overtaken
        new = self._insert(marks)
        names = ("saga", "events")
        new = new.on_conflict_do_update(
            index_elements=[marks.c.generation], set_={name: new.excluded[name] for name in names}
        )
        await connection.execute(new, [_marks_row(generation.number, places)])

    async def _upsert(self, connection: AsyncConnection, generation: int, rows: list[Overview]) -> None:
        new = self._insert(sagas)
        values = ("state", "is_parked", "started_ns", "changed_ns", "told")
        statement = new.on_conflict_do_update(
            index_elements=[sagas.c.generation, sagas.c.saga], set_={name: new.excluded[name] for name in values}
        )
        await connection.execute(statement, [_saga_row(generation, row) for row in rows])
        for row in rows:
            if row.forgotten:
                its = (keys.c.generation == generation, keys.c.saga == name_of(row))
                await connection.execute(delete(keys).where(*its))
        pairs = [
            {
                "generation": generation,
                "name": _clean(name, NAME_CHARS_MAX),
                "value": _clean(value, VALUE_CHARS_MAX),
                "saga": name_of(row),
            }
            for row in rows
            for name, value in row.keys.items()
        ]
        if pairs:
            await connection.execute(self._insert(keys).on_conflict_do_nothing(), pairs)
        lacking = [{"generation": generation, "saga": name_of(row)} for row in rows if row.incomplete]
        if lacking:
            await connection.execute(self._insert(incomplete).on_conflict_do_nothing(), lacking)

    async def find(self, query: Query) -> list[Overview]:
        """The sagas that a query asks for.

        Raises:
            PlatformError: the database cannot be read, or the model is not built yet.
        """
        async with self._reading() as (connection, number):
            found = await connection.execute(_select(number, query))
            return [_overview(row.saga, row.told) for row in found]

    async def lacking(self, most: int) -> tuple[list[str], int]:
        """The names of sagas whose rows lack something, and how many there are in all.

        Raises:
            PlatformError: as `find`.
        """
        async with self._reading() as (connection, number):
            if not await connection.run_sync(lambda found: inspect(found).has_table(incomplete.name)):
                return [], 0  # a process of an earlier release keeps the model
            these = incomplete.c.generation == number
            count = (await connection.execute(select(func.count()).select_from(incomplete).where(these))).scalar_one()
            names = await connection.execute(
                select(incomplete.c.saga).where(these).order_by(incomplete.c.saga).limit(most)
            )
            return list(names.scalars()), count

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[tuple[AsyncConnection, int]]:
        """A connection to read with, and the number of the generation that is live."""
        try:
            self._require_file()
            async with self._engine.begin() as connection:
                live = select(generations.c.generation).where(generations.c.is_live.is_(True))
                number = (await connection.execute(live)).scalar_one_or_none()
                if number is None:
                    raise PlatformError(
                        "the read model is being built for the first time. Try again in a moment, or list without "
                        "--database."
                    )
                yield connection, number
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise self.unusable(error, "Is it the right one? `antiphon readmodel --database URL` fills it.") from error

    def _require_file(self) -> None:
        """SQLite would create the file it is to read."""
        path = self._engine.url.database
        if self._is_sqlite and path and not Path(path).exists():
            raise OSError("there is no such file")


def name_of(row: Overview) -> str:
    """The saga's name in the model."""
    return f"{row.type}/{row.id}"


def bare(row: Overview, reason: str) -> Overview:
    """A row without anything that somebody else wrote: names, times and the state are ours.

    Args:
        row: the row in whose place it stands.
        reason: why.
    """
    return Overview(
        type=row.type,
        id=row.id,
        state=row.state,
        started_ns=row.started_ns,
        changed_ns=row.changed_ns,
        ended_ns=row.ended_ns,
        sequence=row.sequence,
        incomplete=reason,
    )


def _cause_of(error: Exception) -> BaseException:
    """The driver's error, as it names itself."""
    found: BaseException = driver_error(error)
    return found.__cause__ or found


def _select(generation: int, query: Query) -> Any:
    conditions: list[Any] = [sagas.c.generation == generation]
    if query.type:
        conditions.append(sagas.c.type == query.type)
    if query.state is not None:
        conditions.append(sagas.c.state == query.state)
    if query.parked:
        conditions.append(sagas.c.is_parked.is_(True))
    if query.started_before_ns:
        conditions.append(sagas.c.started_ns < query.started_before_ns)
    for name, value in query.keys.items():
        named = (keys.c.name == _clean(name, NAME_CHARS_MAX), keys.c.value == _clean(value, VALUE_CHARS_MAX))
        these = (keys.c.generation == generation, *named)
        conditions.append(sagas.c.saga.in_(select(keys.c.saga).where(*these)))
    by = sagas.c.changed_ns if query.sort == "changed" else sagas.c.started_ns
    # A key names few sagas. The sum keeps SQLite from walking all of them in the order of an index instead.
    ordered: Any = by + 0 if query.keys else by
    return (
        select(sagas.c.saga, sagas.c.told)
        .where(*conditions)
        .order_by(ordered if query.sort == "age" else ordered.desc())
        .limit(query.limit)
    )


def _clean(text: str, chars_max: int) -> str:
    """A text to search by, as both databases take it: PostgreSQL has no text with a NUL, and neither has UTF-8 half a
    surrogate pair."""
    whole = text[:chars_max].replace("\0", "\ufffd")
    return whole.encode("utf-8", "replace").decode()


def _saga_row(generation: int, row: Overview) -> dict[str, Any]:
    return {
        "generation": generation,
        "saga": name_of(row),
        "type": row.type,
        "state": row.state,
        "is_parked": bool(row.parked),
        "started_ns": row.started_ns,
        "changed_ns": row.changed_ns,
        "told": msgspec.json.encode(row).decode(),
    }


def _overview(name: str, told: str) -> Overview:
    """What a row tells. One that this release cannot read hides no other."""
    try:
        return _decode(told)
    except (msgspec.MsgspecError, ValueError) as error:
        say("readmodel.unreadable_row", error, saga=name)
        saga_type, _, saga_id = name.partition("/")
        return Overview(type=saga_type, id=saga_id, incomplete="its row is of another release: rebuild the model")


_decode = msgspec.json.Decoder(Overview).decode
_decode_mark = msgspec.json.Decoder(Mark | list[Mark]).decode
_decode_marks = msgspec.json.Decoder(list[Mark | list[Mark]]).decode
# Of one pair of streams a mark stands there, and a list of earlier ones; of several, a list of either.


def _generation(row: Any, earlier: Any) -> Generation:
    sagas_read, events_read = _each(_decode_mark(row.saga)), _each(_decode_mark(row.events))
    nothing = [()] * len(sagas_read)
    earlier_saga = _earlier(_decode_marks(earlier.saga)) if earlier is not None else nothing
    earlier_events = _earlier(_decode_marks(earlier.events)) if earlier is not None else nothing
    found = [Places(*each) for each in zip(sagas_read, events_read, earlier_saga, earlier_events, strict=True)]
    return Generation(row.generation, row.is_live, msgspec.structs.replace(found[0], further=tuple(found[1:])))


def _each(read: Mark | list[Mark]) -> list[Mark]:
    return [read] if isinstance(read, Mark) else read


def _earlier(read: list[Mark | list[Mark]]) -> list[tuple[Mark, ...]]:
    """Earlier marks by pair."""
    flat = tuple(each for each in read if isinstance(each, Mark))
    return [flat] if len(flat) == len(read) else [tuple(each) for each in read if isinstance(each, list)]


def _marks_row(generation: int, places: Places) -> dict[str, Any]:
    earlier = {
        "saga": [each.earlier_saga for each in places.all],
        "events": [each.earlier_events for each in places.all],
    }
    return {"generation": generation, **{name: _encoded(marks) for name, marks in earlier.items()}}


def _row_of(generation: Generation) -> dict[str, Any]:
    places = generation.places.all
    marks = {"saga": [each.saga for each in places], "events": [each.events for each in places]}
    return {
        "generation": generation.number,
        "is_live": generation.is_live,
        **{name: _encoded(read) for name, read in marks.items()},
    }


def _encoded(of_pairs: Sequence[object]) -> str:
    return msgspec.json.encode(of_pairs[0] if len(of_pairs) == 1 else of_pairs).decode()


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[first : first + IN_MAX] for first in range(0, len(names), IN_MAX)]


@asynccontextmanager
async def opened(url: str, *, writes: bool = False) -> AsyncGenerator[Model]:
    """A model for the length of a block; its tables are created if it will be written to."""
    model = Model(url, writes=writes)
    try:
        if writes:
            await model.open()
        yield model
    finally:
        await model.close()
