"""A shop whose till writes its charges past the transaction that it is given, so that the inbox cannot keep them from
being written twice."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.participants import Participant, Transaction

LEDGER = "ANTIPHON_TEST_CARELESS_LEDGER"
"""The variable that names the file with the charges."""


class Bought(Event, name="till.bought"):
    amount: int


class Charged(Event, name="till.charged", owner="till"):
    amount: int


class Charge(Command[Charged], name="till.charge"):
    amount: int


class Refund(Compensation[Charge], name="till.refund"):
    reason: str


sale = Saga(Bought, name="sale", version=1, deadline=timedelta(hours=1))


@sale.step()
def charge(s: State[Bought]) -> Charge:
    return Charge(amount=s.start.amount)


@charge.compensation
def refund(s: State[Bought]) -> Refund:
    return Refund(reason=s.reason)


till = Participant("till")


@till.handles(Charge)
async def take(command: Charge, tx: Transaction) -> Charged:
    write_down(f"{tx.saga_type}/{tx.saga_id}")
    return Charged(amount=command.amount)


@till.compensates(Charge)
async def give_back(command: Refund, charged: Charged, tx: Transaction) -> None: ...


async def charges(_: str) -> list[tuple[str, str, str, str]]:
    """The till's books, as `chaos.ledger` takes them."""
    return [(saga, "charge", "do", f"line {number}") for number, saga in enumerate(written_down(), 1)]


def write_down(saga: str) -> None:
    with Path(os.environ[LEDGER]).open("a") as ledger:
        ledger.write(f"{saga}\n")


def written_down() -> list[str]:
    return Path(os.environ[LEDGER]).read_text().splitlines()
