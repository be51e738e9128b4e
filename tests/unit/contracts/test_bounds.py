"""Every number that is read has bounds where it is decoded, whoever reads it."""

from __future__ import annotations

import ast
import importlib
import inspect as python
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest
from msgspec import inspect

from antiphon.contracts import bounds, clock, messages, payloads
from antiphon.contracts.bounds import NUMBER_MAX, SEQUENCE_MAX, TRIES_MAX, digits_of
from antiphon.contracts.envelope import Envelope, decode, encode
from antiphon.contracts.errors import SECONDS_MAX, WrongShape
from antiphon.contracts.messages import Message
from antiphon.contracts.payloads import Parked, Record
from antiphon.contracts.reader import cause_ns, cause_sequence
from antiphon.contracts.retry import parse_retry
from antiphon.contracts.values import parts_of
from tests.unit.contracts.test_envelope import SUBJECT, envelope, raw

ROOTS = ("contracts", "coordinator", "participants", "tracing", "deploy")
FOLDER = Path(__file__).parents[3]
READERS = {"unpack", "unpack_raw", "Decoder", "decode"}
NO_MESSAGES = (
    "antiphon.order",
    "antiphon.coordinator.testing",
    "antiphon.participants.testing",
    "antiphon.deploy.chaos",
)
"""What these read are a team's own messages and files."""
SPELLED = {"answer", "cause", "command", "reacts", "retry", "within"}
"""The attributes of an envelope in which a number is written as a text."""


def modules() -> Iterator[tuple[Any, ast.Module]]:
    for root in ROOTS:
        for path in sorted((FOLDER / root).rglob("*.py")):
            name = ".".join(path.relative_to(FOLDER / root).with_suffix("").parts).removesuffix(".__init__")
            source = path.read_text()
            if not name.startswith(NO_MESSAGES) and any(f"{reader}(" in source for reader in READERS):
                yield importlib.import_module(name), ast.parse(source)


def named(module: Any, node: ast.expr) -> Iterator[type]:
    """The classes of messages that an expression names."""
    for part in ast.walk(node):
        found = getattr(module, part.id, None) if isinstance(part, ast.Name) else None
        for each in get_args(found) if get_origin(found) else (found,):
            if python.isclass(each) and issubclass(each, msgspec.Struct) and not issubclass(each, Message):
                yield each


def read_by(module: Any, tree: ast.Module) -> Iterator[type]:
    """The classes that a module decodes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in READERS:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                yield from named(module, argument)


def declared(module: Any) -> Iterator[type]:
    for each in vars(module).values():
        if python.isclass(each) and issubclass(each, msgspec.Struct) and each.__module__ == module.__name__:
            yield each


READ = sorted(
    {each for module, tree in modules() for each in read_by(module, tree)}
    | {each for each in (*declared(payloads), *declared(messages)) if not issubclass(each, Message)}
    - {messages.Contract},
    key=lambda each: f"{each.__module__}.{each.__qualname__}",
)


def numbers_in(info: inspect.Type, path: str, above: tuple[Any, ...] = ()) -> Iterator[tuple[str, inspect.Type]]:
    """All numbers in a type, with the way to each."""
    cls = getattr(info, "cls", None)
    if cls is not None and cls in above:
        return
    if isinstance(info, inspect.IntType | inspect.FloatType | inspect.DecimalType):
        yield path, info
    for step, part in parts_of(info):
        yield from numbers_in(part, f"{path}{step}", (*above, cls))


def test_the_walk_finds_what_is_read() -> None:
    names = {each.__name__ for each in READ}
    assert {"Envelope", "Record", "Parked", "Closed", "Registration", "Lock", "StatusAnswer", "_PubAck"} <= names


@pytest.mark.parametrize("shape", READ, ids=lambda each: each.__name__)
def test_each_number_that_is_read_has_a_smallest_and_a_largest_value(shape: type) -> None:
    for path, info in numbers_in(inspect.type_info(shape), shape.__name__):
        assert isinstance(info, inspect.IntType), f"{path} is no whole number"
        assert info.ge is not None, f"{path} has no smallest value"
        assert info.le is not None, f"{path} has no largest value"
        assert info.le <= SEQUENCE_MAX


def test_each_number_that_is_a_text_is_a_short_one() -> None:
    for field in inspect.type_info(Envelope).fields:  # type: ignore[attr-defined]
        info = field.type
        if field.name in SPELLED:
            assert isinstance(info, inspect.StrType)
            assert info.max_length is not None


@pytest.mark.parametrize("tries", [-1, TRIES_MAX + 1, 10**12, 2**64, 10**30])
def test_an_answer_with_a_number_out_of_bounds_is_of_the_wrong_shape(tries: int) -> None:
    with pytest.raises(WrongShape, match="tries"):
        decode(raw(tries=tries), SUBJECT)


@pytest.mark.parametrize("name", sorted(SPELLED))
def test_a_number_of_many_digits_is_of_the_wrong_shape(name: str) -> None:
    with pytest.raises(WrongShape, match=name):
        decode(raw(**{name: "9" * 5000}), SUBJECT)


def test_the_largest_numbers_are_read() -> None:
    sent = envelope(tries=TRIES_MAX, command=str(SEQUENCE_MAX), cause=f"t{SEQUENCE_MAX}", within="3153600000.0")
    assert decode(encode(sent), SUBJECT).tries == TRIES_MAX
    record = Record(elements=bounds.ELEMENTS_MAX, first=bounds.ELEMENTS_MAX, request=SEQUENCE_MAX)
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


@pytest.mark.parametrize("text", ["", "x", "-1", "+1", "1.0", "1e3", "²", "٣", " 1", "1_0", "9" * 20, "9" * 5000])
def test_what_is_no_sequence_names_nothing(text: str) -> None:
    assert digits_of(text) is None
    assert cause_sequence(f"e{text}") == 0
    assert cause_ns(f"t{text}") is None
    assert cause_ns(text) is None


def test_a_cause_names_a_fact_or_a_time() -> None:
    assert (cause_sequence("e41"), cause_ns("e41")) == (41, None)
    assert (cause_sequence("t41"), cause_ns("t41")) == (0, 41)
    assert cause_ns("t" + "9" * 19) == SEQUENCE_MAX


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-inf", "-1", "1e999", "0"])
def test_what_is_no_length_of_time_is_none(text: str) -> None:
    assert clock.duration_ns(text) == 0


@pytest.mark.parametrize(("text", "ns"), [("60.0", 60 * 10**9), ("1e-05", 10_000), ("1e300", SECONDS_MAX * 10**9)])
def test_a_length_of_time_is_a_hundred_years_at_most(text: str, ns: int) -> None:
    assert clock.duration_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59Z", SEQUENCE_MAX),
        ("9999-12-31T23:59:59-12:00", SEQUENCE_MAX),
        ("1970-01-01T00:00:01", 10**9),
        ("1970-01-01T01:00:01+01:00", 10**9),
    ],
)
def test_a_time_of_any_year_and_without_a_zone_is_a_number_of_nanoseconds(text: str, ns: int) -> None:
    started = decode(raw(started=text), SUBJECT).started
    assert started is not None
    assert clock.nanoseconds(started) == ns


@pytest.mark.parametrize("attempts", ["1000000000000", "9" * 100])
def test_a_retry_says_no_more_attempts_than_can_be_counted(attempts: str) -> None:
    assert parse_retry(f"{attempts}/1/2/30").attempts == NUMBER_MAX


def test_what_is_parked_fits_into_a_message_whatever_its_reason_quotes() -> None:
    parked = Parked(
        kind="undecodable",
        reason="\U000e0001" * 100_000,
        noticed_by="coordinator",
        stream="EVENTS",
        sequence=1,
        subject=SUBJECT,
        data=b"\xff" * 10**6,
    )
    assert len(parked.encode()) < 800_000
