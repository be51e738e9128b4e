"""Which types the fields of a message may have: what JSON can say, and msgspec can read back as it was. Pure.

A class that cannot travel is refused when it is defined, or, where one of its annotations names what is defined later,
when a saga or a participant names the class.
"""

from __future__ import annotations

import collections
import fractions
import inspect as python
import ipaddress
import pathlib
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import inspect

from .errors import DefinitionError
from .values import parts_of

KEYS: Final = (
    inspect.StrType,
    inspect.IntType,
    inspect.FloatType,
    inspect.BytesType,
    inspect.UUIDType,
    inspect.EnumType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.TimeType,
    inspect.TimeDeltaType,
    inspect.DecimalType,
    inspect.AnyType,
)
"""What the keys of a dict may be: JSON writes them as texts, and the type says what the text means. Without a type they
are texts."""

NOT_IN_SETS: Final = (
    inspect.ListType,
    inspect.SetType,
    inspect.DictType,
    inspect.TypedDictType,
    inspect.ByteArrayType,
    inspect.RawType,
)
"""What cannot be in a set, since it has no hash."""

NUMBERS: Final = "a Decimal, or two fields of numbers"
TEXT: Final = "a str"

INSTEAD: Final[dict[type, str]] = {
    ipaddress.IPv4Address: TEXT,
    ipaddress.IPv6Address: TEXT,
    pathlib.PurePath: TEXT,
    fractions.Fraction: NUMBERS,
    complex: NUMBERS,
    range: "its bounds",
    collections.deque: "a list",
    dict: "a dict",
    str: TEXT,
    int: "an int",
    float: "a float",
}
"""What may stand in the place of a type that cannot travel, or of one derived from it."""

STRUCT: Final = "a msgspec.Struct with the same fields"
LISTED: Final = "contracts/README.md lists what travels"


@cache  # of those that travel; what raises is asked again
def require_travels(message: Any) -> None:
    """Refuse a message class of which some field cannot be sent and read back as it was.

    Raises:
        DefinitionError: the sentence has the field and the remedy.
    """
    if why := _why_not(message):
        raise DefinitionError(f"{message.__name__}{why}")


def require_travels_if_known(message: Any) -> None:
    """The same where all its annotations can be read; where not, nothing is known yet.

    Raises:
        DefinitionError: the sentence has the field and the remedy.
    """
    try:
        inspect.type_info(message)
    except NameError:
        return
    except Exception:
        pass
    require_travels(message)


def _why_not(message: type[Any]) -> str:
    """Why a class cannot travel, as the rest of a sentence; empty if it can."""
    try:
        info = inspect.type_info(message)
    except NameError as error:
        return f": its annotations cannot be read ({error}). Import or define what they name before it is used."
    except Exception as error:  # msgspec's, or whatever an annotation raises
        return f"{_blamed(message, '')}: {error}. {_remedy(str(error))}; {LISTED}."
    found = next(_faults(info, "", ()), "")
    return found or _unwritable(message)


def _remedy(error: str) -> str:
    """What msgspec's own sentences lack."""
    if "union" in error:
        return "JSON could not tell them apart: give structs tag=True, or the field one type"
    if "Enum" in error:
        return "Give its members texts, or whole numbers"
    return "Give it another type"


def _unwritable(message: type[Any]) -> str:
    """What msgspec finds besides."""
    try:
        msgspec.json.Decoder(message)
        msgspec.json.schema(message, schema_hook=schema_of_object)
    except Exception as error:  # whatever it is, the class is of no use
        return f": {error}. {LISTED}."
    return ""


def schema_of_object(found: type) -> dict[str, Any]:
    """The JSON Schema of a field that may hold anything: `object` says the same as `Any`.

    Raises:
        NotImplementedError: it is another class, which does not travel.
    """
    if found is object:
        return {"description": "anything"}  # for an empty one msgspec takes it to be unknown
    raise NotImplementedError(found.__name__)


# --- types ------------------------------------------------------------------------------------------------------------


def _faults(info: inspect.Type, path: str, above: tuple[Any, ...]) -> Iterator[str]:
    """What cannot travel in a type; `above` are the classes it stands in, one of which it may be."""
    if (cls := getattr(info, "cls", None)) is not None and cls in above:
        return
    match info:
        case inspect.CustomType() if info.cls is not object:
            yield f".{path[1:]} is {_a(info.cls)}, which JSON cannot say. Use {_instead(info.cls)}; {LISTED}."
        case inspect.ExtType():
            yield f".{path[1:]} is of msgpack, which is not used here. Use bytes; {LISTED}."
        case inspect.DictType() if not _is_key(info.key_type):
            yield (
                f".{path[1:]} is a dict with keys that JSON, which has texts as keys, cannot say. Use keys of one "
                f"type: str, int, UUID, an Enum, a date or a datetime; or a list of structs; {LISTED}."
            )
        case inspect.SetType() | inspect.FrozenSetType() if not _has_hash(info.item_type, ()):
            yield (
                f".{path[1:]} is a set of what has no hash, so it cannot be read back. Use a list; or, where they are "
                f"structs, make them frozen; {LISTED}."
            )
        case _:
            for step, part in parts_of(info):
                yield from _faults(part, f"{path}{step}", (*above, cls))


def _is_key(info: inspect.Type) -> bool:
    match info:
        case inspect.Metadata(type=inner):
            return _is_key(inner)
        case inspect.LiteralType(values=values):
            return {type(each) for each in values} in ({str}, {int})
        case _:
            return isinstance(info, KEYS)


def _has_hash(info: inspect.Type, above: tuple[Any, ...]) -> bool:
    cls = getattr(info, "cls", None)
    if isinstance(info, NOT_IN_SETS) or (cls is not None and not _is_hashed(cls)):
        return False
    if cls is not None and cls in above:
        return True
    return all(_has_hash(part, (*above, cls)) for _, part in parts_of(info))


def _is_hashed(cls: Any) -> bool:
    """Whether the values of a class have a hash; all structs have the method, and it raises where they can change."""
    if issubclass(cls, msgspec.Struct) and cls.__hash__ is msgspec.Struct.__hash__:
        return cls.__struct_config__.frozen or not cls.__struct_config__.eq
    return cls.__hash__ is not None


def _instead(found: Any) -> str:
    if hasattr(found, "__pydantic_fields__") or hasattr(found, "__pydantic_core_schema__"):
        return STRUCT
    for each, instead in INSTEAD.items():
        if python.isclass(found) and issubclass(found, each):
            return instead
    if hasattr(found, "__iter__") or hasattr(found, "__next__"):
        return "a list"
    return STRUCT


def _a(found: Any) -> str:
    return f"of the class {getattr(found, '__qualname__', found)}"


# --- where msgspec says no --------------------------------------------------------------------------------------------


def _blamed(hint: Any, path: str) -> str:
    """The way to the smallest part of a type that msgspec refuses."""
    for step, part in _hints_in(hint):
        if _is_refused(part):
            return _blamed(part, f"{path}{step}")
    return path


def _is_refused(hint: Any) -> bool:
    try:
        inspect.type_info(hint)
    except Exception:  # as above
        return True
    return False


def _hints_in(hint: Any) -> Iterator[tuple[str, Any]]:
    """The types that an annotation is made of."""
    origin: Any = get_origin(hint) or hint
    if python.isclass(origin) and getattr(origin, "__annotations__", None):
        fields = getattr(origin, "__struct_fields__", origin.__annotations__)
        hints = typing.get_type_hints(origin, include_extras=True)
        yield from ((f".{name}", hints[name]) for name in fields if name in hints)
    elif origin is not typing.Literal:
        step = "" if not python.isclass(origin) else "{}" if issubclass(origin, dict) else "[]"
        yield from ((step, each) for each in get_args(hint))
