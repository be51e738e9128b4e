"""What an author's code may raise, and sagas whose start, steps, conditions and keys raise it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from antiphon.contracts import Event, SagaKey
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from tests.support.raw_worker import start_message
from tests.support.trip import BookRoom, BookSeat, FreeRoom, FreeSeat


class Panic(BaseException):
    """What an extension written in Rust raises when it panics: below Exception."""


class Mute(Exception):
    """One that cannot even be printed."""

    def __str__(self) -> str:
        raise Panic("no text")

    __repr__ = __str__


RAISED: Mapping[str, type[BaseException]] = {
    each.__name__: each
    for each in (
        ZeroDivisionError,
        Mute,
        Panic,
        SystemExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
        GeneratorExit,
        RecursionError,
    )
}
SECRET = "card-4111"
"""What stands in the text of whatever is raised, and must stand nowhere but in a log."""


def explode(name: str) -> None:
    """Raise what has this name, if anything has."""
    if name in RAISED:
        raise RAISED[name](SECRET)


class Fed(Event, name="poison.fed"):
    """A start whose own code raises when it is read."""

    poison: str

    def __post_init__(self) -> None:
        explode(self.poison)


POISONED = Saga(Fed, name="poisoned", version=1, deadline=timedelta(hours=1))


@POISONED.step()
def book_room(s: State[Fed]) -> BookRoom:
    return BookRoom(nights=1)


@book_room.compensation
def free_room(s: State[Fed]) -> FreeRoom:
    return FreeRoom(reason=s.reason)


@POISONED.step(after=book_room)
def book_seat(s: State[Fed]) -> BookSeat:
    return BookSeat(traveller="Ada")


@book_seat.compensation
def free_seat(s: State[Fed]) -> FreeSeat:
    return FreeSeat(reason=s.reason)


class Told(Event, name="poison.told"):
    """A start that says what its saga's functions are to raise."""

    step: str
    when: str


UNSTEADY = Saga(Told, name="unsteady", version=1, deadline=timedelta(hours=1))


@UNSTEADY.step()
def reserve_room(s: State[Told]) -> BookRoom:
    explode(s.start.step)
    return BookRoom(nights=1)


@reserve_room.compensation
def release_room(s: State[Told]) -> FreeRoom:
    return FreeRoom(reason=s.reason)


def is_wanted(s: State[Told]) -> bool:
    """Whether a seat is, if that can be said."""
    explode(s.start.when)
    return True


@UNSTEADY.step(after=reserve_room, when=is_wanted)
def reserve_seat(s: State[Told]) -> BookSeat:
    return BookSeat(traveller="Ada")


@reserve_seat.compensation
def release_seat(s: State[Told]) -> FreeSeat:
    return FreeSeat(reason=s.reason)


def poisoned_start(key: SagaKey, name: str) -> tuple[str, bytes]:
    """What somebody stores who does not read it as our client would: a start that raises when it is read."""
    subject, data = start_message(key, Fed(poison="none"))
    return subject, data.replace(b'"poison":"none"', b'"poison":"%b"' % name.encode())
