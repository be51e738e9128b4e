"""Each handler by itself over memory: what it stores, and what becomes of the delivery. No coordinator is needed."""

from __future__ import annotations

from collections.abc import Callable

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import decode, unpack
from antiphon.contracts.identity import LOCK, PARTICIPANT, SAGA_TYPE
from antiphon.contracts.payloads import LOCK_STATE_TYPE
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import EVENTS, PARKED, SAGA, participant_consumers
from antiphon.coordinator.decision.accept import accept_request
from antiphon.coordinator.decision.facts import Tick
from antiphon.coordinator.decision.locks import Lock
from antiphon.coordinator.decision.pause import read_pause_state
from antiphon.coordinator.runtime.fact_handler import LAG_DELIVERIES, CatchUp, FactHandler
from antiphon.coordinator.runtime.journals import Journals
from antiphon.coordinator.runtime.lock_handler import LockHandler
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from antiphon.coordinator.runtime.parking import Parking
from antiphon.coordinator.runtime.pause_handler import PauseHandler
from antiphon.coordinator.runtime.paused_types import PausedTypes
from antiphon.tracing.telemetry.counts import Counts
from tests.conformance.fleet import KEY, Again
from tests.conformance.test_halts import request
from tests.support.raw_worker import start_message
from tests.support.trip import TRIP

SEAT = SagaKey.of(LOCK, "seat")
TYPE, HOTEL = SagaKey.of(SAGA_TYPE, "trip"), SagaKey.of(PARTICIPANT, "hotel")


class Desk:
    """What the handlers use, and nothing more."""

    def __init__(self) -> None:
        self.platform, self.counts = MemoryPlatform(), Counts()
        self.store = MemoryStore(self.platform)
        self.journals = Journals(self.store, [TRIP.definition], self.counts)
        self.parking = Parking(self.store, self.counts)
        self.reviewed: list[SagaKey] = []
        self.paused_types = PausedTypes(self.store, self.review)
        self.versions = self.journals.definitions["trip"]

    def review(self, key: SagaKey, then: Callable[[bool], None]) -> None:
        self.reviewed.append(key)
        then(True)

    def deliver(self, subject: str, data: bytes) -> Again:
        sequence = self.platform.store(EVENTS, subject, data)
        assert isinstance(sequence, int)
        return Again(subject, data, sequence, self.platform.now_ns)

    def take_start(self, key: SagaKey = KEY, deliveries: int = 1) -> Again:
        delivery = self.deliver(*start_message(key))
        delivery.deliveries = deliveries
        self.handle(key, delivery)
        return delivery

    def handle(self, key: SagaKey, delivery: Again) -> None:
        address = subjects.parse_fact(delivery.subject)
        FactHandler(self.journals, self.paused_types, self.parking, key, self.versions, delivery, address).begin()
        self.platform.run(0.1)

    def ask_for_pause(self, key: SagaKey, verb: subjects.Verb) -> Again:
        delivery = self.deliver(*request(key, verb, reason="a look at it"))
        address = subjects.parse_fact(delivery.subject)
        fact = accept_request(address, delivery.data, delivery.subject, delivery.sequence, delivery.stored_ns)
        PauseHandler(self.journals, self.paused_types, self.parking, self.review, key, delivery, fact).begin()
        self.platform.run(0.1)
        return delivery

    def ask_for_lock(self, subject: str) -> Again:
        delivery = self.deliver(subject, b"{}")
        LockHandler.of(self.store, subjects.parse_fact(subject), delivery, self.parking.faulty).begin()
        self.platform.run(0.1)
        return delivery

    def journal(self, key: SagaKey = KEY) -> list[StoredMessage]:
        return self.platform.read(SAGA, [subjects.journal_filter(key)])

    def lock(self) -> Lock:
        (stored,) = self.platform.read(SAGA, [subjects.state_subject(SEAT)])
        return unpack(decode(stored.data, stored.subject), LOCK_STATE_TYPE, Lock)


# --- facts ------------------------------------------------------------------------------------------------------------


def test_a_start_becomes_the_first_command_and_is_acked() -> None:
    desk = Desk()
    delivery = desk.take_start()
    assert [subjects.parse_entry(each.subject).command is not None for each in desk.journal()] == [True]
    assert delivery.verdicts == ["ack"]
    assert KEY in desk.platform.schedules


def test_a_fact_that_is_delivered_again_adds_nothing_and_is_acked() -> None:
    desk = Desk()
    first = desk.take_start()
    again = Again(first.subject, first.data, first.sequence, first.stored_ns)
    before = desk.journal()
    desk.handle(KEY, again)
    assert (desk.journal(), again.verdicts) == (before, ["ack"])


def test_a_saga_of_a_paused_type_is_held_back_and_reviewed_after_the_resume() -> None:
    desk = Desk()
    desk.paused_types.learn("trip", "paused by ada", 1)
    delivery = desk.take_start()
    assert [subjects.parse_entry(each.subject).command for each in desk.journal()] == [None]
    assert (delivery.verdicts, desk.reviewed) == (["ack"], [])
    desk.paused_types.learn("trip", "", 2)
    assert desk.reviewed == [KEY]


def test_a_fact_of_a_saga_that_nobody_started_is_handed_back_and_in_the_end_parked() -> None:
    desk = Desk()
    delivery = desk.deliver(*request(KEY, "cancel"))
    delivery.deliveries = LAG_DELIVERIES - 1
    desk.handle(KEY, delivery)
    assert delivery.verdicts == ["back"]
    delivery.deliveries = LAG_DELIVERIES
    desk.handle(KEY, delivery)
    assert delivery.verdicts == ["back", "ack"]
    assert len(desk.platform.streams[PARKED]) == 1


def test_a_catch_up_says_whether_what_it_was_given_is_durable() -> None:
    desk = Desk()
    desk.take_start()
    told: list[bool] = []
    tick = Tick(desk.platform.now_ns)
    CatchUp(desk.journals, desk.paused_types, desk.parking, KEY, desk.versions, told.append).take([tick])
    desk.platform.run(0.1)
    assert told == [True]


# --- pauses -----------------------------------------------------------------------------------------------------------


def test_a_request_about_a_saga_type_is_stored_learned_and_acked() -> None:
    desk = Desk()
    delivery = desk.ask_for_pause(TYPE, "pause")
    (stored,) = desk.platform.read(SAGA, [subjects.state_subject(TYPE)])
    assert read_pause_state(stored).paused == "paused by ada: a look at it"
    assert desk.paused_types.paused == {"trip": "paused by ada: a look at it"}
    assert delivery.verdicts == ["ack"]


def test_a_resume_has_every_open_saga_of_the_type_reviewed_before_it_is_acked() -> None:
    desk = Desk()
    keys = [SagaKey.of("trip", f"t{number}") for number in range(3)]
    for key in keys:
        desk.take_start(key)
    desk.ask_for_pause(TYPE, "pause")
    delivery = desk.ask_for_pause(TYPE, "resume")
    assert (desk.reviewed, delivery.verdicts) == (keys, ["kept", "kept", "ack"])


def test_a_request_about_a_participant_sets_its_consumers() -> None:
    desk = Desk()
    consumers = participant_consumers("hotel")
    for consumer in consumers:
        desk.platform.consume(consumer, lambda delivery: None)
    assert desk.ask_for_pause(HOTEL, "pause").verdicts == ["ack"]
    # What operators close does no work, and goes on.
    assert [desk.platform.is_paused(each.name) for each in consumers] == [True, True, False]


def test_a_look_sets_the_consumers_of_a_participant_that_were_made_anew() -> None:
    desk = Desk()
    consumers = participant_consumers("hotel")
    for consumer in consumers:
        desk.platform.consume(consumer, lambda delivery: None)
    desk.ask_for_pause(HOTEL, "pause")
    desk.platform.pause(consumers[0].name, False)
    desk.paused_types.look()
    desk.platform.run(0.1)
    assert desk.platform.is_paused(consumers[0].name) is True


# --- locks ------------------------------------------------------------------------------------------------------------


def test_the_first_that_asks_for_a_lock_holds_it_and_is_told() -> None:
    desk = Desk()
    delivery = desk.ask_for_lock(subjects.ask_subject(SEAT, KEY))
    assert (desk.lock().holder, delivery.verdicts) == ("trip/t1", ["ack"])
    assert desk.platform.last(EVENTS, subjects.granted_subject(KEY, SEAT))


def test_the_next_in_the_queue_holds_a_lock_that_is_freed() -> None:
    desk = Desk()
    other = SagaKey.of("trip", "t2")
    for key in (KEY, other):
        desk.ask_for_lock(subjects.ask_subject(SEAT, key))
    assert desk.lock().holder == "trip/t1"
    desk.ask_for_lock(subjects.free_subject(SEAT, KEY))
    assert desk.lock().holder == "trip/t2"
    assert desk.platform.last(EVENTS, subjects.granted_subject(other, SEAT))
