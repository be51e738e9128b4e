"""What a participant says that nobody waits for, however often: it has no bound, and what is recorded of it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from antiphon.contracts import Event, SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.payloads import RECORD_TYPE, Parked, Record
from antiphon.contracts.reader import Journal
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import SAGA
from antiphon.coordinator.decision.history import HEARD_MAX
from antiphon.coordinator.decision.plan import KNOWN
from antiphon.coordinator.views.wording import of_entry
from tests.conformance.fleet import KEY, Fleet
from tests.conformance.test_observing import KEY as UNLED
from tests.conformance.test_observing import LED, TAKEN, Observers
from tests.support.journeys import DAY, MilesGiven, TrainTaken, by_train, unled
from tests.support.raw_worker import _envelope, answer_message, start_message

MANY = 1_200
"""More than one read of the server gives, and more than a journal holds."""


def said(key: SagaKey, event: Event, number: int) -> tuple[str, bytes]:
    """What a participant emits by itself, as if in reaction to something else each time."""
    contract = event.__contract__
    subject = subjects.event_subject(key.path, contract.owner, contract.token, f"on-{number}", 1)
    return subject, _envelope(subject, contract.owner, contract.type, event)


def records(fleet: Fleet, key: SagaKey) -> list[Record]:
    return [entry.what for entry in fleet.entries(key) if isinstance(entry.what, Record)]


@pytest.mark.parametrize("coordinators", [1, 2])
def test_of_events_that_a_saga_records_a_hundred_are_and_that_there_are_more(coordinators: int) -> None:
    fleet = Observers(coordinators, by_train(DAY))
    fleet.put(*start_message(LED))
    fleet.run()
    for number in range(MANY):
        fleet.put(*said(LED, MilesGiven(miles=number), number))
    fleet.run(5)
    assert fleet.pending_facts() == 0
    other = SagaKey.of("by-train", "t2")
    for key in (other, LED):
        if key is other:
            fleet.put(*start_message(key))
        fleet.put(*said(key, TrainTaken(seat="7a"), 1))
        fleet.run()
        assert fleet.state(key) == "completed"
    found = records(fleet, LED)
    assert (found.count(KNOWN), found.count(Record(more="hotel"))) == (HEARD_MAX, 1)
    assert fleet.parked() == []


def test_what_is_said_after_that_costs_no_read() -> None:
    for fleet, key, event in (
        (Observers(1, by_train(DAY)), LED, MilesGiven(miles=1)),
        (Observers(1), UNLED, TAKEN),
    ):
        fleet.put(*start_message(key))
        fleet.run()
        for number in range(HEARD_MAX + 5):
            fleet.put(*said(key, event, number))
            fleet.run(0.01)
        before = fleet.stores[0].reads
        for number in range(3 * HEARD_MAX):
            fleet.put(*said(key, event, 1_000 + number))
        fleet.run()
        assert (fleet.stores[0].reads - before, fleet.pending_facts()) == (0, 0)


def test_what_is_said_to_a_saga_that_has_ended_costs_one_read() -> None:
    for fleet, key, event in (
        (Observers(1, by_train(DAY)), LED, MilesGiven(miles=1)),
        (Observers(1), UNLED, TAKEN),
    ):
        fleet.put(*start_message(key))
        fleet.put(*said(key, TrainTaken(seat="7a"), 1))
        fleet.run()
        assert fleet.state(key) == "completed"
        before = fleet.stores[0].reads
        for number in range(3 * HEARD_MAX):
            fleet.put(*said(key, event, 1_000 + number))
        fleet.run()
        assert fleet.pending_facts() == 0
        assert fleet.stores[0].reads - before <= 1


@pytest.mark.parametrize("coordinators", [1, 2])
def test_all_that_is_said_in_a_choreography_that_nobody_started_is_parked(coordinators: int) -> None:
    fleet = Observers(coordinators)
    for number in range(5):
        fleet.put(*said(UNLED, TAKEN, number))
    fleet.run(10)
    assert [msgspec.json.decode(data, type=Parked).kind for data in fleet.parked()] == ["orphan"] * 5
    assert fleet.pending_facts() == 0


@pytest.mark.parametrize("coordinators", [1, 2])
def test_a_choreography_ends_whatever_was_said_in_it_before(coordinators: int) -> None:
    fleet = Observers(coordinators)
    fleet.put(*start_message(UNLED))
    for number in range(HEARD_MAX + 50):
        fleet.put(*said(UNLED, TAKEN, number))
    fleet.run(60)
    assert fleet.pending_facts() == 0
    assert [records(fleet, UNLED).count(Record(more=name)) for name in ("hotel", "airline")] == [1, 0]
    assert len(fleet.entries(UNLED)) <= 1 + HEARD_MAX + 1
    fleet.put(*said(UNLED, TrainTaken(seat="7a"), 1))
    fleet.run()
    assert fleet.state(UNLED) == "completed"


def test_a_late_choreography_says_so_a_hundred_times_and_not_for_each_word() -> None:
    fleet = Observers(1, unled(timedelta(minutes=1)))
    fleet.put(*start_message(UNLED))
    fleet.run(70)
    for number in range(300):
        fleet.put(*said(UNLED, TAKEN, number))
        fleet.run(0.05)
    assert len(fleet.entries(UNLED)) <= 2 * (HEARD_MAX + 3)
    fleet.put(*said(UNLED, TrainTaken(seat="7a"), 1))
    fleet.run()
    assert (fleet.state(UNLED), fleet.pending_facts()) == ("completed", 0)


@pytest.mark.parametrize("command", ["1", "999999999999999"])
def test_answers_to_attempts_that_nobody_made_are_recorded_a_hundred_times(command: str) -> None:
    """Whichever command they say that they answer."""
    fleet = Fleet(2, play=lambda each: "done" if each.step == "book_room" else None)
    fleet.start()
    fleet.run()
    for attempt in range(2, 2 * HEARD_MAX + 50):
        address = subjects.parse_command(subjects.command_subject(KEY, "hotel", "book_room", "do", attempt))
        fleet.put(*answer_message(address, int(command), "done"))
    fleet.run(30)
    found = records(fleet, KEY)
    assert (found.count(KNOWN) <= HEARD_MAX + 2, found.count(Record(more="hotel"))) == (True, 1)
    assert fleet.pending_facts() == 0
    fleet.play = lambda each: "done"
    fleet.run(30)
    assert fleet.state() == "completed"


def test_a_journal_of_an_earlier_release_is_read_and_grows_by_no_more_than_one_word() -> None:
    """It has an entry for everything that was said."""
    fleet = Observers(1, by_train(DAY))
    fleet.put(*start_message(LED))
    fleet.run()
    fleet.leave()
    for number in range(300):
        subject, data = said(LED, MilesGiven(miles=number), number)
        sequence = fleet.put(subject, data)
        entry = subjects.record_subject(LED, f"old{number}")
        envelope = Envelope(
            id=entry,
            source="coordinator",
            type=RECORD_TYPE,
            time=datetime.now(UTC),
            data=pack(Record()),
            cause=f"e{sequence}",
        )
        fleet.platform.store(SAGA, entry, encode(envelope))
    for coordinator in fleet.coordinators:
        fleet.join(coordinator)
    for number in range(300, 320):
        fleet.put(*said(LED, MilesGiven(miles=number), number))
    fleet.run(5)
    assert fleet.history(LED).heard["hotel"] > HEARD_MAX
    assert records(fleet, LED).count(Record(more="hotel")) == 1
    fleet.put(*said(LED, TrainTaken(seat="7a"), 1))
    fleet.run()
    assert fleet.state(LED) == "completed"


def test_that_there_are_more_is_told_in_words() -> None:
    subject = subjects.record_subject(LED, "n1")
    envelope = Envelope(
        id=subject,
        source="coordinator",
        type=RECORD_TYPE,
        time=datetime.now(UTC),
        data=pack(Record(more="hotel")),
        cause="e7",
    )
    entry = Journal().entry(StoredMessage(subject, 1, 1, encode(envelope)))
    assert of_entry(entry, {}).text == "records no more events of hotel that nobody waits for"
