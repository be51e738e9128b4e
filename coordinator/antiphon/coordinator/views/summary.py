"""A saga in one row, folded from its journal without any definition. Pure.

Two streams tell it: the entries of SAGA say what was done, and the facts they name, which EVENTS holds, say what became
of it. Folding an entry twice changes nothing that folding it once did not.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from antiphon.contracts.bounds import Sequence
from antiphon.contracts.envelope import Envelope, decode, unpack, unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import COORDINATOR, OPERATOR, SagaKey
from antiphon.contracts.messages import (
    AnswerKind,
    Close,
    Closed,
    CloseForm,
    Refusal,
    ends_step,
    name_of,
    settle_name,
)
from antiphon.contracts.payloads import END_TYPE, RECORD_TYPE, CancelRequest, End, Operation, Record, SagaState
from antiphon.contracts.reader import FAILURES, answer_kind, cause_sequence
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import (
    EntryAddress,
    FactAddress,
    is_by_itself,
    is_of_a_saga,
    parse_entry,
    parse_fact,
)

from ..decision.history import cancelled


class UnderWay(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step that was begun and is not over: its command was sent, or it awaits a signal or a time."""

    step: str
    how: Literal["do", "undo", "await"]
    message: str = ""
    """What the command is called, without its version, or the type of what is awaited; empty of a time."""
    is_asked: bool = False
    """Whether its participant was asked what became of the command."""
    close: str = ""
    """What the close is called by which its participant was asked to take an operator's word; empty where none was."""
    form: CloseForm | None = None
    """As what it was to be closed."""


class Overview(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a saga stands, as far as the streams were read. Times are nanoseconds since 1970 by the server's clock."""

    type: str
    id: str
    state: SagaState = "running"
    definition: str = ""
    """What it began with; empty while no coordinator has taken it in."""
    started_ns: Sequence = 0
    changed_ns: Sequence = 0
    ended_ns: Sequence = 0
    under_way: tuple[UnderWay, ...] = ()
    fault: str = ""
    """Why it cannot go on by itself."""
    stuck: dict[str, str] = {}
    """Why a person should look at a step that must succeed and does not."""
    paused: str = ""
    reason: str = ""
    """Why it is being, or was, compensated."""
    keys: dict[str, str] = {}
    signalled: tuple[str, ...] = ()
    """Signals that came, early or in time."""
    sequence: Sequence = 0
    """Where SAGA holds the last entry that was read."""
    forgotten: str = ""
    """Who had it forgotten, when and why."""
    incomplete: str = ""
    """Why this is not all: an entry that could not be read, or something that the database does not take."""

    @property
    def parked(self) -> str:
        """Why a person should look at it; empty where none needs to."""
        return self.fault or "; ".join(self.stuck.values())

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps under way."""
        return tuple(each.step for each in self.under_way)


class Cause(msgspec.Struct, frozen=True):
    """The fact that an entry names, as EVENTS holds it."""

    address: FactAddress
    stored_ns: int
    data: bytes


class Told(msgspec.Struct, frozen=True):
    """A journal entry as it was read."""

    address: EntryAddress
    envelope: Envelope
    sequence: int
    stored_ns: int

    @property
    def cause_sequence(self) -> int:
        """Where EVENTS holds the fact it was decided on; 0 if that was a timer, or nothing that can be a sequence."""
        return cause_sequence(self.envelope.cause)


def read_told(message: StoredMessage) -> Told | None:
    """The entry in a message of SAGA; none if it is no saga's.

    Raises:
        Undecodable: its bytes are wrong.
    """
    if not is_of_a_saga(message.subject):
        return None
    envelope = decode(message.data, message.subject)
    return Told(parse_entry(message.subject), envelope, message.sequence, message.stored_ns)


def read_cause(message: StoredMessage) -> Cause | None:
    """The fact in a message of EVENTS; none if it is forged."""
    with suppress(Unusable):
        return Cause(parse_fact(message.subject), message.stored_ns, message.data)
    return None


def unread(key: SagaKey) -> Overview:
    """A saga of which nothing was read."""
    return Overview(type=key.type, id=key.id)


def begun(before: Overview, start: Cause) -> Overview:
    """What a stored start tells: that there is a saga, and since when. Its journal knows better which start counts."""
    if before.started_ns:
        return before
    return replace(before, started_ns=start.stored_ns, changed_ns=max(before.changed_ns, start.stored_ns))


def tell(before: Overview, told: Told, cause: Cause | None) -> Overview:
    """The saga once an entry was read.

    Args:
        before: the saga as its earlier entries told it.
        told: the entry; one that was told before is skipped.
        cause: the fact that it names, where that is known.

    Raises:
        Undecodable: a record or an end has another form than the protocol says.
    """
    if told.sequence <= before.sequence:
        return before
    after = _since(before, told, cause)
    if cause is not None:
        after = _answered(after, cause)
    elif told.envelope.cause.startswith("t"):
        after = _time_passed(after, told)
    match told.address.kind:
        case "cmd":
            return _sent(after, told, cause)
        case "rec":
            return _recorded(after, told, cause)
        case "end":
            end = unpack(told.envelope, END_TYPE, End)
            if end.forgotten:
                after = _forgotten(after, end)
            # What has ended waits for nobody, and says all by itself: nobody need read the fact that it names.
            after = replace(after, under_way=(), fault="", stuck={}, paused="", signalled=())
            return replace(after, state=end.outcome, reason=end.reason, ended_ns=told.stored_ns)
        case _:
            assert_never(told.address.kind)


def _forgotten(before: Overview, end: End) -> Overview:
    """What stays of a saga that was forgotten: that it was."""
    return Overview(
        type=before.type,
        id=before.id,
        started_ns=before.started_ns,
        changed_ns=before.changed_ns,
        sequence=before.sequence,
        forgotten=end.forgotten,
    )


def _since(before: Overview, told: Told, cause: Cause | None) -> Overview:
    """What every entry tells."""
    is_start = cause is not None and cause.address.is_start
    started = cause.stored_ns if cause is not None and is_start else before.started_ns
    return replace(
        before,
        definition=told.envelope.definition or before.definition,
        keys=told.envelope.keys or before.keys,
        started_ns=started or told.stored_ns,
        changed_ns=max(before.changed_ns, told.stored_ns),
        sequence=told.sequence,
    )


# --- what became of steps ---------------------------------------------------------------------------------------------


def _answered(before: Overview, cause: Cause) -> Overview:
    """A step is over once it was answered with success. Told twice, as a cause may be, this changes nothing."""
    address = cause.address
    if address.is_signal:
        signalled = before.signalled if address.step in before.signalled else (*before.signalled, address.step)
        return _over(replace(before, signalled=signalled), address.step)
    if is_by_itself(address.step):  # a step that waits for an event is called after it
        before = replace(before, signalled=tuple(dict.fromkeys((*before.signalled, address.event))))
        return _over(before, address.event)
    found = _find(before, address.step)
    if found is not None and found.form is not None and _is_closed(found, address):
        return _closed(before, found.form, found.how == "undo", cause)
    return _over(before, address.step) if found is not None and _is_success(found, address) else before


def _is_closed(found: UnderWay, answer: FactAddress) -> bool:
    return answer_kind("close", found.close, answer.event) == "closed"


def _closed(before: Overview, form: CloseForm, goes_back: bool, cause: Cause) -> Overview:
    """What the answer to a close makes of a step. A refusal turns the saga, which the next command shows."""
    step, verdict = cause.address.step, unpack_raw(decode(cause.data, "").data, Closed).verdict
    if verdict != "refused" and ends_step(form, verdict, goes_back):
        return _over(before, step)
    if verdict == "closed":  # its command happened, and is compensated now
        return replace(before, stuck={name: why for name, why in before.stuck.items() if name != step})
    return before


def _find(before: Overview, step: str) -> UnderWay | None:
    return next((each for each in before.under_way if each.step == step), None)


def _is_success(found: UnderWay, answer: FactAddress) -> bool:
    if answer.source == COORDINATOR:
        return answer.event == ("child-compensated" if found.how == "undo" else "child-completed")
    return _kind(found, answer) in ("done", "settled")


def _kind(found: UnderWay, answer: FactAddress) -> AnswerKind | None:
    """How a participant answered."""
    if found.how == "undo":
        return answer_kind("undo", found.message, answer.event)
    settled = answer_kind("settle", settle_name(found.message), answer.event) if found.is_asked else None
    return settled or answer_kind("do", found.message, answer.event)


def _over(before: Overview, step: str) -> Overview:
    under_way = tuple(each for each in before.under_way if each.step != step)
    # What was said of the whole saga was that nothing more is tried, or said.
    stuck = {name: why for name, why in before.stuck.items() if name not in (step, "")} if before.stuck else {}
    return replace(before, under_way=under_way, stuck=stuck)


def _time_passed(before: Overview, told: Told) -> Overview:
    """What follows when a wait is over does not say which wait that was: with two of them, both stay under way. No
    signal and no event is over by time: where it has to come in time its saga turns, and elsewhere it is waited for."""
    if told.address.kind == "rec" and unpack(told.envelope, RECORD_TYPE, Record).parked:
        return before  # it is still waited for
    command = told.address.command
    if command is not None and (command.attempt > 1 or command.direction == "undo"):
        return before
    awaited = [each.step for each in before.under_way if each.how == "await" and not each.message]
    return _over(before, awaited[0]) if len(awaited) == 1 else before


# --- what was done ----------------------------------------------------------------------------------------------------


def _sent(before: Overview, told: Told, cause: Cause | None) -> Overview:
    command, name = told.address.command, name_of(told.envelope.type)
    assert command is not None
    found = _find(before, command.step)
    if command.direction == "close":
        return _asked_to_close(before, told, found)
    if command.direction == "do":
        return _begun(before, UnderWay(command.step, "do", name))
    if found is not None and found.how == "do" and name == settle_name(found.message):
        asked = tuple(replace(each, is_asked=True) if each is found else each for each in before.under_way)
        return replace(before, under_way=asked)  # that undoes nothing
    if before.state == "running":
        # Whatever was under way, or stood in the way, has no meaning for the way back.
        turned = _why(before, cause)
        before = replace(before, state="compensating", reason=turned, under_way=(), stuck={}, fault="")
    return _begun(before, UnderWay(command.step, "undo", name))


def _asked_to_close(before: Overview, told: Told, found: UnderWay | None) -> Overview:
    close, form = name_of(told.envelope.type), unpack_raw(told.envelope.data, Close).form
    return replace(
        before,
        under_way=tuple(replace(each, close=close, form=form) if each is found else each for each in before.under_way),
    )


def _begun(before: Overview, begun: UnderWay) -> Overview:
    found = _find(before, begun.step)
    if found is not None and found.form is not None:  # the close is out while attempts go on
        begun = replace(begun, close=found.close, form=found.form)
    others = tuple(each for each in before.under_way if each.step != begun.step)
    return replace(before, under_way=(*others, begun))


def _recorded(before: Overview, told: Told, cause: Cause | None) -> Overview:
    record = unpack(told.envelope, RECORD_TYPE, Record)
    if record.fault:
        return replace(before, fault=record.fault)
    if record.parked:
        return replace(before, stuck={**before.stuck, record.step: record.parked})
    if record.turned:
        return replace(before, state="compensating", reason=record.turned)
    if record.awaits and record.step not in before.signalled:
        return _begun(before, UnderWay(record.step, "await", told.envelope.awaits))
    if record.by and not (record.rejected or record.request) and cause is not None:
        return _operated(before, cause)
    return before


def _operated(before: Overview, cause: Cause) -> Overview:
    operation = unpack_raw(decode(cause.data, "").data, Operation)
    match cause.address.event:
        case "pause":
            return replace(before, paused=f"paused by {cause.address.key[0]}: {operation.reason}")
        case "resume":
            return replace(before, paused="")
        case "retry" | "edit":
            return replace(before, fault="", stuck={name: why for name, why in before.stuck.items() if name})
        case "resolve":
            return _over(before, operation.step)
        case _:
            return before


# --- why it turned ----------------------------------------------------------------------------------------------------


def _why(before: Overview, cause: Cause | None) -> str:
    """Why a saga turns, as far as the fact says by itself; its end says it in full."""
    if cause is None:
        return "a time was up"
    address = cause.address
    envelope = decode(cause.data, "")
    if address.source == OPERATOR and address.event == "cancel":
        return f"cancelled by {address.key[0]}: {unpack_raw(envelope.data, Operation).reason}"
    if address.source == OPERATOR and address.event == "resolve":
        operation = unpack_raw(envelope.data, Operation)
        return f"{operation.step} did not happen: resolved by {address.key[0]}: {operation.reason}"
    if address.source == OPERATOR:
        return "it was turned while it stood still"
    if address.is_cancel:
        return cancelled(unpack_raw(envelope.data, CancelRequest).reason)
    if address.source == COORDINATOR and address.event == "child-compensated":
        end = unpack_raw(envelope.data, End)
        return f"{address.step} was refused: the saga it started was compensated: {end.reason}"
    if is_by_itself(address.step):
        return f"{address.source} said {envelope.type}"
    return _why_not(_find(before, address.step), address, envelope)


def _why_not(found: UnderWay | None, address: FactAddress, answer: Envelope) -> str:
    if found is not None and found.form is not None and _is_closed(found, address):
        return f"{address.step} was refused: {unpack_raw(answer.data, Closed).reason}"
    kind = _kind(found, address) if found is not None else None
    with suppress(Unusable):
        if kind == "refused":
            return f"{address.step} was refused: {unpack_raw(answer.data, Refusal).reason}"
        if kind in FAILURES:
            return f"{address.step} has no known outcome: {unpack_raw(answer.data, Refusal).reason}"
    return f"{address.step} did not happen"
