"""What is said to a saga before it begins, and to sagas that never do."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest, More, Parked, read_parked
from antiphon.contracts.stored import NotRead, Outcome, SagaPages, StoredMessage
from antiphon.contracts.topology import PARKED, SAGA
from antiphon.coordinator.runtime import memory
from antiphon.coordinator.runtime.fact_handler import CONFLICT_SECONDS, TRIES_MAX
from antiphon.coordinator.runtime.parking import HAND_BACK_SECONDS
from antiphon.coordinator.views.parked import is_settled
from tests.conformance.fleet import KEY, Again, Fleet
from tests.conformance.test_unasked import said
from tests.support.journeys import DAY, Approved, TrainTaken, approval, by_train
from tests.support.raw_worker import _envelope, answer_message

SIGNALLED = SagaKey.of("approval", "a1")
LED = SagaKey.of("by-train", "t1")


def signal(key: SagaKey, event: Event, name: str = "trip-approved") -> tuple[str, bytes]:
    subject = subjects.signal_subject(key, name)
    return subject, _envelope(subject, "client", event.__contract__.type, event)


def cancel(key: SagaKey) -> tuple[str, bytes]:
    subject = subjects.cancel_subject(key)
    return subject, _envelope(subject, "client", CANCEL_TYPE, CancelRequest(reason="no more"))


def parked_in(fleet: Fleet) -> list[Parked]:
    return [read_parked(message.subject, message.data) for message in fleet.platform.streams[PARKED]]


AGES = [0.0, 0.5, 15.0, 3 * 24 * 3600.0]


@pytest.mark.parametrize("coordinators", [1, 2])
@pytest.mark.parametrize("age_seconds", AGES)
def test_a_signal_of_whatever_age_counts_within_a_second_of_the_start(age_seconds: float, coordinators: int) -> None:
    fleet = Fleet(coordinators, approval(DAY))
    fleet.put(*signal(SIGNALLED, Approved(by="ada")))
    fleet.run(age_seconds)
    fleet.start(SIGNALLED)
    fleet.run(1.0)
    assert (fleet.state(SIGNALLED), fleet.pending_facts()) == ("completed", 0)
    entries = fleet.platform.read(SAGA, [subjects.journal_filter(SIGNALLED)])
    assert [is_settled(SIGNALLED, each, entries[:-1]) for each in parked_in(fleet)] == [True] * (age_seconds > 10)


@pytest.mark.parametrize("age_seconds", AGES)
def test_an_event_that_a_step_waits_for_may_be_as_old(age_seconds: float) -> None:
    fleet = Fleet(2, by_train(DAY))
    fleet.put(*said(LED, TrainTaken(seat="7a"), 1))
    fleet.run(age_seconds)
    fleet.start(LED)
    fleet.run(1.0)
    assert (fleet.state(LED), fleet.pending_facts()) == ("completed", 0)


def test_a_wish_to_cancel_that_is_older_than_its_saga_counts() -> None:
    fleet = Fleet(1, approval(DAY), play=lambda command: "done")
    fleet.put(*cancel(SIGNALLED))
    fleet.run(20)
    fleet.start(SIGNALLED)
    fleet.run(1.0)
    assert fleet.state(SIGNALLED) == "compensated"


def test_what_was_said_right_after_the_start_waits_for_nobody() -> None:
    for coordinators in (1, 2, 3):
        fleet = Fleet(coordinators, approval(DAY))
        fleet.start(SIGNALLED)
        fleet.put(*signal(SIGNALLED, Approved(by="ada")))
        fleet.run(0.4)
        assert fleet.state(SIGNALLED) == "completed"


def test_an_early_signal_that_cannot_be_read_keeps_no_saga_from_beginning() -> None:
    fleet = Fleet(1, approval(DAY))
    fleet.put(subjects.signal_subject(SIGNALLED, "trip-approved"), b"{")
    fleet.run(20)
    fleet.start(SIGNALLED)
    fleet.run(1.0)
    assert [step for step, *_ in fleet.sends(SIGNALLED)] == ["book_room"]


# --- sagas that never were --------------------------------------------------------------------------------------------


def orphans() -> list[Callable[[SagaKey], tuple[str, bytes]]]:
    def answer(key: SagaKey) -> tuple[str, bytes]:
        return answer_message(
            subjects.parse_command(subjects.command_subject(key, "hotel", "book_room", "do", 1)), 7, "done"
        )

    return [cancel, answer]


@pytest.mark.parametrize("make", orphans())
def test_what_is_said_to_a_saga_that_never_was_is_parked_at_its_second_delivery(
    make: Callable[[SagaKey], tuple[str, bytes]],
) -> None:
    fleet = Fleet()
    asked: list[list[str]] = []
    store = fleet.stores[0]
    ask = store.facts_by_leader

    def count(wanted: list[str], then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        asked.append(wanted)
        ask(wanted, then)

    store.facts_by_leader = count  # type: ignore[method-assign]
    fleet.put(*make(KEY))
    fleet.run(HAND_BACK_SECONDS / 2)
    assert fleet.parked() == []
    fleet.run(HAND_BACK_SECONDS)
    assert [each.kind for each in parked_in(fleet)] == ["orphan"]
    assert (fleet.pending_facts(), asked, store.reads) == (0, [subjects.start_subjects(KEY)], 2)


def test_what_parked_has_no_room_for_is_counted_and_not_sent_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PARKED_PER_SOURCE_MAX", 20)
    fleet = Fleet()
    sent: list[str] = []
    store = fleet.stores[0]
    park = store.park

    def count(subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        sent.append(subject)
        park(subject, data, then)

    store.park = count  # type: ignore[method-assign]
    for number in range(200):
        fleet.put(*cancel(SagaKey.of("trip", f"never-{number}")))
        fleet.run(0.001)
    fleet.run(5)
    orphans, more = subjects.parked_subject("orphan", "coordinator", "client"), len(set(sent))
    assert more == 2, "and how many more there are"
    assert sent.count(orphans) < 40
    assert fleet.pending_facts() == 0
    told = [read_more(each) for each in fleet.platform.streams[PARKED] if each.subject != orphans]
    assert 100 <= sum(told) <= 180


def read_more(message: StoredMessage) -> int:
    return msgspec.json.decode(message.data, type=More).count


def test_bytes_in_the_place_of_a_start_keep_nothing_going_round() -> None:
    fleet = Fleet()
    subject = subjects.start_subject(KEY)
    fleet.put(subject, _envelope(subject, "somebody", CANCEL_TYPE, CancelRequest(reason="x")))
    fleet.put(*cancel(KEY))
    fleet.run(3)
    assert sorted(each.kind for each in parked_in(fleet)) == ["forged", "orphan"]
    assert fleet.pending_facts() == 0


def test_a_start_that_only_the_leader_has_is_one() -> None:
    """The replica that answers direct reads lags."""
    fleet = Fleet()
    fleet.hear_no_more(fleet.coordinators[0].on_fact)
    store = fleet.stores[0]
    read = store.read

    def lag(key: SagaKey, expected: list[str], then: Callable[[SagaPages | NotRead], None]) -> None:
        def age(pages: SagaPages | NotRead) -> None:
            is_behind = isinstance(pages, SagaPages) and not pages.entries
            then(SagaPages([], []) if is_behind else pages)

        read(key, expected, age)

    store.read = lag  # type: ignore[method-assign]
    fleet.start()
    subject, data = cancel(KEY)
    sequence = fleet.put(subject, data)
    assert isinstance(sequence, int)
    delivery = Again(subject, data, sequence, fleet.platform.now_ns)
    fleet.coordinators[0].on_fact(delivery)
    fleet.run()
    assert (delivery.verdicts, fleet.parked()) == (["ack"], [])
    assert fleet.history().turned == "cancelled: no more"


def test_a_lost_append_is_worth_less_than_a_tenth_of_a_second() -> None:
    fleet = Fleet(play=lambda command: None)
    fleet.start()
    fleet.run()
    delays: list[float] = []

    class Held(Again):
        def hand_back(self, delay_seconds: float = 0.0) -> None:
            delays.append(delay_seconds)

    fleet.stores[0].rivals = TRIES_MAX + 1
    subject, data = cancel(KEY)
    sequence = fleet.put(subject, data)
    assert isinstance(sequence, int)
    fleet.hear_no_more(fleet.coordinators[0].on_fact)
    fleet.coordinators[0].on_fact(Held(subject, data, sequence, fleet.platform.now_ns))
    fleet.run()
    (delay,) = delays
    assert 0.5 * CONFLICT_SECONDS <= delay <= 1.5 * CONFLICT_SECONDS < 0.1
