"""A saga that waits for another one is no fault of its own: the other one is judged, and named alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from antiphon.contracts import Command, Event
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import JOURNALS_FILTER, matches
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator import Saga, State
from antiphon.coordinator.definition.versions import by_type
from antiphon.coordinator.testing import rehearse
from antiphon.deploy.chaos.evidence import Evidence
from antiphon.deploy.chaos.invariants import check

DAY = timedelta(days=1)


class OutingAsked(Event, name="outing.asked"):
    customer: str


class RideAsked(Event, name="ride.asked"):
    pass


class Paid(Event, name="outing.paid", owner="bank"):
    pass


class Pay(Command[Paid], name="outing.pay"):
    pass


def of_its_customer(start: OutingAsked) -> list[str]:
    return [start.customer]


ride = Saga(RideAsked, name="ride", version=1, deadline=timedelta(days=30))
ride.wait("shortly", timedelta(seconds=1))
outing = Saga(OutingAsked, name="outing", version=1, deadline=timedelta(days=30), locks=of_its_customer)


@outing.child(ride)
def drive(s: State[OutingAsked]) -> RideAsked:
    return RideAsked()


@outing.step(after=drive, needs_no_compensation=True)
def pay(s: State[OutingAsked]) -> Pay:
    raise RuntimeError("which parks it")


PARKED, WAITING = SagaKey.of("outing", "first"), SagaKey.of("outing", "second")


@pytest.fixture
async def evidence() -> AsyncIterator[Evidence]:
    """One outing that waits for a person, its ride, which waits for it, and another of the same customer."""
    async with rehearse([outing, ride], []) as rehearsal:
        for key in (PARKED, WAITING):
            await rehearsal.start(outing, OutingAsked(customer="ada"), id=key.id)
        await rehearsal.run(timedelta(minutes=1))
        streams = rehearsal.platform.streams
        found = Evidence(definitions=by_type([outing.definition, ride.definition]), parked=frozenset({PARKED}))
        for message in streams[EVENTS]:
            found.take_event(message)
        for message in streams[SAGA]:
            if matches(JOURNALS_FILTER, message.subject):
                found.take_entry(message)
        yield found


def broken(evidence: Evidence) -> list[tuple[str, str]]:
    return [(each.invariant, str(each.saga)) for each in check(evidence)]


def ride_of(evidence: Evidence) -> SagaKey:
    return next(key for key in evidence.sagas if key.type == "ride")


def test_whoever_waits_for_a_saga_that_waits_for_a_person_is_not_named(evidence: Evidence) -> None:
    assert {key.type for key in evidence.sagas} == {"outing", "ride"}
    assert broken(evidence) == []


def test_a_saga_that_nobody_lists_is_named_without_those_who_wait_for_it(evidence: Evidence) -> None:
    evidence.parked = frozenset()
    assert broken(evidence) == [("I1", str(PARKED))]


def test_who_waits_for_nobody_is_named(evidence: Evidence) -> None:
    """As though what they wait for had never been."""
    child = ride_of(evidence)
    del evidence.sagas[PARKED]
    assert sorted(broken(evidence)) == sorted([("I1", str(WAITING)), ("I1", str(child))])


def test_who_has_its_lock_and_stands_still_is_named(evidence: Evidence) -> None:
    granted = [each for each in evidence.sagas[PARKED].events if ".granted." in each.subject]
    assert len(granted) == 1
    mine = StoredMessage(granted[0].subject.replace(PARKED.id, WAITING.id), 900, granted[0].stored_ns, granted[0].data)
    del evidence.sagas[PARKED]
    evidence.sagas[WAITING].events.append(mine)
    assert ("I1", str(WAITING)) in broken(evidence)
