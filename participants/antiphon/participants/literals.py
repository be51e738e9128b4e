"""PostgreSQL's statements with their values in the text, so that several go to the server at once.

Its protocol takes several statements in one message only without parameters. Every text is an escape string, in which a
quote and a backslash are doubled; so no setting of the server changes what it means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

Value = str | int | datetime | None


def literal(value: Value) -> str:
    """A value as PostgreSQL reads it.

    Raises:
        ValueError: a text has a NUL, which PostgreSQL cannot store.
        TypeError: no column of the inbox has such a value.
    """
    write = _WRITERS.get(type(value))
    if write is None:
        raise TypeError(f"the inbox has no column for a {type(value).__name__}")
    return write(value)


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("a text with a NUL cannot be stored in PostgreSQL")
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _time(value: datetime) -> str:
    if value.tzinfo is None:
        raise TypeError("a time without a zone says no time")
    return f"'{value.isoformat()}'::timestamptz"


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda _: "NULL",
    int: str,
    str: _text,
    datetime: _time,
}


Write = Callable[[str, Sequence[str], Sequence[str], Sequence[str]], str]


def insert_of(table: str, key: Sequence[str], columns: Sequence[str], values: Sequence[str]) -> str:
    """Insert a row where there is none with its key."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(values)}) ON CONFLICT DO NOTHING"


def upsert_of(table: str, key: Sequence[str], columns: Sequence[str], values: Sequence[str]) -> str:
    """Insert a row, or write the one that has its key."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(values)})"
    return f"{insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"


class Statement:
    """A statement that writes one row, to be prepared under a name, or sent whole.

    Args:
        name: under which it is prepared.
        write: makes its text.
        table: its name.
        key: the columns of the primary key.
        columns: that are given values.
        types: of all columns.
        always: other columns, and what is always written there, in SQL.
    """

    def __init__(
        self,
        name: str,
        write: Write,
        table: str,
        key: Sequence[str],
        columns: Sequence[str],
        types: Mapping[str, str],
        always: Mapping[str, str],
    ) -> None:
        self._name, self._write, self._table, self._key = name, write, table, key
        self._columns, self._always = [column for column in columns if column not in always], always
        places = [f"${number}" for number in range(1, len(self._columns) + 1)]
        taken = ", ".join(types[column] for column in self._columns)
        self.prepare = f"PREPARE {name} ({taken}) AS {self._written(places)}"

    def call(self, values: Mapping[str, Value]) -> str:
        """The prepared statement with these values."""
        return f"EXECUTE {self._name}({', '.join([literal(values[column]) for column in self._columns])})"

    def text(self, values: Mapping[str, Value]) -> str:
        """The whole statement with these values."""
        return self._written([literal(values[column]) for column in self._columns])

    def _written(self, values: Sequence[str]) -> str:
        return self._write(self._table, self._key, [*self._columns, *self._always], [*values, *self._always.values()])
