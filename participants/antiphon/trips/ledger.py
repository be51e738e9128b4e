"""The ledger that each service keeps beside its state: append-only, one line an effect, to be counted afterwards."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, String, Table, func, insert

from antiphon.participants import Transaction


def ledger_table(metadata: MetaData) -> Table:
    """A table for what was done: for which trip, by which step of which saga, what (`account`), how much, when.

    It has the step, because one saga books several seats; and the trip, because a transfer is a saga of its own. No
    constraint keeps a step from having two lines. The inbox has to prevent that, and the reconciliation must be able to
    see if it did not.
    """
    return Table(
        "ledger",
        metadata,
        # SQLite numbers rows by itself only where the type is exactly INTEGER.
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("saga", String, nullable=False),
        Column("step", String, nullable=False),  # of an element of a list with its number: seats-0
        Column("trip_id", String, nullable=False),
        Column("account", String, nullable=False),
        Column("amount", BigInteger, nullable=False),  # seats, bags, nights, cars or cents; negative where it is undone
        Column("reference", String, nullable=False),  # the seat, booking or charge
    )


async def write_line(tx: Transaction, ledger: Table, trip_id: str, account: str, amount: int, reference: str) -> None:
    """Append a line for the step of this transaction.

    Args:
        tx: where.
        ledger: the service's.
        trip_id: whose trip it is.
        account: what there is more or less of now.
        amount: how much; negative where an effect is undone.
        reference: what it is called.
    """
    line = {
        "saga": f"{tx.saga_type}/{tx.saga_id}",
        "step": tx.step,
        "trip_id": trip_id,
        "account": account,
        "amount": amount,
        "reference": reference,
    }
    await tx.execute(insert(ledger).values(line))
