"""The one reader of a journal: stored messages become entries and facts, each with its kind. Pure, and without a
definition.

A name alone tells nothing: a team may call the reply of its command `loan.refused`. What an answer means is known from
the command in the journal that it answers: `<command>.refused` of that command is the platform's, and every other name
is the team's own. Contracts in which the two cannot be told apart are refused when they are declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Literal

import msgspec

from . import identity
from .bounds import digits_of
from .clock import nanoseconds
from .envelope import Envelope, decode, unpack, unpack_raw
from .errors import Unusable
from .identity import dashed
from .messages import AnswerKind, Close, Closed, Refusal, Settled, Undone, name_of, settle_name
from .payloads import END_TYPE, RECORD_TYPE, End, Operation, Record
from .stored import StoredMessage
from .subjects import (
    CommandAddress,
    FactAddress,
    Sending,
    is_by_itself,
    is_end,
    parse_entry,
    parse_fact,
)

CommandKind = Literal["do", "undo", "settle", "close"]
"""What is sent to a participant: a command, its compensation, the question what became of it, or an operator's close of
the step."""

EntryKind = Literal["do", "undo", "settle", "close", "record", "end"]

FactKind = Literal[
    "start",
    "cancel",
    "signal",
    "request",
    "notice",
    "event",
    "done",
    "undone",
    "refused",
    "exhausted",
    "superseded",
    "settled",
    "closed",
    "answer",
]
"""What a message of EVENTS is. `request` is an operator's, `notice` what coordinators write for other sagas and for
locks, `event` what a participant emits by itself, and `answer` one to a command that the journal, as far as it was
read, does not have. The others say how a command was answered."""

FAILURES: Final = frozenset({"refused", "exhausted", "superseded"})
"""The answers that leave a step, or its compensation, without success."""

ANSWERS: Final[Mapping[CommandKind, tuple[tuple[str, AnswerKind], ...]]] = {
    "do": ((".refused", "refused"), (".exhausted", "exhausted"), (".superseded", "superseded")),
    "undo": ((".done", "done"), (".refused", "refused"), (".exhausted", "exhausted"), (".superseded", "superseded")),
    "settle": (("d", "settled"), (".refused", "refused"), (".exhausted", "exhausted"), (".superseded", "superseded")),
    "close": (("d", "closed"),),
}
"""What the platform's answers add to the name of what they answer; a question is called `<command>.settle`, and a close
`<command>.close`."""


def command_kind(direction: Sending, message_type: str, do_type: str) -> CommandKind:
    """What a command is.

    Args:
        direction: as its subject says.
        message_type: its versioned type.
        do_type: the versioned type of the command that its step sent before; empty where none is known.
    """
    if direction != "undo":
        return direction
    name, _, version = do_type.rpartition(".v")
    return "settle" if name and message_type == f"{settle_name(name)}.v{version}" else "undo"


def answer_kind(kind: CommandKind, name: str, token: str) -> AnswerKind | None:
    """How something sent to a participant was answered.

    Args:
        kind: whether a command, a compensation or a question was sent.
        name: its name without the version; with dots or with dashes.
        token: the answer's name as it stands in subjects.

    Returns:
        The kind; of a command `done` for each name that is not the platform's, and of others None for such a name.
    """
    sent = dashed(name)
    for suffix, answer in ANSWERS[kind]:
        if token == sent + dashed(suffix):
            return answer
    return "done" if kind == "do" else None


def cause_sequence(cause: str) -> int:
    """Where EVENTS holds the fact that an entry names; 0 if that was a timer, or nothing that can be a sequence."""
    return (digits_of(cause[1:]) or 0) if cause[:1] == "e" else 0


def is_purged(entries: Sequence[StoredMessage], events: Iterable[StoredMessage]) -> bool:
    """Whether a saga has ended and was purged since: its journal does not begin with its first entry, which alone says
    with which definition it began, or names facts that are not there.

    Args:
        entries: its journal, in stream order.
        events: what EVENTS holds of it, all that the journal names at least.
    """
    if not entries or not is_end(entries[-1].subject):
        return False
    there = {message.sequence for message in events}
    return not decode(entries[0].data, entries[0].subject).definition or bool(set(named_sequences(entries)) - there)


def cause_ns(cause: str) -> int | None:
    """The time that had come, as an entry names it; None if that was a fact, or no time."""
    return digits_of(cause[1:]) if cause[:1] == "t" else None


class _Cause(msgspec.Struct):
    cause: str = ""


_decode_cause = msgspec.json.Decoder(_Cause).decode


def named_sequences(entries: Iterable[StoredMessage]) -> list[int]:
    """Where EVENTS holds the facts that a journal names, each once; an entry that cannot be read names none."""
    found: dict[int, None] = {}
    for message in entries:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found[cause_sequence(_decode_cause(message.data).cause)] = None
    return [sequence for sequence in found if sequence]


class Sent(msgspec.Struct, frozen=True):
    """A command, a compensation, a question or a close as the journal has it."""

    kind: CommandKind
    name: str
    """Without the version."""
    address: CommandAddress


class Entry(msgspec.Struct, frozen=True):
    """One journal entry; `at_ns` is when SAGA stored it."""

    sequence: int
    at_ns: int
    subject: str
    kind: EntryKind
    envelope: Envelope
    command: CommandAddress | None = None
    record: Record | None = None
    end: End | None = None

    @property
    def close(self) -> Close:
        """What a close says.

        Raises:
            Unusable: it is not what a close must be.
        """
        return unpack_raw(self.envelope.data, Close)

    @property
    def time_ns(self) -> int:
        """When its writer made it, by the writer's clock."""
        return nanoseconds(self.envelope.time)

    @property
    def cause_sequence(self) -> int:
        """Where EVENTS holds the fact it was decided on; 0 if there is none."""
        return cause_sequence(self.envelope.cause)


class Fact(msgspec.Struct, frozen=True):
    """A message of EVENTS; `at_ns` is when it was stored."""

    sequence: int
    at_ns: int
    subject: str
    kind: FactKind
    address: FactAddress
    envelope: Envelope
    answers: CommandAddress | None = None
    """The command, compensation, question or close that it answers, where the journal has it."""

    @property
    def reason(self) -> str:
        """The reason that a refusal or the like gives; empty where there is none."""
        try:
            return unpack_raw(self.envelope.data, Refusal).reason
        except Unusable:
            return ""

    @property
    def has_happened(self) -> bool:
        """What a settlement found."""
        try:
            return unpack_raw(self.envelope.data, Settled).happened
        except Unusable:
            return False

    @property
    def has_found(self) -> bool:
        """Whether a compensation found something to undo."""
        try:
            return unpack_raw(self.envelope.data, Undone).found
        except Unusable:
            return True

    @property
    def closed(self) -> Closed:
        """What a close met.

        Raises:
            Unusable: it is not what the answer to a close must be.
        """
        return unpack_raw(self.envelope.data, Closed)

    @property
    def operation(self) -> Operation:
        """What an operator asks for.

        Raises:
            Unusable: it is not what an operator may ask for.
        """
        return unpack_raw(self.envelope.data, Operation)


class Journal:
    """The commands of one journal, learnt entry by entry, and by them what entries and facts are."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, Sending, int], Sent] = {}
        self._do_types: dict[str, str] = {}

    def entry(self, message: StoredMessage) -> Entry:
        """Read the next journal entry.

        Raises:
            Unusable: it is none.
        """
        address = parse_entry(message.subject)
        envelope = decode(message.data, message.subject)
        return Entry(
            message.sequence,
            message.stored_ns,
            message.subject,
            self._kind_of(address.command, envelope.type, address.kind),
            envelope,
            address.command,
            unpack(envelope, RECORD_TYPE, Record) if address.kind == "rec" else None,
            unpack(envelope, END_TYPE, End) if address.kind == "end" else None,
        )

    def _kind_of(self, command: CommandAddress | None, type_: str, token: Literal["cmd", "rec", "end"]) -> EntryKind:
        if command is None:
            return "end" if token == "end" else "record"
        kind = command_kind(command.direction, type_, self._do_types.get(command.step, ""))
        if kind == "do":
            self._do_types[command.step] = type_
        self._sent[command.step, command.direction, command.attempt] = Sent(kind, name_of(type_), command)
        return kind

    def fact(self, message: StoredMessage) -> Fact:
        """Read a message of EVENTS.

        Raises:
            Unusable: it is none.
        """
        address = parse_fact(message.subject)
        envelope = decode(message.data, message.subject)
        kind, answers = self.kind_of(address)
        return Fact(message.sequence, message.stored_ns, message.subject, kind, address, envelope, answers)

    def kind_of(self, address: FactAddress) -> tuple[FactKind, CommandAddress | None]:
        """What a message of EVENTS is, by its subject, and which command it answers."""
        match address.source:
            case _ if address.is_start:
                return "start", None
            case _ if address.is_cancel:
                return "cancel", None
            case identity.CLIENT:
                return "signal", None
            case identity.OPERATOR:
                return "request", None
            case identity.COORDINATOR:
                return "notice", None
            case _ if is_by_itself(address.step):
                return "event", None
            case _:
                return self._answer(address)

    def _answer(self, address: FactAddress) -> tuple[FactKind, CommandAddress | None]:
        # A command's answer may have any name but those of the others in its step, so it is looked for last.
        directions: tuple[Sending, ...] = ("close", "undo", "do")
        for direction in directions:
            sent = self._sent.get((address.step, direction, address.attempt))
            kind = answer_kind(sent.kind, sent.name, address.event) if sent else None
            if sent is not None and kind is not None:
                return ("undone" if (sent.kind, kind) == ("undo", "done") else kind), sent.address
        return "answer", None
