"""Nothing is changed in silence: what would not arrive as it was sent is refused, with the path of its field."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from antiphon.contracts import Event, WrongShape
from antiphon.contracts.envelope import pack, unpack_raw
from antiphon.contracts.values import is_same
from tests.support.cargo import TRAVELS, Address, Box, Colour, Part, Place, Plain, Right, Special, message

INF, NAN = math.inf, math.nan
NAIVE = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - that is meant


class Named(Struct, frozen=True):
    """Says that it equals whatever has its name."""

    name: str
    weight: float | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class Unequal(Struct, frozen=True, eq=False):
    number: int


class Strict(Struct, frozen=True):
    number: int

    def __post_init__(self) -> None:
        if self.number == 13:
            raise KeyError("thirteen")

    @classmethod
    def unchecked(cls, number: int) -> Strict:
        made = cls(0)
        msgspec.structs.force_setattr(made, "number", number)
        return made


@dataclasses.dataclass(frozen=True)
class Quiet:
    weight: float | None = dataclasses.field(default=None, compare=False)


class SpecialAddress(TypedDict):
    street: str
    town: str


BAD: dict[str, tuple[Any, Any, str]] = {
    "nan": (float, NAN, "nan is no number that JSON has; send None, or the word as a text - at `\\$.field`"),
    "nan where None may be": (float | None, NAN, "nan is no number that JSON has"),
    "infinity": (float | None, -INF, "-inf is no number that JSON has"),
    "nan in a list": (list[float | None], [1.0, None, NAN], r"nan is no number .* at `\$.field\[2\]`"),
    "nan in a tuple": (tuple[int, float | None], (1, NAN), r"nan .* at `\$.field\[1\]`"),
    "nan in anything": (Any, NAN, "nan is no number that JSON has"),
    "nan deep in anything": (Any, {"a": [{"b": INF}]}, r"inf is no number .* at `\$.field.a\[0\].b`"),
    "nan in a dict": (dict[str, float | None], {"a b": NAN}, r"nan is no number .* at `\$.field\[\.\.\.\]`"),
    "nan as a key": (dict[float, int], {NAN: 1}, "a key that is a float would not arrive as it is"),
    "nan in a struct": (list[Part], [Part(), Part(weight=NAN)], r"nan is .* at `\$.field\[1\].weight`"),
    "nan in a dataclass": (Quiet, Quiet(weight=NAN), r"nan is .* at `\$.field.weight`"),
    "nan in a set": (set[float], {NAN}, r"nan is .* at `\$.field\[0\]`"),
    "nan in what only names itself": (Named, Named("a", NAN), r"nan is .* at `\$.field.weight`"),
    "a NaN of decimal": (Decimal, Decimal("NaN"), "a Decimal would arrive as another one"),
    "a signalling one": (Decimal, Decimal("sNaN"), r"a Decimal would arrive as another one - at `\$.field`"),
    "a struct derived from the field's": (
        Part,
        Special(),
        r"a Special would arrive as a Part - at `\$.field`",
    ),
    "the same in a list": (
        list[Part],
        [Part(), Special()],
        r"a Special would arrive as a Part - at `\$.field\[1\]`",
    ),
    "the same in a generic struct": (
        Box[Part],
        Box(content=Special()),
        r"would arrive as a Part - at `\$.field.content`",
    ),
    "a struct in anything": (Any, Part(), "a Part would arrive as a dict"),
    "unknown keys of a TypedDict": (
        Address,
        SpecialAddress(street="a", town="b"),
        r"the key town would not arrive as it is - at `\$.field`",
    ),
    "int keys in anything": (Any, {1: 2}, "a key that is an int would not arrive as it is"),
    "an offset with seconds": (
        datetime,
        datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam")),
        r"it is 0:19:32 away from UTC, and only whole minutes .* convert it to UTC - at",
    ),
    "a time with seconds in its offset": (
        time,
        time(1, tzinfo=timezone(timedelta(seconds=3601))),
        "only whole minutes",
    ),
    "such a datetime as a key": (
        dict[datetime, int],
        {datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=61))): 1},
        "a key that is a datetime would not arrive",
    ),
    "a datetime in anything": (Any, NAIVE, "a datetime would arrive as a str"),
    "bytes in anything": (Any, b"a", "a bytes would arrive as a str"),
    "a set in anything": (Any, {1}, "a set would arrive as a list"),
    "a set for a list": (list[int], {1, 2}, "a set would arrive as a list"),
    "an Enum in anything": (Any, Colour.RED, "a Colour would arrive as a str"),
    "a UUID for a text": (str, UUID(int=1), "an? UUID would arrive as a str"),
    "a Decimal for a text": (str, Decimal(1), "a Decimal would arrive as a str"),
    "an int too large for a float": (float, 2**53 + 1, "an int would arrive as a float"),
    "a bool for an int": (int, True, r"Expected `int`, got `bool` - at `\$.field`"),
    "a bool for a float": (float, True, "Expected `float`, got `bool`"),
    "an int for a bool": (bool, 1, "Expected `bool`, got `int`"),
    "a float for an int": (int, 1.0, "Expected `int`, got `float`"),
    "a datetime for a date": (date, NAIVE, "Invalid RFC3339 encoded date"),
    "half a character": (str, "a\ud800", r"'\\ud800' in its text is half a character.*at `\$.field`"),
    "half a character in a key": (dict[str, int], {"\ud800": 1}, r"half a character.*at `\$.field \(a key\)`"),
    "half a character deep inside": (list[Any], [1, {"a": "\ud800"}], r"half a character.*at `\$.field\[1\].a`"),
    "a class of its own in anything": (
        Any,
        [Plain()],
        r"a Plain cannot be sent, because JSON has nothing like it - at `\$.field\[0\]`",
    ),
    "a text of a class of its own": (
        str,
        type("Name", (str,), {})("a"),
        r"a Name cannot be sent, because .* at `\$.field`",
    ),
    "a generator": (list[int], (each for each in (1,)), r"a generator cannot be sent, because .* at `\$.field`"),
    "more than a Literal": (TRAVELS["Literal"][0], "b", "Invalid enum value - at"),
    "a text for a flag": (Right, "READ", "Expected `int`, got `str`"),
    "nothing where something must be": (Any, msgspec.UNSET, "missing required field `field`"),
    "what its own class will not read": (Strict, Strict.unchecked(13), r"reading it back raises a KeyError - at `\$`"),
}
"""Types of fields, each with a value that it would not take, or change."""


@pytest.mark.parametrize("name", BAD)
def test_what_would_be_changed_is_refused_with_its_field(name: str) -> None:
    type_, value, sentence = BAD[name]
    with pytest.raises(WrongShape, match=f"(?s)^Bad: .*{sentence}"):
        pack(message(Event, "bad", type_)(field=value))


def test_what_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WrongShape, match="it contains itself"):
        pack(message(Event, "bad", Any)(field=loop))


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Unequal, Unequal(1)),
        (Named, Named("a", 1.5)),
        (Quiet, Quiet(2.5)),
        (Place, Place(1)),
        (list[Unequal], [Unequal(1)]),
    ],
    ids=repr,
)
def test_what_has_an_idea_of_equality_of_its_own_is_compared_by_its_fields(type_: Any, value: Any) -> None:
    good = message(Event, "good", type_)(field=value)
    assert is_same(unpack_raw(pack(good), type(good)), good)


def test_an_exception_of_a_class_of_the_authors_is_a_wrong_shape() -> None:
    shape = message(Event, "bad", Strict)
    with pytest.raises(WrongShape, match="KeyError"):
        unpack_raw(b'{"field":{"number":13}}', shape)
    with pytest.raises(WrongShape, match="TypeError"):
        unpack_raw(b'{"field":[[]]}', message(Event, "bad", set))


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))), True),
        (datetime(2026, 1, 1, 12, tzinfo=UTC), NAIVE, False),
        (1, 1.0, True),
        ((1, 2), [1, 2], True),
        ([1, 2], [1], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (Part(), Special(), False),
    ],
    ids=repr,
)
def test_values_are_the_same_whatever_they_are_written_like(one: Any, other: Any, are_same: bool) -> None:
    assert is_same(one, other) is is_same(other, one) is are_same


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=8,
)
ZONES = st.timezones() | st.just(UTC) | st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, JSON),
    (float, st.floats() | st.integers()),
    (list[float | None], st.lists(st.floats() | st.none())),
    (int, st.integers() | st.booleans()),
    (Decimal, st.decimals()),
    (datetime, st.datetimes(timezones=ZONES, allow_imaginary=True)),
    (datetime, st.datetimes()),
    (time, st.times(timezones=ZONES)),
    (timedelta, st.timedeltas()),
    (str, st.text(st.characters(exclude_categories=()))),
    (bytes, st.binary() | st.binary().map(bytearray)),
    (dict[float, str], st.dictionaries(st.floats(), st.text())),
    (dict[datetime, int], st.dictionaries(st.datetimes(timezones=ZONES), st.integers())),
    (set[Decimal], st.sets(st.decimals(allow_nan=False))),
    (frozenset[tuple[float, str]], st.frozensets(st.tuples(st.floats(), st.text()))),
    (Part, st.builds(Part, weight=st.floats()) | st.builds(Special)),
    (Address, st.fixed_dictionaries({"street": st.text()}, optional={"town": st.text()})),
]


@pytest.mark.parametrize(("type_", "values"), VALUES, ids=[str(type_) for type_, _ in VALUES])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_sent_arrives_or_is_refused(
    type_: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    sent = message(Event, "any", type_)(field=data.draw(values))
    try:
        packed = pack(sent)
    except WrongShape as error:
        assert "`$.field" in str(error)  # noqa: PT017 - that it is refused is one of two ways
        return
    arrived = unpack_raw(packed, type(sent))
    assert is_same(arrived, sent)
    assert is_same(sent, arrived)


class Point(NamedTuple):
    x: int
    y: int


class Size(NamedTuple):
    width: int
    height: int


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (time, time(12, tzinfo=ZoneInfo("Europe/Berlin"))),
        (time, time(2, 30, fold=1)),
        (Point, Size(1, 2)),
    ],
)
def test_what_is_equal_and_still_another_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(WrongShape, match=r"\$\.field"):
        pack(message(Event, "bad", kind)(field=value))


def test_one_and_true_are_two_values() -> None:
    assert not is_same({"a": 1}, {"a": True})
    assert is_same({"a": 1}, {"a": 1.0})
