"""Real coordinators over a platform in memory, in bad weather: reads that are old, answers and writes that are lost,
rivals, and processes that die with their hands full. Then it calms down, and everything must come to an end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from random import Random
from typing import Final, TypeVar

import msgspec

from antiphon.contracts import SagaKey, clock, subjects
from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.messages import AnswerKind, Refusal, Settled, Undone
from antiphon.contracts.payloads import LOCK_STATE_TYPE, End
from antiphon.contracts.stored import Delivered, NotRead, Outcome, SagaPages
from antiphon.contracts.topology import (
    EVENTS,
    PLATFORM_CONSUMERS,
    SAGA,
    fact_consumers,
    participant_consumers,
)
from antiphon.coordinator.decision.locks import Lock
from antiphon.coordinator.decision.replay import Replayed, replay
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from antiphon.coordinator.runtime.ports import ArmGuard
from antiphon.participants import inbox
from antiphon.participants.inbox import Answer, NothingToUndo, Row, RunCompensation, RunHandler
from tests.simulation.sagas import SHOP, Approved, Asked, Made, Shape, Undeliverable, saga_of
from tests.simulation.sagas import Delivered as DeliveredItself
from tests.simulation.world import require

*_, TIMERS, SWEEPER = PLATFORM_CONSUMERS
CALM_SECONDS: Final = 150.0
"""How long the weather is bad."""

END_SECONDS: Final = 3000.0
"""How long after the last fault everything has ended, in virtual time: some backoffs, a few rounds of the sweeper."""

KEYS: Final = ("k1", "k2", "k3")
T = TypeVar("T")


class Weather(MemoryStore):
    """What a coordinator sees of the platform while things go wrong, up to its death."""

    def __init__(self, platform: MemoryPlatform, chance: Random) -> None:
        super().__init__(platform)
        self.guard.is_strict = True  # a mistake of ours shall end the storm, and not be retried until it is parked
        self.chance, self.is_bad, self.is_dead = chance, True, False

    def _strikes(self, probability: float) -> bool:
        return self.is_bad and self.chance.random() < probability

    def _answer(self, then: Callable[[T], None], result: T) -> None:
        delay = self.chance.random() * 0.5 if self.is_bad else 0.0
        self.later(delay, lambda: then(result))

    def later(self, delay_seconds: float, call: Callable[[], None]) -> None:
        super().later(delay_seconds, lambda: None if self.is_dead else call())

    def _write(self, write: Callable[[Callable[[Outcome], None]], None], then: Callable[[Outcome], None]) -> None:
        """Make a write, or die before or after it, or lose it, or lose the answer to it."""
        if self.is_dead:
            return
        self.is_dead = self._strikes(0.01)
        if self.is_dead or self._strikes(0.03):
            self.later(5.0, lambda: then(Ambiguous("the write was lost")))
        elif self._strikes(0.03):
            write(lambda outcome: None)
            self.later(5.0, lambda: then(Ambiguous("the answer was lost")))
        elif self._strikes(0.03):
            self._answer(then, Conflict("a rival was first"))
        else:
            write(then)
            self.is_dead = self._strikes(0.01)

    def append(
        self,
        key: SagaKey,
        subject: str,
        data: bytes,
        last_sequence: int,
        unschedule: bool,
        then: Callable[[Outcome], None],
    ) -> None:
        parent = super().append
        self._write(lambda told: parent(key, subject, data, last_sequence, unschedule, told), then)

    def arm(self, key: SagaKey, due_ns: int, body: bytes, guard: ArmGuard, then: Callable[[Outcome], None]) -> None:
        parent = super().arm
        self._write(lambda told: parent(key, due_ns, body, guard, told), then)

    def tell(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        parent = super().tell
        self._write(lambda told: parent(subject, data, told), then)

    def read(self, key: SagaKey, expected: list[str], then: Callable[[SagaPages | NotRead], None]) -> None:
        def age(pages: SagaPages | NotRead) -> None:
            if isinstance(pages, SagaPages) and self._strikes(0.2):
                pages = SagaPages(pages.entries[: -self.chance.randrange(1, 4)], pages.events)
            then(pages)

        super().read(key, expected, age)


class Held:
    """A delivery in the hands of a coordinator, which drops it when it dies."""

    def __init__(self, delivery: Delivered, store: Weather) -> None:
        self._delivery, self._store = delivery, store
        self.stream, self.subject, self.data = delivery.stream, delivery.subject, delivery.data
        self.sequence, self.stored_ns, self.deliveries = delivery.sequence, delivery.stored_ns, delivery.deliveries

    def ack(self) -> None:
        if not self._store.is_dead:
            self._delivery.ack()

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        if not self._store.is_dead:
            self._delivery.hand_back(delay_seconds)

    def in_progress(self) -> None:
        if not self._store.is_dead:
            self._delivery.in_progress()


def _hand_over(handle: Callable[[Delivered], None], store: Weather, delivery: Delivered) -> None:
    """Deliver, or deliver late: facts of one kind may wait behind a flood while those of another do not."""
    if store.is_bad and store.chance.random() < 0.1:
        store.later(store.chance.random() * 10.0, lambda: handle(Held(delivery, store)))
    elif not store.is_dead:
        handle(Held(delivery, store))


class Storm:
    """A few sagas of one shape, their coordinators and their participant."""

    def __init__(self, shape: Shape, seed: int, coordinators: int = 2, sagas: int = 3) -> None:
        self.chance = Random(seed)
        self.platform = self.make_platform()
        self.definition = saga_of(shape).definition
        self._facts = fact_consumers({SHOP, *self.definition.sources})
        self.rows: dict[tuple[SagaKey, str], Row] = {}
        self.effects: list[tuple[SagaKey, str]] = []
        self.stores = [self._join() for _ in range(coordinators)]
        self.is_bad = True
        for consumer in participant_consumers(SHOP):
            self.platform.consume(consumer, self.handle)
        self.keys = [SagaKey.of(shape.name, f"s{number}") for number in range(sagas)]
        for key in self.keys:
            self.later(self.chance.randrange(20_000_000_000), partial(self._begin, key))

    def make_platform(self) -> MemoryPlatform:
        """The platform that it storms over."""
        return MemoryPlatform()

    # --- coordinators -------------------------------------------------------------------------------------------------

    def _join(self) -> Weather:
        store = Weather(self.platform, self.chance)
        coordinator = Coordinator(store, [self.definition])
        for consumer, handle in (
            *((facts, coordinator.on_fact) for facts in self._facts),
            (TIMERS, coordinator.on_fired),
            (SWEEPER, coordinator.on_start_to_watch),
        ):
            self.platform.consume(consumer, partial(_hand_over, handle, store))
        return store

    def run(self) -> None:
        """Let it storm, then be calm, until everything has had time to end."""
        for _ in range(int(CALM_SECONDS)):
            self.platform.run(1.0)
            self._replace_the_dead()
        self.calm_down()
        self.platform.run(END_SECONDS)

    def calm_down(self) -> None:
        """Let nothing go wrong from now on."""
        self.is_bad = False
        for store in self.stores:
            store.is_bad = False

    def _replace_the_dead(self) -> None:
        """A process that died is started again; the platform goes on delivering to the old one, which does nothing."""
        for place, store in enumerate(self.stores):
            if store.is_dead:
                self.stores[place] = self._join()

    # --- clients and participants -------------------------------------------------------------------------------------

    def _begin(self, key: SagaKey) -> None:
        keys = tuple(self.chance.sample(KEYS, self.chance.randrange(1, 3)))
        self._put(subjects.start_subject(key), "client", Asked.__contract__.type, Asked(keys=keys))
        later = self.chance.randrange(100) * 1_000_000_000
        signal = next((step.name for step in self.definition.steps.values() if step.kind == "signal"), "")
        if signal:
            subject = subjects.signal_subject(key, signal)
            type_ = Approved.__contract__.type
            self.later(later, lambda: self._put(subject, "client", type_, Approved()))

        if self.definition.events:
            said = self.chance.choice([DeliveredItself(), DeliveredItself(), Undeliverable()])
            contract = said.__contract__
            happens = subjects.event_subject(key.path, SHOP, contract.token, subjects.reaction_step("asked", ""), 1)
            sooner = self.chance.randrange(100) * 1_000_000_000
            self.later(sooner, lambda: self._put(happens, SHOP, contract.type, said))

    def later(self, delay_ns: int, call: Callable[[], None]) -> None:
        """Have a client or a participant say something by itself after a delay."""
        self.platform.later_ns(delay_ns, call)

    def handle(self, delivery: Delivered) -> None:
        """Play the participant: by the inbox's rules, dying, failing and being slow on the way."""
        address = subjects.parse_command(delivery.subject)
        place = (address.saga, address.step)
        row = self.rows.get(place)
        envelope = decode(delivery.data, delivery.subject)
        decision = (
            inbox.on_do(row, address.attempt)
            if address.direction == "do"
            else inbox.on_undo(row, is_answered=bool(envelope.answer))
        )
        is_settlement = envelope.type.rpartition(".v")[0].endswith(".settle")
        fails = self.is_bad and self.chance.random() < 0.2
        kind: AnswerKind = "done"
        match decision:
            case RunHandler() if fails:
                kind = "exhausted" if envelope.retriable or self.chance.random() < 0.5 else "refused"
                if kind == "refused":
                    self.rows[place] = Row("refused", address.attempt, Answer("no", b""))
            case RunHandler():
                self.rows[place] = Row("done", address.attempt, Answer("made", b""))
                self.effects.append(place)
            case RunCompensation() if is_settlement:
                kind = "settled"
            case RunCompensation() if fails:
                kind = "exhausted"
            case RunCompensation():
                self.rows[place] = Row("undone", row.attempt if row else 0, Answer("made", b""))
            case NothingToUndo(attempt=seen):
                self.rows[place] = Row("void", seen)
                kind = "settled" if is_settlement else "done"
            case inbox.AlreadyUndone():
                kind = "settled" if is_settlement else "done"
            case inbox.SendAgain():
                kind = "done" if row is not None and row.state == "done" else "refused"
            case inbox.Superseded():
                kind = "superseded"
            case inbox.OtherPayload() | inbox.Wait() | inbox.MayHaveHappened():
                raise AssertionError("nothing here runs outside a transaction")
            case inbox.RowIsMissing():
                raise AssertionError("no row is ever lost here")
        if self.is_bad and self.chance.random() < 0.05:
            return  # it died after its commit
        is_there = self.rows.get(place, Row("void", 0)).state == "done"
        delay = self.chance.randrange(1, 15_000 if self.is_bad and self.chance.random() < 0.1 else 100) * 1_000_000
        self.platform.later_ns(delay, lambda: self._answer(delivery, address, kind, is_there))

    def _answer(self, delivery: Delivered, address: subjects.CommandAddress, kind: AnswerKind, is_there: bool) -> None:
        definition = self.definition
        if address.saga.type != definition.name:
            definition = definition.children[0]
        step = definition.step(address.step).name
        token, expected = next(
            (token, each)
            for (name, token), each in definition.answers.items()
            if (name, each.direction, each.kind) == (step, address.direction, kind)
        )
        payload: msgspec.Struct = Refusal(reason=kind)
        if kind == "done":
            payload = Made(what=address.step) if address.direction == "do" else Undone(found=True)
        elif kind == "settled":
            payload = Settled(happened=False)
            if is_there:
                payload = Settled(happened=True, type=Made.__contract__.type, reply=pack(Made(what=address.step)))
        subject = subjects.event_subject(address.saga.path, SHOP, token, address.step, address.attempt)
        self._put(subject, SHOP, expected.type, payload, str(delivery.sequence))
        delivery.ack()

    def _put(self, subject: str, source: str, type_: str, payload: msgspec.Struct, command: str = "") -> None:
        time = clock.moment(self.platform.now_ns)
        data = encode(Envelope(id=subject, source=source, type=type_, time=time, data=pack(payload), command=command))
        self.platform.store(EVENTS, subject, data)

    # --- what must hold -----------------------------------------------------------------------------------------------

    def require_all_well(self) -> None:
        """Everything has ended, effects are there or not as the ends say, and nothing is left behind.

        Raises:
            Broken: it is not so.
        """
        for key in self._all_sagas():
            self._require_ended(key)
        require(len(self.effects) == len(set(self.effects)), f"an effect happened twice: {self.effects}")
        for consumer in (*self._facts, TIMERS):
            require(not self.platform.pending(consumer), f"{consumer.name} has something left")
        for message in self.platform.read(SAGA, ["saga.*.lock.*.c.state"]):
            lock = unpack(decode(message.data, message.subject), LOCK_STATE_TYPE, Lock)
            outlived = [saga for saga in lock.sagas if self.must_end(SagaKey.of(*saga.split("/")))]
            require(not outlived, f"{message.subject}: a lock has outlived its saga: {outlived}")
        self._require_one_holder_a_lock()

    def must_end(self, key: SagaKey) -> bool:
        """Whether a saga cannot wait for anybody."""
        return True

    def _all_sagas(self) -> list[SagaKey]:
        starts = self.platform.read(EVENTS, [subjects.STARTS_FILTER])
        return [key for each in starts if self.must_end(key := subjects.parse_fact(each.subject).saga)]

    def read(self, key: SagaKey) -> Replayed:
        """The saga as its stored journal tells it."""
        versions = Coordinator(MemoryStore(self.platform), [self.definition]).journals.definitions[key.type]
        events = self.platform.read(EVENTS, [f"evt.{key.path}.>"])
        return replay(key, versions, SagaPages(self.platform.read(SAGA, [subjects.journal_filter(key)]), events))

    def _require_ended(self, key: SagaKey) -> None:
        history = self.read(key).history
        end = history.end
        if end is None:
            require(False, f"{key} has not ended: {history.state} {history.parked} {history.steps}")
            return
        require(key not in self.platform.schedules, f"the timer of {key} is still set")
        for name, step in history.steps.items():
            definition = history.definition.step(name)
            is_whole_list = definition.kind == "list" and name in history.definition.steps
            if definition.kind not in ("command", "list") or is_whole_list:
                continue
            state = self.rows.get((key, name), Row("void", 0)).state
            if end == End(outcome="completed") and step.phase != "skipped":
                require(state == "done", f"{key} is completed, and the effect of {name} is {state}")
            elif end.outcome == "compensated" and not definition.is_kept:
                require(state != "done", f"{key} is compensated, and the effect of {name} is there")

    def _require_one_holder_a_lock(self) -> None:
        """Of all sagas that name a key only one runs at a time, from its first command to its end."""
        spans: dict[str, list[tuple[int, int, SagaKey]]] = {}
        for key in self.keys:
            history = self.read(key).history
            entries = self.platform.read(SAGA, [subjects.journal_filter(key)])
            sent = [m.sequence for m in entries if subjects.parse_entry(m.subject).kind == "cmd"]
            if sent:
                for lock in history.asks:
                    spans.setdefault(lock, []).append((sent[0], entries[-1].sequence, key))
        for lock, held in spans.items():
            held.sort()
            for before, after in pairwise(held):
                require(before[1] < after[0], f"{before[2]} and {after[2]} held {lock} at one time")
