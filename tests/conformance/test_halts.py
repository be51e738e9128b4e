"""Saga types and participants that stand still and go on, over memory."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, Envelope, decode, encode, pack, unpack_raw
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import PARTICIPANT, SAGA_TYPE
from antiphon.contracts.payloads import Operation, Parked, PauseState, StatusAnswer, verb_type
from antiphon.contracts.subjects import Verb
from antiphon.contracts.topology import EVENTS, SAGA, STARTS
from antiphon.coordinator.decision.facts import Operated
from antiphon.coordinator.decision.pause import REQUESTS_MAX, decided, is_decided, read_pause_state
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.pause_handler import STRANGER_DELIVERIES_MAX
from antiphon.coordinator.runtime.paused_types import LOOK_SECONDS
from tests.conformance.fleet import KEY, SWEEPER, Again, Fleet, StormyStore
from tests.conformance.test_coordinators import FORWARD
from tests.support.raw_worker import start_message
from tests.support.trip import TRIP, make_trip

TYPE = SagaKey.of(SAGA_TYPE, "trip")
HOTEL = SagaKey.of(PARTICIPANT, "hotel")
_numbers = itertools.count()


def request(key: SagaKey, verb: Verb, user: str = "ada", **operation: str) -> tuple[str, bytes]:
    """What an operator stores."""
    subject = subjects.verb_subject(key, user, verb, f"k{next(_numbers)}")
    payload = pack(Operation(**{"asks": verb == "resolve", **operation}))  # type: ignore[arg-type]
    envelope = Envelope(
        id=subject, source="operator", type=verb_type(verb), time=datetime(2026, 1, 2, tzinfo=UTC), data=payload
    )
    return subject, encode(envelope)


def ask(fleet: Fleet, key: SagaKey, verb: Verb, user: str = "ada") -> str:
    """Ask, and the subject of the request."""
    subject, data = request(key, verb, user, reason="a look at it")
    fleet.put(subject, data)
    return subject


def halt_of(fleet: Fleet, key: SagaKey) -> PauseState:
    (stored,) = fleet.platform.read(SAGA, [subjects.state_subject(key)])
    return read_pause_state(stored)


def verdicts(fleet: Fleet, key: SagaKey) -> list[tuple[str, str, str]]:
    return [(each.user, each.verb, each.rejected) for each in halt_of(fleet, key).requests]


def many(fleet: Fleet, count: int) -> list[SagaKey]:
    return [fleet.start(SagaKey.of("trip", f"t{number}")) for number in range(count)]


def test_a_paused_saga_type_sends_nothing_and_still_records_what_happens() -> None:
    fleet = Fleet(coordinators=2, play=lambda command: None)
    fleet.start()
    fleet.run()
    ask(fleet, TYPE, "pause")
    fleet.run()
    fleet.play = lambda command: "done"
    fleet.run(40)  # the command that is under way is delivered again, and answered
    assert fleet.sends() == FORWARD[:1]
    assert fleet.history().steps["book_room"].phase == "done"
    assert halt_of(fleet, TYPE).paused == "paused by ada: a look at it"


def test_a_saga_that_starts_while_its_type_is_paused_waits() -> None:
    fleet = Fleet()
    ask(fleet, TYPE, "pause")
    fleet.run()
    fleet.start()
    fleet.run(60)
    assert fleet.sends() == []
    assert len(fleet.entries()) == 1


def test_sagas_that_waited_go_on_at_the_moment_of_the_resume() -> None:
    fleet = Fleet(coordinators=3)
    ask(fleet, TYPE, "pause")
    fleet.run()
    keys = many(fleet, 150)
    fleet.run(5)
    ask(fleet, TYPE, "resume")
    fleet.run(0.5)
    assert {fleet.state(key) for key in keys} == {"completed"}
    assert fleet.pending_facts() == 0


def test_a_resume_reaches_sagas_that_no_coordinator_remembers() -> None:
    fleet = Fleet()
    ask(fleet, TYPE, "pause")
    fleet.run()
    keys = many(fleet, 120)
    fleet.run(5)
    replace_coordinator(fleet)
    ask(fleet, TYPE, "resume")
    fleet.run(0.5)
    assert {fleet.state(key) for key in keys} == {"completed"}


def replace_coordinator(fleet: Fleet) -> Coordinator:
    """The only coordinator dies, and another one begins."""
    old = fleet.coordinators[0]
    fleet.hear_no_more(old.on_fact)
    fleet.platform.coordinators.clear()
    new = Coordinator(fleet.stores[0], [TRIP.definition])
    ready: list[bool] = []
    new.begin(lambda: ready.append(True))
    fleet.run()
    assert ready
    fleet.join(new)
    return new


def test_a_coordinator_that_begins_finds_out_what_stands_still_before_it_begins() -> None:
    fleet = Fleet()
    ask(fleet, TYPE, "pause")
    fleet.run()
    new = replace_coordinator(fleet)
    assert new.paused_types.paused["trip"] == "paused by ada: a look at it"


def test_a_coordinator_that_cannot_read_yet_does_not_begin() -> None:
    fleet = Fleet()
    store = StormyStore(fleet.platform)
    states = store.states
    store.states = lambda family, then: then(Ambiguous("no answer"))  # type: ignore[method-assign]
    begun: list[bool] = []
    Coordinator(store, [TRIP.definition]).begin(lambda: begun.append(True))
    fleet.run(5)
    assert begun == []
    store.states = states  # type: ignore[method-assign]
    fleet.run(5)
    assert begun == [True]


def test_an_announcement_that_is_lost_is_made_up_for() -> None:
    fleet = Fleet(coordinators=2)
    for coordinator in fleet.coordinators:
        coordinator.begin(lambda: None)
    fleet.platform.coordinators.clear()
    ask(fleet, TYPE, "pause")
    fleet.run(LOOK_SECONDS + 1)
    assert all("trip" in coordinator.paused_types.paused for coordinator in fleet.coordinators)
    keys = many(fleet, 10)
    fleet.run(1)
    ask(fleet, TYPE, "resume")
    fleet.run(LOOK_SECONDS + 1)
    assert not any("trip" in coordinator.paused_types.paused for coordinator in fleet.coordinators)
    assert {fleet.state(key) for key in keys} == {"completed"}


def test_what_is_held_back_while_the_walk_has_passed_is_looked_at_by_whoever_held_it_back() -> None:
    fleet = Fleet(coordinators=2)
    deaf = fleet.coordinators[1]
    fleet.platform.coordinators.remove(deaf.on_announced)
    ask(fleet, TYPE, "pause")
    fleet.run()
    deaf.paused_types.learn("trip", "paused by ada", 1)
    fleet.hear_no_more(fleet.coordinators[0].on_fact)
    fleet.start()
    fleet.run()
    fleet.hear(fleet.coordinators[0].on_fact)
    fleet.coordinators[0].paused_types.learn("trip", "", 10**6)
    assert fleet.sends() == []
    deaf.paused_types.learn("trip", "", 10**6)
    fleet.run(0.2)
    assert fleet.state() == "completed"


def test_sagas_of_other_types_do_not_notice() -> None:
    fleet = Fleet()
    fleet.coordinators[0].paused_types.learn("voyage", "paused by ada", 1)
    fleet.start()
    fleet.run()
    assert fleet.state() == "completed"


def test_what_is_asked_twice_or_makes_no_sense_is_rejected_with_the_reason() -> None:
    fleet = Fleet()
    for verb, user in (("resume", "ada"), ("pause", "ada"), ("pause", "bob"), ("retry", "bob"), ("resume", "bob")):
        ask(fleet, TYPE, verb, user)  # type: ignore[arg-type]
        fleet.run()
    assert verdicts(fleet, TYPE) == [
        ("ada", "resume", "it is not paused"),
        ("ada", "pause", ""),
        ("bob", "pause", "it is paused already: paused by ada: a look at it"),
        ("bob", "retry", "it can be paused and resumed; retry is for a single saga"),
        ("bob", "resume", ""),
    ]


def test_two_operators_at_once_get_one_yes_and_one_no() -> None:
    fleet = Fleet(coordinators=2)
    ask(fleet, TYPE, "pause", "ada")
    ask(fleet, TYPE, "pause", "bob")
    fleet.run(5)
    assert sorted(bool(rejected) for _, _, rejected in verdicts(fleet, TYPE)) == [False, True]


def test_a_request_that_is_delivered_again_is_decided_once() -> None:
    fleet = Fleet(coordinators=2)
    subject = ask(fleet, TYPE, "pause")
    fleet.run()
    ask(fleet, TYPE, "resume")
    fleet.run()
    before = halt_of(fleet, TYPE)
    fleet.deliver_again(subject)
    fleet.run()
    assert halt_of(fleet, TYPE) == before
    assert not any("trip" in coordinator.paused_types.paused for coordinator in fleet.coordinators)


@pytest.mark.parametrize("weather", ["lost_answers", "lost_writes", "rivals"])
def test_no_weather_loses_a_request_or_doubles_it(weather: str) -> None:
    fleet = Fleet(coordinators=2)
    for store in fleet.stores:
        setattr(store, weather, 2)
    ask(fleet, TYPE, "pause")
    fleet.run(60)
    assert verdicts(fleet, TYPE) == [("ada", "pause", "")]
    assert all("trip" in coordinator.paused_types.paused for coordinator in fleet.coordinators)


def test_a_saga_type_that_nobody_has_is_rejected_after_others_had_a_chance() -> None:
    fleet = Fleet()
    voyage = SagaKey.of(SAGA_TYPE, "voyage")
    ask(fleet, voyage, "pause")
    fleet.run(STRANGER_DELIVERIES_MAX - 2)
    assert fleet.platform.read(SAGA, [subjects.state_subject(voyage)]) == []
    fleet.run(3)
    assert verdicts(fleet, voyage) == [("ada", "pause", "no coordinator has a saga 'voyage'")]


def test_what_is_no_operators_request_is_parked() -> None:
    fleet = Fleet()
    fleet.put(*start_message(TYPE))
    fleet.put(*request(TYPE, "pause"))
    subject, _ = request(TYPE, "pause")
    fleet.put(subject, b"\xff")
    fleet.run(5)
    kinds = sorted(msgspec.json.decode(data, type=Parked).kind for data in fleet.parked())
    assert kinds == ["forged", "undecodable"]
    assert verdicts(fleet, TYPE) == [("ada", "pause", "")]


# --- participants -----------------------------------------------------------------------------------------------------


def test_a_paused_participant_is_delivered_nothing_and_others_are() -> None:
    fleet = Fleet()
    ask(fleet, SagaKey.of(PARTICIPANT, "airline"), "pause")
    fleet.run()
    fleet.start()
    fleet.run(60)
    assert fleet.sends() == FORWARD[:2]
    ask(fleet, SagaKey.of(PARTICIPANT, "airline"), "resume")
    fleet.run(1)
    assert fleet.state() == "completed"


def test_a_paused_participant_is_delivered_no_compensations() -> None:
    fleet = Fleet(play=lambda command: "refused" if command.step == "charge_card" else "done")
    ask(fleet, HOTEL, "pause")
    fleet.run()
    assert [fleet.platform.is_paused(name) for name in ("hotel", "hotel-undo", "bank")] == [True, True, False]
    ask(fleet, HOTEL, "resume")
    fleet.run()
    assert [fleet.platform.is_paused(name) for name in ("hotel", "hotel-undo")] == [False, False]


AIRLINE = SagaKey.of(PARTICIPANT, "airline")
HURRIED = make_trip(seat_timeout=timedelta(seconds=3))


@pytest.mark.parametrize("coordinators", [1, 2])
@pytest.mark.parametrize("parallel", [False, True], ids=["one after the other", "side by side"])
def test_time_stands_still_for_a_step_whose_participant_is_paused(coordinators: int, parallel: bool) -> None:
    saga = make_trip(seat_timeout=timedelta(seconds=3), parallel=parallel)
    fleet = Fleet(coordinators=coordinators, saga=saga)
    ask(fleet, AIRLINE, "pause")
    fleet.run()
    fleet.start()
    fleet.run(1800)
    assert (fleet.state(), [name for name, *_ in fleet.sends()]) == ("running", ["book_room", "book_seat"])
    assert sum(store.reads for store in fleet.stores) < 300  # it is looked at now and then, and no more
    ask(fleet, AIRLINE, "resume")
    fleet.run(1)
    assert fleet.state() == "completed"


@pytest.mark.parametrize("coordinators", [1, 2])
def test_time_stands_still_for_it_also_while_others_answer(coordinators: int) -> None:
    saga = make_trip(seat_timeout=timedelta(seconds=3), parallel=True)
    fleet = Fleet(coordinators=coordinators, saga=saga, play=lambda command: None)
    ask(fleet, AIRLINE, "pause")
    fleet.run()
    fleet.start()
    fleet.run(20)
    fleet.play = lambda command: "done"
    fleet.run(60)  # the room is answered now, long after the seat was due
    assert fleet.history().steps["book_room"].phase == "done"
    assert fleet.state() == "running"
    ask(fleet, AIRLINE, "resume")
    fleet.run(5)
    assert fleet.state() == "completed"


def test_a_state_that_cannot_be_read_keeps_no_step_from_its_end() -> None:
    fleet = Fleet(saga=HURRIED, play=lambda command: None if command.step == "book_seat" else "done")
    fleet.platform.store(SAGA, subjects.state_subject(HOTEL), b"no state")
    fleet.start()
    fleet.run(10)
    assert fleet.state() == "compensating"


def test_a_step_has_all_its_time_after_its_participant_is_resumed() -> None:
    fleet = Fleet(saga=HURRIED, play=lambda command: None if command.step == "book_seat" else "done")
    fleet.start()
    fleet.run(1)
    ask(fleet, AIRLINE, "pause")
    fleet.run(600)
    ask(fleet, AIRLINE, "resume")
    fleet.run(2.5)
    assert fleet.state() == "running"
    fleet.run(20)
    assert fleet.state() == "compensating", "a participant that does not answer although it may is waited for no longer"


def test_time_goes_on_for_a_step_whose_participant_works_while_another_is_paused() -> None:
    fleet = Fleet(saga=HURRIED, play=lambda command: None if command.step == "book_seat" else "done")
    ask(fleet, SagaKey.of(PARTICIPANT, "bank"), "pause")
    fleet.run()
    fleet.start()
    fleet.run(5)
    assert fleet.state() == "compensating"


def test_a_pause_of_long_ago_gives_no_step_more_time() -> None:
    fleet = Fleet(saga=HURRIED, play=lambda command: None if command.step == "book_seat" else "done")
    ask(fleet, AIRLINE, "pause")
    fleet.run()
    ask(fleet, AIRLINE, "resume")
    fleet.run(60)
    fleet.start()
    fleet.run(4)
    assert fleet.state() == "compensating"


def test_the_deadline_of_a_saga_comes_although_its_participant_is_paused() -> None:
    saga = make_trip(seat_timeout=timedelta(seconds=3), deadline=timedelta(seconds=40))
    fleet = Fleet(saga=saga)
    ask(fleet, AIRLINE, "pause")
    fleet.run()
    fleet.start()
    fleet.run(70)
    assert fleet.state() == "compensating"


def test_a_participant_that_is_not_there_is_rejected() -> None:
    fleet = Fleet()
    nobody = SagaKey.of(PARTICIPANT, "nobody")
    ask(fleet, nobody, "pause")
    fleet.run()
    assert verdicts(fleet, nobody) == [("ada", "pause", "there is no participant 'nobody'")]


def test_consumers_that_are_not_as_the_state_says_are_put_right() -> None:
    fleet = Fleet()
    ask(fleet, HOTEL, "pause")
    fleet.run()
    fleet.platform.pause("hotel", False)  # made anew, or by hand
    fleet.coordinators[0].paused_types.look()
    fleet.run()
    assert fleet.platform.is_paused("hotel") is True


def test_the_late_one_of_two_opposite_requests_does_not_have_the_last_word() -> None:
    """A coordinator decides on a pause, and sets the consumers only after another has let them go on again."""
    fleet = Fleet(coordinators=2)
    slow = fleet.stores[0]
    pause = slow.pause

    def late(stream: str, consumer: str, paused: bool, then: object) -> None:
        slow.later(3.0, lambda: pause(stream, consumer, paused, then))  # type: ignore[arg-type]

    slow.pause = late  # type: ignore[method-assign]
    first, second = request(HOTEL, "pause"), request(HOTEL, "resume")
    for coordinator, message in zip(fleet.coordinators, (first, second), strict=True):
        sequence = fleet.platform.store("EVENTS", *message)
        assert isinstance(sequence, int)
        coordinator.on_fact(Again(*message, sequence, fleet.platform.now_ns))
        fleet.run(1)
    fleet.run(20)
    assert halt_of(fleet, HOTEL).paused == ""
    assert [fleet.platform.is_paused(name) for name in ("hotel", "hotel-undo")] == [False, False]


# --- the state --------------------------------------------------------------------------------------------------------


def fact(sequence: int, verb: Verb = "pause", reason: str = "x") -> Operated:
    return Operated(sequence, sequence, "ada", verb, Operation(reason=reason))


def test_a_state_keeps_the_last_requests_and_knows_older_ones_as_decided() -> None:
    halt = PauseState()
    for number in range(1, REQUESTS_MAX + 4):
        halt = decided(halt, fact(number, "pause" if number % 2 else "resume"))
    assert len(halt.requests) == REQUESTS_MAX
    assert all(is_decided(halt, number) for number in range(1, REQUESTS_MAX + 4))
    assert not is_decided(halt, REQUESTS_MAX + 4)


def test_a_full_state_fits_into_a_message() -> None:
    halt = PauseState()
    for number in range(1, REQUESTS_MAX + 1):
        halt = decided(halt, fact(number, reason="ä" * 5000))
    subject, time = subjects.state_subject(TYPE), datetime(2026, 1, 2, tzinfo=UTC)
    data = encode(Envelope(id=subject, source="coordinator", type="x", time=time, data=pack(halt)))
    assert len(data) <= MESSAGE_BYTES_MAX
    assert unpack_raw(decode(data, subject).data, PauseState) == halt
    assert [each.sequence for each in halt.requests] == list(range(1, REQUESTS_MAX + 1))


def test_status_tells_that_the_type_stands_still() -> None:
    fleet = Fleet(play=lambda command: None)
    fleet.start()
    fleet.run()
    ask(fleet, TYPE, "pause")
    fleet.run()
    answers: list[StatusAnswer] = []
    fleet.coordinators[0].status(KEY, answers.append)
    fleet.run()
    assert answers[0].status is not None
    assert answers[0].status.paused == "all sagas of its type are paused by ada: a look at it"


# --- facts that overtake the start ------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes_late", [0, 3])
def test_a_request_that_overtakes_the_start_finds_the_saga_begun(minutes_late: int) -> None:
    """Starts have a consumer of their own, and may wait there behind thousands."""
    fleet = Fleet()
    fleet.platform.pause(STARTS, True)
    fleet.platform.pause(SWEEPER.name, True)
    fleet.start()
    fleet.run(60 * minutes_late)
    fleet.put(*request(KEY, "cancel", reason="enough"))
    fleet.run(30)
    assert fleet.state() == "compensated"
    before = fleet.entries()
    fleet.platform.pause(STARTS, False)
    fleet.run(30)
    assert (fleet.entries(), fleet.parked(), fleet.pending_facts()) == (before, [], 0)


def test_a_request_that_overtakes_the_start_of_a_paused_type_is_recorded_behind_it() -> None:
    fleet = Fleet()
    ask(fleet, TYPE, "pause")
    fleet.run()
    fleet.platform.pause(STARTS, True)
    fleet.start()
    fleet.put(*request(KEY, "cancel", reason="enough"))
    fleet.run(30)
    assert [entry.cause for entry in fleet.entries()][:1] == [
        f"e{fleet.platform.last(EVENTS, subjects.start_subject(KEY))}"
    ]
    assert fleet.pending_facts() == 1, "the start, which is paused"
