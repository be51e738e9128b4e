"""A start that is older than its saga's deadline when it is first handled: nothing is done only to be undone."""

from __future__ import annotations

import msgspec
import pytest
import structlog

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.clock import moment
from antiphon.contracts.envelope import pack
from antiphon.contracts.payloads import End, Record, Status, StatusAnswer, start_digest
from antiphon.contracts.stored import SagaPages
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.decision.facts import Finish, Granted, Start
from antiphon.coordinator.decision.history import DEADLINE_REASON
from antiphon.coordinator.decision.replay import replay
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.memory import NANO, MemoryStore
from tests.conformance.fleet import KEY, TIMERS, Again, Fleet
from tests.support.raw_worker import answer_message, start_message
from tests.support.trip import ASKED, DEADLINE, REPLIES, BookRoom, RoomBooked, TripAsked, make_trip
from tests.unit.decide.life import Life

LATE_NS = round(DEADLINE.total_seconds() * NANO) + 1
OVER = Finish(End(outcome="compensated", reason=DEADLINE_REASON))
DIGEST = start_digest(ASKED.__contract__.type, pack(ASKED))
RECORDED = Finish(msgspec.structs.replace(OVER.end, start=DIGEST))


def keyed(asked: TripAsked) -> list[str]:
    return [asked.traveller]


def make_locked() -> Saga[TripAsked]:
    saga = Saga(TripAsked, name="trip", version=1, deadline=DEADLINE, locks=keyed)

    @saga.step(needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        return BookRoom(nights=1)

    assert saga.steps == [book_room]
    return saga


@pytest.mark.parametrize("coordinators", [1, 2])
def test_a_saga_whose_deadline_passed_while_no_coordinator_ran_ends_at_once(coordinators: int) -> None:
    fleet = Fleet(coordinators)
    fleet.start()
    fleet.platform.now_ns += LATE_NS
    fleet.run()
    assert [entry.what for entry in fleet.entries()] == [Record(), RECORDED]
    assert (fleet.state(), fleet.sends(), fleet.parked(), fleet.platform.schedules) == ("compensated", [], [], {})


def test_one_that_comes_just_in_time_begins() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.platform.now_ns += LATE_NS - NANO
    fleet.run(0)
    assert fleet.sends()[0] == ("book_room", "do", 1)


def test_its_journal_folds_to_the_same_wherever_the_writer_died() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.platform.now_ns += LATE_NS
    fleet.run()
    stored = fleet.platform.read(SAGA, [subjects.journal_filter(KEY)])
    assert [entry.cause[0] for entry in fleet.entries()] == ["e", "t"]
    folded = [
        replay(KEY, fleet.versions, SagaPages(stored[:length], fleet.platform.streams[EVENTS])) for length in (1, 2)
    ]
    assert [each.history.turned for each in folded] == ["", DEADLINE_REASON]
    assert folded[1].history.end == RECORDED.end


def test_a_first_entry_whose_writer_died_before_the_end_is_gone_on_from() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.platform.now_ns += LATE_NS
    fleet.stores[0].lost_answers = 1
    fleet.run(60)
    assert ([entry.what for entry in fleet.entries()], fleet.sends()) == ([Record(), RECORDED], [])


def test_a_lock_that_is_granted_after_the_deadline_begins_nothing() -> None:
    life = Life(make_locked())
    life.start()
    sequence = len(life.facts) + 1
    late = Granted(sequence, life.now_ns + LATE_NS, "Ada")
    life.clock = moment(life.now_ns + LATE_NS)
    assert life.take(late) == [Record()]
    assert life.plans[-1].timer is not None
    assert life.deadline() == [OVER]


def test_a_clock_that_is_ahead_loses_no_saga() -> None:
    life = Life(make_trip())
    begun = Start(1, life.now_ns, ASKED)
    life.clock = moment(life.now_ns + LATE_NS)
    assert life.take(begun) == [Record()]
    life.clock = moment(life.now_ns)
    assert life.take(begun) != []  # delivered again, to a coordinator whose clock is right
    assert life.history.steps["book_room"].phase == "sent"


def test_a_child_that_is_too_late_is_refused_and_its_parent_compensated() -> None:
    child, parent = make_trip(name="child"), Saga(TripAsked, name="parent", version=1, deadline=10 * DEADLINE)

    @parent.child(child)
    def begin(s: State[TripAsked]) -> TripAsked:
        return s.start

    fleet, key = Fleet(saga=parent), SagaKey.of("parent", "1")
    theirs = fleet.coordinators[0].journals.definitions.pop("child")
    fleet.start(key)
    fleet.run(0)
    assert fleet.sends(key) == [("begin", "do", 1)]
    fleet.platform.now_ns += LATE_NS
    fleet.coordinators[0].journals.definitions["child"] = theirs
    fleet.run(60)
    assert fleet.history(key).end == End(
        outcome="compensated",
        reason=f"{begin.name} was refused: the saga it started was compensated: {DEADLINE_REASON}",
        start=DIGEST,
    )
    assert fleet.platform.read(SAGA, ["saga.*.child.*.c.cmd.>"]) == []


def test_a_choreography_begins_whenever_its_participants_hear_of_it_and_is_late() -> None:
    asked: Choreography[TripAsked] = Choreography(
        TripAsked, name="asked", version=1, deadline=DEADLINE, flow={TripAsked: "hotel"}, completes=RoomBooked
    )
    fleet = Fleet(saga=asked)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    fleet.start(SagaKey.of("asked", "1"))
    fleet.platform.now_ns += LATE_NS
    fleet.run()
    assert fleet.history(SagaKey.of("asked", "1")).parked.startswith(DEADLINE_REASON)


# --- starts that come after their saga was purged ---------------------------------------------------------------------


@pytest.mark.parametrize("is_fresh", [False, True], ids=["the same coordinator", "another coordinator"])
@pytest.mark.parametrize("is_other", [False, True], ids=["the same start", "another start"])
def test_an_end_that_outlived_its_journal_lets_no_second_life_begin(is_fresh: bool, is_other: bool) -> None:
    fleet = Fleet()
    fleet.start()
    fleet.run(100)
    (end,) = fleet.platform.read(SAGA, [subjects.end_subject(KEY)])
    for stream, kept in ((EVENTS, ()), (SAGA, (end,))):
        fleet.platform.streams[stream] = list(kept)
    if is_fresh:
        (gone,) = fleet.coordinators
        fleet.hear_no_more(gone.on_fact)
        fleet.join(Coordinator(fleet.stores[0], [fleet.definition]))
    fleet.put(*start_message(KEY, TripAsked(traveller="Bob", nights=9) if is_other else ASKED))
    with structlog.testing.capture_logs() as lines:
        fleet.run(2 * DEADLINE.total_seconds())  # a timer may have been set, which finds nothing
    assert fleet.platform.read(SAGA, [subjects.journal_filter(KEY)]) == [end]
    assert (fleet.platform.schedules, fleet.pending_facts(), fleet.platform.pending(TIMERS)) == ({}, 0, 0)
    assert fleet.parked() == [], "who waits for its result is told, and a person has nothing to do"
    refused = [line["saga"] for line in lines if line["event"] == "start.refused"]
    assert set(refused) == ({str(KEY)} if is_other else set())


def test_the_status_of_a_saga_that_was_purged_says_how_it_ended() -> None:
    fleet = Fleet()
    fleet.start()
    fleet.run(100)
    fleet.platform.streams[SAGA] = fleet.platform.read(SAGA, [subjects.end_subject(KEY)])
    told: list[StatusAnswer] = []
    fleet.coordinators[0].status(KEY, told.append)
    fleet.run()
    stands = Status(type=KEY.type, id=KEY.id, state="completed", definition="", started="", purged=True)
    assert [(answer.status, answer.error) for answer in told] == [(stands, "")]


# --- ends of which nobody was told ------------------------------------------------------------------------------------


def test_an_end_that_was_told_to_nobody_is_told_by_the_sweeper_that_has_looked_before() -> None:
    child, parent = make_trip(name="child"), Saga(TripAsked, name="parent", version=1, deadline=10 * DEADLINE)

    @parent.child(child, needs_no_compensation=True)
    def begin(s: State[TripAsked]) -> TripAsked:
        return s.start

    fleet, key = Fleet(saga=parent, play=lambda command: None), SagaKey.of("parent", "1")
    fleet.stores[0].tell = lambda subject, data, then: (  # type: ignore[method-assign]
        None if "child-completed" in subject else MemoryStore.tell(fleet.stores[0], subject, data, then)
    )  # the coordinator that led the child to its end dies before it tells
    fleet.start(key)
    for _ in REPLIES:
        fleet.run(1)
        for sent in fleet.platform.read(SAGA, ["saga.*.child.*.c.cmd.>"]):
            fleet.put(*answer_message(subjects.parse_command(sent.subject), sent.sequence, "done", child.definition))
    fleet.run(1)
    (start,) = (each for each in fleet.platform.streams[EVENTS] if each.subject.endswith("coordinator.start"))
    swept = Again(start.subject, start.data, start.sequence, start.stored_ns)
    Coordinator(MemoryStore(fleet.platform), [parent.definition]).on_start_to_watch(swept)
    fleet.run(60)
    assert fleet.state(key) == "completed"
    assert swept.verdicts == ["ack"]
