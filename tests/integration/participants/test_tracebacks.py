"""Where nobody has set up logging a traceback tells frames, and no value of a variable, which may be private."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
import structlog

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator import Saga, State
from antiphon.coordinator.testing import rehearse
from antiphon.participants import Participant, Transaction
from antiphon.participants.telling import Telling, authors_traceback
from antiphon.participants.testing import Service

from .stock import tables

PROGRAM = """
import asyncio
from datetime import timedelta
from antiphon.coordinator.testing.rehearsal import rehearse
from antiphon.order.data import load_orders
from antiphon.order.billing import billing
from antiphon.order.inventory import inventory
from antiphon.order.saga import order
from antiphon.order.shipping import shipping
from antiphon.participants.testing import Service

async def main():
    async with Service.open(inventory) as stock, Service.open(billing) as cards, Service.open(shipping) as parcels:
        def begin(*arguments, **options):
            hidden = "hunter" + str(2)
            raise ZeroDivisionError("what went wrong")
        stock.database.begin = begin
        async with rehearse([order], [stock, cards, parcels]) as rehearsal:
            await rehearsal.start(order, load_orders()[0], id="one")
            await rehearsal.run(timedelta(seconds=1))

asyncio.run(main())
"""


def test_tracebacks_of_a_rehearsal_have_no_values() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    told = ran.stdout + ran.stderr
    assert "ZeroDivisionError: what went wrong" in told, told[-2000:]
    assert "hunter2" not in told


class Asked(Event, name="asked"):
    """Somebody asks."""


class Told(Event, name="told", owner="teller"):
    """It was told."""


class Tell(Command[Told], name="tell"):
    """Tell it."""


class Untell(Compensation[Tell], name="untell"):
    """Take it back."""


async def test_a_typo_in_a_handler_is_told_once_in_a_rehearsal_without_the_frames_of_libraries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    structlog.reset_defaults()
    saga, teller = (
        Saga(Asked, name="asking", version=1, deadline=timedelta(hours=1)),
        Participant("teller", tables=tables),
    )

    @saga.step()
    def tell(s: State[Asked]) -> Tell:
        return Tell()

    @tell.compensation
    def untell(s: State[Asked]) -> Untell:
        return Untell()

    @teller.handles(Tell)
    async def on_tell(command: Tell, tx: Transaction) -> Told:
        await tx.execute(tables.tables["effects"].insert().values(whot="a typo"))
        return Told()

    @teller.compensates(Tell)
    async def on_untell(command: Untell, told: Told, tx: Transaction) -> None: ...

    async with Service.open(teller) as service, rehearse([saga], [service]) as rehearsal:
        asked = await rehearsal.start(saga, Asked())
        await rehearsal.run(timedelta(hours=2))
        assert asked.outcome() == "compensated"
    told = capsys.readouterr().out
    assert told.count("Traceback") == told.count("attempt.failed") == 1, told
    assert "in on_tell" in told
    assert told.count('File "') == 1, told
    assert "Unconsumed column names: whot" in told
    assert len(told.splitlines()) <= 10, told


def test_the_frames_of_libraries_are_left_out() -> None:
    with pytest.raises(OSError) as failed:
        subprocess.run(["/no/such/program"], check=False)
    told = authors_traceback(failed.value)
    assert told.count('File "') == 1
    assert "test_tracebacks.py" in told
    assert "FileNotFoundError" in told
    assert Telling().of("a.b.1", "why", KeyError()).keys() == {"exc_info"}  # type: ignore[union-attr]
