"""What a trip asks of whom, and in which order: sentences about its definition, without a broker or a clock."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from antiphon.coordinator.testing import Scenario, given
from antiphon.trips.messages import (
    AssignDriver,
    BookLuggage,
    BookSeat,
    CarReserved,
    ChargeCard,
    ConfirmRoom,
    DriverAssigned,
    FreeSeat,
    HoldRoom,
    LuggageBooked,
    RefundCard,
    ReserveCar,
    RoomConfirmed,
    RoomHeld,
    SeatBooked,
    TicketsIssued,
    TicketsRefused,
    TransferRequested,
    TripPaid,
)
from antiphon.trips.saga import (
    assign_driver,
    charge_card,
    confirm_room,
    confirmed,
    drive,
    issued,
    luggage,
    reserve_car,
    room,
    seats,
    transfer,
    trip,
)
from tests.integration.trips.agency import CONFIRMED, REQUESTED

ID = REQUESTED.trip_id
HELD = RoomHeld(booking="hotels-1", trip_id=ID, destination="LIS", nights=5)
BAGS = LuggageBooked(trip_id=ID, destination="LIS", bags=2)
PAID = TripPaid(charge="gateway-1", trip=REQUESTED)


def seat(number: int) -> SeatBooked:
    return SeatBooked(seat_id=f"{ID}/seats-{number}", trip_id=ID, destination="LIS")


@pytest.fixture
def begun() -> Scenario:
    """It is the customer's turn: all that does not depend on something else was asked for."""
    asked = given(trip, REQUESTED, id=ID).asks_for("t-001").sends_nothing()
    return asked.when_granted("t-001")


@pytest.fixture
def seated(begun: Scenario) -> Scenario:
    """Both travellers have a seat."""
    return begun.when(seats, seat(0), element=0).when(seats, seat(1), element=1)


@pytest.fixture
def held(seated: Scenario) -> Scenario:
    """All is held, and the customer is waited for."""
    return seated.when(luggage, BAGS).when(room, HELD).when_child_completed(drive).waits_for(confirmed)


@pytest.fixture
def paid(held: Scenario) -> Scenario:
    """The card is charged, and the airline is waited for."""
    charging = held.when_signalled(confirmed, CONFIRMED).sends(charge_card, ChargeCard(trip=REQUESTED))
    return charging.when(charge_card, PAID).waits_for(issued)


def test_seats_room_and_transfer_are_looked_for_at_once(begun: Scenario) -> None:
    (
        begun.sends(seats, BookSeat(trip_id=ID, destination="LIS", name="Ada"), element=0)
        .sends(seats, BookSeat(trip_id=ID, destination="LIS", name="Bob"), element=1)
        .sends(room, HoldRoom(trip_id=ID, destination="LIS", nights=5))
        .starts(drive, TransferRequested(trip_id=ID, destination="LIS"))
    )


def test_luggage_is_booked_for_those_who_have_a_seat(seated: Scenario) -> None:
    ids = [f"{ID}/seats-0", f"{ID}/seats-1"]
    seated.sends(luggage, BookLuggage(trip_id=ID, destination="LIS", bags=2, seat_ids=ids))


def test_who_has_no_luggage_books_none() -> None:
    asked = given(trip, replace(REQUESTED, bags=0), id=ID).when_granted("t-001")
    seated = asked.when(seats, seat(0), element=0).when(seats, seat(1), element=1).skips(luggage)
    seated.when(room, HELD).when_child_completed(drive).waits_for(confirmed)


def test_a_trip_that_everybody_agrees_to_is_confirmed_paid_and_ticketed(paid: Scenario) -> None:
    (
        paid.when_happened(TicketsIssued(trip_id=ID, tickets=2))
        .sends(confirm_room, ConfirmRoom(trip_id=ID, destination="LIS", booking="hotels-1", nights=5))
        .when(confirm_room, RoomConfirmed(trip_id=ID))
        .is_completed()
    )


def test_a_traveller_who_is_not_taken_costs_the_others_their_seats_and_no_more(begun: Scenario) -> None:
    refused = begun.when(seats, seat(0), element=0).when_refused(seats, "not Bob", element=1)
    refused.compensates(seats, FreeSeat(name="Ada", reason="seats-1 was refused: not Bob"), element=0)
    # What was asked for beside them may have happened, and is undone as well.
    refused.compensates(room).compensates(drive)
    undone = refused.when_undone(seats, element=0).when_undone(room)
    undone.when_child_compensated(drive, "cancelled").is_compensated("not Bob")


@pytest.mark.parametrize("what", ["room", "drive", "luggage"])
def test_whatever_cannot_be_had_gives_all_else_back(seated: Scenario, what: str) -> None:
    match what:
        case "room":
            refused = seated.when(luggage, BAGS).when_child_completed(drive).when_refused(room, "closed")
        case "drive":
            refused = seated.when(luggage, BAGS).when(room, HELD).when_child_compensated(drive, "closed")
        case _:
            refused = seated.when(room, HELD).when_child_completed(drive).when_refused(luggage, "closed")
    undoing = refused.is_compensating("closed")
    if what != "drive":
        undoing.compensates(drive)
        undoing = undoing.when_child_compensated(drive, "the trip is compensated")
    undoing.when_all_undone().is_compensated("closed")


def test_seats_are_given_back_once_the_luggage_is(held: Scenario) -> None:
    cancelled = held.when_cancelled("changed my mind").compensates(luggage).compensates(room).compensates(drive)
    cancelled.when_undone(luggage).compensates(seats, element=0).compensates(seats, element=1)


def test_who_does_not_confirm_within_two_days_gets_nothing(held: Scenario) -> None:
    held.after(timedelta(days=1)).is_running()
    held.after(timedelta(days=2)).compensates(luggage).compensates(room).compensates(drive).is_compensating()


def test_a_declined_card_gives_everything_back(held: Scenario) -> None:
    declined = held.when_signalled(confirmed, CONFIRMED).when_refused(charge_card, "card declined")
    declined.compensates(luggage).compensates(room).compensates(drive).is_compensating("card declined")


def test_a_charge_without_an_answer_is_asked_after(held: Scenario) -> None:
    asked = held.when_signalled(confirmed, CONFIRMED).when_timed_out(charge_card).settles(charge_card)
    asked.when_settled(charge_card, PAID).waits_for(issued)
    asked.when_settled(charge_card, None).compensates(luggage).is_compensating()


def test_a_customer_whose_card_is_being_charged_can_cancel_only_if_nothing_comes_of_it(paid: Scenario) -> None:
    cancelled = paid.when_cancelled("changed my mind").sends_nothing().is_running()
    cancelled.when_happened(TicketsRefused(reason="a passport")).compensates(charge_card)


def test_without_tickets_the_money_goes_back_before_all_else(paid: Scenario) -> None:
    refused = paid.when_happened(TicketsRefused(reason="the passport of Bob"))
    refused.compensates(charge_card, RefundCard(reason="tickets-issued was refused: the passport of Bob"))
    (
        refused.when_undone(charge_card)
        .compensates(luggage)
        .compensates(room)
        .compensates(drive)
        .when_child_compensated(drive, "cancelled")
        .when_all_undone()
        .is_compensated("the passport of Bob")
    )


# --- the child --------------------------------------------------------------------------------------------------------


@pytest.fixture
def reserved() -> Scenario:
    """A car is reserved."""
    asked = given(transfer, TransferRequested(trip_id=ID, destination="LIS"))
    car = asked.sends(reserve_car, ReserveCar(trip_id=ID, destination="LIS"))
    return car.when(reserve_car, CarReserved(trip_id=ID, destination="LIS"))


def test_a_transfer_is_a_car_and_then_a_driver(reserved: Scenario) -> None:
    asked = reserved.sends(assign_driver, AssignDriver(trip_id=ID, destination="LIS"))
    asked.when(assign_driver, DriverAssigned(trip_id=ID, destination="LIS")).is_completed()


def test_a_car_without_a_driver_is_given_back(reserved: Scenario) -> None:
    refused = reserved.when_refused(assign_driver, "nobody is free").compensates(reserve_car)
    refused.when_undone(reserve_car).is_compensated("nobody is free")
