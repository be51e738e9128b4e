"""A bound of open sagas of a type: never more begin, and what is refused ends at once, in one entry."""

from __future__ import annotations

import pytest

from antiphon.contracts import PlatformError, SagaKey, subjects
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.store_once import message
from antiphon.coordinator.decision.facts import Finish
from antiphon.coordinator.runtime.admission import Admission, require_bounds
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from tests.conformance.fleet import Fleet
from tests.support.trip import TRIP

SENTENCE = (
    "refused, with nothing done: 3 sagas of type trip are open, and more there may not be. Start it under another id "
    "once some have ended"
)


class Hotel:
    """Participants that answer only about some trips."""

    def __init__(self) -> None:
        self.open_for: set[str] = set()

    def play(self, command: CommandAddress) -> AnswerKind | None:
        return "done" if command.saga.id in self.open_for or command.direction == "undo" else None


def bounded(coordinators: int = 1, most: int = 3, hotel: Hotel | None = None) -> Fleet:
    """A fleet whose coordinators bind open trips."""
    fleet = Fleet(coordinators, play=(hotel or Hotel()).play)
    for coordinator in fleet.coordinators:
        coordinator.journals.admission = Admission(coordinator.store, {"trip": most})
    return fleet


def trips(count: int, first: int = 1) -> list[SagaKey]:
    return [SagaKey.of("trip", f"t{number}") for number in range(first, first + count)]


def states(fleet: Fleet, keys: list[SagaKey]) -> list[str]:
    return [fleet.state(key) for key in keys]


@pytest.mark.parametrize("coordinators", [1, 2])
def test_as_many_begin_as_may_and_the_others_end_at_once_in_one_entry(coordinators: int) -> None:
    fleet = bounded(coordinators)
    keys = trips(120)
    for key in keys:
        fleet.start(key)
    fleet.run(5)
    assert states(fleet, keys) == ["running"] * 3 + ["compensated"] * 117
    for key in keys[3:]:
        (entry,) = fleet.entries(key)
        assert isinstance(entry.what, Finish)
        assert (entry.what.end.outcome, entry.what.end.reason) == ("compensated", SENTENCE)
        assert entry.definition == TRIP.definition.label
    assert set(fleet.platform.schedules) <= set(keys[:3])
    assert fleet.pending_facts() == 0


def test_a_saga_that_ends_makes_room_for_the_next() -> None:
    hotel = Hotel()
    fleet = bounded(hotel=hotel)
    for key in trips(4):
        fleet.start(key)
    fleet.run(1)
    assert states(fleet, trips(4)) == ["running"] * 3 + ["compensated"]
    hotel.open_for = {"t2"}
    fleet.run(200)  # the command comes again after the ack wait
    assert fleet.state(trips(4)[1]) == "completed"
    for key in trips(2, first=5):
        fleet.start(key)
    fleet.run(1)
    assert states(fleet, trips(2, first=5)) == ["running", "compensated"]


def test_what_was_open_before_a_coordinator_began_counts() -> None:
    fleet = Fleet(play=Hotel().play)
    for key in trips(3):
        fleet.start(key)
    fleet.run(1)
    fleet.coordinators[0].journals.admission = Admission(fleet.stores[0], {"trip": 3})
    fleet.start(trips(1, first=4)[0])
    fleet.run(1)
    assert states(fleet, trips(4)) == ["running"] * 3 + ["compensated"]


def test_a_start_that_another_fact_brings_is_refused_as_well() -> None:
    fleet = bounded(most=1)
    first, second = trips(2)
    fleet.start(first)
    fleet.run(1)
    fleet.hear_no_more(fleet.coordinators[0].on_fact)  # the start is not delivered, the wish to cancel is
    fleet.start(second)
    subject = subjects.cancel_subject(second)
    fleet.put(subject, message(subject, "client", CANCEL_TYPE, CancelRequest(reason="changed my mind")))
    fleet.deliver_again(subject)
    fleet.run(1)
    assert fleet.sends(second) == []
    assert "1 saga of type trip is open" in fleet.history(second).end.reason  # type: ignore[union-attr] # it ended


def test_a_refused_start_that_comes_again_changes_nothing() -> None:
    fleet = bounded(most=1)
    first, second = trips(2)
    fleet.start(first)
    fleet.start(second)
    fleet.stores[0].lost_answers = 3
    fleet.run(60)
    fleet.deliver_again(subjects.start_subject(second))
    fleet.run(1)
    assert (fleet.state(first), len(fleet.entries(second)), fleet.sends(second)) == ("running", 1, [])


def test_a_type_that_is_paused_refuses_as_well() -> None:
    fleet = bounded(most=1)
    first, second = trips(2)
    fleet.start(first)
    fleet.run(1)
    fleet.coordinators[0].paused_types.paused["trip"] = "stocktaking"
    fleet.start(second)
    fleet.run(1)
    assert fleet.state(second) == "compensated"


def test_where_ends_cannot_be_read_a_start_comes_again() -> None:
    fleet = bounded(most=1)
    store, answers = fleet.stores[0], [1]
    ended = store.ended

    def away(keys: list[SagaKey], then: object) -> None:
        if answers:
            answers.pop()
            store.later(0.1, lambda: then(Ambiguous("no answer")))  # type: ignore[operator]
        else:
            ended(keys, then)  # type: ignore[arg-type]

    store.ended = away  # type: ignore[method-assign]
    fleet.start(trips(1)[0])
    fleet.run(0.5)
    assert fleet.entries(trips(1)[0]) == []
    fleet.run(5)
    assert fleet.state(trips(1)[0]) == "running"


def test_no_saga_begins_while_the_way_is_closed_and_those_that_have_begun_go_on() -> None:
    hotel = Hotel()
    fleet = Fleet(play=hotel.play)
    first, second = trips(2)
    fleet.start(first)
    fleet.run(1)
    fleet.coordinators[0].journals.admission.closed = "refused: no room"
    fleet.start(second)
    hotel.open_for = {"t1", "t2"}
    fleet.run(200)
    assert states(fleet, [first, second]) == ["completed", "compensated"]
    assert fleet.sends(second) == []


# --- what counts ------------------------------------------------------------------------------------------------------


def verdict(platform: MemoryPlatform, admission: Admission, sequence: int) -> str | None:
    found: list[str | None] = []
    admission.judge(SagaKey.of("trip", "any"), sequence, found.append)
    platform.run(1)
    assert len(found) == 1
    return found[0]


def test_children_and_what_ended_do_not_count() -> None:
    platform = MemoryPlatform()
    keys = trips(200)
    for key in keys[:120]:
        platform.store(EVENTS, subjects.start_subject(key, COORDINATOR), b"{}")
    for key in keys[120:]:
        platform.store(EVENTS, subjects.start_subject(key), b"{}")
    for key in keys[120:190]:
        platform.store(SAGA, subjects.end_subject(key), b"{}")
    admission = Admission(MemoryStore(platform), {"trip": 10})
    assert verdict(platform, admission, 200) == ""  # the tenth that is open
    last = platform.store(EVENTS, subjects.start_subject(SagaKey.of("trip", "one-more")), b"{}")
    assert isinstance(last, int)
    assert "10 sagas of type trip are open" in (verdict(platform, admission, last) or "")


def test_a_start_that_a_lagging_replica_does_not_have_is_judged_later() -> None:
    platform = MemoryPlatform()
    admission = Admission(MemoryStore(platform), {"trip": 10})
    assert verdict(platform, admission, 1) is None
    platform.streams[EVENTS].append(StoredMessage(subjects.start_subject(trips(1)[0]), 1, 1, b"{}"))
    assert verdict(platform, admission, 1) == ""


def test_no_more_is_remembered_than_there_may_be() -> None:
    platform = MemoryPlatform()
    for key in trips(1000):
        platform.store(EVENTS, subjects.start_subject(key), b"{}")
    admission = Admission(MemoryStore(platform), {"trip": 10})
    assert verdict(platform, admission, 1000)
    assert admission.open() == {"trip": 10}


def test_a_type_without_a_bound_is_not_looked_at() -> None:
    admission = Admission(MemoryStore(MemoryPlatform()), {"trip": 10})
    assert (admission.judges("trip"), admission.judges("other")) == (True, False)


def test_what_cannot_be_bound_is_refused_before_anything_runs() -> None:
    require_bounds({"trip": 1}, [TRIP.definition])
    with pytest.raises(PlatformError, match="'hotel', and this coordinator has none; it has those of type trip"):
        require_bounds({"hotel": 1}, [TRIP.definition])
