"""How a participant is wired, rightly and wrongly."""

from __future__ import annotations

from antiphon.contracts import Command, Compensation, Event
from antiphon.participants import Participant, Transaction


class Reserved(Event, name="stock.reserved", owner="stock"):
    reservation_id: str


class Counted(Event, name="stock.counted", owner="stock"):
    pieces: int


class Reserve(Command[Reserved], name="stock.reserve"):
    pieces: int


class Count(Command[Counted], name="stock.count"):
    pass


class Release(Compensation[Reserve], name="stock.release"):
    reason: str


stock = Participant("stock")


@stock.handles(Reserve)
async def reserve(command: Reserve, tx: Transaction) -> Reserved:
    return Reserved(reservation_id=f"{tx.saga_id}-{command.pieces}")


@stock.handles(Count, concurrency=2)
async def count(command: Count, tx: Transaction) -> Counted:
    await tx.connection.exec_driver_sql("SELECT 1")
    return Counted(pieces=1)


@stock.compensates(Reserve)
async def release(command: Release, reserved: Reserved, tx: Transaction) -> None:
    print(command.reason, reserved.reservation_id, tx.idempotency_key)


@stock.handles(Reserve)  # error: arg-type, reportArgumentType
async def answers_with_another_event(command: Reserve, tx: Transaction) -> Counted:
    return Counted(pieces=1)


@stock.handles(Reserve)  # error: arg-type, reportArgumentType
async def takes_another_command(command: Count, tx: Transaction) -> Reserved:
    return Reserved(reservation_id="r")


@stock.handles(Reserve)  # error: arg-type, reportArgumentType
async def answers_with_nothing(command: Reserve, tx: Transaction) -> None:
    pass


@stock.handles(Reserve)  # error: arg-type, reportArgumentType
async def takes_no_transaction(command: Reserve) -> Reserved:
    return Reserved(reservation_id="r")


@stock.handles(Reserve)  # error: arg-type, reportArgumentType
def does_not_wait(command: Reserve, tx: Transaction) -> Reserved:
    return Reserved(reservation_id="r")


@stock.handles(Reserved)  # error: type-var, reportArgumentType
async def handles_an_event(command: Reserved, tx: Transaction) -> Reserved:
    return command


@stock.compensates(Reserve)  # error: arg-type, reportArgumentType
async def expects_another_answer(command: Release, counted: Counted, tx: Transaction) -> None:
    pass


@stock.compensates(Reserve)  # error: type-var, reportArgumentType
async def takes_a_command(command: Reserve, reserved: Reserved, tx: Transaction) -> None:
    pass


@stock.compensates(Reserve)  # error: arg-type, reportArgumentType
async def answers_a_compensation(command: Release, reserved: Reserved, tx: Transaction) -> Reserved:
    return reserved
