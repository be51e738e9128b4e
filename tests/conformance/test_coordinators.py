"""Coordinators over memory, in every weather: one decision a fact, and no fact lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import LOCK, OPERATOR
from antiphon.contracts.messages import AnswerKind, Event
from antiphon.contracts.payloads import LOCK_STATE_TYPE, Operation, Parked, verb_type
from antiphon.contracts.stored import Delivered, Outcome
from antiphon.contracts.subjects import CommandAddress, matches
from antiphon.contracts.topology import SAGA
from antiphon.coordinator.decision.dues import earliest_ns
from antiphon.coordinator.decision.entries import Draft
from antiphon.coordinator.decision.facts import Send
from antiphon.coordinator.decision.locks import Lock
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from antiphon.coordinator.runtime.parking import HAND_BACK_SECONDS
from tests.conformance.fleet import KEY, SWEEPER, TIMERS, Again, Fleet
from tests.support.raw_worker import answer_message, start_message
from tests.support.trip import TripAsked, make_trip

FORWARD = [("book_room", "do", 1), ("book_seat", "do", 1), ("charge_card", "do", 1)]


def declined(command: CommandAddress) -> AnswerKind | None:
    """The card is declined, everything else succeeds."""
    return "refused" if (command.step, command.direction) == ("charge_card", "do") else "done"


def silent(command: CommandAddress) -> AnswerKind | None:
    """No participant answers."""
    return None


def require_one_decision_a_fact(fleet: Fleet, key: SagaKey = KEY) -> None:
    causes = Counter(entry.cause for entry in fleet.entries(key))
    assert set(causes.values()) == {1}


def test_a_saga_completes_and_leaves_nothing_behind() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.run(100)
    assert fleet.state() == "completed"
    assert fleet.sends() == FORWARD
    assert fleet.platform.schedules == {}
    assert [fleet.pending_facts(), *(fleet.platform.pending(consumer) for consumer in (TIMERS, SWEEPER))] == [0, 0, 0]
    assert fleet.parked() == []


def test_a_healthy_saga_is_not_read_once() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.run(1)
    assert fleet.state() == "completed"
    assert fleet.stores[0].reads == 0


def test_a_refused_saga_is_compensated_in_reverse() -> None:
    fleet = Fleet(play=declined)
    fleet.start()
    fleet.run()
    assert fleet.sends() == [*FORWARD, ("book_seat", "undo", 1), ("book_room", "undo", 1)]
    assert fleet.state() == "compensated"


@pytest.mark.parametrize("count", [2, 5])
def test_coordinators_that_share_the_facts_make_one_decision_a_fact(count: int) -> None:
    fleet = Fleet(coordinators=count, play=declined)
    keys = [fleet.start(SagaKey.of("trip", f"t{number}")) for number in range(20)]
    fleet.run(100)
    for key in keys:
        assert fleet.state(key) == "compensated"
        require_one_decision_a_fact(fleet, key)
    assert all(store.appends for store in fleet.stores)


def test_coordinators_that_are_all_told_every_fact_make_one_decision_a_fact() -> None:
    fleet = Fleet(coordinators=3)
    told: list[str] = []

    def repeat(delivery: Delivered) -> None:
        told.append(delivery.subject)
        fleet.deliver_again(delivery.subject)
        delivery.ack()

    for coordinator in fleet.coordinators:
        fleet.hear_no_more(coordinator.on_fact)
    fleet.hear(repeat)
    fleet.start()
    fleet.run(100)
    assert fleet.state() == "completed"
    assert fleet.sends() == FORWARD
    require_one_decision_a_fact(fleet)
    assert len(told) == 4


def test_duplicates_of_every_fact_change_nothing() -> None:
    fleet = Fleet(coordinators=2, play=declined)
    fleet.start()
    fleet.run()
    before = fleet.entries()
    for message in list(fleet.platform.streams["EVENTS"]):
        fleet.deliver_again(message.subject)
        fleet.run()
    assert fleet.entries() == before


@pytest.mark.parametrize("lag", [1, 3, 5, 20])
def test_a_coordinator_that_reads_old_journals_loses_no_fact(lag: int) -> None:
    fleet = Fleet(coordinators=2, play=declined)
    for store in fleet.stores:
        store.lag = lag
    fleet.start()
    for _ in range(100):
        for coordinator in fleet.coordinators:
            coordinator.journals.cache.forget(KEY)  # so that every fact is read for
        fleet.run(0.0)
        fleet.platform.run(1)
    assert fleet.state() == "compensated"
    require_one_decision_a_fact(fleet)
    assert fleet.stores[0].reads + fleet.stores[1].reads > 0


def test_a_fact_is_not_acked_on_an_old_journal() -> None:
    fleet = Fleet(play=silent)
    fleet.start()
    fleet.run()
    store, coordinator = fleet.stores[0], fleet.coordinators[0]
    coordinator.journals.cache.forget(KEY)
    store.lag = 100
    command = subjects.parse_command(subjects.command_subject(KEY, "hotel", "book_room", "do", 1))
    subject, data = answer_message(command, fleet.entries()[0].sequence, "done")
    fleet.hear_no_more(coordinator.on_fact)
    sequence = fleet.put(subject, data)
    assert isinstance(sequence, int)
    delivery = Again(subject, data, sequence, fleet.platform.now_ns)
    coordinator.on_fact(delivery)
    fleet.run()
    assert delivery.verdicts == ["back"]


def test_a_fact_is_not_acked_before_what_follows_from_it_is_stored() -> None:
    """A coordinator that dies in between must leave it to the next one."""
    fleet = Fleet(play=silent)
    fleet.start()
    fleet.run()
    fleet.stores[0].slow_seconds = 3.0
    command = subjects.parse_command(subjects.command_subject(KEY, "hotel", "book_room", "do", 1))
    fleet.put(*answer_message(command, fleet.entries()[0].sequence, "done"))
    fleet.run(1)
    assert fleet.sends() == FORWARD[:1]
    assert fleet.pending_facts() == 1
    fleet.run(4)
    assert fleet.sends() == FORWARD[:2]
    assert fleet.pending_facts() == 0


def test_an_acked_fact_whose_append_was_lost_is_found_again_by_the_sweeper() -> None:
    fleet = Fleet(play=silent)
    fleet.start()
    fleet.run()
    fleet.hear_no_more(fleet.coordinators[0].on_fact)
    fleet.hear(lambda delivery: delivery.ack())
    command = subjects.parse_command(subjects.command_subject(KEY, "hotel", "book_room", "do", 1))
    fleet.put(*answer_message(command, fleet.entries()[0].sequence, "done"))
    fleet.run(5)
    assert fleet.sends() == FORWARD[:1]
    fleet.run(120)
    assert fleet.sends() == FORWARD[:2]
    require_one_decision_a_fact(fleet)


def test_a_start_that_was_acked_and_lost_is_found_again_by_the_sweeper() -> None:
    fleet = Fleet()
    fleet.hear_no_more(fleet.coordinators[0].on_fact)
    fleet.hear(lambda delivery: delivery.ack())
    fleet.start()
    fleet.run(1000)
    assert fleet.sends() == FORWARD
    assert fleet.state() == "completed"


def test_a_cancel_before_a_lost_start_does_not_stop_the_sweeper() -> None:
    fleet = Fleet()
    fleet.hear_no_more(fleet.coordinators[0].on_fact)
    fleet.hear(lambda delivery: delivery.ack())
    fleet.put(*cancel_message(KEY))
    fleet.start()
    fleet.run(300)
    assert fleet.state() == "compensated"


def cancel_message(key: SagaKey) -> tuple[str, bytes]:
    subject, data = start_message(key)
    cancel = subjects.cancel_subject(key)
    text = data.decode().replace(subject, cancel).replace("trip.asked.v1", "saga.cancel.v1")
    return cancel, text.replace('{"traveller":"Ada","nights":2}', '{"reason":"no"}').encode()


def retry_message(key: SagaKey, number: int) -> tuple[str, bytes]:
    subject = subjects.verb_subject(key, "ada", "retry", f"k{number}")
    data, time = pack(Operation(reason="now")), datetime.now(UTC)
    return subject, encode(Envelope(id=subject, source=OPERATOR, type=verb_type("retry"), time=time, data=data))


def test_a_timer_that_was_lost_is_made_up_for_by_the_sweeper() -> None:
    fleet = Fleet(play=silent)
    fleet.start()
    fleet.run()
    fleet.platform.schedules.clear()
    fleet.run(3600 + 1300)
    assert fleet.state() == "compensating"


class TripApproved(Event, name="trip.approved"):
    pass


def its_traveller(start: TripAsked) -> list[str]:
    return [start.traveller]


@pytest.mark.parametrize("is_silent", [False, True], ids=["an answer that says nothing", "a death"])
def test_a_lock_is_freed_although_whoever_wrote_the_end_in_the_sweepers_turn_could_not_say_so(is_silent: bool) -> None:
    """Timers are lost, so the sweeper brings the time at which the saga ends."""
    saga = Saga(TripAsked, name="trip", version=1, deadline=timedelta(hours=1), locks=its_traveller)
    saga.signal(TripApproved, within=timedelta(seconds=60))
    fleet = Fleet(saga=saga)
    tell, lost = fleet.stores[0].tell, list[str]()

    def lose(subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        if ".free." in subject and not lost:
            lost.append(subject)
            if not is_silent:
                then(Ambiguous("no answer"))
        else:
            tell(subject, data, then)

    fleet.stores[0].tell = lose  # type: ignore[method-assign]
    fleet.start()
    for _ in range(600):
        fleet.run()
        fleet.platform.schedules.clear()
    assert (fleet.state(), len(lost)) == ("compensated", 1)
    (state,) = fleet.platform.read(SAGA, [subjects.state_subject(SagaKey.of(LOCK, "Ada"))])
    assert unpack(decode(state.data, state.subject), LOCK_STATE_TYPE, Lock).sagas == []
    assert fleet.platform.pending(SWEEPER) == 0


def test_a_saga_that_ends_long_before_its_deadline_has_no_timer() -> None:
    fleet = Fleet(saga=make_trip(deadline=timedelta(days=1)))
    fleet.start()
    fleet.run(100)
    assert fleet.state() == "completed"
    assert fleet.stores[0].armed == fleet.stores[0].unscheduled == 0
    assert [fleet.pending_facts(), *(fleet.platform.pending(consumer) for consumer in (TIMERS, SWEEPER))] == [0, 0, 0]


def test_a_deadline_that_is_far_away_has_a_timer_once_the_sweeper_has_looked() -> None:
    fleet = Fleet(play=silent, saga=make_trip(deadline=timedelta(days=1)))
    fleet.start()
    fleet.run(20)
    assert fleet.platform.schedules == {}
    fleet.run(15)
    assert fleet.platform.schedules[KEY][0] == earliest_ns(fleet.history())
    fleet.run(24 * 3600)
    assert fleet.state() == "compensating"


def test_a_saga_that_is_never_idle_has_its_timer_too() -> None:
    fleet = Fleet(play=silent, saga=make_trip(deadline=timedelta(days=1)))
    fleet.start()
    for number in range(8):
        fleet.run(10)
        fleet.put(*retry_message(KEY, number))
    assert fleet.platform.schedules[KEY][0] == earliest_ns(fleet.history())


def test_a_saga_that_may_have_a_timer_cancels_it_when_it_ends() -> None:
    fleet = Fleet(saga=make_trip(deadline=timedelta(days=1), seat_timeout=timedelta(seconds=30)))
    fleet.start()
    fleet.run(10)
    assert (fleet.state(), fleet.stores[0].armed, fleet.platform.schedules) == ("completed", 1, {})


def test_a_sweeper_that_would_come_after_what_has_no_timer_is_refused() -> None:
    with pytest.raises(ValueError, match="idle_seconds is 3600; above 1800 timers would be late"):
        Coordinator(MemoryStore(MemoryPlatform()), [make_trip().definition], 3600)


def by_hand(saga: Saga[TripAsked]) -> Fleet:
    """Two coordinators and silent participants; a test says who is told what."""
    fleet = Fleet(coordinators=2, saga=saga, play=silent)
    fleet.start()
    fleet.run()
    for coordinator in fleet.coordinators:
        fleet.hear_no_more(coordinator.on_fact)
        fleet.platform.leave(TIMERS, coordinator.on_fired)
        fleet.platform.leave(SWEEPER, coordinator.on_start_to_watch)
    return fleet


def tell(fleet: Fleet, coordinator: Coordinator, message: tuple[str, bytes]) -> Again:
    """Store an event and deliver it to one coordinator."""
    sequence = fleet.put(*message)
    assert isinstance(sequence, int)
    delivery = Again(*message, sequence, fleet.platform.now_ns)
    coordinator.on_fact(delivery)
    return delivery


def fire(fleet: Fleet, coordinator: Coordinator) -> Again:
    """Deliver a fired timer to one coordinator."""
    delivery = Again(subjects.fired_subject(KEY), b"", 1, fleet.platform.now_ns)
    coordinator.on_fired(delivery)
    return delivery


def answered(fleet: Fleet, step: str, kind: AnswerKind, direction: subjects.Direction = "do") -> tuple[str, bytes]:
    command = subjects.CommandAddress(KEY, "hotel" if step == "book_room" else "airline", step, direction, 1)
    return answer_message(command, fleet.entries()[-1].sequence, kind, fleet.definition)


def test_a_tick_that_meets_an_old_cache_is_not_acked_for_nothing() -> None:
    fleet = by_hand(make_trip())
    behind, ahead = fleet.coordinators
    tell(fleet, behind, cancel_message(KEY))
    fleet.run()
    tell(fleet, ahead, answered(fleet, "book_room", "exhausted", "undo"))
    fleet.run(60)
    assert fire(fleet, behind).verdicts == []
    fleet.run()
    assert fleet.sends()[-1] == ("book_room", "undo", 2)


def test_a_tick_that_changes_nothing_moves_no_timer_that_is_needed_sooner() -> None:
    fleet = by_hand(make_trip(seat_timeout=timedelta(seconds=10)))
    first, second = fleet.coordinators
    fleet.stores[0].slow_seconds = 1
    tell(fleet, first, answered(fleet, "book_room", "done"))
    fleet.run(0.5)
    fire(fleet, second)
    fleet.run(2)
    assert fleet.sends() == FORWARD[:2]
    assert fleet.platform.schedules[KEY][0] == earliest_ns(fleet.history())


def test_the_deadline_compensates_what_is_in_flight() -> None:
    fleet = Fleet(play=lambda command: None if command.direction == "do" else "done")
    fleet.start()
    fleet.run(3599)
    assert fleet.state() == "running"
    fleet.run(2)
    assert fleet.sends() == [("book_room", "do", 1), ("book_room", "undo", 1)]
    assert fleet.state() == "compensated"


def test_failing_compensations_are_sent_again_until_one_works() -> None:
    failures = 12

    def stubborn(command: CommandAddress) -> AnswerKind | None:
        if command.direction == "undo":
            return "exhausted" if command.attempt <= failures else "done"
        return "refused" if command.step == "book_seat" else "done"

    fleet = Fleet(play=stubborn)
    fleet.start()
    fleet.run(3000)
    assert fleet.state() == "compensated"
    assert [send[2] for send in fleet.sends() if send[1] == "undo"] == list(range(1, failures + 2))


@pytest.mark.parametrize("weather", ["lost_answers", "lost_writes", "rivals"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_no_weather_loses_a_saga_or_doubles_a_decision(weather: str, count: int) -> None:
    fleet = Fleet(coordinators=2, play=declined)
    for store in fleet.stores:
        setattr(store, weather, count)
    keys = [fleet.start(SagaKey.of("trip", f"t{number}")) for number in range(3)]
    fleet.run(300)
    for key in keys:
        assert fleet.state(key) == "compensated"
        require_one_decision_a_fact(fleet, key)
    assert fleet.parked() == []


def test_a_conflict_costs_another_look_and_no_pause() -> None:
    fleet = Fleet()
    fleet.stores[0].rivals = 3
    fleet.start()
    fleet.run(0.1)
    assert fleet.state() == "completed"


def test_a_coordinator_whose_cache_is_old_reads_before_it_writes() -> None:
    fleet = Fleet(coordinators=2)
    fleet.start()
    fleet.run()
    assert fleet.state() == "completed"
    assert sum(store.appends for store in fleet.stores) == len(fleet.entries())


def test_a_read_without_an_answer_hands_the_fact_back() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.run()
    coordinator, store = fleet.coordinators[0], fleet.stores[0]
    store.read = lambda key, expected, then: then(Ambiguous("no answer"))  # type: ignore[method-assign]
    coordinator.journals.cache.forget(KEY)
    delivery = Again(*start_message(KEY), 1, fleet.platform.now_ns)
    coordinator.on_fact(delivery)
    assert delivery.verdicts == ["back"]


def test_a_coordinator_that_died_with_a_fact_in_its_hands_is_replaced() -> None:
    fleet = Fleet()
    alive = fleet.coordinators[0]
    fleet.hear_no_more(alive.on_fact)

    def hold(delivery: Delivered) -> None:
        """It died here."""

    fleet.hear(hold)
    fleet.start()
    fleet.run()
    fleet.hear_no_more(hold)
    fleet.hear(alive.on_fact)
    fleet.run(10)
    assert fleet.state() == "completed"


def test_a_saga_that_stands_still_is_parked_although_its_coordinator_died_before_that() -> None:
    fleet = Fleet(saga=make_trip(broken="book_seat"))
    store = fleet.stores[0]
    park = store.park
    store.park = lambda subject, data, then: None  # type: ignore[method-assign]
    fleet.start()
    fleet.run()
    assert "ZeroDivisionError" in fleet.history().fault
    assert fleet.parked() == []
    store.park = park  # type: ignore[method-assign]
    fleet.run(120)
    assert parked_of(fleet).saga == KEY


def parked_of(fleet: Fleet) -> Parked:
    (data,) = fleet.parked()
    return msgspec.json.decode(data, type=Parked)


def test_a_fact_of_a_saga_that_nobody_started_is_parked_at_its_second_delivery() -> None:
    fleet = Fleet()
    command = subjects.parse_command(subjects.command_subject(KEY, "hotel", "book_room", "do", 1))
    subject, data = answer_message(command, 7, "done")
    fleet.put(subject, data)
    fleet.run(HAND_BACK_SECONDS / 2)
    assert fleet.parked() == []
    fleet.run(HAND_BACK_SECONDS)
    parked = parked_of(fleet)
    assert (parked.kind, parked.subject, parked.data) == ("orphan", subject, data)
    assert "was never started" in parked.reason
    assert fleet.pending_facts() == 0


def test_a_saga_that_no_coordinator_knows_is_parked_as_unhandled() -> None:
    fleet = Fleet()
    fleet.put(*start_message(SagaKey.of("voyage", "v1")))
    fleet.run(20)
    assert parked_of(fleet).kind == "unhandled"


def test_a_saga_goes_on_only_under_the_definition_it_began_with() -> None:
    fleet = Fleet(play=silent)
    fleet.start()
    fleet.run()
    other = Coordinator(fleet.stores[0], [make_trip(parallel=True).definition])
    delivery = Again(*start_message(KEY), 1, fleet.platform.now_ns)
    other.on_fact(delivery)
    fleet.run()
    assert delivery.verdicts == ["back"]
    assert len(fleet.entries()) == 1


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        (subjects.cancel_subject(KEY), "undecodable"),
        (f"evt.{(KEY.partition + 1) % 64}.trip.t1.client.start", "forged"),
        (f"evt.{KEY.path}.client.nonsense.x", "forged"),
        (f"evt.{KEY.path}.coordinator.hotel-booked.book_room.1", "forged"),
    ],
)
def test_what_cannot_be_used_is_parked_with_its_bytes_and_the_rest_goes_on(subject: str, kind: str) -> None:
    fleet = Fleet()
    fleet.put(subject, b"\xff not a message")
    fleet.start(SagaKey.of("trip", "t2"))
    fleet.run()
    parked = parked_of(fleet)
    assert (parked.kind, parked.stream, parked.subject, parked.data) == (kind, "EVENTS", subject, b"\xff not a message")
    assert fleet.state(SagaKey.of("trip", "t2")) == "completed"
    assert fleet.pending_facts() == 0


def test_an_answer_for_another_participant_is_forged_and_disturbs_nothing() -> None:
    fleet = Fleet(play=silent)
    fleet.start()
    fleet.run()
    command = subjects.CommandAddress(KEY, "airline", "book_room", "do", 1)
    fleet.put(*answer_message(command, fleet.entries()[0].sequence, "done"))
    fleet.run()
    assert parked_of(fleet).kind == "forged"
    assert fleet.sends() == FORWARD[:1]


def test_an_envelope_that_contradicts_its_subject_is_forged() -> None:
    fleet = Fleet()
    _, data = start_message(SagaKey.of("trip", "t9"))
    fleet.put(subjects.start_subject(KEY), data)
    fleet.run()
    assert parked_of(fleet).kind == "forged"
    assert fleet.entries() == []


def test_a_stream_that_went_backwards_empties_the_cache() -> None:
    fleet = Fleet(play=silent)
    for number in range(3):
        fleet.start(SagaKey.of("trip", f"t{number}"))
    fleet.run()
    cache = fleet.coordinators[0].journals.cache
    key = SagaKey.of("trip", "t0")
    assert cache.get(key) is not None
    cache.stored(key, Draft("x", b"", "", Send("book_room", "do", 1), 0), 1)
    assert cache.get(key) is None


@pytest.mark.parametrize(
    ("subject_filter", "subject", "fits"),
    [
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a", "a", True),
    ],
)
def test_filters_match_as_the_servers_do(subject_filter: str, subject: str, fits: bool) -> None:
    assert matches(subject_filter, subject) is fits
