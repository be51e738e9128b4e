"""The messages of one saga as a projection reads them: journal entries, and the facts they name. Pure.

No definition is needed: what an exporter does not know it can still trace.
"""

from __future__ import annotations

from typing import Final

import msgspec

from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.envelope import Envelope, decode, unpack, unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.messages import AnswerKind, Refusal, Settled, answer_type
from antiphon.contracts.messages import Contract as Named
from antiphon.contracts.payloads import END_TYPE, RECORD_TYPE, End, Record
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import CommandAddress, FactAddress, parse_entry, parse_fact

SETTLE: Final = ".settle"
"""How the name of the question ends what became of a command."""

ANSWERS: Final[tuple[AnswerKind, ...]] = ("refused", "exhausted", "superseded", "done")


class Entry(msgspec.Struct, frozen=True):
    """One journal entry. `at_ns` is when SAGA stored it, `time_ns` when its writer made it, by the writer's clock."""

    sequence: int
    at_ns: int
    time_ns: int
    subject: str
    envelope: Envelope
    command: CommandAddress | None = None
    record: Record | None = None
    end: End | None = None


class Fact(msgspec.Struct, frozen=True):
    """A message of EVENTS that the journal names; `at_ns` is when it was stored."""

    sequence: int
    at_ns: int
    address: FactAddress
    envelope: Envelope


def entry_of(message: StoredMessage) -> Entry:
    """Read a journal entry.

    Raises:
        Unusable: it is none.
    """
    address = parse_entry(message.subject)
    envelope = decode(message.data, message.subject)
    return Entry(
        message.sequence,
        message.stored_ns,
        nanoseconds(envelope.time),
        message.subject,
        envelope,
        address.command,
        unpack(envelope, RECORD_TYPE, Record) if address.kind == "rec" else None,
        unpack(envelope, END_TYPE, End) if address.kind == "end" else None,
    )


def fact_of(message: StoredMessage) -> Fact:
    """Read a fact that the journal names, and which some coordinator has therefore accepted.

    Raises:
        Unusable: it is none.
    """
    return Fact(message.sequence, message.stored_ns, parse_fact(message.subject), decode(message.data, message.subject))


def name_of(message_type: str) -> str:
    """The dotted name in a versioned type: `inventory.reserve` of `inventory.reserve.v1`."""
    return message_type.rpartition(".v")[0]


def is_settlement(undo_type: str, do_type: str) -> bool:
    """Whether what is sent to undo a command asks, rather, what became of it."""
    name, _, version = do_type.rpartition(".v")
    return undo_type == f"{name}{SETTLE}.v{version}"


def answer_kind(command_type: str, answer: str) -> AnswerKind | None:
    """What an answer's type says to a command or compensation; None where it is an event of the author's."""
    name, _, version = command_type.rpartition(".v")
    if not version.isdigit():
        return None
    if name.endswith(SETTLE) and answer == f"{name}d.v{version}":
        return "settled"
    contract = Named(name, int(version), "")
    return next((kind for kind in ANSWERS if answer == answer_type(contract, kind)), None)


def reason_in(envelope: Envelope) -> str:
    """The reason that a refusal or the like gives."""
    try:
        return unpack_raw(envelope.data, Refusal).reason
    except Unusable:
        return ""


def has_happened(envelope: Envelope) -> bool:
    """What a settlement found."""
    try:
        return unpack_raw(envelope.data, Settled).happened
    except Unusable:
        return False
