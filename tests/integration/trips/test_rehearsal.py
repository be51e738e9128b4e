"""Trips from start to end, through the four services' own handlers, in memory and in virtual time."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import pytest
from msgspec.structs import replace

from antiphon.trips.data import load_trips
from antiphon.trips.messages import TripRequested
from antiphon.trips.partners import read_requests
from antiphon.trips.saga import confirmed
from tests.integration.trips.agency import ADA, BANNED, BOB, CONFIRMED, REQUESTED, Agency

HELD = {"seats-0", "seats-1", "luggage", "room", "drive"}
FORWARD = {*HELD, "charge_card", "confirm_room"}
EXPIRED = replace(BOB, passport_until=date(2027, 6, 12))


async def test_a_trip_is_held_confirmed_paid_and_ticketed(agency: Agency) -> None:
    saga = await agency.ask_for(REQUESTED)
    assert (saga.outcome(), {*saga.sent()}) == (None, HELD)
    await saga.signal(confirmed, CONFIRMED)
    assert (saga.outcome(), {*saga.sent()}) == ("completed", FORWARD)
    assert await agency.wrongs() == []
    assert [(company, amount) for _, company, _, amount in read_requests(agency.partners)] == [
        ("hotels", 5),
        ("gateway", 99_800),
    ]


@pytest.mark.parametrize(
    ("requested", "reason"),
    [
        (replace(REQUESTED, travellers=[ADA, BANNED, BOB]), "the airline does not take Viktor Harms"),
        (replace(REQUESTED, bags=5), "too many bags: 5, and 2 travellers may have 4"),
        (replace(REQUESTED, destination="LYR"), "the Polar Inn in Longyearbyen is closed this season"),
        (replace(REQUESTED, destination="KEF"), "none of the cars in KEF is free"),
        (replace(REQUESTED, destination="TRD"), "none of the drivers in TRD is free"),
        (replace(REQUESTED, destination="XXX"), "there is no seat to XXX"),
        (replace(REQUESTED, customer_id="t-013"), "card declined: the card of t-013 is expired"),
        (replace(REQUESTED, travellers=[ADA, EXPIRED]), "the passport of Bob is valid until 2027-06-12"),
    ],
)
async def test_what_cannot_be_had_leaves_nothing_behind(agency: Agency, requested: TripRequested, reason: str) -> None:
    saga = await agency.take(requested)
    assert saga.outcome() == "compensated", saga
    assert reason in saga.status().reason
    assert await agency.wrongs() == []
    assert all(total == 0 for total in outside(agency).values())


async def test_who_cancels_gets_nothing_and_pays_nothing(agency: Agency) -> None:
    saga = await agency.ask_for(REQUESTED)
    await saga.cancel("changed their mind")
    assert (saga.outcome(), saga.status().reason) == ("compensated", "cancelled: changed their mind")
    assert await agency.wrongs() == []


async def test_who_does_not_confirm_gets_nothing_after_two_days(agency: Agency) -> None:
    saga = await agency.ask_for(REQUESTED)
    await agency.rehearsal.run(timedelta(days=2, minutes=1))
    assert saga.outcome() == "compensated"
    assert await agency.wrongs() == []


async def test_of_one_customer_one_trip_is_arranged_at_a_time(agency: Agency) -> None:
    first = await agency.ask_for(REQUESTED)
    second = await agency.ask_for(replace(REQUESTED, trip_id="trip-2"))
    other = await agency.ask_for(replace(REQUESTED, trip_id="trip-3", customer_id="t-002"))
    assert [len(each.sent()) for each in (first, second, other)] == [5, 0, 5]
    await first.signal(confirmed, CONFIRMED)
    assert (first.outcome(), len(second.sent())) == ("completed", 5)


@pytest.mark.parametrize("when", ["before commit", "after commit"])
@pytest.mark.parametrize("who", ["airline", "hotel", "cars", "payments"])
async def test_a_service_that_dies_does_and_undoes_once(agency: Agency, who: str, when: str) -> None:
    for number, requested in enumerate((REQUESTED, replace(REQUESTED, travellers=[ADA, EXPIRED]))):
        agency.rehearsal.crash(who, "before commit" if when == "before commit" else "after commit")
        saga = await agency.take(replace(requested, trip_id=f"trip-{number}"))
        await agency.rehearsal.run(timedelta(minutes=5))
        if saga.outcome() is None:  # it died before the customer was asked
            await saga.signal(confirmed, CONFIRMED)
        assert saga.outcome() == ("compensated" if number else "completed"), saga
    assert await agency.wrongs() == []


async def test_the_books_balance_after_all_trips_of_the_file(agency: Agency) -> None:
    for requested in load_trips():
        await agency.take(requested)
    await agency.rehearsal.run(timedelta(minutes=5))
    outcomes = Counter(saga.outcome() for saga in agency.played.values())
    assert await agency.wrongs() == []
    assert set(outcomes) == {"completed", "compensated"}
    assert min(outcomes.values()) >= 20


def outside(agency: Agency) -> Counter[tuple[str, str]]:
    """What remains with the other companies."""
    left = Counter[tuple[str, str]]()
    for _, company, account, amount in read_requests(agency.partners):
        left[company, account] += amount
    return left
