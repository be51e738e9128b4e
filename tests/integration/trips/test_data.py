"""The example's files are what they say: decodable, consistent with each other, and worth running."""

from collections import Counter
from importlib.resources import files

import msgspec
import pytest

from antiphon.trips.airline import BAGS_A_SEAT_MAX, BANNED
from antiphon.trips.data import load_customers, load_places, load_trips


def test_there_are_sixty_trips_with_ids_of_their_own_to_known_places() -> None:
    assert len({trip.trip_id for trip in load_trips()}) == 60
    assert {trip.destination for trip in load_trips()} == {place.destination for place in load_places()}
    assert {trip.customer_id for trip in load_trips()} <= {each.customer_id for each in load_customers()}


def test_each_reason_why_a_trip_cannot_be_had_occurs() -> None:
    places = {place.destination: place for place in load_places()}
    cards = {each.customer_id: each.card for each in load_customers()}
    reasons = Counter[str]()
    for trip in load_trips():
        place = places[trip.destination]
        reasons["room"] += not place.is_open
        reasons["car"] += not place.cars
        reasons["driver"] += bool(place.cars and not place.drivers)
        reasons["card"] += cards[trip.customer_id] != "valid"
        reasons["bags"] += trip.bags > BAGS_A_SEAT_MAX * len(trip.travellers)
        reasons["passport"] += any(each.passport_until < trip.departs for each in trip.travellers)
        reasons["banned"] += any(each.name in BANNED for each in trip.travellers)
    assert min(reasons.values()) >= 3, reasons


@pytest.mark.parametrize("file_name", ["trips.jsonl", "destinations.jsonl", "customers.jsonl"])
def test_no_line_holds_more_than_its_type_does(file_name: str) -> None:
    loaded: list[msgspec.Struct] = {
        "trips.jsonl": load_trips,
        "destinations.jsonl": load_places,
        "customers.jsonl": load_customers,
    }[file_name]()  # type: ignore[assignment]  # three lists of structs
    lines = files("antiphon.trips").joinpath(file_name).read_bytes().splitlines()
    assert [msgspec.json.encode(record) for record in loaded] == lines
