"""What a team declares: events, commands and compensations, as frozen structs that know their name and owner."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar, Generic, Literal, TypeVar, assert_never, dataclass_transform, get_args, get_origin

import msgspec

from .bounds import Number
from .errors import BadIdentity, DefinitionError
from .fields import require_travels_if_known
from .identity import CLIENT, RESERVED, TOKEN_CHARS_MAX, check_token, dashed, is_token

AnswerKind = Literal["done", "refused", "exhausted", "superseded", "settled", "closed"]
"""How a command may be answered: it happened; a business no; its attempts ran out; a newer command overtook it; what
became of it, when that was asked; what an operator's close of it met."""


class Contract(msgspec.Struct, frozen=True):
    """What a message type is called on the wire, and who owns it."""

    name: str
    version: int
    owner: str

    @property
    def type(self) -> str:
        """The versioned tag that travels as the CloudEvents type: `inventory.reserve.v1`."""
        return f"{self.name}.v{self.version}"

    @property
    def token(self) -> str:
        """The name as it stands in subjects: `inventory-reserve`."""
        return dashed(self.name)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class MessageMeta(msgspec.StructMeta):
    """Makes message classes frozen and keyword-only, and reads their contract from the class statement."""

    def __new__(
        mcls,
        class_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        name: str = "",
        version: int = 1,
        owner: str = "",
        **struct_config: Any,
    ) -> Any:
        config: dict[str, Any] = {"frozen": True, "kw_only": True, **struct_config}
        cls: Any = super().__new__(mcls, class_name, bases, namespace, **config)
        if namespace["__module__"] != __name__:
            _declare(cls, name, version, owner)
        return cls


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, kw_only=True, metaclass=MessageMeta):
    """The common base; teams derive from Event, Command and Compensation."""

    __contract__: ClassVar[Contract]


class Event(Message):
    """Something that happened. `class InventoryReserved(Event, name="inventory.reserved", owner="inventory")`.

    Class arguments:
        name: the dotted name on the wire.
        version: counts incompatible shapes of this name from 1; it is part of the type on the wire.
        owner: the participant that may publish it; left out for what comes from clients (starts).
    """


R = TypeVar("R", bound=Event)


class Command(Message, Generic[R]):
    """An order to the participant that owns it, which earns the event named in brackets.

    `class ReserveInventory(Command[InventoryReserved], name="inventory.reserve")`; its owner is the event's.
    """

    __reply__: ClassVar[type[Event]]


C = TypeVar("C", bound=Command[Any])


class Compensation(Message, Generic[C]):
    """The order to undo the effect of the command named in brackets; owned by the same participant.

    `class ReleaseInventory(Compensation[ReserveInventory], name="inventory.release")`
    """

    __undoes__: ClassVar[type[Command[Any]]]


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of a refused, exhausted or superseded answer."""

    reason: str
    code: str = ""
    """`open` on an exhausted one: the effect may have happened outside the participant's database."""


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a compensation's answer. `found` is false where there was nothing to undo."""

    found: bool


class Settle(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of the question what became of a command. Once answered with no, the answer stays no."""


class Settled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to it. Where the effect is there, the reply that was given then, with its type."""

    happened: bool
    type: str = ""
    reply: msgspec.Raw = msgspec.Raw(b"null")


CloseForm = Literal["done", "never", "undone"]
"""As what an operator closes a step: its command is done, with an answer; its command was not done, and never will be;
its compensation is done."""


class Close(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of a close: an operator's word for what became of a step, which counts if the inbox knows no better.

    `type` and `reply` come with the form done: the type and the data of the answer to the command.
    """

    form: CloseForm
    type: str = ""
    reply: msgspec.Raw = msgspec.Raw(b"null")
    claim: Number = 0
    """The claim after which the operator has looked outside; 0 where none is named."""
    user: str = ""
    reason: str = ""


Verdict = Literal["closed", "done", "refused", "undone", "void", "doubt"]
"""What a close met: the operator's word counts; the command was done, or refused; the compensation was done; there was
nothing, and never will be; a claim may have done it outside the database."""


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a close."""

    verdict: Verdict
    reason: str = ""
    """A sentence for the operator; of a command that was refused, why."""
    attempt: Number = 0
    """Which attempt it was, of done, refused, undone and void."""
    claim: Number = 0
    """Which claim it was, of doubt."""
    key: str = ""
    """The idempotency key under which that claim acted outside."""
    type: str = ""
    reply: msgspec.Raw = msgspec.Raw(b"null")
    """The stored answer to the command and its type, of done."""


def ends_step(form: CloseForm, verdict: Verdict, goes_back: bool) -> bool:
    """Whether the answer to a close ends what the step waits for.

    Args:
        form: as what the step was to be closed.
        verdict: what the close met.
        goes_back: whether the step's compensation is what it waits for, and not its command or a settlement.
    """
    match verdict:
        case "closed" if goes_back:
            return form != "done"  # the participant was told what its command did, and compensates that
        case "undone":
            return goes_back and form == "undone"
        case "done" | "refused":
            return not goes_back
        case "closed" | "void":
            return True
        case "doubt":
            return False
        case _:
            assert_never(verdict)


@lru_cache(maxsize=1024)
def name_of(message_type: str) -> str:
    """The dotted name in a versioned type: `inventory.reserve` of `inventory.reserve.v1`."""
    return message_type.rpartition(".v")[0]


_VERSIONED = re.compile(r"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.v([1-9][0-9]{0,8})")


def contract_of(message_type: str) -> Contract | None:
    """The contract that a versioned type names, whether or not its class is known here; None if it is no such type."""
    found = _VERSIONED.fullmatch(message_type)
    return Contract(found.group(1), int(found.group(2)), "") if found else None


def settle_name(command: str) -> str:
    """What the question is called that asks what became of a command, by the command's name."""
    return f"{command}.settle"


def settle_type(command: Contract) -> str:
    """The versioned tag of the question what became of a command: `shipping.schedule.settle.v1`."""
    return f"{settle_name(command.name)}.v{command.version}"


def close_name(command: str) -> str:
    """What an operator's close of a step is called, by the name of the step's command."""
    return f"{command}.close"


def close_type(command: Contract) -> str:
    """The versioned tag of a close: `shipping.schedule.close.v1`."""
    return f"{close_name(command.name)}.v{command.version}"


def closed_name(command: str) -> str:
    """What the answer to a close is called, by the name of the step's command."""
    return f"{command}.closed"


def closed_type(command: Contract) -> str:
    """The versioned tag of the answer to a close: `shipping.schedule.closed.v1`."""
    return f"{closed_name(command.name)}.v{command.version}"


def answer_name(command: Contract, kind: AnswerKind) -> str:
    """The name of an answer that has no event class of its own: `inventory.reserve.refused`."""
    return f"{command.name}.{kind}"


def answer_type(command: Contract, kind: AnswerKind) -> str:
    """The versioned tag of such an answer: `inventory.reserve.refused.v1`."""
    return f"{command.name}.{kind}.v{command.version}"


def _declare(cls: Any, name: str, version: int, owner: str) -> None:
    """Give a message class its contract, or refuse the class with the remedy."""
    if version < 1:
        raise DefinitionError(f"{cls.__name__}: version={version}, but versions count from 1.")
    if not name:
        raise DefinitionError(
            f"{cls.__name__} has no name on the wire. Add one: class {cls.__name__}(..., name='inventory.reserved')."
        )
    require_travels_if_known(cls)
    kind: type = cls
    if issubclass(kind, Event):
        cls.__contract__ = _contract(cls, name, version, owner or CLIENT)
    elif issubclass(kind, Command):
        cls.__reply__ = _argument(cls, Command, Event, "Command[InventoryReserved]")
        _require_owned(cls, cls.__reply__, owner)
        cls.__contract__ = _contract(cls, name, version, _inherited(cls, owner, cls.__reply__))
        _require_own_reply(cls, cls.__reply__, cls.__contract__, ("refused", "exhausted", "superseded", "closed"))
    elif issubclass(kind, Compensation):
        cls.__undoes__ = _argument(cls, Compensation, Command, "Compensation[ReserveInventory]")
        cls.__contract__ = _contract(cls, name, version, _inherited(cls, owner, cls.__undoes__))
        _require_own_name(cls, cls.__undoes__)
        _require_own_reply(
            cls, cls.__undoes__.__reply__, cls.__contract__, ("done", "refused", "exhausted", "superseded")
        )


def _contract(cls: type, name: str, version: int, owner: str) -> Contract:
    if not is_token(dashed(name)):
        raise DefinitionError(
            f"{cls.__name__}: message name {name[:80]!r} must be 1 to {TOKEN_CHARS_MAX} characters out of A-Z a-z 0-9 "
            "_ - and dots."
        )
    try:
        check_token(owner, "owner")
    except BadIdentity as error:
        raise DefinitionError(f"{cls.__name__}: {error}.") from None
    if owner in RESERVED and not (owner == CLIENT and issubclass(cls, Event)):
        raise DefinitionError(f"{cls.__name__}: {owner!r} cannot own messages; it is a name of the platform.")
    return Contract(name, version, owner)


def _require_own_reply(cls: type, reply: type[Event], sent: Contract, kinds: tuple[AnswerKind, ...]) -> None:
    """Refuse a reply that has the name, in subjects, of another answer in its step: nobody could tell the two apart."""
    for kind in kinds:
        if reply.__contract__.token == dashed(answer_name(sent, kind)):
            raise DefinitionError(
                f"{reply.__name__} is called {reply.__contract__.name!r}, which is how Antiphon says that "
                f"{cls.__name__} is {kind}. Give the event, or {cls.__name__}, another name."
            )


def _require_own_name(cls: type[Compensation[Any]], command: type[Command[Any]]) -> None:
    """Refuse a compensation that has the name, in subjects, of its command, of the question about it or of a close."""
    token, theirs = cls.__contract__.token, command.__contract__
    if token == theirs.token:
        raise DefinitionError(
            f"{cls.__name__} and {command.__name__} are both called {theirs.name!r}, so their answers could not be "
            "told apart. Give the compensation another name."
        )
    for name, means in (
        (settle_name(theirs.name), "asks what became of"),
        (close_name(theirs.name), "closes what an operator resolves of"),
    ):
        if token == dashed(name):
            raise DefinitionError(
                f"{cls.__name__} is called {cls.__contract__.name!r}, which is how Antiphon {means} "
                f"{command.__name__}. Give the compensation another name."
            )


def _require_owned(cls: type, reply: type[Event], owner: str) -> None:
    """Refuse a command whose answer nobody owns: it is the answer that says which participant does the command."""
    if reply.__contract__.owner == CLIENT:
        raise DefinitionError(
            f"{reply.__name__} answers the command {cls.__name__}, and does not say which participant does it. Add the "
            f"owner: class {reply.__name__}(Event, name={reply.__contract__.name!r}, owner={owner or 'billing'!r})."
        )


def _inherited(cls: type, owner: str, related: type[Message]) -> str:
    """A command is owned by whoever owns its reply, a compensation by whoever owns what it undoes."""
    theirs = related.__contract__.owner
    if owner not in ("", theirs):
        raise DefinitionError(
            f"{cls.__name__} is owned by {owner!r}, but {related.__name__} by {theirs!r}. "
            "Only the participant that does it can answer for it: give both the same owner."
        )
    return theirs


def _argument(cls: Any, generic: type, bound: type, example: str) -> Any:
    for base in getattr(cls, "__orig_bases__", ()):
        if get_origin(base) is generic:
            (argument,) = get_args(base)
            if isinstance(argument, type) and issubclass(argument, bound):
                return argument
    raise DefinitionError(f"{cls.__name__} must name its counterpart in brackets: {example}.")
