"""The ledger that each service keeps beside its state: append-only, one line an effect, to be counted afterwards."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, String, Table, func, insert

from antiphon.participants import Transaction


def ledger_table(metadata: MetaData) -> Table:
    """A table for what was done: who (`account`), what (`entry`), how many, for which saga, when.

    No constraint keeps a saga from having two lines of a kind. The inbox has to prevent that, and the reconciliation
    must be able to see if it did not.
    """
    return Table(
        "ledger",
        metadata,
        # SQLite numbers rows by itself only where the type is exactly INTEGER.
        Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("saga", String, nullable=False),
        Column("entry", String, nullable=False),
        Column("account", String, nullable=False),
        Column("amount", BigInteger, nullable=False),  # pieces, cents or parcels; negative where an effect is undone
        Column("reference", String, nullable=False),  # the reservation, charge or shipment
        Column("idempotency_key", String, nullable=False),  # of the command that had it done
    )


async def write_line(tx: Transaction, ledger: Table, entry: str, account: str, amount: int, reference: str) -> None:
    """Append a line for the saga of this transaction."""
    line = {
        "saga": f"{tx.saga_type}/{tx.saga_id}",
        "entry": entry,
        "account": account,
        "amount": amount,
        "reference": reference,
        "idempotency_key": tx.idempotency_key,
    }
    await tx.execute(insert(ledger).values(line))
