"""The example's data: where one can fly, who travels, and what they ask for."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from .messages import Destination, TripRequested

Stock = Annotated[int, Meta(ge=0, le=100_000)]


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the destinations: what there is before the first trip.

    Args:
        destination: its airport.
        city: its name.
        hotel: where the agency's guests stay.
        is_open: whether the hotel is, this season.
        seats: on the flight.
        cars: at the airport.
        drivers: of those.
    """

    destination: Destination
    city: str
    hotel: str
    is_open: bool
    seats: Stock
    cars: Stock
    drivers: Stock


class Customer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer, and what the payment gateway says of the card."""

    customer_id: str
    name: str
    card: Literal["valid", "expired", "reported stolen"]


def load_trips() -> list[TripRequested]:
    """Sixty trips. Some go where there is no room, car or driver, some have a card that is declined, too many bags, a
    passport that ends too early, or a traveller whom the airline does not take.

    Raises:
        msgspec.ValidationError: the file is not as the contract says.
    """
    return _records("trips.jsonl", TripRequested)


def load_places() -> list[Place]:
    """All destinations."""
    return _records("destinations.jsonl", Place)


def load_customers() -> list[Customer]:
    """All customers."""
    return _records("customers.jsonl", Customer)


T = TypeVar("T")


def _records(file_name: str, shape: type[T]) -> list[T]:
    return msgspec.json.Decoder(shape).decode_lines(files(__name__.rpartition(".")[0]).joinpath(file_name).read_bytes())
