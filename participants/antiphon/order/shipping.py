"""The shipping service: one carrier a country, who is told to fetch a parcel."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    event,
    insert,
    select,
    update,
)

from antiphon.contracts import Refused
from antiphon.participants import Participant, Transaction

from .ledger import ledger_table, write_line
from .messages import ScheduleShipping, ShippingScheduled

CARRIERS: Final = {
    "Alpenbote": ("AT", "CH", "IT"),
    "Nordpaket": ("DE", "DK", "PL", "SE", "CZ"),
    "Quai Express": ("BE", "ES", "FR", "NL"),
}
POST_OFFICE_BOX: Final = "PO Box "

tables = MetaData()
routes = Table(
    "routes",
    tables,
    Column("country", String, primary_key=True),
    Column("carrier", String, nullable=False),
    Column("parcels", Integer, nullable=False),
    CheckConstraint("parcels >= 0"),
)
ledger = ledger_table(tables)

shipping = Participant("shipping", tables=tables)


@shipping.handles(ScheduleShipping)
async def schedule(command: ScheduleShipping, tx: Transaction) -> ShippingScheduled:
    """Book the parcel with the carrier who serves its country.

    The saga's pivot: there is no way back, so nothing compensates it. If its answer is late the inbox is asked whether
    it happened, which needs no code here.
    """
    return await book(command.order_id, command.country, command.address, tx)


async def book(order_id: str, country: str, address: str, tx: Transaction) -> ShippingScheduled:
    """Put a parcel on the list of the carrier who serves its country."""
    carrier = (await tx.execute(select(routes.c.carrier).where(routes.c.country == country))).scalar_one_or_none()
    if carrier is None:
        raise Refused(f"undeliverable: no carrier goes to {country}")
    if address.startswith(POST_OFFICE_BOX):
        raise Refused(f"undeliverable: {carrier} hands parcels to people only, and the address is a post office box")
    await tx.execute(update(routes).where(routes.c.country == country).values(parcels=routes.c.parcels + 1))
    shipment_id = f"shipment-{order_id}"
    await write_line(tx, ledger, "scheduled", country, 1, shipment_id)
    return ShippingScheduled(shipment_id=shipment_id, country=country, carrier=carrier)


@event.listens_for(routes, "after_create")
def agree_with_the_carriers(_: Table, connection: Connection, **__: Any) -> None:
    """Give a new database the routes of all carriers."""
    connection.execute(
        insert(routes),
        [
            {"country": country, "carrier": carrier, "parcels": 0}
            for carrier, countries in CARRIERS.items()
            for country in countries
        ],
    )
