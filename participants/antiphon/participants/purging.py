"""Rows of inboxes removed: those of one saga on demand, and those of sagas that are long over.

A row keeps a command that comes again from being done twice, so it goes after the journal that holds the command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import SagaKey

from .engines import FOR_PARTICIPANTS, open_engine, require_driver

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

PAGE: Final = 200

AreOver = Callable[[list[SagaKey]], Awaitable[Collection[SagaKey]]]
"""Says which of some sagas have no journal any more."""


async def forget_saga(url: str, key: SagaKey) -> int:
    """Delete what an inbox holds of one saga, its answers among it.

    Args:
        url: the participant's database.
        key: the saga, whose journal must be purged.

    Returns:
        How many answers there were.

    Raises:
        PlatformError: the database cannot be opened, or holds no inbox.
    """
    async with _opened(url) as engine, engine.begin() as connection:
        return await _delete(connection, key)


async def purge_inbox(url: str, before: datetime, are_over: AreOver) -> int:
    """Delete the rows of sagas that have no journal any more.

    Args:
        url: the participant's database.
        before: rows that were written later stay.
        are_over: which sagas have none.

    Returns:
        How many rows were deleted.

    Raises:
        PlatformError: the database cannot be opened, or holds no inbox.
    """
    async with _opened(url) as engine:
        deleted, last = 0, ("", "")
        while page := await _page(engine, before, last):
            last = page[-1].type, page[-1].id
            over = await are_over(page)
            async with engine.begin() as connection:
                for key in page:
                    deleted += await _delete(connection, key) if key in over else 0
        return deleted


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


async def _delete(connection: AsyncConnection, key: SagaKey) -> int:
    from sqlalchemy import delete

    from .tables import attempts, inbox

    rows = await connection.execute(delete(inbox).where(inbox.c.saga_type == key.type, inbox.c.saga_id == key.id))
    await connection.execute(delete(attempts).where(attempts.c.message.contains(f".{key.path}.", autoescape=True)))
    return rows.rowcount


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[AsyncEngine]:
    require_driver(url, *FOR_PARTICIPANTS)
    from sqlalchemy.exc import SQLAlchemyError

    engine = open_engine(url)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise PlatformError(
            f"the inbox at {engine.url.render_as_string(hide_password=True)} cannot be used "
            f"({type(error).__name__}). Is it the participant's database?"
        ) from None
    finally:
        await engine.dispose()
