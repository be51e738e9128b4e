"""How a saga stands, and why it waits for a person, read from its journal without any definition. Pure."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from antiphon.contracts.errors import Unusable
from antiphon.contracts.messages import CloseForm, ends_step
from antiphon.contracts.payloads import End, Record, SagaState
from antiphon.contracts.reader import FAILURES, Entry, Fact, Journal
from antiphon.contracts.stored import StoredMessage

from ..decision.resolving import said_after_all


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
    waits_for: tuple[str, ...] = ()
    """The participants of commands without an answer, as far as the facts are known."""

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
    found, journal, fold = {message.sequence: message for message in events}, Journal(), _Fold()
    for message in entries:
        entry = journal.entry(message)
        fold.take(entry, _fact(journal, found.get(entry.cause_sequence)))
    return fold.standing()


def _fact(journal: Journal, message: StoredMessage | None) -> Fact | None:
    """The fact that an entry names; none where it is not known, or cannot be read."""
    with suppress(Unusable):
        return journal.fact(message) if message is not None else None
    return None


class _Fold:
    def __init__(self) -> None:
        self._end: End | None = None
        self._turned = False
        self._fault: Need | None = None
        self._marks: dict[str, Need] = {}
        self._sent: dict[str, int] = {}
        self._awaited: dict[str, str] = {}
        self._closes: dict[tuple[str, int], CloseForm] = {}
        self._paused = ""

    def take(self, entry: Entry, fact: Fact | None) -> None:
        """Read an entry, and the fact that it names."""
        if fact is not None:
            self._take_fact(fact)
        if entry.command is not None and entry.kind == "close":
            self._closes[entry.command.step, entry.command.attempt] = entry.close.form
        elif entry.command is not None:
            self._fault = None
            if entry.kind == "undo":
                self._turn()
            self._sent[entry.command.step] = entry.command.attempt
            self._awaited[entry.command.step] = entry.command.participant
        elif entry.end is not None:
            self._end = entry.end
        elif entry.record is not None:
            self._take_record(entry.record, fact, entry.at_ns)

    def _turn(self) -> None:
        """The saga goes backward: nobody is needed any more for its way forward."""
        if not self._turned:
            self._turned = True
            self._marks.clear()

    def _take_record(self, record: Record, fact: Fact | None, at_ns: int) -> None:
        if record.fault:
            self._fault = Need(step="", reason=record.fault, since_ns=at_ns, tried=0)
        elif record.parked:
            tried = self._sent.get(record.step, 0)
            self._marks[record.step] = Need(step=record.step, reason=record.parked, since_ns=at_ns, tried=tried)
        elif record.turned:
            self._turned = True
        elif record.by and not record.rejected and fact is not None and fact.kind == "request":
            self._take_request(fact, record.by)

    def _take_request(self, fact: Fact, by: str) -> None:
        """A request of an operator that was fulfilled."""
        match fact.address.event:
            case "pause":
                self._paused = f"paused by {by}: {fact.operation.reason}"
            case "resume":
                self._paused = ""
            case "resolve":
                self._is_over(fact.operation.step)
            case _:
                self._fault = None
                self._marks.pop("", None)

    def _take_fact(self, fact: Fact) -> None:
        """An answer that is no failure ends the wait for its step; so does an event of a participant, for the step that
        is called after it."""
        if fact.kind == "event":
            self._is_over(fact.address.event)
        elif fact.kind == "closed":
            self._take_closed(fact)
        elif fact.address.step:
            self._awaited.pop(fact.address.step, None)
            if fact.kind not in FAILURES:
                self._is_over(fact.address.step)

    def _take_closed(self, fact: Fact) -> None:
        """What was said to a close ends the wait for a person, unless it left everything as it was."""
        step, number = fact.address.step, fact.address.attempt
        form, verdict = self._closes.get((step, number)), fact.closed.verdict
        if form is not None and (verdict == "closed" or ends_step(form, verdict, self._turned or form == "undone")):
            self._is_over(step)

    def _is_over(self, step: str) -> None:
        """Nobody is needed any more for a step, nor for all that waited for one to end."""
        self._marks.pop(step, None)
        self._marks.pop("", None)

    def standing(self) -> Standing:
        if self._end is not None:
            return Standing(state=self._end.outcome, reason=self._end.reason)
        faults = [self._fault] if self._fault else []
        marks = [
            msgspec.structs.replace(need, tried=self._sent.get(step, need.tried)) for step, need in self._marks.items()
        ]
        state: SagaState = "compensating" if self._turned else "running"
        waits_for = tuple(dict.fromkeys(self._awaited.values()))
        return Standing(state=state, needs=(*faults, *marks), paused=self._paused, waits_for=waits_for)


def acted_after_all(entries: list[StoredMessage], events: list[StoredMessage]) -> tuple[Need, ...]:
    """The steps that were resolved without their participant, and on which it has acted all the same.

    An ended saga takes no fact in, so this is looked for among all that is stored of it.
    """
    journal = Journal()
    resolved: dict[str, tuple[str, int]] = {}
    found = {message.sequence: message for message in events}
    named = set[int]()
    for message in entries:
        entry = journal.entry(message)
        named.add(entry.cause_sequence)
        request = _fact(journal, found.get(entry.cause_sequence)) if entry.record and entry.record.unasked else None
        if request is not None and entry.record is not None:
            resolved[request.operation.step] = entry.record.by, request.sequence
        elif entry.command is not None:
            resolved.pop(entry.command.step, None)
    facts = [fact for message in events if (fact := _fact(journal, message)) is not None] if resolved else []
    return tuple(
        Need(
            step=step,
            reason=said_after_all(step, resolved[step][0], fact.address.attempt, fact.kind == "undone"),
            since_ns=fact.at_ns,
            tried=fact.address.attempt,
        )
        for fact in facts
        if _has_acted(fact)
        and (step := fact.address.step) in resolved
        and (fact.sequence > resolved[step][1] or fact.sequence not in named)
    )


def _has_acted(fact: Fact) -> bool:
    """Whether an answer says that something was done."""
    if fact.kind in ("done", "undone"):
        return fact.has_found
    return fact.kind == "settled" and fact.has_happened
