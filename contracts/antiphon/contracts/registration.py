"""What processes say of themselves while they run: which messages a participant takes and publishes, and which sagas a
coordinator serves. Names and types alone; and untrusted, so it is read strictly and held against what its name owns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from .errors import Forged, Undecodable
from .identity import COORDINATOR, TOKEN_CHARS_MAX, Token
from .messages import Contract, Message
from .subjects import parse_registration, registration_subject
from .topology import REGISTRATION_BYTES_MAX

WIRE: Final = 3
"""The form of the wire that these processes speak. With 2 PARKED's subjects name sources, and coordinators close steps
and pull from one consumer for each kind of fact; with 3 from one for each participant's answers."""

CLOSES_WIRE: Final = 2
"""The first form in which coordinators can read a journal that has closes."""

DATABASE_MAX: Final = 2**31 - 1
"""The largest number of a database."""

ENTRIES_MAX: Final = 1000
"""The most entries of each list."""

TokenOrNone = Annotated[str, Meta(pattern=rf"\A[A-Za-z0-9_-]{{0,{TOKEN_CHARS_MAX}}}\Z")]
Type = Annotated[str, Meta(pattern=rf"\A[A-Za-z0-9_.-]{{1,{TOKEN_CHARS_MAX}}}\.v[1-9][0-9]{{0,8}}\Z")]
Text = Annotated[str, Meta(pattern=r"\A[ -~]{0,200}\Z")]
"""Printable, because it comes before a person's eyes."""
Number = Annotated[int, Meta(ge=1, le=999_999_999)]
Few = Meta(max_length=ENTRIES_MAX)


class _Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whatever stands in a registration."""


class Named(_Said, frozen=True, kw_only=True):
    """A message: its versioned type, and who owns it."""

    type: Type
    owner: Token

    @property
    def contract(self) -> Contract:
        """The same as messages have it."""
        name, _, version = self.type.rpartition(".v")
        return Contract(name, int(version), self.owner)


def named(message: type[Message] | Contract) -> Named:
    """A message's class, or its contract, as data."""
    contract = message if isinstance(message, Contract) else message.__contract__
    return Named(type=contract.type, owner=contract.owner)


class Handled(_Said, frozen=True, kw_only=True):
    """A command that a participant carries out, and the event that it earns."""

    command: Named
    reply: Named
    handler: Token


class TakenBack(_Said, frozen=True, kw_only=True):
    """A compensation that it carries out, and the command whose effect that takes back."""

    compensation: Named
    command: Named
    handler: Token


class Reacted(_Said, frozen=True, kw_only=True):
    """An event that it reacts to, and what it may publish then."""

    event: Named
    handler: Token
    saga_type: TokenOrNone = ""
    """In which sagas; in all of them where empty."""
    emits: Annotated[tuple[Named, ...], Few] = ()
    refused: Named | None = None
    """What it publishes when it refuses, and has had no effect."""
    undoes: TokenOrNone = ""
    """The handler of the reaction whose effect it takes back."""
    needs_no_compensation: bool = False
    is_signal: bool = False
    """Whether clients send the event to a saga that is under way; otherwise what is theirs is heard as a start."""


class ServedStep(_Said, frozen=True, kw_only=True):
    """One step of a saga that coordinators lead."""

    name: Token
    after: Annotated[tuple[Token, ...], Few] = ()
    when: TokenOrNone = ""
    """What its condition is called."""
    command: Named | None = None
    is_for_each: bool = False
    reply: Named | None = None
    undo: Named | None = None
    is_pivot: bool = False
    """From when it is sent on, the saga goes forward."""
    awaits: Named | None = None
    """The signal or event that it waits for."""
    unless: Annotated[tuple[Named, ...], Few] = ()
    child: TokenOrNone = ""
    """The type of the saga that it starts."""
    starts: Named | None = None
    """What that saga begins with."""


class Followed(_Said, frozen=True, kw_only=True):
    """An event of a saga that nobody leads, and the participants that are to react to it."""

    event: Named
    by: Annotated[tuple[Token, ...], Few]


class ServedSaga(_Said, frozen=True, kw_only=True):
    """A definition that a coordinator decides by, or a choreography that it observes."""

    name: Token
    version: Number
    shape: Token
    """The hash of all that decides how a saga in flight goes on."""
    start: Named
    is_led: bool = True
    steps: Annotated[tuple[ServedStep, ...], Few] = ()
    notes: Annotated[tuple[Named, ...], Few] = ()
    """Events of a saga that is led which are recorded, and nothing follows."""
    flow: Annotated[tuple[Followed, ...], Few] = ()
    """Of a choreography: what follows from what. Older coordinators do not say it."""
    completes: Annotated[tuple[Named, ...], Few] = ()
    compensates: Annotated[tuple[Named, ...], Few] = ()
    """The events that end a choreography."""


Entry = Handled | TakenBack | Reacted | ServedSaga


class Capabilities(_Said, frozen=True, kw_only=True):
    """What a participant does, or which sagas coordinators serve."""

    name: Token
    commands: Annotated[tuple[Handled, ...], Few] = ()
    compensations: Annotated[tuple[TakenBack, ...], Few] = ()
    reactions: Annotated[tuple[Reacted, ...], Few] = ()
    sagas: Annotated[tuple[ServedSaga, ...], Few] = ()

    def entries(self) -> Iterator[Entry]:
        """All that it says, one by one."""
        yield from self.commands
        yield from self.compensations
        yield from self.reactions
        yield from self.sagas


class Registration(Capabilities, frozen=True, kw_only=True):
    """What one process says of itself."""

    instance: Token
    started: Annotated[datetime, Meta(tz=True)]
    version: Text = ""
    """Of the program, in whatever words its team uses."""
    library: Text = ""
    """What speaks the protocol for it."""
    cut: Text = ""
    """What was left out, and why."""
    wire: Number = 1
    """The form of the wire that it speaks; releases before the second form do not say it."""
    database: Annotated[int, Meta(ge=0, le=DATABASE_MAX)] = 0
    """Of a participant: the number of its database, drawn when its inbox was made. 0 where it is not said."""
    archives: bool = False
    """Of a coordinator: whether it writes old sagas to an archive before it purges them."""

    @property
    def subject(self) -> str:
        """Where it is stored."""
        return registration_subject(self.name, self.instance)

    def encode(self) -> bytes:
        """As JSON that the bucket takes: of one that is too large, the beginning, with a sentence."""
        encoded = msgspec.json.encode(self)
        is_long = any(len(each) > ENTRIES_MAX for each in (self.commands, self.compensations, self.reactions))
        if len(encoded) <= REGISTRATION_BYTES_MAX and not is_long and len(self.sagas) <= ENTRIES_MAX:
            return encoded
        return msgspec.json.encode(_cut(self))


_ROOM: Final = 2048
"""For all that is no entry."""


def _cut(whole: Registration) -> Registration:
    """As many entries, in their order, as there is room for."""
    kept: list[Entry] = []
    room = REGISTRATION_BYTES_MAX - _ROOM
    entries = list(whole.entries())
    for entry in entries[:ENTRIES_MAX]:
        room -= len(msgspec.json.encode(entry)) + 1
        if room < 0:
            break
        kept.append(entry)
    left_out = len(entries) - len(kept)
    cut = f"{left_out} of {len(entries)} entries are left out: there is room for {REGISTRATION_BYTES_MAX} bytes."
    return _with_entries(whole, kept, cut)


def _with_entries(whole: Registration, kept: Iterable[Entry], cut: str) -> Registration:
    there = list(kept)
    return msgspec.structs.replace(
        whole,
        commands=tuple(each for each in there if isinstance(each, Handled)),
        compensations=tuple(each for each in there if isinstance(each, TakenBack)),
        reactions=tuple(each for each in there if isinstance(each, Reacted)),
        sagas=tuple(each for each in there if isinstance(each, ServedSaga)),
        cut=cut,
    )


def token(text: str) -> str:
    """A function's name as a token: what may not stand in one becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:TOKEN_CHARS_MAX] or "_"


def printable(text: str) -> str:
    """A text that comes from outside as a registration takes it."""
    return re.sub(r"[^ -~]", "?", text)[:200]


# --- reading what somebody says of himself ----------------------------------------------------------------------------

_decode = msgspec.json.Decoder(Registration).decode


def read_registration(subject: str, data: bytes) -> Registration:
    """Read a registration as strictly as any message.

    Raises:
        Forged: it stands under a name that is not its own.
        Undecodable: it is too large, or no registration.
    """
    name, instance = parse_registration(subject)
    if len(data) > REGISTRATION_BYTES_MAX:
        raise Undecodable(f"{len(data)} bytes, and a registration may have {REGISTRATION_BYTES_MAX}", subject=subject)
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(printable(str(error)), subject=subject) from None
    if (found.name, found.instance) != (name, instance):
        raise Forged(f"it says that it is {found.name}.{found.instance}", subject=subject)
    return found


class Claim(msgspec.Struct, frozen=True):
    """Something that a process says it does, and that is not for its name to do."""

    what: str
    owner: str


def claims(registration: Registration) -> list[Claim]:
    """What a registration claims without owning it."""
    return [claim for entry in registration.entries() for claim in _claims(registration.name, entry)]


def honest(registration: Registration) -> Registration:
    """The same without what it does not own, so that nobody can draw himself into the work of another."""
    own = [entry for entry in registration.entries() if not any(_claims(registration.name, entry))]
    return _with_entries(registration, own, registration.cut)


def _claims(name: str, entry: Entry) -> Iterator[Claim]:
    match entry:
        case ServedSaga():
            if name != COORDINATOR:
                yield Claim(f"serves saga {entry.name}", COORDINATOR)
            return
        case Handled():
            told = {"handles": [entry.command], "publishes": [entry.reply]}
        case TakenBack():
            told = {"handles": [entry.compensation], "takes back": [entry.command]}
        case Reacted():
            told = {"publishes": [*entry.emits, *([entry.refused] if entry.refused else [])]}
    for verb, messages in told.items():
        for message in messages:
            if message.owner != name:
                yield Claim(f"{verb} {message.type}", message.owner)
