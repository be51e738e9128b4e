"""Statements of the library's own, compiled once and run straight at SQLite's driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.dialects import sqlite

_Convert = Callable[[Any], Any]

_dialect = sqlite.dialect(paramstyle="qmark")


class Prepared:
    """A statement in SQL, and what turns its values and columns into those that the driver takes and gives.

    Args:
        statement: a SQLAlchemy statement.
        columns: of an insert, the columns that are given a value; all that the statement names when left out.
    """

    __slots__ = ("_binds", "_names", "_results", "sql")

    def __init__(self, statement: Any, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=_dialect, column_keys=columns)
        self.sql = str(compiled)
        self._names: list[str] = list(compiled.positiontup or ())
        self._binds = _converters(
            (name, compiled.binds[name].type.dialect_impl(_dialect).bind_processor(_dialect)) for name in self._names
        )
        returned = getattr(statement, "exported_columns", ())
        self._results = _converters(
            (place, column.type.dialect_impl(_dialect).result_processor(_dialect, None))
            for place, column in enumerate(returned)
        )

    def one(self, connection: sqlite3.Connection, values: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run it, and give its first row; None where there is none.

        Raises:
            sqlite3.Error: the database refuses it.
        """
        for name, convert in self._binds:
            values[name] = convert(values[name])
        found: tuple[Any, ...] | None = connection.execute(self.sql, [values[name] for name in self._names]).fetchone()
        if found is None or not self._results:
            return found
        row = list(found)
        for place, convert in self._results:
            row[place] = convert(row[place])
        return tuple(row)


def _converters(pairs: Any) -> list[tuple[Any, _Convert]]:
    return [(key, convert) for key, convert in pairs if convert is not None]
