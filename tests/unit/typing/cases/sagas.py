"""How a saga is wired and tested, rightly and wrongly."""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator import Handle, Saga, State
from antiphon.coordinator.testing import given


class Asked(Event, name="trip.asked"):
    nights: int


class OtherAsked(Event, name="other.asked"):
    pass


class RoomBooked(Event, name="hotel.booked", owner="hotel"):
    room: str


class SeatBooked(Event, name="airline.booked", owner="airline"):
    seat: str


class BookRoom(Command[RoomBooked], name="hotel.book"):
    nights: int


class FreeRoom(Compensation[BookRoom], name="hotel.free"):
    pass


class BookSeat(Command[SeatBooked], name="airline.book"):
    beside: str


class FreeSeat(Compensation[BookSeat], name="airline.free"):
    pass


class Landed(Event, name="plane.landed", owner="airline"):
    at: str


class Diverted(Event, name="plane.diverted", owner="airline"):
    reason: str


class Cleared(Event, name="trip.cleared"):
    by: str


class Doubted(Event, name="trip.doubted"):
    pass


HOUR = timedelta(hours=1)
trip = Saga(Asked, name="trip", version=1, deadline=HOUR)
other = Saga(OtherAsked, name="other", version=1, deadline=HOUR)


def is_long(s: State[Asked]) -> bool:
    return s.start.nights > 1


def is_other(s: State[OtherAsked]) -> bool:
    return s.saga_id == "other"


# --- rightly ----------------------------------------------------------------------------------------------------------


@trip.step()
def book_room(s: State[Asked]) -> BookRoom:
    return BookRoom(nights=s.start.nights)


@book_room.compensation
def free_room(s: State[Asked]) -> FreeRoom:
    return FreeRoom()


@trip.step(when=is_long, after=book_room)
def book_seat(s: State[Asked]) -> BookSeat:
    return BookSeat(beside=s[book_room].room)


@book_seat.compensation
def free_seat(s: State[Asked]) -> FreeSeat:
    return FreeSeat()


@trip.each(after=book_room, at_most=3)
def book_more(s: State[Asked]) -> list[BookRoom]:
    return [BookRoom(nights=1)]


@book_more.compensation
def free_more(s: State[Asked], command: BookRoom) -> FreeRoom:
    return FreeRoom()


cleared = trip.signal(Cleared, after=book_room, within=HOUR)
slept = trip.wait("slept", HOUR, after=cleared)


@trip.child(other, after=slept)
def go_elsewhere(s: State[Asked]) -> OtherAsked:
    return OtherAsked()


@trip.step(after=(book_seat, book_more, go_elsewhere), pivot=True)
def book_another(s: State[Asked]) -> BookRoom:
    seat = s[book_seat]
    rooms = [each.room for each in s[book_more]]
    outcome = s[go_elsewhere].outcome
    return BookRoom(nights=len(rooms) + len(s[cleared].by) + len(outcome) + (len(seat.seat) if seat else 0))


landed = trip.awaits(Landed, after=book_another, within=HOUR, unless=Diverted)


@trip.step(after=landed)
def go_on(s: State[Asked]) -> BookRoom:
    return BookRoom(nights=len(s[landed].at))


def told() -> None:
    beginning = given(trip, Asked(nights=2)).sends(book_room, BookRoom(nights=2))
    booked = beginning.when(book_room, RoomBooked(room="1")).sends(book_seat).sends(book_more, element=0)
    booked.when(book_seat, SeatBooked(seat="7a")).when(book_more, RoomBooked(room="2"), element=0)
    booked.when_signalled(cleared, Cleared(by="Ada")).after(HOUR).starts(go_elsewhere, OtherAsked())
    booked.when_cancelled("no").compensates(book_seat, FreeSeat()).compensates(book_more, FreeRoom(), element=0)
    booked.when_settled(book_another, RoomBooked(room="3")).when_settled(book_another, None)
    booked.when_edited("ada", book_room, BookRoom(nights=1)).when_edited("ada", book_room, FreeRoom())
    booked.when_resolved("ada", book_another, "I looked", reply=RoomBooked(room="3"))
    booked.waits_for(landed).when_resolved("ada", landed, "I saw it", reply=Landed(at="noon"))


# --- wrongly: steps ---------------------------------------------------------------------------------------------------


@book_room.compensation  # error: arg-type, reportArgumentType
def undoes_another_command(s: State[Asked]) -> FreeSeat:
    return FreeSeat()


@book_seat.compensation  # error: arg-type, reportArgumentType
def undoes_another_command_too(s: State[Asked]) -> FreeRoom:
    return FreeRoom()


@book_more.compensation  # error: arg-type, reportArgumentType
def takes_another_element(s: State[Asked], command: BookSeat) -> FreeRoom:
    return FreeRoom()


@book_more.compensation  # error: arg-type, reportArgumentType
def takes_no_element(s: State[Asked]) -> FreeRoom:
    return FreeRoom()


@book_room.compensation  # error: arg-type, reportArgumentType
def compensates_by_a_command(s: State[Asked]) -> BookRoom:
    return BookRoom(nights=1)


@book_room.compensation  # error: arg-type, reportArgumentType
def looks_at_another_start(s: State[OtherAsked]) -> FreeRoom:
    return FreeRoom()


@trip.step()  # error: arg-type, reportArgumentType
def starts_with_another_event(s: State[OtherAsked]) -> BookRoom:
    return BookRoom(nights=1)


@trip.step()  # error: type-var, reportArgumentType
def makes_an_event(s: State[Asked]) -> RoomBooked:
    return RoomBooked(room="1")


@trip.each()  # error: arg-type, reportArgumentType
def makes_no_list(s: State[Asked]) -> BookRoom:
    return BookRoom(nights=1)


trip.step(when=is_other)  # error: arg-type, reportArgumentType
trip.step(when=is_long, pivot=True)  # error: call-overload, reportCallIssue
trip.step(after="book_room")  # error: arg-type, reportArgumentType
trip.signal(BookRoom)  # error: type-var, reportArgumentType


@trip.child(other)  # error: arg-type, reportArgumentType
def starts_it_with_another_event(s: State[Asked]) -> Asked:
    return s.start


trip.awaits(BookRoom)  # error: type-var, reportArgumentType
trip.awaits(Landed, unless=BookRoom)  # error: arg-type, reportArgumentType
trip.awaits(Landed, after="landed")  # error: arg-type, reportArgumentType
trip.awaits(Landed, within=60)  # error: arg-type, reportArgumentType


def signals_are_not_compensated() -> None:
    landed.compensation(free_room)  # error: attr-defined, reportAttributeAccessIssue
    cleared.compensation(free_room)  # error: attr-defined, reportAttributeAccessIssue
    slept.compensation(free_room)  # error: attr-defined, reportAttributeAccessIssue


# --- wrongly: what became of them -------------------------------------------------------------------------------------


def looks_from_another_saga(s: State[OtherAsked]) -> None:
    print(s[book_room])  # error: index, reportArgumentType
    print(s[book_seat])  # error: index, reportArgumentType
    print(s[book_more])  # error: index, reportArgumentType


def looks(s: State[Asked]) -> None:
    print(s[book_seat].seat)  # error: union-attr, reportOptionalMemberAccess
    print(s[book_more].room)  # error: attr-defined, reportAttributeAccessIssue
    print(s[book_room].seat)  # error: attr-defined, reportAttributeAccessIssue
    print(s[go_elsewhere].room)  # error: attr-defined, reportAttributeAccessIssue
    print(s[cleared].room)  # error: attr-defined, reportAttributeAccessIssue
    print(s[landed].by)  # error: attr-defined, reportAttributeAccessIssue
    event: Diverted = s[landed]  # error: assignment, reportAssignmentType
    print(event)
    print(s[slept])  # error: call-overload, reportArgumentType
    print(s["book_room"])  # error: call-overload, reportArgumentType
    print(s.start.seat)  # error: attr-defined, reportAttributeAccessIssue
    seat: SeatBooked = s[book_room]  # error: assignment, reportAssignmentType
    print(seat)


# --- wrongly: tests ---------------------------------------------------------------------------------------------------


def tells_wrongly() -> None:
    given(trip, OtherAsked())  # error: misc, reportArgumentType
    saga = given(trip, Asked(nights=2))
    saga.when(book_room, SeatBooked(seat="1"))  # error: misc, reportArgumentType
    saga.when(book_seat, RoomBooked(room="1"))  # error: misc, reportArgumentType
    saga.when(book_more, SeatBooked(seat="1"), element=0)  # error: misc, reportArgumentType
    saga.when(book_more, (RoomBooked(room="1"),), element=0)  # error: call-overload, reportArgumentType
    saga.when(book_more, RoomBooked(room="1"))  # error: call-overload, reportArgumentType
    saga.when(cleared, Cleared(by="Ada"))  # error: call-overload, reportArgumentType
    saga.when(landed, Landed(at="noon"))  # error: call-overload, reportArgumentType
    saga.when_signalled(landed, Landed(at="noon"))  # error: arg-type, reportArgumentType
    saga.when_resolved("ada", landed, "why", reply=Diverted(reason="fog"))  # error: misc, reportArgumentType
    saga.when_signalled(cleared, Doubted())  # error: misc, reportArgumentType
    saga.when_settled(book_another, SeatBooked(seat="1"))  # error: misc, reportArgumentType
    saga.when_edited("ada", book_room, BookSeat(beside="1"))  # error: misc, reportArgumentType
    saga.when_edited("ada", book_room, FreeSeat())  # error: misc, reportArgumentType
    saga.when_resolved("ada", book_room, "why", reply=SeatBooked(seat="1"))  # error: misc, reportArgumentType
    saga.sends(book_room, BookSeat(beside="1"))  # error: misc, reportArgumentType
    saga.compensates(book_room, FreeSeat())  # error: misc, reportArgumentType
    saga.starts(go_elsewhere, Asked(nights=2))  # error: misc, reportArgumentType
    saga.skips(book_room)  # error: arg-type, reportArgumentType
    saga.waits_for(book_room)  # error: arg-type, reportArgumentType


async def a_client_sends_signals(handle: Handle) -> None:
    await handle.signal(landed, Landed(at="noon"))  # error: arg-type, reportArgumentType
    await handle.signal(cleared, Cleared(by="Ada"))
    await handle.signal(cleared, Doubted())  # error: misc, reportArgumentType
    await handle.signal(book_room, Cleared(by="Ada"))  # error: arg-type, reportArgumentType
