"""The reason of an error: which of its words travel into journals, and which stay in the log.

What travels is stored in journals for as long as those are kept, and read by whoever may look at a saga. The text of an
exception holds whatever its author or a driver put there: names, card numbers, the parameters of a statement. So an
error is its class, and the database's own names for what happened; only what was written to be read travels as it is.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from antiphon.contracts.bounds import REASON_CHARS_MAX
from antiphon.contracts.errors import AntiphonError, Refused, Unavailable, Unrecoverable, Unusable

from .engines import driver_error, sqlite_code_of, sqlstate_of


class OwnWords(Exception):
    """An error with a sentence of Antiphon's own. The sentence holds no value of an author's, so it travels."""


class Misuse(OwnWords, RuntimeError):
    """An author's code did what only the worker may. Where it did so stands in the log."""


def reason_of(error: BaseException, with_text: bool = False) -> str:
    """What travels of an error.

    Args:
        error: what was raised.
        with_text: whether the texts of all errors may travel, as on a developer's machine.
    """
    if isinstance(error, Refused | Unavailable | Unrecoverable):
        return clean(error.reason)
    if isinstance(error, Unusable):
        return clean(_without_values(error))
    if isinstance(error, OwnWords) or _is_our_own(error):
        return clean(error)
    name = clean(type(error).__name__)
    if with_text:
        text = clean(error, "")
        return f"{name}: {text}"[:REASON_CHARS_MAX] if text else name
    return f"{name}{_database_names(error)}"[:REASON_CHARS_MAX]


def is_said_on_purpose(error: BaseException) -> bool:
    """Whether an error says all there is to say, so that nobody needs to know where it was raised."""
    return isinstance(error, Refused | Unavailable | OwnWords) and not isinstance(error, Misuse)


def clean(value: object, otherwise: str | None = None) -> str:
    """A text that can be stored: not too long, and written as UTF-8 whatever is in it.

    Args:
        value: whatever stands for the text.
        otherwise: the text of what cannot be printed; the name of its class when left out.
    """
    try:
        return str(value)[:REASON_CHARS_MAX].encode("utf-8", "backslashreplace").decode()[:REASON_CHARS_MAX]
    except BaseException:  # an author's `__str__` may do anything
        return type(value).__name__ if otherwise is None else otherwise


def _is_our_own(error: BaseException) -> bool:
    """Whether the sentence was written here. A class that an author derived from ours is the author's."""
    return isinstance(error, AntiphonError) and type(error).__module__.partition(".")[0] == "antiphon"


# msgspec quotes what it found where only some values are allowed.
_QUOTED = re.compile(r"((?:Invalid|Unexpected) [a-z ]*value) .+?(?= - at `|$)", re.DOTALL)


def _without_values(error: Unusable) -> str:
    """Why a message cannot be used, without what an author's own check said about it."""
    refused = error.__context__
    if isinstance(refused, msgspec.ValidationError) and refused.__cause__ is not None:
        return f"{error.reason.partition(':')[0]}: {type(refused.__cause__).__name__}"
    return _QUOTED.sub(r"\1", error.reason)


# --- what a database calls it -----------------------------------------------------------------------------------------


def _database_names(error: BaseException) -> str:
    """What a database calls it: names from standards and from the schema, never a value."""
    original = driver_error(error)
    state, symbol = sqlstate_of(error), getattr(original, "sqlite_errorname", None)
    names = [f"SQLSTATE {clean(state)}"] if state else [clean(symbol)] if isinstance(symbol, str) else []
    if constraint := _constraint_of(original):
        names.append(f"constraint {clean(constraint)}")
    return f" ({', '.join(names)})" if names else ""


_IN_SQLITE: Final = re.compile(r"(?:UNIQUE|NOT NULL|CHECK) constraint failed: (.+)")


def _constraint_of(original: Any) -> str:
    """The name of the constraint that a statement would have broken."""
    # asyncpg's error is behind that of SQLAlchemy's adapter; psycopg has a field for it.
    for each in (original, getattr(original, "__cause__", None), getattr(original, "diag", None)):
        if isinstance(found := getattr(each, "constraint_name", None), str):
            return found
    found = _IN_SQLITE.fullmatch(clean(original, "")) if sqlite_code_of(original) else None
    return found.group(1) if found else ""
