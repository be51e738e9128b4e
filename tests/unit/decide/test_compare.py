"""Two definitions compared: what is different, in sentences, and what it means for sagas in flight."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from antiphon.contracts import Command, Compensation, Event, Retry
from antiphon.contracts.errors import DefinitionError
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.compare import Difference, compare_definitions
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.definition.versions import by_type
from tests.support.trip import ASKED, RoomBooked, TripAsked, make_trip


class Noted(Event, name="hotel.noted", owner="hotel"):
    at: str


class Note(Command[Noted], name="hotel.note"):
    text: str


class BookRoomTwice(Command[RoomBooked], name="hotel.book"):
    nights: int
    beds: int


class FreeRoomTwice(Compensation[BookRoomTwice], name="hotel.free"):
    reason: str


class Cleared(Event, name="trip.cleared"):
    by: str


def changed(version: int = 2) -> Saga[TripAsked]:
    """The trip with another first step, a signal, and without its payment."""
    saga = Saga(TripAsked, name="trip", version=version, deadline=timedelta(hours=2))

    @saga.step(timeout=timedelta(seconds=30), retry=Retry(attempts=9))
    def book_room(s: State[TripAsked]) -> BookRoomTwice:
        return BookRoomTwice(nights=s.start.nights, beds=2)

    @book_room.compensation
    def free_room(s: State[TripAsked]) -> FreeRoomTwice:
        return FreeRoomTwice(reason=s.reason)

    cleared = saga.signal(Cleared, after=book_room)

    @saga.step(after=cleared, pivot=True)
    def note(s: State[TripAsked]) -> Note:
        return Note(text=s.start.traveller)

    return saga


class Guest(msgspec.Struct):
    name: str
    beside: list[Guest] = []


class TripBegun(Event, name="trip.begun"):
    guests: list[Guest]


class Person(msgspec.Struct):
    """A guest once more, as another module would declare it."""

    name: str
    beside: list[Person] = []


class TripBegunElsewhere(Event, name="trip.begun"):
    guests: list[Person]


class Numbered(msgspec.Struct):
    name: int
    beside: list[Numbered] = []


class TripBegunByNumbers(Event, name="trip.begun"):
    guests: list[Numbered]


def begun_by(start: type[Event]) -> Saga[Any]:
    saga: Saga[Any] = Saga(start, name="trip", version=1, deadline=timedelta(hours=1))
    saga.wait("rest", timedelta(minutes=1))
    return saga


def played(flow: dict[type[Event], Any]) -> Choreography[TripAsked]:
    return Choreography(TripAsked, name="trip", version=1, deadline=timedelta(hours=1), flow=flow, completes=RoomBooked)


def difference(before: Saga[TripAsked], after: Saga[TripAsked]) -> Difference:
    return compare_definitions(before.definition, after.definition)


def test_the_same_definition_is_the_same() -> None:
    found = difference(make_trip(), make_trip())
    assert (found.changes, found.meaning, found.is_same_shape) == ((), ("Both are the same.",), True)


def test_each_change_is_a_sentence() -> None:
    found = difference(make_trip(), changed())
    assert "the saga: deadline was 3600 s, and is 7200 s." in found.changes
    assert "step charge_card is gone." in found.changes
    assert "step note is new, after trip-cleared." in found.changes
    assert "step book_room: timeout was none, and is 30 s." in found.changes
    assert "step book_room: retry of the command was 5/0.2/2/30, and is 9/0.2/2/30." in found.changes
    assert [change for change in found.changes if "other fields under the same type hotel.book.v1 (beds)" in change]


def test_a_step_that_moves_is_told_with_both_places() -> None:
    found = difference(make_trip(), make_trip(parallel=True))
    assert found.changes == ("step book_seat: place was after book_room, and is at the beginning.",)


def test_a_new_version_lets_sagas_in_flight_finish_on_theirs() -> None:
    meaning = " ".join(difference(make_trip(), changed()).meaning)
    assert "finish on the version they began with; new ones begin with version 2" in meaning
    assert "A coordinator without version 1 leaves its sagas alone" in meaning


def test_another_shape_under_the_same_version_is_refused_at_the_start_and_said_here() -> None:
    found = difference(make_trip(), changed(version=1))
    assert "Give the newer one version=2." in found.meaning[0]
    with pytest.raises(DefinitionError, match="two definitions with version=1"):
        by_type([make_trip().definition, changed(version=1).definition])


def test_what_may_change_at_any_time_is_told_and_harmless() -> None:
    found = difference(make_trip(), make_trip(backoff=Retry(attempts=9)))
    assert found.is_same_shape
    assert len(found.changes) == 1
    assert found.meaning == (
        "The shape is the same: sagas in flight go on under the newer one, and nothing else is needed.",
    )


def test_a_nested_message_of_another_module_is_the_same_by_its_shape() -> None:
    assert compare_definitions(begun_by(TripBegun).definition, begun_by(TripBegunElsewhere).definition).changes == ()
    found = compare_definitions(begun_by(TripBegun).definition, begun_by(TripBegunByNumbers).definition)
    assert [change.partition(":")[0] for change in found.changes] == [
        "the start event has other fields under the same type trip.begun.v1 (guests)"
    ]


def test_who_reacts_in_a_choreography_is_told_and_may_change_at_any_time() -> None:
    before = played({TripAsked: "hotel", Noted: ("hotel", "bank")})
    after = played({TripAsked: ("hotel", "airline"), Noted: ("bank", "hotel")})
    found = compare_definitions(before.definition, after.definition)
    assert found.changes == ("the start event: who reacts was hotel, and is airline and hotel.",)
    assert found.meaning[0].startswith("The shape is the same")
    found = compare_definitions(before.definition, played({TripAsked: "hotel", Noted: "bank"}).definition)
    assert found.changes == ("hotel.noted.v1: who reacts was bank and hotel, and is bank.",)


def test_two_sagas_have_nothing_to_do_with_each_other() -> None:
    assert "different sagas" in difference(make_trip(), make_trip(name="other")).meaning[0]
    assert ASKED.__contract__.type == "trip.asked.v1"
