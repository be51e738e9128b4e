"""Sagas that go on at random, and the streams that hold them; for whoever reads streams without definitions."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from antiphon.contracts import Event, clock, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import AnswerKind, Refusal, Settled, Undone, Verdict
from antiphon.contracts.payloads import CANCEL_TYPE, NO_PAYLOAD, CancelRequest, Operation, verb_type
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import Verb
from antiphon.coordinator.decision.dues import dues
from antiphon.coordinator.decision.facts import Answer, Cancel, Fact, Happened, Operated, Signalled, Start
from antiphon.coordinator.decision.history import History, is_tired
from antiphon.coordinator.definition.definition import Definition
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.views.summary import Cause, Overview, read_cause, read_told, tell, unread
from tests.support.trip import (
    BACKOFF,
    BookRoom,
    BookSeat,
    CardCharged,
    ChargeCard,
    FreeRoom,
    FreeSeat,
    RoomBooked,
    SeatBooked,
    TripAsked,
)
from tests.unit.decide.life import KEY, TIME, Life


class Stamped(Event, name="visa.stamped"):
    by: str


class Landed(Event, name="plane.landed", owner="airline"):
    at: str


def traveller(start: TripAsked) -> dict[str, str]:
    return {"traveller": start.traveller, "nights": str(start.nights)}


def make_voyage() -> Saga[TripAsked]:
    """A saga with steps of nearly all kinds: a list, an optional one, a signal, a wait, a pivot and what follows it: an
    event that a participant emits by itself, sooner, later or never."""
    saga = Saga(TripAsked, name="trip", version=1, deadline=timedelta(hours=1), backoff=BACKOFF, keys=traveller)

    @saga.step(timeout=timedelta(seconds=30))
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=s.start.nights)

    @book_room.compensation
    def free_room(s: State[TripAsked]) -> FreeRoom:
        return FreeRoom(reason=s.reason)

    @saga.each()
    def book_seats(s: State[TripAsked]) -> list[BookSeat]:
        return [BookSeat(traveller=name) for name in ("Ada", "Bob")]

    @book_seats.compensation
    def free_seat(s: State[TripAsked], seat: BookSeat) -> FreeSeat:
        return FreeSeat(reason=s.reason)

    visa = saga.signal(Stamped, after=book_room, within=timedelta(minutes=5))
    cooled = saga.wait("cool_off", timedelta(seconds=20), after=book_seats)

    @saga.step(after=(visa, cooled), timeout=timedelta(seconds=30), pivot=True)
    def charge_card(s: State[TripAsked]) -> ChargeCard:
        return ChargeCard(room="12b", seat="7a")

    @saga.step(after=charge_card, when=is_long)
    def book_more(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=1)

    saga.awaits(Landed, after=book_more, within=timedelta(minutes=10))
    return saga


def is_long(s: State[TripAsked]) -> bool:
    return s.start.nights > 1


REPLIES: dict[str, Event] = {
    "charge_card": CardCharged(payment="p"),
    "book_seats-0": SeatBooked(seat="1"),
    "book_seats-1": SeatBooked(seat="2"),
}


def event_of(definition: Definition, fact: Fact) -> StoredMessage:
    """A fact as EVENTS holds it."""
    assert isinstance(fact, Start | Answer | Cancel | Signalled | Happened | Operated)
    payload: msgspec.Struct
    match fact:
        case Start():
            subject, type_, payload = subjects.start_subject(KEY), definition.start_type, fact.event
        case Cancel():
            subject, type_, payload = subjects.cancel_subject(KEY), CANCEL_TYPE, CancelRequest(reason=fact.reason)
        case Signalled():
            subject, type_, payload = subjects.signal_subject(KEY, fact.step), "visa.stamped.v1", fact.event
        case Happened():
            step = subjects.reaction_step("trip-asked", "")
            subject = subjects.event_subject(KEY.path, "airline", Landed.__contract__.token, step, 1)
            type_, payload = Landed.__contract__.type, fact.event
        case Operated():
            subject = subjects.verb_subject(KEY, fact.user, fact.verb, f"k{fact.sequence}")
            type_, payload = verb_type(fact.verb), fact.operation
        case Answer():
            subject, type_, payload = _answer(definition, fact)
    data = encode(Envelope(id=subject, source="client", type=type_, time=TIME, data=pack(payload)))
    return StoredMessage(subject, fact.sequence, fact.at_ns, data)


def _answer(definition: Definition, fact: Answer) -> tuple[str, str, msgspec.Struct]:
    name = definition.step(fact.step).name
    token, expected = next(
        (token, each)
        for (step, token), each in definition.answers.items()
        if (step, each.direction, each.kind) == (name, fact.direction, fact.kind)
    )
    payload: msgspec.Struct = Refusal(reason=fact.reason)
    if fact.kind == "done":
        payload = fact.event or Undone(found=True)
    elif fact.kind == "settled":
        payload = Settled(happened=fact.event is not None)
    elif fact.closed is not None:
        payload = fact.closed
    subject = subjects.event_subject(KEY.path, expected.source, token, fact.step, fact.attempt)
    return subject, expected.type, payload


def causes_of(life: Life) -> dict[int, Cause]:
    found = {sequence: read_cause(event_of(life.definition, fact)) for sequence, fact in life.facts.items()}
    return {sequence: cause for sequence, cause in found.items() if cause is not None}


def folded(life: Life, row: Overview | None = None) -> Overview:
    """The row that a whole journal gives, or that it gives on top of what was read of it before."""
    causes, row = causes_of(life), row or unread(KEY)
    for message in life.journal:
        told = read_told(message)
        assert told is not None
        row = tell(row, told, causes.get(told.cause_sequence))
    return row


def under_way(history: History) -> set[str]:
    """The steps that wait for an answer, a signal or a time, by the history."""
    if history.end is not None:
        return set()
    # On the way back nothing is awaited any more, though the history keeps the phase.
    phases = ("undoing",) if history.turned else ("sent", "settling", "awaiting")
    found = {name for name, step in history.steps.items() if step.phase in phases}
    return {name for name in found if name not in history.definition.steps or not _is_list(history, name)}


def _is_list(history: History, name: str) -> bool:
    return history.definition.steps[name].kind == "list"


class Walk:
    """A saga that goes on at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.luck = self.random.choice([0.6, 0.97])  # most of the way lies behind much luck
        self.life = Life(make_voyage())
        self.life.now_ns = clock.nanoseconds(TIME)  # the entries' clock, or the deadline would come before everything
        self.life.start()

    def move(self) -> None:
        history = self.life.history
        moves = [self.answer] * 6 + [self.signal, self.operate, self.close]
        if history.is_past_pivot or self.random.random() > self.luck:
            moves.append(self.land)
        is_waiting = any(step.phase == "awaiting" for step in history.steps.values())
        if is_waiting or history.turned or self.random.random() > self.luck:
            moves += [self.pass_time] * 2
        if self.random.random() < (1 - self.luck) / 4:
            moves = [self.cancel]
        self.random.choice(moves)(history)

    def answer(self, history: History) -> None:
        found = [(name, step) for name, step in history.steps.items() if name in under_way(history)]
        found = [(name, step) for name, step in found if step.phase != "awaiting" and not step.again_ns]
        found = [(name, step) for name, step in found if step.phase != "settling" or step.undo_attempts]
        if not found:
            return
        name, step = self.random.choice(found)
        self._answer(name, step.phase, step.attempts, step.undo_attempts)

    def _answer(self, name: str, phase: str, attempts: int, undo_attempts: int) -> None:
        reply = REPLIES.get(name, RoomBooked(room="1"))
        fails = self.random.random() > self.luck or (name == "charge_card" and self.random.random() < 0.5)
        failures: list[AnswerKind] = ["exhausted", "exhausted", "refused"]
        kind: AnswerKind = self.random.choice(failures) if fails else "done"
        if phase == "settling":
            kind = self.random.choice(["settled", "exhausted"])
            event = reply if kind == "settled" and self.random.random() < 0.5 else None
            if kind == "exhausted":
                return  # its contract is the question's, which `event_of` does not write
            self.take("undo", name, undo_attempts, kind, event)
        elif phase == "undoing":
            self.take("undo", name, undo_attempts, kind, None)
        else:
            self.take("do", name, attempts, kind, reply if kind == "done" else None)

    def take(self, direction: Any, name: str, attempt: int, kind: AnswerKind, event: Event | None) -> None:
        life, reason = self.life, "" if kind in ("done", "settled") else f"{kind} it was"
        fact = Answer(life._next(), life.now_ns, name, direction, attempt, kind, life.history.sequence, event, reason)
        life.take(fact)

    def close(self, history: History) -> None:
        """A participant answers a close, as its inbox may have it: nothing is refused or void that was done."""
        asked = [step.closing for step in history.steps.values() if step.closing is not None]
        if not asked:
            return
        closing = self.random.choice(asked)
        phase = history.steps[closing.step].phase
        undoing: list[Verdict] = ["undone", "void"]
        settling: list[Verdict] = ["done", "refused", "void"]
        verdicts: list[Verdict] = ["closed", "doubt"]
        verdicts += undoing if phase == "undoing" else settling if phase == "settling" else []
        verdict = self.random.choice(verdicts)
        event = REPLIES.get(closing.step, RoomBooked(room="1")) if verdict == "done" else None
        self.life.closed(closing.step, verdict, event, reason="so it was")

    def pass_time(self, history: History) -> None:
        if due := dues(history):
            self.life.tick(due[0][0])

    def signal(self, history: History) -> None:
        if not history.signals:
            step = Stamped.__contract__.token
            self.life.take(Signalled(self.life._next(), self.life.now_ns, step, Stamped(by="x")))

    def land(self, history: History) -> None:
        if Landed.__contract__.token not in history.signals:
            self.life.take(Happened(self.life._next(), self.life.now_ns, Landed(at="noon")))

    def cancel(self, history: History) -> None:
        if not any(isinstance(fact, Cancel) for fact in self.life.facts.values()):  # EVENTS takes one
            self.life.cancel()

    def operate(self, history: History) -> None:
        verbs: list[Verb] = ["pause", "resume", "resume", "retry", "resolve", "cancel"]
        verb = self.random.choice(verbs)
        if verb == "cancel" and self.random.random() < 0.8:
            return
        stuck = [name for name in sorted(under_way(history)) if history.steps[name].phase in ("undoing", "settling")]
        stuck += [name for name in (Landed.__contract__.token,) if is_tired(history, history.steps[name])]
        if verb == "resolve" and not stuck:
            return
        step = self.random.choice(stuck) if verb == "resolve" else ""
        operation = Operation(step=step, reason="because", asks=verb == "resolve")
        if step == Landed.__contract__.token:
            operation = msgspec.structs.replace(operation, payload=pack(Landed(at="noon")))
        elif step and history.steps[step].phase == "settling":
            given = msgspec.Raw(pack(REPLIES[step])) if self.random.random() < 0.5 else NO_PAYLOAD
            operation = msgspec.structs.replace(operation, payload=given, happened=None if given else False)
        elif step:
            operation = msgspec.structs.replace(operation, asks=self.random.random() < 0.7)
        self.life.take(Operated(self.life._next(), self.life.now_ns, "ada", verb, operation))


# --- as streams -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One message of a life, as a pattern: `cause` is the place of the event it names among the life's events."""

    subject: bytes
    data: bytes
    is_event: bool
    cause: int = 0


def messages_of(life: Life) -> list[Message]:
    """A life as the streams hold it: each entry behind the event that it names."""
    events = [event_of(life.definition, fact) for fact in life.facts.values()]
    found: list[Message] = []
    told = 0
    for entry in life.journal:
        cause = re.search(rb'"cause":"e(\d+)"', entry.data)
        named = int(cause[1]) if cause else 0
        found += [Message(each.subject.encode(), each.data, True) for each in events[told:named]]
        told = max(told, named)
        found.append(Message(entry.subject.encode(), entry.data, False, named))
    return found + [Message(each.subject.encode(), each.data, True) for each in events[told:]]


class Written:
    """One saga that is being written, in the pattern of a life, and where its events are."""

    def __init__(self, life: list[Message], key: SagaKey, traveller: bytes = b"Ada") -> None:
        self.life, self.key, self.traveller, self.events = life, key, traveller, list[int]()

    def message(self, place: int, events: int) -> tuple[str, bytes, bool]:
        """Its message at a place: subject, data, and whether it is an event; EVENTS has so many events before it."""
        message, path = self.life[place], self.key.path.encode()
        subject = message.subject.replace(KEY.path.encode(), path)
        data = message.data.replace(KEY.path.encode(), path).replace(b'"Ada"', b'"%s"' % self.traveller)
        if message.is_event:
            self.events.append(events + 1)
        elif message.cause:
            data = re.sub(rb'"cause":"e\d+"', b'"cause":"e%d"' % self.events[message.cause - 1], data)
        return subject.decode(), data, message.is_event
