"""The transaction of a command in PostgreSQL, straight at the driver: two round trips, beside those of its handler.

BEGIN goes with the claim, and the row with the COMMIT. Both statements are prepared once for each session; behind a
pooler that gives each transaction another session they are sent whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.dialects import postgresql

from .databases import Busy
from .engines import POOLED, first_line, sqlstate_of
from .literals import Statement, insert_of, upsert_of
from .sessions import Session
from .sql import refused
from .tables import KEY_NAMES, ROW, inbox

CLAIMED: Final = "claimed"
"""The state of a new row until its transaction ends. The library commits it with a number in `claim` only."""
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
NOTHING_INSERTED: Final = "INSERT 0 0"
"""What PostgreSQL says of an insert that found the row there."""

NAME: Final = "antiphon_"
"""How the names of prepared statements begin."""

_dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
_types = {name: column.type.compile(_dialect) for name, column in inbox.columns.items()}
_always = {"element": "0", "written_at": "now()"}
_CLAIM: Final = Statement(
    f"{NAME}claim",
    insert_of,
    inbox.name,
    KEY_NAMES,
    KEY_NAMES,
    _types,
    _always | {"state": f"'{CLAIMED}'", "attempt": "0"},
)
_SETTLE: Final = Statement(f"{NAME}settle", upsert_of, inbox.name, KEY_NAMES, [*KEY_NAMES, *ROW], _types, _always)


class Claimed:
    """The transaction that a claim has begun, with the methods by which SQLAlchemy's adapter of asyncpg ends one.

    Args:
        session: on which it is.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._driver = session, session.driver
        self._last = ""

    async def begin(self, key: Mapping[str, Any]) -> bool:
        """Begin, and insert the row that is the lock, where there is none with its key; whether that was so."""
        if self._session.is_prepared is None:
            await self._prepare()
        try:
            return await self.insert(key, f"{BEGIN}; ")
        except Exception as error:
            if sqlstate_of(error) not in POOLED:
                raise
        self._session.is_prepared = False
        await self._driver.execute("ROLLBACK")
        return await self.insert(key, f"{BEGIN}; ")

    async def insert(self, key: Mapping[str, Any], before: str = "") -> bool:
        """Insert the row, as `begin` does."""
        said = await self._driver.execute(before + self._call(_CLAIM, key))
        return bool(said != NOTHING_INSERTED)

    def settle(self, row: Mapping[str, Any]) -> None:
        """Write the row together with the COMMIT."""
        self._last = self._call(_SETTLE, row)

    async def end(self) -> None:
        """Commit."""
        last, self._last = self._last, ""
        try:
            await self._driver.execute(f"{last}; COMMIT" if last else "COMMIT")
        except Exception as error:
            if sqlstate_of(error) not in POOLED:
                raise
            self._session.is_prepared = False
            raise Busy(f"the row could not be written: {first_line(error)}") from error

    async def commit(self) -> None:
        """Roll back: who commits over SQLAlchemy's connection is a handler, and the library does not.

        Raises:
            CommittedByItself: always.
        """
        await self.rollback()
        raise refused("COMMIT")

    async def rollback(self) -> None:
        """Roll back."""
        self._last = ""
        await self._driver.execute("ROLLBACK")

    def _call(self, statement: Statement, values: Mapping[str, Any]) -> str:
        return statement.call(values) if self._session.is_prepared else statement.text(values)

    async def _prepare(self) -> None:
        try:
            await self._driver.execute(f"{_CLAIM.prepare}; {_SETTLE.prepare}")
        except Exception as error:
            if sqlstate_of(error) not in POOLED:
                raise
            self._session.is_prepared = False
        else:
            self._session.is_prepared = True
