"""Three small participants with their handlers, for rehearsals: they note what they did in databases in memory."""

from __future__ import annotations

from antiphon.contracts import Refused, Unavailable
from antiphon.participants import Participant, Transaction
from antiphon.participants.memory import MemoryTransaction
from tests.support.trip import (
    BookRoom,
    BookSeat,
    CardCharged,
    ChargeCard,
    FreeRoom,
    FreeSeat,
    RefundCard,
    RoomBooked,
    SeatBooked,
)

hotel, airline, bank = Participant("hotel"), Participant("airline"), Participant("bank")


def note(tx: Transaction, what: str) -> None:
    """An effect."""
    assert isinstance(tx, MemoryTransaction)
    tx.effects.append(f"{what} for {tx.saga_id}")


@hotel.handles(BookRoom)
async def book_room(command: BookRoom, tx: Transaction) -> RoomBooked:
    note(tx, f"{command.nights} nights")
    if command.nights > 7:
        raise Refused("a week is the most")
    if command.nights == 0:
        raise ZeroDivisionError("no nights")
    return RoomBooked(room=f"room {command.nights}")


@hotel.compensates(BookRoom)
async def free_room(command: FreeRoom, booked: RoomBooked, tx: Transaction) -> None:
    note(tx, f"{booked.room} freed")


@airline.handles(BookSeat)
async def book_seat(command: BookSeat, tx: Transaction) -> SeatBooked:
    note(tx, "a seat")
    return SeatBooked(seat="7a")


@airline.compensates(BookSeat)
async def free_seat(command: FreeSeat, booked: SeatBooked, tx: Transaction) -> None:
    note(tx, f"{booked.seat} freed")


@bank.handles(ChargeCard)
async def charge_card(command: ChargeCard, tx: Transaction) -> CardCharged:
    note(tx, "a charge")
    if tx.saga_id == "poor":
        raise Refused("no money")
    if tx.saga_id == "unlucky":
        raise Unavailable("closed")
    return CardCharged(payment="p-1")


@bank.compensates(ChargeCard)
async def refund_card(command: RefundCard, charged: CardCharged, tx: Transaction) -> None:
    note(tx, "a refund")
