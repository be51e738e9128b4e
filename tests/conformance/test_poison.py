"""Sagas whose handling raises, whatever and wherever, beside fifty healthy ones: those end as if nothing were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import structlog

from antiphon.contracts import SagaKey, clock, identity, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.payloads import Operation, Parked, StatusAnswer, verb_type
from antiphon.contracts.topology import SAGA
from antiphon.coordinator.runtime import fact_handler, journals
from antiphon.coordinator.runtime.cache import Cache
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.journals import Journals
from antiphon.coordinator.runtime.parking import FAULTY_DELIVERIES_MAX
from antiphon.link.faults import class_of
from tests.conformance.fleet import SWEEPER, TIMERS, Fleet
from tests.support.poison import POISONED, RAISED, SECRET, explode, poisoned_start
from tests.support.raw_worker import start_message

BAD = SagaKey.of("trip", "bad")
HEALTHY = [SagaKey.of("trip", f"t{number}") for number in range(50)]


class Mixed(Fleet):
    """Coordinators that know the poisoned saga as well as the trip."""

    def join(self, coordinator: Coordinator) -> None:
        mixed = Coordinator(coordinator.store, [self.definition, POISONED.definition])
        self.coordinators = [mixed if each is coordinator else each for each in self.coordinators]
        super().join(mixed)

    def start_all(self, *others: tuple[str, bytes]) -> None:
        """Healthy ones before and behind the others, so that they come in one batch."""
        for key in HEALTHY[:25]:
            self.start(key)
        for other in others:
            self.put(*other)
        for key in HEALTHY[25:]:
            self.start(key)

    def require_healthy(self) -> None:
        assert [self.state(key) for key in HEALTHY] == ["completed"] * len(HEALTHY)

    def set_aside(self) -> list[Parked]:
        return [msgspec.json.decode(data, type=Parked) for data in self.parked()]


def raising(original: Callable[..., Any], name: str, is_bad: Callable[..., bool]) -> Callable[..., Any]:
    """The function, but for calls about the bad saga."""

    def call(*given: Any, **named: Any) -> Any:
        if is_bad(*given, **named):
            explode(name)
        return original(*given, **named)

    return call


STORED_BEFORE: dict[str, tuple[Any, str]] = {
    "an append's answer": (Cache, "stored"),
    "counting": (Journals, "count"),
}


def of_bad(*given: Any, **named: Any) -> bool:
    """Whether a call is about the bad saga, wherever it says so."""
    return any(BAD in (each, getattr(each, "key", None), getattr(each, "_key", None)) for each in given)


PLACES: dict[str, tuple[Any, str]] = {
    "reading the fact": (fact_handler, "accept"),
    "deciding": (fact_handler, "plan"),
    "keeping what is under way": (Cache, "expect"),
    "the end of the errand": (fact_handler.FactHandler, "all_stored"),
}


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("place", PLACES)
def test_what_raises_wherever_it_is_handled_is_parked_and_the_others_go_on(
    place: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, what = PLACES[place]
    about = (lambda definition, address, *rest: address.saga == BAD) if what == "accept" else of_bad
    monkeypatch.setattr(where, what, raising(getattr(where, what), name, about))
    fleet = Mixed(coordinators=2)
    with structlog.testing.capture_logs() as lines:
        fleet.start_all(start_message(BAD))
        fleet.run(20)
    fleet.require_healthy()
    parked = [each for each in fleet.set_aside() if each.subject == subjects.start_subject(BAD)]
    assert [each.kind for each in parked] == ["fault"]
    assert class_of(RAISED[name]()) in parked[0].reason
    assert SECRET not in parked[0].reason
    faults = [
        line for line in lines if line["event"] == "fact.faulty" and line["subject"] == subjects.start_subject(BAD)
    ]
    assert [line["deliveries"] for line in faults] == [*range(1, FAULTY_DELIVERIES_MAX + 1)]
    assert fleet.pending_facts() == 0


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("place", STORED_BEFORE)
def test_what_raises_after_the_entry_was_stored_costs_another_delivery_and_nothing_else(
    place: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, what = STORED_BEFORE[place]
    monkeypatch.setattr(where, what, raising(getattr(where, what), name, of_bad))
    fleet = Mixed(coordinators=2)
    fleet.start_all(start_message(BAD))
    fleet.run(60)
    fleet.require_healthy()
    assert fleet.state(BAD) == "completed"
    assert fleet.set_aside() == []
    assert fleet.pending_facts() == 0


@pytest.mark.parametrize("name", RAISED)
def test_a_start_whose_own_code_raises_cannot_be_read(name: str) -> None:
    fleet = Mixed(coordinators=2)
    bad = SagaKey.of("poisoned", "p1")
    fleet.start_all(poisoned_start(bad, name))
    fleet.run(20)
    fleet.require_healthy()
    (parked,) = fleet.set_aside()
    assert (parked.kind, parked.subject) == ("saga", subjects.start_subject(bad))
    assert parked.reason.startswith(f"its start cannot be read: Fed: reading it raised {name}")
    assert SECRET not in parked.reason


@pytest.mark.parametrize("name", RAISED)
def test_a_timer_whose_handling_raises_is_parked_and_the_others_go_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Mixed(play=lambda command: None if command.saga == BAD else "done")
    fleet.start_all(start_message(BAD))
    fleet.run(5)
    monkeypatch.setattr(journals, "replay", raising(journals.__dict__["replay"], name, of_bad))
    fleet.platform.store(SAGA, subjects.fired_subject(BAD), b"{}")
    fleet.run(20)
    fleet.require_healthy()
    assert [each.kind for each in fleet.set_aside() if each.subject == subjects.fired_subject(BAD)] == ["fault"]
    assert fleet.platform.pending(TIMERS) == 0


def test_others_that_wait_for_the_same_saga_are_not_left_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Mixed()
    fleet.stores[0].slow_seconds = 0.5
    count, seen = Journals.count, list[object]()

    def once(self: Journals, history: Any, entry: Any) -> None:
        seen.append(entry)
        if len(seen) == 1:
            explode("Panic")
        count(self, history, entry)

    monkeypatch.setattr(Journals, "count", once)
    fleet.start()
    fleet.run(60)
    assert fleet.state() == "completed"
    assert fleet.pending_facts() == 0


def test_a_question_for_a_lock_that_names_no_saga_is_parked_and_the_others_go_on() -> None:
    fleet = Mixed(coordinators=2)
    subject = f"evt.{SagaKey.of('lock', 'any').path}.hotel.ask.x.1"
    fleet.start_all((subject, b"x"))
    fleet.run(20)
    fleet.require_healthy()
    assert [(each.subject, each.data) for each in fleet.set_aside()] == [(subject, b"x")]


@pytest.mark.parametrize("name", RAISED)
def test_the_sweeper_looks_after_all_though_one_raises_and_never_gives_that_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = {BAD, HEALTHY[0]}
    fleet = Mixed(play=lambda command: None if command.saga in silent else "done")
    fleet.start_all(start_message(BAD))
    fleet.run(5)
    silent.discard(HEALTHY[0])
    monkeypatch.setattr(journals, "replay", raising(journals.__dict__["replay"], name, of_bad))
    with structlog.testing.capture_logs() as lines:
        fleet.run(4000)
    fleet.require_healthy()
    looks = [line["deliveries"] for line in lines if line["event"] == "sweeper.faulty"]
    assert looks[:2] == [1, 2]
    assert fleet.platform.pending(SWEEPER) == 1


@pytest.mark.parametrize("name", RAISED)
def test_a_saga_type_that_is_resumed_goes_on_though_one_of_its_sagas_raises(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Mixed(coordinators=2)
    trips = SagaKey.of(identity.SAGA_TYPE, "trip")
    fleet.put(*request(trips, "pause"))
    fleet.run(2)
    fleet.start_all(start_message(BAD))
    fleet.run(2)
    monkeypatch.setattr(journals, "replay", raising(journals.__dict__["replay"], name, of_bad))
    fleet.put(*request(trips, "resume"))
    fleet.run(20)
    fleet.require_healthy()
    assert fleet.pending_facts() == 0


@pytest.mark.parametrize("name", RAISED)
def test_a_request_whose_handling_raises_is_parked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from antiphon.coordinator.runtime import pause_handler

    fleet = Mixed(coordinators=2)
    trips = SagaKey.of(identity.SAGA_TYPE, "trip")
    monkeypatch.setattr(pause_handler, "decided", raising(pause_handler.__dict__["decided"], name, lambda *given: True))
    fleet.start_all(request(trips, "pause"))
    fleet.run(20)
    fleet.require_healthy()
    assert [each.kind for each in fleet.set_aside()] == ["fault"]


@pytest.mark.parametrize("name", RAISED)
def test_a_coordinator_begins_though_the_state_of_a_saga_type_cannot_be_read(name: str) -> None:
    fleet = Mixed()
    fleet.platform.store(SAGA, subjects.state_subject(SagaKey.of(identity.SAGA_TYPE, "trip")), b"\xff")
    begun = list[bool]()
    fleet.coordinators[0].begin(lambda: begun.append(True))
    fleet.start_all()
    fleet.run(40)
    assert begun == [True]
    fleet.require_healthy()


def test_an_announcement_without_sense_harms_nobody() -> None:
    fleet = Mixed()
    fleet.coordinators[0].on_announced("x", b"9" * 10_000)
    fleet.start_all()
    fleet.run(5)
    fleet.require_healthy()


def test_a_question_for_a_status_that_raises_is_told_to_whoever_had_it_in_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Mixed()
    monkeypatch.setattr(journals, "replay", raising(journals.__dict__["replay"], "Panic", of_bad))
    errors, answers = list[BaseException](), list[StatusAnswer]()

    class Asking:
        def failed(self, error: BaseException) -> None:
            errors.append(error)

    guard = fleet.coordinators[0].store.guard
    guard.call(Asking(), fleet.coordinators[0].status, BAD, answers.append)
    fleet.run(1)
    assert [type(error) for error in errors] == [RAISED["Panic"]]
    assert answers == []


def request(what: SagaKey, verb: subjects.Verb) -> tuple[str, bytes]:
    """An operator's request about a saga type."""
    subject = subjects.verb_subject(what, "ann", verb, "k1")
    payload = pack(Operation(reason="a test"))
    time = clock.moment(1_750_000_000_000_000_000)
    return subject, encode(Envelope(id=subject, source="operator", type=verb_type(verb), time=time, data=payload))
