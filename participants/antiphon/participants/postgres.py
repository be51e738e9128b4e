"""A participant's database in PostgreSQL: many transactions at once, each with its row locked."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, delete, func
from sqlalchemy.dialects import postgresql

from .engines import open_engine
from .faults import Faults
from .inbox import Row
from .sql import SqlDatabase, SqlInbox, row_of
from .tables import KEY, add, inbox, read, upsert

CLAIMED: Final = "claimed"
"""The state of a new row until its transaction ends. The library commits it with a number in `claim` only."""

_read_locked = read.with_for_update()
_claim = (
    postgresql.insert(inbox)
    .values(state=CLAIMED, attempt=0, answer_type=None, answer=None, written_at=func.now())
    .on_conflict_do_nothing()
    .returning(inbox.c.state)
)


_forget = delete(inbox).where(*(column == bindparam(column.name) for column in KEY))


class PostgresInbox(SqlInbox):
    """The row itself is the lock, and is there before any handler runs."""

    settle_statement = upsert(postgresql.insert)
    add_statement = add(postgresql.insert)

    _has_inserted = False

    async def leave(self) -> None:
        """Leave no row where `claim` has inserted one, which was its lock."""
        if self._has_inserted:
            await self._connection.execute(_forget, self._key)

    async def _claim(self) -> Row | None:
        # The insert waits for an open transaction that has claimed the row, and then does nothing if that one was
        # committed. The row it found may have been purged when the select looks, hence the loop.
        while True:
            if (await self._connection.execute(_claim, self._key)).one_or_none() is not None:
                self._has_inserted = True
                return None
            found = (await self._connection.execute(_read_locked, self._key)).one_or_none()
            if found is not None:
                return row_of(found)


class PostgresDatabase(SqlDatabase):
    """READ COMMITTED, whatever the server's default: the claim must see what it waited for."""

    _inbox = PostgresInbox

    def __init__(self, url: str, connections: int) -> None:
        super().__init__(open_engine(url, connections=connections))
        self._faults = Faults(self._engine.sync_engine)
