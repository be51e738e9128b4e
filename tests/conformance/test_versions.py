"""Two versions side by side, and coordinators that lack one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from structlog.testing import capture_logs

from antiphon.contracts import Command, Event, SagaKey, subjects
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.payloads import Parked, StatusAnswer
from antiphon.contracts.subjects import CommandAddress
from antiphon.coordinator import State
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.fact_handler import DELIVERIES_MAX
from tests.conformance.fleet import KEY, SWEEPER, TIMERS, Fleet
from tests.support.raw_worker import _envelope, answer_message
from tests.support.trip import TripAsked, make_trip

OLD = make_trip()


def make_new() -> Saga[TripAsked]:
    """The second version books room and seat side by side."""
    saga = make_trip(parallel=True)
    saga.version = 2
    saga.changed()
    return saga


NEW = make_new()


def replaced(fleet: Fleet, *sagas: Saga[Any]) -> Coordinator:
    """Another coordinator takes the place of the one there is, with these definitions."""
    for old in fleet.coordinators:
        fleet.hear_no_more(old.on_fact)
        fleet.platform.leave(TIMERS, old.on_fired)
        fleet.platform.leave(SWEEPER, old.on_start_to_watch)
    new = Coordinator(fleet.stores[0], [saga.definition for saga in sagas])
    fleet.coordinators = [new]
    fleet.join(new)
    return new


def silent(command: CommandAddress) -> AnswerKind | None:
    return None


def answer(fleet: Fleet, key: SagaKey = KEY) -> None:
    """The hotel answers."""
    command = subjects.parse_command(subjects.command_subject(key, "hotel", "book_room", "do", 1))
    fleet.put(*answer_message(command, fleet.entries(key)[0].sequence, "done"))


def started(fleet: Fleet) -> Fleet:
    fleet.start()
    fleet.run()
    return fleet


def test_sagas_in_flight_finish_on_the_version_they_began_with_while_new_ones_begin_with_the_newest() -> None:
    fleet = started(Fleet(saga=OLD, play=silent))
    replaced(fleet, OLD, NEW)
    young = fleet.start(SagaKey.of("trip", "t2"))
    fleet.run()
    assert fleet.sends() == [("book_room", "do", 1)]
    fleet.versions = fleet.coordinators[0].journals.definitions["trip"]
    assert sorted(fleet.sends(young)) == [("book_room", "do", 1), ("book_seat", "do", 1)]
    fleet.play = lambda command: "done"
    fleet.run(100)
    assert [fleet.state(key) for key in (KEY, young)] == ["completed", "completed"]
    assert [fleet.history(key).definition.version for key in (KEY, young)] == [1, 2]


def test_a_coordinator_that_lacks_a_version_leaves_its_sagas_alone_and_says_which() -> None:
    fleet = started(Fleet(saga=OLD, play=silent))
    new = replaced(fleet, NEW)
    with capture_logs() as logs:
        answer(fleet)
        fleet.run(DELIVERIES_MAX + 120)
    assert len(fleet.entries()) == 1
    (data,) = fleet.parked()
    parked = msgspec.json.decode(data, type=Parked)
    assert parked.kind == "unhandled"
    assert parked.reason.startswith(f"nobody here has trip v1 (shape {OLD.definition.shape})")
    lacking = [line for line in logs if line["event"] == "coordinator.lacks_definition"]
    assert [line["definition"] for line in lacking] == [OLD.definition.label]
    answers: list[StatusAnswer] = []
    new.status(KEY, answers.append)
    fleet.run()
    assert "nobody here has trip v1" in answers[0].error


def test_bringing_the_version_picks_the_saga_up_with_the_facts_that_had_been_parked() -> None:
    fleet = started(Fleet(saga=OLD, play=silent))
    replaced(fleet, NEW)
    answer(fleet)
    fleet.run(60)
    assert len(fleet.parked()) == 1
    assert fleet.pending_facts() == 0
    fleet.play = lambda command: "done"
    replaced(fleet, NEW, OLD)
    fleet.run(60)
    assert fleet.state() == "completed"


def test_a_saga_type_that_nobody_had_is_picked_up_once_somebody_has() -> None:
    fleet = Fleet(saga=OLD)
    replaced(fleet, make_trip(name="other"))
    fleet.start()
    fleet.run(60)
    assert [msgspec.json.decode(data, type=Parked).kind for data in fleet.parked()] == ["unhandled"]
    replaced(fleet, OLD)
    fleet.run(60)
    assert fleet.state() == "completed"


class Started(Event, name="start", owner="hotel"):
    room: str


class Begin(Command[Started], name="hotel.begin"):
    room: str


def test_an_answer_that_is_called_start_is_read_by_the_version_that_awaits_it() -> None:
    old, new = (Saga(TripAsked, name="trip", version=version, deadline=timedelta(days=1)) for version in (1, 2))

    @old.step(needs_no_compensation=True)
    def begin(s: State[TripAsked]) -> Begin:
        return Begin(room="r")

    new.wait("rest", timedelta(minutes=1))
    fleet = started(Fleet(saga=old, play=silent))
    replaced(fleet, old, new)
    subject = subjects.event_subject(KEY.path, "hotel", "start", "begin", 1)
    sequence = fleet.entries()[0].sequence
    fleet.put(subject, _envelope(subject, "hotel", Started.__contract__.type, Started(room="r"), str(sequence)))
    fleet.run(5)
    assert fleet.parked() == []
    assert fleet.state() == "completed"
