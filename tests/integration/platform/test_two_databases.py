"""Two processes of one participant that use different databases by mistake, and a database that is older than the
journals: what was done is taken back by whoever knows of it, and nobody says that there was nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from antiphon.contracts import Command, Compensation, Event, Refused, Retry
from antiphon.coordinator import Saga, State
from antiphon.participants import Participant, Transaction, Worker, open_database
from antiphon.participants.procedures import ROW_IS_MISSING
from tests.integration.platform.test_coordinator import Company, company
from tests.integration.platform.test_refunds import stuck

SAGAS = 20
SOON = Retry(attempts=1, first_seconds=0.05, factor=1, cap_seconds=0.05)
ONCE = Retry(attempts=1)


class Asked(Event, name="goods.asked"):
    number: int


class Reserved(Event, name="shelf.reserved", owner="shelf"):
    number: int


class Reserve(Command[Reserved], name="shelf.reserve"):
    number: int


class Release(Compensation[Reserve], name="shelf.release"):
    number: int


class Packed(Event, name="shelf.packed", owner="shelf"):
    pass


class Pack(Command[Packed], name="shelf.pack"):
    pass


GOODS = Saga(Asked, name="goods", version=1, deadline=timedelta(days=1), backoff=SOON, compensation_retry=ONCE)


@GOODS.step()
def reserve(s: State[Asked]) -> Reserve:
    return Reserve(number=s.start.number)


@reserve.compensation
def release(s: State[Asked]) -> Release:
    return Release(number=s.start.number)


@GOODS.step(after=reserve, needs_no_compensation=True)
def pack(s: State[Asked]) -> Pack:
    return Pack()


def shelf(taken: Counter[int]) -> Participant:
    participant = Participant("shelf")

    @participant.handles(Reserve)
    async def take(command: Reserve, tx: Transaction) -> Reserved:
        taken[command.number] += 1
        return Reserved(number=command.number)

    @participant.compensates(Reserve)
    async def put_back(command: Release, reserved: Reserved, tx: Transaction) -> None:
        taken[command.number] -= 1

    @participant.handles(Pack)
    async def refuse(command: Pack, tx: Transaction) -> Packed:
        raise Refused("no box is left")

    return participant


async def works(there: Company, stack: AsyncExitStack, participant: Participant, file: Path) -> Worker:
    """A process of the participant with this database."""
    database = open_database(f"sqlite:///{file}")
    await database.open(participant.tables)
    stack.push_async_callback(database.close)
    worker = Worker(participant, await there.link("shelf"), database)
    await worker.start()
    stack.push_async_callback(worker.drain, 5.0)
    return worker


async def test_what_one_process_has_done_another_one_with_its_own_database_does_not_call_nothing(
    tmp_path: Path,
) -> None:
    taken: Counter[int] = Counter()
    async with company(tmp_path, "plain", ("shelf",)) as there, AsyncExitStack() as stack:
        await there.coordinate(sagas=[GOODS])
        for name in ("one", "two"):
            await works(there, stack, shelf(taken), tmp_path / f"{name}.db")
        client = await there.client()
        handles = [await client.start(GOODS, Asked(number=n), id=f"goods-{n}") for n in range(SAGAS)]
        outcomes = await asyncio.gather(*(handle.result(timeout=240) for handle in handles))
    assert {each.outcome for each in outcomes} == {"compensated"}
    assert +taken == {}


async def test_a_database_that_is_older_than_the_journals_says_so_and_waits_for_a_person(tmp_path: Path) -> None:
    taken: Counter[int] = Counter()
    async with company(tmp_path, "plain", ("shelf",)) as there, AsyncExitStack() as stack:
        await there.coordinate(sagas=[GOODS])
        first = await works(there, stack, _without_pack(taken), tmp_path / "today.db")
        client = await there.client()
        handle = await client.start(GOODS, Asked(number=1), id="goods-1")
        async with asyncio.timeout(120):
            while not taken[1]:
                await asyncio.sleep(0.05)
        await first.drain(5.0)
        await works(there, stack, shelf(taken), tmp_path / "yesterday.db")
        await stuck(handle)
        assert ROW_IS_MISSING in (await handle.status()).parked
        ada = (await there.client("operator")).operator("ada", timeout=120)
        await ada.saga(GOODS, handle.id).resolve("reserve", "put back by hand")
        assert (await handle.result(timeout=120)).outcome == "compensated"
    assert taken[1] == 1


def _without_pack(taken: Counter[int]) -> Participant:
    """One that reserves, and has no handler yet for what comes next."""
    participant = Participant("shelf")

    @participant.handles(Reserve)
    async def take(command: Reserve, tx: Transaction) -> Reserved:
        taken[command.number] += 1
        return Reserved(number=command.number)

    @participant.compensates(Reserve)
    async def put_back(command: Release, reserved: Reserved, tx: Transaction) -> None:
        raise AssertionError("it does not run here")

    return participant
