"""Whether a value arrives as it was sent, and where it would not. Pure.

Nothing is changed in silence: what JSON, or the class of a field, cannot say is refused with the path of the field, by
whoever wants to send it. The sentences name fields and classes, and no values, because they get into journals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, time, timedelta
from functools import cache
from typing import Any, Final, cast

import msgspec
from msgspec import inspect

Encode = Callable[[object], bytes]
"""How a value becomes JSON."""

WHOLE_MINUTES: Final = timedelta(minutes=1)
"""What RFC 3339 says of how far a clock is from UTC. Zones had seconds until the 1970s."""

FIELDS: Final = "__dataclass_fields__"
FIELDS_OF_ATTRS: Final = "__attrs_attrs__"

ROOT: Final = "$"
"""How a path begins, here as in the sentences of msgspec."""


def is_same(one: object, other: object) -> bool:
    """Whether two values of one class are equal, whatever their classes think of equality.

    Two times that name one moment are the same, and so are a list and a tuple of the same.
    """
    return not _difference(one, other, ROOT)


def travelled(payload: object, encode: Encode) -> bytes:
    """The JSON of a payload that arrives as it was sent.

    Raises:
        ValueError: it would not; the sentence names the field.
    """
    shape: Any = type(payload)
    read, can_be_compared = _reading(shape)
    try:
        data = encode(payload)
        arrived = read(data)
    except BaseException as error:  # the encoder's and the decoder's errors, or whatever a class of the author's raises
        raise ValueError(_refusal(payload, encode, error)) from None
    if not (can_be_compared and _is_equal(arrived, payload)) and (wrong := _difference(payload, arrived, ROOT)):
        raise ValueError(wrong)
    return data


_QUOTED: Final = re.compile(r"((?:Invalid|Unexpected) [a-z ]*value) .+?(?= - at `|$)", re.DOTALL)
"""What msgspec quotes where only some values are allowed."""


def said_of(error: msgspec.ValidationError) -> str:
    """What msgspec says of bytes that do not fit a class, with the path, and without any value: neither the one that it
    found, nor what a class of the author's said about it."""
    if error.__cause__ is None:
        return _QUOTED.sub(r"\1", str(error))
    _, at, path = str(error).rpartition(" - at ")
    return f"{type(error.__cause__).__name__}{at}{path if at else ''}"


_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL
)
"""The escapes in the texts of JSON: a pair of surrogates, half of one, and all others."""
_HALF_BYTES: Final = len(rb"\ud800")


def without_halves(data: bytes) -> bytes | None:
    r"""JSON in which each half of a pair of surrogates, such as `\ud800`, is spelled out in six characters; None where
    there is no half.

    Half a pair is no character, so no reader can take it and no text that holds it can be sent on. Some encoders write
    it all the same, for instance where a text was cut.
    """
    if b"\\ud" not in data and b"\\uD" not in data:
        return None
    whole = _ESCAPES.sub(_spelled, data)
    return whole if whole != data else None


def _spelled(found: re.Match[bytes]) -> bytes:
    return b"\\" + found[0] if len(found[0]) == _HALF_BYTES else found[0]


@cache
def decoder(shape: Any) -> Any:
    """What reads the JSON of a class."""
    return msgspec.json.Decoder(shape)


@cache
def _reading(shape: Any) -> tuple[Callable[[bytes], Any], bool]:
    """What reads the JSON of a class, and whether `==` is enough to compare what was read. Found out once a class."""
    return decoder(shape).decode, _can_be_compared(shape)


# --- what is compared at one go ---------------------------------------------------------------------------------------


def _can_be_compared(shape: Any) -> bool:
    """Whether `==` looks at all that there is: it does unless a class in a field has an idea of equality of its own.

    Two of Python's times are equal although they are microseconds further from UTC.
    """
    return all(_has_plain_equality(info) for info in _types_in(inspect.type_info(shape)))


def _has_plain_equality(info: inspect.Type) -> bool:
    if isinstance(info, inspect.StructType):
        return info.cls.__eq__ is msgspec.Struct.__eq__
    return not isinstance(info, inspect.DataclassType | inspect.TimeType | inspect.NamedTupleType)


def _types_in(info: inspect.Type) -> Iterator[inspect.Type]:
    """A type and all that its fields, members and elements have, each class once."""
    seen: set[Any] = set()
    left = [info]
    while left:
        each = left.pop()
        cls = getattr(each, "cls", None)
        if cls is None or cls not in seen:
            seen.add(cls)
            yield each
            left += [part for _, part in parts_of(each)]


def parts_of(info: inspect.Type) -> Iterator[tuple[str, inspect.Type]]:
    """What a type consists of, each part with what leads to it in a path."""
    match info:
        case inspect.Metadata(type=inner):
            yield "", inner
        case inspect.UnionType(types=members):
            yield from (("", member) for member in members)
        case (
            inspect.StructType(fields=fields)
            | inspect.DataclassType(fields=fields)
            | inspect.TypedDictType(fields=fields)
            | inspect.NamedTupleType(fields=fields)
        ):
            yield from ((f".{field.name}", field.type) for field in fields)
        case (
            inspect.ListType(item_type=item)
            | inspect.VarTupleType(item_type=item)
            | inspect.SetType(item_type=item)
            | inspect.FrozenSetType(item_type=item)
        ):
            yield "[]", item
        case inspect.TupleType(item_types=items):
            yield from ((f"[{place}]", item) for place, item in enumerate(items))
        case inspect.DictType(key_type=key, value_type=value):
            yield "{} (its keys)", key
            yield "{}", value
        case _:
            pass


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _refusal(payload: object, encode: Encode, error: BaseException) -> str:
    """Why a payload cannot be sent, given what encoding, decoding or comparing it raised."""
    if isinstance(error, RecursionError):
        return "it contains itself, or too many values within each other; refer to them by an id"
    if (found := next(_not_finite(payload, ROOT), None)) is not None:
        return _no_number(*found)
    if isinstance(error, msgspec.ValidationError):
        return said_of(error)
    path, value = _culprit(payload, encode, ROOT)
    raised = _error_of(encode, value)
    return _at(_why_not(value, raised) if raised else f"reading it back raises {_a(error)}", path)


def _culprit(value: object, encode: Encode, path: str) -> tuple[str, object]:
    """The smallest part of a value that cannot be encoded by itself, and its path."""
    for step, part in _parts(value):
        if _error_of(encode, part) is not None:
            return _culprit(part, encode, f"{path}{step}")
    return path, value


def _error_of(encode: Encode, value: object) -> BaseException | None:
    try:
        encode(value)
    except BaseException as error:  # also what a class of the author's raises
        return error
    return None


def _why_not(value: object, error: BaseException) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[error.start : error.end]!r} in its text is half a character, and has no UTF-8"
    return f"{_a(value)} cannot be sent, because JSON has nothing like it"


def _not_finite(value: object, path: str) -> Iterator[tuple[float, str]]:
    """All that are no numbers or infinite, with their paths."""
    if isinstance(value, float) and not math.isfinite(value):
        yield value, path
    for step, part in _parts(value):
        yield from _not_finite(part, f"{path}{step}")


def _no_number(value: float, path: str) -> str:
    return _at(f"{value} is no number that JSON has; send None, or the word as a text", path)


def _difference(sent: Any, arrived: Any, path: str) -> str:
    """What becomes of a value on its way, as a sentence; empty if it arrives as it is."""
    if sent is arrived:
        return ""
    if hasattr(sent, "_fields") and sent.__class__ is not arrived.__class__:
        return _changed(sent, arrived, path)  # one named tuple for another
    match sent:
        case float() if not math.isfinite(sent):
            return _no_number(sent, path)
        case list() | tuple() if isinstance(arrived, list | tuple):
            return _of_parts(cast("list[object]", sent), cast("list[object]", arrived), path)
        case Mapping() if isinstance(arrived, Mapping):
            return _of_keys(cast("Mapping[object, object]", sent), cast("Mapping[object, object]", arrived), path)
        case datetime() | time() if type(sent) is type(arrived):
            return _of_times(sent, arrived, path)
        case _:
            return _of_others(sent, arrived, path)


def _of_others(sent: object, arrived: object, path: str) -> str:
    if _has_fields(sent):
        return _of_fields(sent, arrived, path)
    is_same = _is_equal(sent, arrived) and isinstance(sent, bool) == isinstance(arrived, bool)
    return "" if is_same else _changed(sent, arrived, path)


def _of_parts(sent: list[object], arrived: list[object], path: str) -> str:
    if len(sent) != len(arrived):
        return _changed(sent, arrived, path)
    pairs = enumerate(zip(sent, arrived, strict=True))
    return _first(_difference(one, other, f"{path}[{place}]") for place, (one, other) in pairs)


def _of_keys(sent: Mapping[object, object], arrived: Mapping[object, object], path: str) -> str:
    for key in sent:
        if key not in arrived:
            return _at(f"{_named(key)} would not arrive as it is", path)
    if len(sent) != len(arrived):
        return _changed(sent, arrived, path)
    return _first(_difference(value, arrived[key], f"{path}{_step_to(key)}") for key, value in sent.items())


def _named(key: object) -> str:
    return f"the key {key}" if _is_name(key) else f"a key that is {_a(key)}"


def _of_fields(sent: object, arrived: object, path: str) -> str:
    if type(sent) is not type(arrived):
        return _changed(sent, arrived, path)
    pairs = zip(_parts(sent), _parts(arrived), strict=True)
    return _first(_difference(one, other, f"{path}{step}") for (step, one), (_, other) in pairs)


def _of_times(sent: Any, arrived: Any, path: str) -> str:
    offset = sent.utcoffset()
    if offset is not None and offset % WHOLE_MINUTES:
        return _at(f"it is {offset} away from UTC, and only whole minutes can be sent; convert it to UTC", path)
    if isinstance(sent, time) and offset is None and (sent.tzinfo is not None or sent.fold):
        return _at(
            f"{_a(sent)} that only a zone and a day could place would arrive without them; send a datetime", path
        )
    if (sent.tzinfo is None) != (arrived.tzinfo is None):
        return _changed(sent, arrived, path)
    return "" if _is_one_moment(sent, arrived) else _changed(sent, arrived, path)


def _is_one_moment(one: Any, other: Any) -> bool:
    """By what both clocks show: a time of the hour that a zone has twice is equal to none of another zone."""
    if isinstance(one, time) or one.tzinfo is None or other.tzinfo is None:
        return bool(one == other)
    apart: timedelta = one.replace(tzinfo=None) - other.replace(tzinfo=None)
    return bool(apart == one.utcoffset() - other.utcoffset())


def _is_equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except BaseException:  # a signalling NaN of decimal, or a class of the author's
        return False


def _changed(sent: object, arrived: object, path: str) -> str:
    one, other = _a(sent), _a(arrived)
    return _at(f"{one} would arrive as {other if one != other else 'another one'}", path)


def _first(sentences: Iterable[str]) -> str:
    return next(filter(None, sentences), "")


# --- values and their parts -------------------------------------------------------------------------------------------


def _has_fields(value: object) -> bool:
    return isinstance(value, msgspec.Struct) or hasattr(value, FIELDS) or hasattr(value, FIELDS_OF_ATTRS)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value consists of, each part with what leads to it in a path."""
    match value:
        case msgspec.Struct():
            yield from ((f".{name}", getattr(value, name)) for name in value.__struct_fields__)
        case Mapping():
            for key, each in cast("Mapping[object, object]", value).items():
                yield " (a key)", key
                yield _step_to(key), each
        case list() | tuple() | AbstractSet():
            yield from ((f"[{place}]", each) for place, each in enumerate(cast("Iterable[object]", value)))
        case _:
            found = getattr(value, FIELDS, None) or {each.name: each for each in getattr(value, FIELDS_OF_ATTRS, ())}
            yield from ((f".{name}", getattr(value, name)) for name in found if hasattr(value, name))


def _step_to(key: object) -> str:
    return f".{key}" if _is_name(key) else "[...]"


def _is_name(key: object) -> bool:
    """Whether a key of a dict looks like the name of a field, and may be shown; others are values."""
    return isinstance(key, str) and key.isidentifier() and not any(each.isdigit() for each in key)


def _at(sentence: str, path: str) -> str:
    return f"{sentence} - at `{path}`"


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"
