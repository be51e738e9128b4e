"""What travels and what does not, as contracts/README.md lists it, and a saga that carries a value in every way."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import fractions
import ipaddress
import pathlib
import re
import typing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Raw, Struct, UnsetType

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.participants import Participant, Transaction

T = TypeVar("T")


class Part(Struct, frozen=True):
    number: int = 1
    weight: float | None = None


class Special(Part, frozen=True):
    colour: str = "red"


class Loose(Struct):
    number: int = 1


class Box(Struct, Generic[T], frozen=True):
    content: T


class Cash(Struct, tag=True, frozen=True):
    amount: Decimal


class Card(Struct, tag=True, frozen=True):
    number: str


class Row(Struct, array_like=True, frozen=True):
    name: str
    pieces: int


class Tree(Struct, frozen=True):
    name: str
    branches: tuple[Tree, ...] = ()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


class Half(enum.Enum):
    HALF = 0.5


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


@dataclasses.dataclass
class Place:
    row: int
    seat: int = 1


@dataclasses.dataclass(frozen=True)
class FrozenPlace:
    row: int


class Pair(NamedTuple):
    name: str
    number: int = 0


class Address(TypedDict):
    street: str


class Plain:
    pass


class Name(str):
    pass


class Modelled:
    """Looks like a class of pydantic."""

    __pydantic_fields__: typing.ClassVar[dict[str, Any]] = {}


Number = NewType("Number", int)
NOON = datetime(2026, 3, 4, 12, 0, 0, 123456, tzinfo=UTC)
ID = UUID(int=7)

TRAVELS: dict[str, tuple[Any, Any]] = {
    "str": (str, "größer ☃ 𝄞 \u2028 \x00"),
    "int": (int, -7),
    "a large int": (int, 2**70),
    "bool": (bool, True),
    "float": (float, 5e-324),
    "minus zero": (float, -0.0),
    "an int for a float": (float, 3),
    "None": (None, None),
    "bytes": (bytes, b"\x00\xff"),
    "bytearray": (bytearray, bytearray(b"\x00\xff")),
    "memoryview": (memoryview, memoryview(b"\x00\xff")),
    "Decimal": (Decimal, Decimal("1.100")),
    "UUID": (UUID, ID),
    "datetime in UTC": (datetime, NOON),
    "datetime with an offset": (datetime, NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    "datetime of a zone": (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)),
    "datetime without a zone": (datetime, datetime(2026, 1, 2, 3, 4, 5, 6)),  # noqa: DTZ001 - that is meant
    "the first datetime": (datetime, datetime.min.replace(tzinfo=UTC)),
    "date": (date, date(2026, 1, 2)),
    "time": (time, time(1, 2, 3, 4)),
    "time with an offset": (time, time(1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-3)))),
    "timedelta": (timedelta, timedelta(days=-3, microseconds=1)),
    "Enum": (Colour, Colour.BLUE),
    "IntEnum": (Size, Size.LARGE),
    "StrEnum": (Word, Word.YES),
    "IntFlag": (Right, Right.READ | Right.WRITE),
    "Literal": (Literal["a", 1, None], 1),
    "NewType": (Number, Number(3)),
    "with constraints": (Annotated[int, Meta(ge=1)], 1),
    "list": (list[int], [1, 2]),
    "a tuple for a list": (list[int], (1, 2)),
    "Sequence": (collections.abc.Sequence[int], (1, 2)),
    "tuple": (tuple[int, str], (1, "a")),
    "tuple of any length": (tuple[int, ...], (1, 2)),
    "set": (set[str], {"b", "a"}),
    "frozenset": (frozenset[int], frozenset({2, 1})),
    "set of Enums": (set[Colour], {Colour.BLUE, Colour.RED}),
    "set of frozen structs": (set[Part], {Part(number=2), Part(number=1)}),
    "set of frozen dataclasses": (set[FrozenPlace], {FrozenPlace(2), FrozenPlace(1)}),
    "set of tuples": (set[tuple[int, str]], {(1, "a"), (2, "b")}),
    "set of optional texts": (set[str | None], {None, "a"}),
    "dict": (dict[str, int], {"b": 1, "a": 2}),
    "Mapping": (collections.abc.Mapping[str, int], {"a": 2}),
    "int keys": (dict[int, str], {-1: "a", 2**63: "b"}),
    "float keys": (dict[float, str], {1.5: "a"}),
    "UUID keys": (dict[UUID, int], {ID: 1}),
    "Enum keys": (dict[Colour, int], {Colour.RED: 1}),
    "IntEnum keys": (dict[Size, int], {Size.SMALL: 1}),
    "datetime keys": (dict[datetime, int], {NOON: 1}),
    "date keys": (dict[date, int], {date(2026, 1, 2): 1}),
    "Decimal keys": (dict[Decimal, int], {Decimal("1.10"): 1}),
    "bytes keys": (dict[bytes, int], {b"a": 1}),
    "Literal keys": (dict[Literal["a", "b"], int], {"a": 1}),
    "int keys deep inside": (dict[str, list[dict[int, set[Colour]]]], {"a": [{1: {Colour.RED}}]}),
    "struct": (Part, Part(number=2, weight=1.5)),
    "generic struct": (Box[int], Box(content=1)),
    "struct as an array": (Row, Row(name="a", pieces=1)),
    "struct within itself": (Tree, Tree(name="a", branches=(Tree(name="b"),))),
    "struct or nothing": (Part | None, Part()),
    "tagged union": (Cash | Card, Cash(amount=Decimal("1.5"))),
    "dataclass": (Place, Place(row=1)),
    "NamedTuple": (Pair, Pair(name="a", number=2)),
    "TypedDict": (Address, {"street": "Hlavní"}),
    "int or float": (int | float, 1.0),
    "int or text": (int | str, "1"),
    "Decimal or nothing": (Decimal | None, Decimal(1)),
    "UNSET": (int | UnsetType, 1),
    "Raw": (Raw, Raw(b'{"a": [1]}')),
    "Any": (Any, {"a": [1, 2.5, None, True, "b"]}),
    "object": (object, ["a"]),
    "list without a type": (list, [1, "a"]),
    "dict without a type": (dict, {"a": 1}),
}
"""Types of fields, each with a value."""

HALTED: dict[str, tuple[Any, str]] = {
    "IPv4Address": (ipaddress.IPv4Address, "field is of the class IPv4Address.*Use a str"),
    "Path": (pathlib.Path, "field is of the class Path.*Use a str"),
    "Fraction": (fractions.Fraction, "field is of the class Fraction.*Use a Decimal"),
    "complex": (complex, "field is of the class complex.*Use a Decimal, or two"),
    "range": (range, "field is of the class range.*Use its bounds"),
    "pydantic": (Modelled, "field is of the class Modelled.*Use a msgspec.Struct"),
    "a class": (Plain, "field is of the class Plain.*Use a msgspec.Struct"),
    "a text of one's own": (Name, "field is of the class Name.*Use a str"),
    "Generator": (collections.abc.Generator[int, None, None], "field is of the class Generator.*Use a list"),
    "Iterable": (collections.abc.Iterable[int], "field is of the class Iterable.*Use a list"),
    "deque": (collections.deque[int], "field is of the class deque.*Use a list"),
    "OrderedDict": (collections.OrderedDict[str, int], "field is of the class OrderedDict.*Use a dict"),
    "Callable": (collections.abc.Callable[[int], int], "field is of the class Callable"),
    "Pattern": (re.Pattern[str], "field is of the class Pattern"),
    "Exception": (Exception, "field is of the class Exception"),
    "Ext": (msgspec.msgpack.Ext, "field is of msgpack.*Use bytes"),
    "Self": (typing.Self, "field: Type 'typing.Self' is not supported"),
    "bool keys": (dict[bool, int], "field is a dict with keys.*Use keys of one type"),
    "tuple keys": (dict[tuple[int, int], int], "field is a dict with keys.*Use keys of one type"),
    "None keys": (dict[None, int], "field is a dict with keys.*Use keys of one type"),
    "struct keys": (dict[Part, int], "field is a dict with keys.*Use keys of one type"),
    "keys of two types": (dict[str | int, int], "field is a dict with keys.*Use keys of one type"),
    "keys of two Literals": (dict[Literal["a", 1], int], "field is a dict with keys.*Use keys of one type"),
    "set of lists": (set[list[int]], "field is a set of what has no hash.*Use a list"),
    "set of sets": (set[set[int]], "field is a set of what has no hash.*Use a list"),
    "set of dicts": (set[dict[str, int]], "field is a set of what has no hash.*Use a list"),
    "set of TypedDicts": (set[Address], "field is a set of what has no hash.*Use a list"),
    "set of structs that change": (set[Loose], "field is a set of what has no hash.*make them frozen"),
    "set of dataclasses": (frozenset[Place], "field is a set of what has no hash.*make them frozen"),
    "set of tuples of lists": (set[tuple[list[int], ...]], "field is a set of what has no hash"),
    "structs without tags": (Part | Loose, r"field: .*must be tagged.*give structs tag=True"),
    "struct or dict": (Part | dict[str, int], "field: .*more than one dict-like type.*or the field one type"),
    "text or datetime": (str | datetime, "field: .*more than one str-like type.*or the field one type"),
    "list or tuple": (list[int] | tuple[int, ...], "field: .*more than one array-like"),
    "Enum of halves": (Half, "field: .*Enums must contain.*Give its members texts, or whole numbers"),
    "mixed Enum": (Mixed, "field: .*Enums must contain"),
    "in a list": (list[Plain], r"field\[\] is of the class Plain"),
    "in a dict": (dict[str, Plain], r"field\{\} is of the class Plain"),
    "in a dict in a tuple": (tuple[int, dict[bool, int]], r"field\[1\] is a dict with keys"),
    "in a struct": (Box[Plain], r"field\.content is of the class Plain"),
    "a union in a struct in a list": (list[Box[Part | Loose]], r"field\[\].*must be tagged"),
    "or nothing": (Plain | None, "field is of the class Plain"),
}
"""Types that no field may have, each with what is said of it."""


class Cargo:
    """A saga, its child and its participant, whose every message carries a value of one type; and what was seen."""

    def __init__(self, type_: Any, value: Any) -> None:
        self.value, self.seen = value, dict[str, Any]()
        events = {name: message(Event, name, type_) for name in ("begun", "cleared", "child")}
        self.start, self.signal, self.child_start = events.values()
        self.reply = message(Event, "moved", type_, owner="mover")
        self.command = message(Command[self.reply], "move", type_)  # type: ignore[name-defined] # made here
        self.undo = message(Compensation[self.command], "unmove", type_)  # type: ignore[name-defined]
        self.last = message(Command[message(Event, "stopped", str, owner="mover")], "stop", str)  # type: ignore[misc]
        self.mover = self._participant()
        self.child = self._child()
        self.saga = self._saga()

    def _participant(self) -> Participant:
        mover = Participant("mover")

        async def move(command: Any, tx: Transaction) -> Any:
            self.see("command", command)
            return self.reply(field=self.value)

        async def stop(command: Any, tx: Transaction) -> Any:
            return self.last.__reply__(field="stopped")

        async def unmove(command: Any, moved: Any, tx: Transaction) -> None:
            self.see("compensation", command)
            self.see("stored reply", moved)

        for handler, command in ((move, self.command), (stop, self.last), (unmove, self.undo)):
            handler.__annotations__["command"] = command
        unmove.__annotations__["moved"] = self.reply
        mover.handles(self.command)(move)
        mover.handles(self.last)(stop)
        mover.compensates(self.command)(unmove)
        return mover

    def _child(self) -> Saga[Any]:
        child: Saga[Any] = Saga(self.child_start, name="child", version=1, deadline=timedelta(hours=1))

        def move_in_child(s: State[Any]) -> Any:
            self.see("child start", s.start)
            return self._command()

        step = self._step("move_in_child", move_in_child, self.command)
        child.step()(step).compensation(self._undo())
        return child

    def _saga(self) -> Saga[Any]:
        saga: Saga[Any] = Saga(self.start, name="cargo", version=1, deadline=timedelta(hours=1))
        first = saga.step()(self._step("first", self._first, self.command))
        first.compensation(self._undo())
        self.cleared = saga.signal(self.signal, after=first)
        self.first = first

        def each(s: State[Any]) -> Any:
            self.see("signal", s[self.cleared])
            self.see("reply", s[first])
            return [self._command(), self._command()]

        self.list = saga.each(after=self.cleared)(self._step("each", each, list[self.command]))  # type: ignore[name-defined]
        self.list.compensation(self._undo())
        begin = self._step("begin", lambda s: self.child_start(field=self.value), self.child_start)
        self.begin = saga.child(self.child, after=self.list)(begin)
        self.stop = saga.step(after=self.begin, needs_no_compensation=True)(
            self._step("stop", lambda s: self.last(field="stop"), self.last)
        )
        return saga

    def _first(self, s: State[Any]) -> Any:
        self.see("start", s.start)
        return self._command()

    def _command(self) -> Any:
        return self.command(field=self.value)

    def _undo(self) -> Any:
        def undo(s: State[Any], command: Any, reply: Any) -> Any:
            self.see("command to undo", command)
            if reply is not None:
                self.see("reply to undo", reply)
            return self.undo(field=self.value)

        undo.__annotations__ = {"return": self.undo}
        return undo

    def _step(self, name: str, make: Any, made: Any) -> Any:
        def step(*given: Any) -> Any:
            return make(*given)

        step.__name__, step.__annotations__ = name, {"return": made}
        return step

    def see(self, way: str, carrier: Any) -> None:
        """Keep what was handed over first: a rehearsal calls its functions once more, with sets in another order."""
        self.seen.setdefault(way, carrier.field)


WAYS = {
    "start",
    "signal",
    "command",
    "reply",
    "stored reply",
    "compensation",
    "child start",
    "command to undo",
    "reply to undo",
}
"""All ways in which a saga that is cancelled at its end carries a value; elements of a list are commands."""


def message(base: Any, name: str, type_: Any, **settings: Any) -> Any:
    """A message class with one field."""
    namespace: dict[str, Any] = {"__annotations__": {"field": type_}, "__module__": __name__}
    if base is not Event:
        namespace["__orig_bases__"] = (base,)
    origin = typing.get_origin(base) or base
    meta: Any = type(Event)
    return meta(name.title(), (origin,), namespace, name=f"cargo.{name}", **settings)
