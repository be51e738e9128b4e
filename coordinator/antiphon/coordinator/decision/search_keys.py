"""What a saga is to be found by, as its definition names it from the start event. Pure."""

from __future__ import annotations

from typing import Any, Final

from antiphon.contracts.errors import BadIdentity, WrongShape
from antiphon.contracts.identity import check_token
from antiphon.contracts.messages import Event

from ..definition.definition import Definition
from .author import Author, AuthorFault, checked_locks
from .history import History

KEYS_MAX: Final = 8
"""Each is a row of the read model, for every saga."""

VALUE_CHARS_MAX: Final = 200
"""A key is something a person types in, not a payload."""


def keys_to_write(history: History, author: Author) -> dict[str, str] | None:
    """The keys that the next entry carries: before any step has begun, so that they stand in the first entry, and also
    in what follows a fault of this very function.

    Raises:
        AuthorFault: the author's function raised something, or returned what cannot be written.
    """
    function = history.definition.keys
    if function is None or history.start is None or any(step.phase != "waiting" for step in history.steps.values()):
        return None
    if history.entries and not history.definition.is_led:
        return None
    if history.keys is not None:
        return history.keys
    try:
        return checked(author.keys(function, history.start))
    except (TypeError, ValueError, BadIdentity) as error:
        raise AuthorFault(f"{function.__name__}: {error}") from error


def require_names(definition: Definition, start: Event) -> None:
    """Refuse what no saga could begin with: its first entry is to name its keys, and then the locks it asks for.

    Raises:
        WrongShape: the author's function raises, or returns what cannot be written.
    """
    try:
        if definition.keys is not None:
            checked(definition.keys(start))
        if definition.locks is not None:
            checked_locks(definition.locks.__name__, definition.locks(start))
    except KeyboardInterrupt:  # the caller's own Ctrl-C
        raise
    except BaseException as error:
        reason = (str(error) if isinstance(error, Exception) else "") or type(error).__name__
        raise WrongShape(f"no saga {definition.name} can begin with that: {reason}") from error


def checked(found: Any) -> dict[str, str]:
    """Keys that may be written.

    Raises:
        TypeError: they are no dict of strings.
        ValueError: too many, or one is too long.
        BadIdentity: a name is no token.
    """
    if not isinstance(found, dict):
        raise TypeError(f"keys are a dict of strings to strings, not a {type(found).__name__}")
    return _checked(found)  # pyright: ignore[reportUnknownArgumentType] # each part is looked at there


def _checked(found: dict[Any, Any]) -> dict[str, str]:
    if len(found) > KEYS_MAX:
        raise ValueError(f"a saga has at most {KEYS_MAX} keys, not {len(found)}")
    return {check_token(name, "key"): _value(name, value) for name, value in found.items()}


def _value(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the key {name} is a {type(value).__name__}, and must be a string")
    if len(value) > VALUE_CHARS_MAX:
        raise ValueError(f"the key {name} has {len(value)} characters, and {VALUE_CHARS_MAX} are the most")
    return value
