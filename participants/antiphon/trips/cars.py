"""The car service: cars at airports, and drivers for them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, Connection, Integer, MetaData, String, Table, event, insert, update

from antiphon.contracts import Refused
from antiphon.participants import Participant, Transaction

from .data import load_places
from .ledger import ledger_table, write_line
from .messages import (
    AssignDriver,
    CarReserved,
    DismissDriver,
    DriverAssigned,
    ReleaseCar,
    ReserveCar,
)

tables = MetaData()
fleet = Table(
    "fleet",
    tables,
    Column("destination", String, primary_key=True),
    Column("cars_initial", Integer, nullable=False),
    Column("drivers_initial", Integer, nullable=False),
    Column("cars", Integer, nullable=False),  # that are free
    Column("drivers", Integer, nullable=False),
    CheckConstraint("cars BETWEEN 0 AND cars_initial"),
    CheckConstraint("drivers BETWEEN 0 AND drivers_initial"),
)
ledger = ledger_table(tables)

cars = Participant("cars", tables=tables)


@cars.handles(ReserveCar)
async def reserve(command: ReserveCar, tx: Transaction) -> CarReserved:
    """Reserve a car if one is free."""
    await _take("cars", command.trip_id, command.destination, tx)
    return CarReserved(trip_id=command.trip_id, destination=command.destination)


@cars.compensates(ReserveCar)
async def release(command: ReleaseCar, reserved: CarReserved, tx: Transaction) -> None:
    """Give the car back."""
    await _give_back("cars", reserved.trip_id, reserved.destination, tx)


@cars.handles(AssignDriver)
async def assign(command: AssignDriver, tx: Transaction) -> DriverAssigned:
    """Assign a driver if one is free."""
    await _take("drivers", command.trip_id, command.destination, tx)
    return DriverAssigned(trip_id=command.trip_id, destination=command.destination)


@cars.compensates(AssignDriver)
async def dismiss(command: DismissDriver, assigned: DriverAssigned, tx: Transaction) -> None:
    """Let the driver drive somebody else."""
    await _give_back("drivers", assigned.trip_id, assigned.destination, tx)


async def _take(what: str, trip_id: str, destination: str, tx: Transaction) -> None:
    free = fleet.c[what]
    taken = await tx.execute(update(fleet).where(fleet.c.destination == destination, free > 0).values({free: free - 1}))
    if taken.rowcount == 0:
        raise Refused(f"none of the {what} in {destination} is free")
    await write_line(tx, ledger, trip_id, f"{what} {destination}", 1, trip_id)


async def _give_back(what: str, trip_id: str, destination: str, tx: Transaction) -> None:
    free = fleet.c[what]
    await tx.execute(update(fleet).where(fleet.c.destination == destination).values({free: free + 1}))
    await write_line(tx, ledger, trip_id, f"{what} {destination}", -1, trip_id)


@event.listens_for(fleet, "after_create")
def park_the_cars(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database the cars and drivers of each airport."""
    connection.execute(
        insert(fleet),
        [
            {
                "destination": each.destination,
                "cars_initial": each.cars,
                "drivers_initial": each.drivers,
                "cars": each.cars,
                "drivers": each.drivers,
            }
            for each in load_places()
        ],
    )
