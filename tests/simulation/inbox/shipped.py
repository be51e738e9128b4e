"""The shipped inbox, asked about one row: procedures and rules as a worker uses them, each answer remembered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Closed, CloseForm, Command, Compensation, Event, Refusal, Settled, Undone
from antiphon.contracts.subjects import CommandAddress, Sending
from antiphon.participants import inbox
from antiphon.participants.inbox import Answer, Close, Row
from antiphon.participants.participant import CommandHandler, CompensationHandler, Settlement
from antiphon.participants.perform import raised_claim
from antiphon.participants.procedures import (
    RUNS,
    CloseProcedure,
    DoProcedure,
    NotYet,
    Procedure,
    SettleProcedure,
    UndoProcedure,
)

MESSAGES: Final = ("do1", "do2", "undo1", "undo2", "settle1", "settle2", "close1", "close2")
DO1, DO2, UNDO1, UNDO2, SETTLE1, SETTLE2, CLOSE1, CLOSE2 = range(8)
KIND: Final = tuple(name[:-1] for name in MESSAGES)
NUMBER: Final = tuple(int(name[-1]) for name in MESSAGES)

FUTURE, PAST = datetime(9999, 1, 1, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC)
"""When a claimed row's command is expected no more: whether that has come, the exploration decides."""


class Booked(Event, name="inn.booked", owner="inn"):
    by: str = ""


class Book(Command[Booked], name="inn.book"):
    pass


class Cancel(Compensation[Book], name="inn.cancel"):
    pass


MACHINE, OPERATOR, NO = (
    Answer("inn.booked.v1", b'{"by":"machine"}'),
    Answer("inn.booked.v1", b'{"by":"operator"}'),
    Answer("inn.book.refused.v1", b'{"reason":"full"}'),
)


class Verdict(NamedTuple):
    """What a worker does about a message: call the handler, answer, or hand it back."""

    action: Literal["run", "answer", "back"]
    word: str = ""
    row: Row | None = None
    """The row afterwards, with an answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A message, as far as the inbox looks at it."""

    message: int
    form: CloseForm | None = None
    claim: int = 0


@cache
def verdict(asked: Asked, row: Row | None, is_late: bool) -> Verdict:
    """What the shipped inbox does about a message.

    Args:
        asked: the message.
        row: the row.
        is_late: whether the time has passed until which the command of a claimed row is expected.
    """
    procedure = procedure_of(asked)
    found = msgspec.structs.replace(row, due_at=PAST) if row is not None and row.due_at and is_late else row
    decision: Any = procedure.decide(found)
    if isinstance(decision, RUNS):
        return Verdict("run")
    try:
        answer, written = procedure.known(row, decision)
    except NotYet:
        return Verdict("back")
    return Verdict("answer", word(answer), row if written is None else written)


@cache
def after_success(asked: Asked, row: Row | None) -> Row:
    """The row that a plain handler commits, or an outside one at the end of its run."""
    procedure = procedure_of(asked)
    decision: Any = procedure.decide(row)
    return procedure.done(row, decision, MACHINE)


def after_plain(asked: Asked, row: Row | None) -> Row:
    """The row that a plain handler commits."""
    return raised_claim(after_success(asked, row))


@cache
def claimed(asked: Asked, row: Row | None) -> Row:
    """The row once a run outside has begun."""
    procedure = procedure_of(asked)
    due_at = FUTURE if procedure.state == "claimed" else None
    return inbox.claimed(row, procedure.state, procedure.mark, "w", due_at)


def owns(asked: Asked, row: Row | None, claim: int) -> bool:
    """Whether a run may still commit."""
    return inbox.is_owner(row, claim, procedure_of(asked).state)


@cache
def procedure_of(asked: Asked) -> Procedure:
    """The procedure that a worker follows for a message."""
    number, kind = NUMBER[asked.message], KIND[asked.message]
    direction: Sending = "do" if kind == "do" else "close" if kind == "close" else "undo"
    where = CommandAddress(SagaKey.of("trip", "t1"), "inn", "book", direction, number)
    match kind:
        case "do":
            return DoProcedure(CommandHandler(Book, Booked, _nobody, None), where, Book())
        case "undo":
            return UndoProcedure(CompensationHandler(Cancel, Book, Booked, _nobody), where, Cancel())
        case "settle":
            return SettleProcedure(Settlement(Book), where)
        case _:
            assert asked.form is not None
            answer = OPERATOR if asked.form == "done" else None
            return CloseProcedure(Book.__contract__, where, Close(number, asked.form, answer, asked.claim, "op"))


async def _nobody(*given: Any) -> Any:
    raise AssertionError("the exploration says what a handler does")


def word(answer: Answer) -> str:
    """What an answer says."""
    kind = answer.type.removesuffix(".v1").rpartition(".")[2]
    match kind:
        case "booked":
            return "done"
        case "done":
            return "undone" if msgspec.json.decode(answer.data, type=Undone).found else "nothing found"
        case "settled":
            return "happened" if msgspec.json.decode(answer.data, type=Settled).happened else "never"
        case "closed":
            said = msgspec.json.decode(answer.data, type=Closed).verdict
            return said if said in ("closed", "doubt") else f"{said} already"
        case "exhausted" if msgspec.json.decode(answer.data, type=Refusal).code == "open":
            return "open"
        case _:
            return kind


def forget() -> None:
    """Ask the shipped inbox anew: its rules were changed."""
    for remembered in (verdict, after_success, claimed):
        remembered.cache_clear()
