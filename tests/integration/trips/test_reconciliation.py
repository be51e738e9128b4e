"""Whatever a fault could do to the books is found, and the trip that it happened to is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from antiphon.trips.messages import TripRequested
from antiphon.trips.reconciliation import Books, Ended, Line, Outcome, compare, compare_partners, owed
from tests.integration.trips.agency import REQUESTED

SERVICES = ("airline", "hotel", "cars", "payments")
Request = tuple[str, str, str, int]


@dataclass
class World:
    """Books in balance: one trip is completed, one was compensated after the room was held."""

    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    trips: dict[str, TripRequested] = field(default_factory=dict[str, TripRequested])
    lines: dict[str, list[Line]] = field(default_factory=dict[str, list[Line]])
    holds: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    requests: list[Request] = field(default_factory=list[Request])

    def __post_init__(self) -> None:
        self.outcomes = {"trip-1": "completed", "trip-2": "compensated"}
        self.trips = dict.fromkeys(self.outcomes, REQUESTED)
        owing = owed(REQUESTED)
        for service in SERVICES:
            self.holds[service] = dict(owing[service])
            self.lines[service] = [
                Line("trip/trip-1", account, "trip-1", account, amount) for account, amount in owing[service].items()
            ]
        self.lines["hotel"] += [Line("trip/trip-2", "room", "trip-2", "held LIS", amount) for amount in (5, -5)]
        self.requests = [
            ("trip/trip-1/room", "hotels", "LIS", 5),
            ("trip/trip-1/card", "gateway", "t-001", 99_800),
            ("trip/trip-2/room", "hotels", "LIS", 5),
            ("trip/trip-2/room/undo", "hotels", "LIS", -5),
        ]

    def wrongs(self) -> list[str]:
        books = [Books(service, self.lines[service], self.holds[service]) for service in SERVICES]
        ended = Ended(self.outcomes, self.trips)
        return [*compare(books, ended), *compare_partners(books, self.requests, ended)]


def seat_twice(world: World) -> None:
    world.lines["airline"].append(world.lines["airline"][0])


def room_kept(world: World) -> None:
    world.lines["hotel"].pop()
    world.holds["hotel"]["held LIS"] += 5


def driver_forgotten(world: World) -> None:
    world.lines["cars"].pop()
    world.holds["cars"].pop("drivers LIS")


def money_taken_without_a_line(world: World) -> None:
    world.holds["payments"]["t-001"] += 1


def charged_twice_outside(world: World) -> None:
    world.requests.append(("trip/trip-1/other", "gateway", "t-001", 99_800))


def room_given_up_for_us_alone(world: World) -> None:
    world.requests.pop()


def nobody_knows_of_it(world: World) -> None:
    world.outcomes.pop("trip-1")
    world.trips.pop("trip-1")


def another_customer_pays(world: World) -> None:
    line = world.lines["payments"][0]
    world.lines["payments"][0] = replace(line, account="t-002")
    world.holds["payments"] = {"t-002": line.amount}
    world.requests[1] = ("trip/trip-1/card", "gateway", "t-002", line.amount)


PLANTED: list[tuple[Callable[[World], None], str]] = [
    (seat_twice, "airline: trip/trip-1 has 2 lines of step seats LIS done"),
    (room_kept, "hotel: trip trip-2 is compensated and should have {}, and has {'held LIS': 5}"),
    (driver_forgotten, "cars: trip trip-1 is completed and should have"),
    (money_taken_without_a_line, "payments: account 't-001' holds 99801, and its ledger adds up to 99800"),
    (charged_twice_outside, "gateway: trip trip-1 has 199600 on t-001, and payments has written down 99800"),
    (room_given_up_for_us_alone, "hotels: trip trip-2 has 5 on held LIS, and hotel has written down 0"),
    (nobody_knows_of_it, "payments: trip trip-1 was never asked for, and has {'t-001': 99800}"),
    (another_customer_pays, "payments: trip trip-1 is completed and should have {'t-001': 99800}, and has {'t-002'"),
]


def test_books_in_balance_have_nothing_wrong() -> None:
    assert World().wrongs() == []


def test_a_trip_that_waits_for_a_person_may_hold_anything() -> None:
    world = World()
    room_given_up_for_us_alone(world)
    world.outcomes.pop("trip-2")
    assert world.wrongs() == []


@pytest.mark.parametrize(("plant", "sentence"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_what_is_wrong_is_found_and_named(plant: Callable[[World], None], sentence: str) -> None:
    world = World()
    plant(world)
    assert any(wrong.startswith(sentence) for wrong in world.wrongs()), world.wrongs()
