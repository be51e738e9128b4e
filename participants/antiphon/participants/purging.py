"""Rows of inboxes removed: those of one saga on demand, and those of sagas that are long over.

A row keeps a command that comes again from being done twice, so it goes after the journal that holds the command. One
of a reaction stays for as long as the end of its saga does: a start that a client stores again is heard by
participants, whatever coordinators make of it, and without the row it would have its effect a second time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import BY_ITSELF

from .engines import FOR_PARTICIPANTS, first_line, open_engine, require_driver

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

PAGE: Final = 200
MEMORY: Final = ":memory:"


class Over(NamedTuple):
    """Of some sagas those that have no journal any more, and among these those of which not even the end is left."""

    purged: Collection[SagaKey]
    gone: Collection[SagaKey]


class Removed(NamedTuple):
    """What was removed from an inbox, and what was left."""

    rows: int
    left: int
    """Sagas of which not even the end is known, and whose rows stay because nobody said that this is meant."""


AreOver = Callable[[list[SagaKey]], Awaitable[Over]]
"""Says which of some sagas are over."""


async def require_inbox(url: str) -> None:
    """Check that a database can be opened and holds an inbox.

    Raises:
        PlatformError: it cannot, or does not.
    """
    from sqlalchemy import select

    from .tables import inbox

    async with _opened(url) as engine, engine.connect() as connection:
        await connection.execute(select(inbox.c.step).limit(1))


async def forget_saga(url: str, key: SagaKey) -> int:
    """Delete what an inbox holds of one saga; of its reactions the answers alone, so that none is had twice.

    Args:
        url: the participant's database.
        key: the saga, whose journal must be purged.

    Returns:
        How many answers there were.

    Raises:
        PlatformError: the database cannot be opened, or holds no inbox.
    """
    async with _opened(url) as engine, engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            await connection.exec_driver_sql("PRAGMA secure_delete = ON")  # overwrites what is deleted
        return await _delete(connection, key) + await _empty(connection, key)


async def purge_inbox(url: str, before: datetime, are_over: AreOver, *, with_gone: bool = False) -> Removed:
    """Delete the rows of sagas that have no journal any more.

    Args:
        url: the participant's database.
        before: rows that were written later stay.
        are_over: which sagas have none.
        with_gone: whether also those of sagas of which not even the end is left. A server that never had them, or was
            restored from an older backup, says the same of sagas whose commands may still come again.

    Raises:
        PlatformError: the database cannot be opened, or holds no inbox.
    """
    async with _opened(url) as engine:
        rows, left, last = 0, 0, ("", "")
        while page := await _page(engine, before, last):
            last = page[-1].type, page[-1].id
            over = await are_over(page)
            async with engine.begin() as connection:
                for key in page:
                    if key in over.gone and not with_gone:
                        left += 1
                    elif key in over.purged:
                        rows += await _delete(connection, key, with_reactions=key in over.gone)
        return Removed(rows, left)


async def _page(engine: AsyncEngine, before: datetime, after: tuple[str, str]) -> list[SagaKey]:
    """The next sagas of which no row is younger, by the database's own order."""
    from sqlalchemy import func, select, tuple_

    from .tables import inbox

    saga = inbox.c.saga_type, inbox.c.saga_id
    wanted = (
        select(*saga)
        .where(tuple_(*saga) > tuple_(*after))
        .group_by(*saga)
        .having(func.max(inbox.c.written_at) < before)
        .order_by(*saga)
        .limit(PAGE)
    )
    async with engine.connect() as connection:
        return [SagaKey.of(*row) for row in await connection.execute(wanted)]


async def _delete(connection: AsyncConnection, key: SagaKey, *, with_reactions: bool = False) -> int:
    from sqlalchemy import delete

    from .tables import attempts, inbox

    its = inbox.c.saga_type == key.type, inbox.c.saga_id == key.id
    of_commands = () if with_reactions else (~inbox.c.step.startswith(BY_ITSELF, autoescape=True),)
    rows = await connection.execute(delete(inbox).where(*its, *of_commands))
    await connection.execute(delete(attempts).where(attempts.c.message.contains(f".{key.path}.", autoescape=True)))
    return rows.rowcount


async def _empty(connection: AsyncConnection, key: SagaKey) -> int:
    """Leave nothing of the answers of reactions but that there was one."""
    from sqlalchemy import update

    from .tables import inbox

    its = inbox.c.saga_type == key.type, inbox.c.saga_id == key.id
    rows = await connection.execute(update(inbox).where(*its, inbox.c.answer != "{}").values(answer="{}"))
    return rows.rowcount


@asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[AsyncEngine]:
    require_driver(url, *FOR_PARTICIPANTS)
    from sqlalchemy.exc import SQLAlchemyError

    engine = open_engine(url)
    where = engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=True)
    if engine.dialect.name == "sqlite":
        _require_file(engine.url.database or MEMORY, where)
    try:
        yield engine
    except (OSError, SQLAlchemyError) as error:
        why = first_line(error) if isinstance(error, OSError) else type(error).__name__
        raise PlatformError(f"the inbox at {where} cannot be used ({why}). Is it the participant's database?") from None
    finally:
        await engine.dispose()


def _require_file(path: str, where: str) -> None:
    """Refuse a path at which SQLite would make a new, empty file. Of a `file:` URI SQLite itself says what is wrong."""
    if path != MEMORY and not path.startswith("file:") and not Path(path).is_file():
        raise PlatformError(f"the inbox at {where} cannot be used: there is no such file.")
