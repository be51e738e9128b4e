"""How a saga stands, and why it waits for a person, read from its journal without any definition. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.envelope import decode, unpack, unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.payloads import END_TYPE, RECORD_TYPE, End, Operation, Record, SagaState
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import FactAddress

FAILURES: Final = ("-refused", "-exhausted", "-superseded")
"""The last tokens of answers after which a step is tried again."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Why a saga waits for a person: a step that is tried in vain, or with no step, that it cannot go on at all."""

    step: str
    reason: str
    since_ns: int
    tried: int
    """How often; 0 where nothing can be tried."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a saga stands."""

    state: SagaState
    reason: str = ""
    """Of its compensation, once it has ended."""
    needs: tuple[Need, ...] = ()
    paused: str = ""

    @property
    def parked(self) -> str:
        """Why it waits for a person, in one line."""
        return "; ".join(need.reason for need in self.needs)


def standing(entries: list[StoredMessage], events: list[StoredMessage]) -> Standing:
    """Go through a journal, in the order of its entries.

    Args:
        entries: the journal.
        events: the facts it names, as far as they are known; without them what was parked once seems to be still.
    """
    facts = {f"e{message.sequence}": message for message in events}
    reader = _Reader(facts)
    for message in entries:
        reader.take(message)
    return reader.standing()


class _Reader:
    def __init__(self, facts: dict[str, StoredMessage]) -> None:
        self._facts = facts
        self._end: End | None = None
        self._turned = False
        self._fault: Need | None = None
        self._marks: dict[str, Need] = {}
        self._sent: dict[str, int] = {}
        self._paused = ""

    def take(self, message: StoredMessage) -> None:
        envelope = decode(message.data, message.subject)
        address = subjects.parse_entry(message.subject)
        self._take_cause(envelope.cause)
        if address.command is not None:
            self._fault = None
            if address.command.direction == "undo" and not envelope.type.rpartition(".v")[0].endswith(".settle"):
                self._turn()
            self._sent[address.command.step] = address.command.attempt
        elif address.kind == "end":
            self._end = unpack(envelope, END_TYPE, End)
        else:
            self._take_record(unpack(envelope, RECORD_TYPE, Record), envelope.cause, message.stored_ns)

    def _turn(self) -> None:
        """Whatever was wanted for the way forward is not any more."""
        if not self._turned:
            self._turned = True
            self._marks.clear()

    def _take_record(self, record: Record, cause: str, at_ns: int) -> None:
        if record.fault:
            self._fault = Need(step="", reason=record.fault, since_ns=at_ns, tried=0)
        elif record.parked:
            tried = self._sent.get(record.step, 0)
            self._marks[record.step] = Need(step=record.step, reason=record.parked, since_ns=at_ns, tried=tried)
        elif record.turned:
            self._turned = True
        elif record.by and not record.rejected:
            self._take_request(self._address(cause), cause, record.by)

    def _take_request(self, address: FactAddress | None, cause: str, by: str) -> None:
        """A request of an operator that was fulfilled."""
        if address is None:
            return
        message = self._facts[cause]
        operation = unpack_raw(decode(message.data, message.subject).data, Operation)
        match address.event:
            case "pause":
                self._paused = f"paused by {by}: {operation.reason}"
            case "resume":
                self._paused = ""
            case "resolve":
                self._is_over(operation.step)
            case _:
                self._fault = None
                self._marks.pop("", None)

    def _take_cause(self, cause: str) -> None:
        """An answer that was not one more failure is what was waited for; so is what a participant did by itself."""
        address = self._address(cause)
        if address is not None and subjects.is_by_itself(address.step):
            self._is_over(address.event)  # the step that waits for an event is called after it
        elif address is not None and address.step and not address.event.endswith(FAILURES):
            self._is_over(address.step)

    def _is_over(self, step: str) -> None:
        """Nobody is needed any more for a step, nor for all that waited for one to end."""
        self._marks.pop(step, None)
        self._marks.pop("", None)

    def _address(self, cause: str) -> FactAddress | None:
        message = self._facts.get(cause)
        try:
            return subjects.parse_fact(message.subject) if message else None
        except Unusable:
            return None

    def standing(self) -> Standing:
        if self._end is not None:
            return Standing(state=self._end.outcome, reason=self._end.reason)
        faults = [self._fault] if self._fault else []
        marks = [
            msgspec.structs.replace(need, tried=self._sent.get(step, need.tried)) for step, need in self._marks.items()
        ]
        state: SagaState = "compensating" if self._turned else "running"
        return Standing(state=state, needs=(*faults, *marks), paused=self._paused)
