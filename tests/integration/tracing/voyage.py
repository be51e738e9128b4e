"""A saga that has one of everything, lived through many times by chance: coordinators over memory, in virtual time."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from functools import partial

import msgspec

from antiphon.contracts import Command, Compensation, Event, Retry, SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.identity import dashed
from antiphon.contracts.messages import (
    AnswerKind,
    Closed,
    Refusal,
    Settled,
    Undone,
    Verdict,
    closed_name,
    closed_type,
)
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest, Operation, verb_type
from antiphon.contracts.stored import Delivered, SagaPages, StoredMessage
from antiphon.contracts.subjects import CommandAddress, Verb
from antiphon.contracts.topology import EVENTS, PLATFORM_CONSUMERS, SAGA, fact_consumers, participant_consumers
from antiphon.coordinator.decision.history import History
from antiphon.coordinator.decision.replay import replay
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.definition.versions import by_type
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from tests.support.trip import ASKED, BookRoom, BookSeat, ChargeCard, FreeRoom, FreeSeat, RefundCard, TripAsked
from tests.support.trip import REPLIES as TRIP_REPLIES

MINUTE_NS = 60_000_000_000
HOURS = 30
QUICK_NS = 5_000_000


class BagLoaded(Event, name="porter.loaded", owner="porter"):
    bag: int


class LoadBag(Command[BagLoaded], name="porter.load"):
    bag: int


class UnloadBag(Compensation[LoadBag], name="porter.unload"):
    reason: str


class Departed(Event, name="airline.departed", owner="airline"):
    flight: str


class Depart(Command[Departed], name="airline.depart"):
    seat: str


class VisaGranted(Event, name="visa.granted"):
    number: str


class MealAsked(Event, name="meal.asked"):
    guest: str


class MealCooked(Event, name="kitchen.cooked", owner="kitchen"):
    dish: str


class CookMeal(Command[MealCooked], name="kitchen.cook"):
    guest: str


class ClearMeal(Compensation[CookMeal], name="kitchen.clear"):
    reason: str


BACKOFF = Retry(attempts=3, first_seconds=1, factor=2, cap_seconds=30)

meal = Saga(MealAsked, name="meal", version=1, deadline=timedelta(minutes=20), backoff=BACKOFF)


@meal.step(timeout=timedelta(minutes=5))
def cook(s: State[MealAsked]) -> CookMeal:
    return CookMeal(guest=s.start.guest)


@cook.compensation
def clear(s: State[MealAsked]) -> ClearMeal:
    return ClearMeal(reason=s.reason)


def one_passport(start: TripAsked) -> list[str]:
    return [f"passport-{start.traveller}", "airport"]


voyage = Saga(TripAsked, name="voyage", version=2, deadline=timedelta(hours=12), backoff=BACKOFF, locks=one_passport)


@voyage.step(timeout=timedelta(minutes=10))
def book_room(s: State[TripAsked]) -> BookRoom:
    return BookRoom(nights=s.start.nights)


@book_room.compensation
def free_room(s: State[TripAsked]) -> FreeRoom:
    return FreeRoom(reason=s.reason)


@voyage.step()
def book_seat(s: State[TripAsked]) -> BookSeat:
    return BookSeat(traveller=s.start.traveller)


@book_seat.compensation
def free_seat(s: State[TripAsked]) -> FreeSeat:
    return FreeSeat(reason=s.reason)


def is_long(s: State[TripAsked]) -> bool:
    return s.start.nights > 1


@voyage.step(after=book_seat, when=is_long)
def charge_card(s: State[TripAsked]) -> ChargeCard:
    return ChargeCard(room="any", seat=s[book_seat].seat)


@charge_card.compensation
def refund_card(s: State[TripAsked]) -> RefundCard:
    return RefundCard(reason=s.reason)


@voyage.each(after=book_seat, timeout=timedelta(minutes=10))
def load_bags(s: State[TripAsked]) -> list[LoadBag]:
    return [LoadBag(bag=number) for number in range(s.start.nights)]


@load_bags.compensation
def unload_bags(s: State[TripAsked], loaded: LoadBag) -> UnloadBag:
    return UnloadBag(reason=s.reason)


visa = voyage.signal(VisaGranted, after=book_room, within=timedelta(hours=2))
nap = voyage.wait("nap", timedelta(minutes=30), after=book_room)


@voyage.child(meal, after=book_room, timeout=timedelta(minutes=30))
def dine(s: State[TripAsked]) -> MealAsked:
    return MealAsked(guest=s.start.traveller)


@voyage.step(after=(charge_card, load_bags, visa, nap, dine), pivot=True, timeout=timedelta(minutes=10))
def depart(s: State[TripAsked]) -> Depart:
    return Depart(seat=s[book_seat].seat)


@voyage.step(after=depart, timeout=timedelta(minutes=10))
def unload(s: State[TripAsked]) -> LoadBag:
    return LoadBag(bag=0)


caravan = Saga(TripAsked, name="caravan", version=1, deadline=timedelta(hours=1))


@caravan.each(at_most=190)
def load_all(s: State[TripAsked]) -> list[LoadBag]:
    """So many that loading and unloading them, some of them twice, fill a journal."""
    return [LoadBag(bag=number) for number in range(190)]


@load_all.compensation
def unload_all(s: State[TripAsked], loaded: LoadBag) -> UnloadBag:
    return UnloadBag(reason=s.reason)


@caravan.step(after=load_all, needs_no_compensation=True)
def cross(s: State[TripAsked]) -> BookSeat:
    return BookSeat(traveller=s.start.traveller)


REPLIES: dict[str, Event] = {
    **TRIP_REPLIES,
    "load_bags": BagLoaded(bag=1),
    "load_all": BagLoaded(bag=1),
    "cross": TRIP_REPLIES["book_seat"],
    "unload": BagLoaded(bag=0),
    "depart": Departed(flight="a-1"),
    "cook": MealCooked(dish="soup"),
}
DEFINITIONS = {saga.name: saga.definition for saga in (voyage, meal, caravan)}
KEY = SagaKey.of("voyage", "v1")
PARTICIPANTS = ("hotel", "airline", "bank", "porter", "kitchen")
VERDICTS: tuple[Verdict, ...] = ("closed", "closed", "doubt", "done", "refused", "undone", "void")
VERBS: tuple[Verb, ...] = ("retry", "resolve", "pause", "resume", "cancel")


class Voyage:
    """One run. Everything that happens by chance comes from the seed.

    Args:
        seed: of all chances.
        trouble: how likely a command is not simply done.
        only: the one step that may have trouble, if only one may; then nobody cancels or operates.
    """

    def __init__(self, seed: int, trouble: float = 0.15, only: str = "", ratio: float = 1.0) -> None:
        self.chance, self.trouble, self.only = random.Random(seed), trouble, only
        self.clerk = random.Random(seed)
        """Resolves some of what is to be undone or settled, whatever else happens."""
        self.platform = MemoryPlatform()
        store = MemoryStore(self.platform)
        coordinator = Coordinator(store, list(DEFINITIONS.values()), idle_seconds=1800.0, sampling_ratio=ratio)
        *_, timers, sweeper = PLATFORM_CONSUMERS
        for consumer in fact_consumers(PARTICIPANTS):
            self.platform.consume(consumer, coordinator.on_fact)
        self.platform.consume(timers, coordinator.on_fired)
        self.platform.consume(sweeper, coordinator.on_start_to_watch)
        for name in PARTICIPANTS:
            for consumer in participant_consumers(name):
                self.platform.consume(consumer, self._on_command)
        self.requests = 0

    def live(self) -> Voyage:
        """Start it, and let a day pass."""
        start = msgspec.structs.replace(ASKED, nights=2 if self.only else self.chance.choice([0, 1, 2, 3]))
        self.put(subjects.start_subject(KEY), "client", start.__contract__.type, start)
        self._plan_the_day()
        for _ in range(HOURS * 6):
            self.platform.run(600)
            if self.platform.last(SAGA, subjects.end_subject(KEY)):
                break
        return self

    def _plan_the_day(self) -> None:
        if self.only:
            self._signal()
            return
        if self.chance.random() < 0.9:
            at = self.chance.choice([0, MINUTE_NS, 40 * MINUTE_NS, 100 * MINUTE_NS])
            self.platform.later_ns(at, self._signal)
        if self.chance.random() < 0.2:
            at = self.chance.randrange(60 * MINUTE_NS)
            self.platform.later_ns(at, self._cancel)
        for _ in range(self.chance.choice([0, 0, 0, 1, 4])):
            self.platform.later_ns(
                self.chance.randrange(90 * MINUTE_NS), partial(self._operate, self.chance.choice(VERBS))
            )
        self.platform.later_ns(100 * MINUTE_NS, lambda: self._operate("resume"))

    def _signal(self) -> None:
        visa_type = VisaGranted.__contract__.type
        self.put(subjects.signal_subject(KEY, visa.name), "client", visa_type, VisaGranted(number="7"))

    def _cancel(self) -> None:
        self.put(subjects.cancel_subject(KEY), "client", CANCEL_TYPE, CancelRequest(reason="rain"))

    def _operate(self, verb: Verb) -> None:
        self.requests += 1
        step = self.chance.choice(["", *REPLIES]) if verb in ("retry", "resolve") else ""
        subject = subjects.verb_subject(KEY, "ada", verb, str(self.requests))
        self.put(
            subject, "operator", verb_type(verb), Operation(step=step, reason="why not", happened=False, asks=True)
        )

    def _resolve(self, step: str) -> None:
        self.requests += 1
        happened = None if self.clerk.random() < 0.5 else False
        operation = Operation(step=step, reason="why not", happened=happened, asks=self.clerk.random() < 0.8)
        self.put(
            subjects.verb_subject(KEY, "ada", "resolve", str(self.requests)),
            "operator",
            verb_type("resolve"),
            operation,
        )

    # --- participants -------------------------------------------------------------------------------------------------

    def _on_command(self, delivery: Delivered) -> None:
        command = subjects.parse_command(delivery.subject)
        delivery.ack()
        if command.is_close:
            verdict, delay = self.clerk.choice(VERDICTS), self.clerk.choice([0, QUICK_NS, 9 * MINUTE_NS])
            self.platform.later_ns(delay, partial(self._close, command, delivery.sequence, verdict))
            return
        if command.direction == "undo" and command.saga == KEY and not self.only and self.clerk.random() < 0.2:
            self.platform.later_ns(self.clerk.choice([0, 1, MINUTE_NS]), partial(self._resolve, command.step))
        kinds = self._kinds(command)
        for kind in kinds:
            delay = self._delay_ns(kind)
            self.platform.later_ns(delay, lambda k=kind: self._answer(command, delivery.sequence, k))  # type: ignore[misc]

    def _close(self, command: CommandAddress, sequence: int, verdict: Verdict) -> None:
        reply = REPLIES[DEFINITIONS[command.saga.type].step(command.step).name]
        met = Closed(verdict=verdict, reason="so it was", attempt=1)
        if verdict == "done":
            met = msgspec.structs.replace(met, type=reply.__contract__.type, reply=pack(reply))
        do = DEFINITIONS[command.saga.type].step(command.step).do
        assert do is not None
        token = dashed(closed_name(do.contract.name))
        subject = subjects.event_subject(command.saga.path, command.participant, token, command.step, command.attempt)
        self.put(subject, command.participant, closed_type(do.contract), met, str(sequence))

    def _delay_ns(self, kind: AnswerKind) -> int:
        if kind == "done" and (self.only or self.chance.random() > self.trouble):
            return QUICK_NS
        return self.chance.choice([0, QUICK_NS, 2_000_000_000, 9 * MINUTE_NS, 11 * MINUTE_NS])

    def _kinds(self, command: CommandAddress) -> list[AnswerKind]:
        if self.chance.random() > self.trouble or self.only not in ("", command.step):
            return ["done"]
        # A compensation is always answered in some way.
        silence: list[AnswerKind] = [] if command.direction == "do" else ["done"]
        twice: list[AnswerKind] = ["exhausted", "done"]
        return self.chance.choice([silence, ["refused"], ["exhausted"], ["superseded"], twice, ["done"]])

    def _answer(self, command: CommandAddress, sequence: int, kind: AnswerKind) -> None:
        definition = DEFINITIONS[command.saga.type]
        step = definition.step(command.step)
        name = step.name
        sent = next(m for m in self.platform.streams[SAGA] if m.sequence == sequence)
        is_settlement = b".settle.v1" in sent.data
        if is_settlement and kind == "done":
            kind = "settled"
        wanted = [
            (token, each)
            for (answered, token), each in definition.answers.items()
            if answered == name and each.direction == command.direction and each.kind == kind
        ]
        matching = [one for one in wanted if (".settle" in one[1].type) == is_settlement]
        if not matching:  # what is settled cannot be refused
            self._answer(command, sequence, "done")
            return
        token, expected = matching[0]
        payload: msgspec.Struct = Refusal(reason=f"{kind} it was")
        if kind == "done":
            payload = REPLIES[name] if command.direction == "do" else Undone(found=True)
        elif kind == "settled":
            happened = self.chance.random() < 0.5
            reply = REPLIES[name]
            payload = (
                Settled(happened=True, type=reply.__contract__.type, reply=pack(reply))
                if happened
                else Settled(happened=False)
            )
        subject = subjects.event_subject(command.saga.path, command.participant, token, command.step, command.attempt)
        skew = self.chance.choice([0, 0, -90, 90])
        tries = self.chance.choice([0, 0, 0, 2, 4])
        started = self.now() + timedelta(seconds=skew) if self.chance.random() < 0.9 else None
        self.put(subject, command.participant, expected.type, payload, str(sequence), started, tries)

    def put(
        self,
        subject: str,
        source: str,
        type_: str,
        payload: msgspec.Struct,
        command: str = "",
        started: datetime | None = None,
        tries: int = 0,
    ) -> None:
        """Store a message in EVENTS."""
        envelope = Envelope(
            id=subject,
            source=source,
            type=type_,
            time=self.now(),
            data=pack(payload),
            command=command,
            started=started,
            tries=tries,
        )
        self.platform.store(EVENTS, subject, encode(envelope))

    def now(self) -> datetime:
        """Virtual time."""
        return datetime.fromtimestamp(self.platform.now_ns / 1e9, timezone.utc)  # noqa: UP017 - as the envelope has it

    # --- what is stored -----------------------------------------------------------------------------------------------

    def sagas(self) -> list[SagaKey]:
        """The saga and its children."""
        starts = [subjects.parse_fact(m.subject) for m in self.platform.streams[EVENTS] if m.subject.endswith(".start")]
        return [address.saga for address in starts]

    def entries(self, key: SagaKey = KEY) -> list[StoredMessage]:
        """A saga's journal."""
        return self.platform.read(SAGA, [subjects.journal_filter(key)])

    def events(self, key: SagaKey = KEY) -> list[StoredMessage]:
        """Its messages in EVENTS."""
        return self.platform.read(EVENTS, [f"evt.{key.path}.>"])

    def history(self, key: SagaKey = KEY) -> History:
        """What a coordinator makes of it."""
        return replay(
            key, by_type([DEFINITIONS[key.type]])[key.type], SagaPages(self.entries(key), self.events(key))
        ).history
