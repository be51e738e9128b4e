"""Sagas over a real server, in both of its forms: clients, coordinators, and participants played over raw links."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.contracts import AlreadyStarted, PlatformError, SagaKey, StillRunning, UnknownSaga, WrongShape, subjects
from antiphon.contracts.errors import BadIdentity
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import EVENTS, PARKED, SAGA
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.decision.entries import read_entry
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.serve import Attached, attach
from antiphon.link import Link
from antiphon.link.setup import api
from tests.support.raw_worker import Close, Play, RawWorker, answer_message, willing, yielding
from tests.support.server import FORMS_AND_PAIRS, Form, Platform, platform
from tests.support.trip import ASKED, PARTICIPANTS, TRIP, TripAsked, make_trip

HASTY = make_trip(name="hasty", deadline=timedelta(seconds=1))
ROOT = Path(__file__).parents[3]


def declined(command: CommandAddress) -> AnswerKind | None:
    """The card is declined, everything else succeeds."""
    return "refused" if (command.step, command.direction) == ("charge_card", "do") else "done"


def idle(command: CommandAddress) -> AnswerKind | None:
    """No step is answered, only compensations."""
    return "done" if command.direction == "undo" else None


class Company:
    """Everybody there is on one server."""

    def __init__(self, up: Platform, stack: AsyncExitStack) -> None:
        self.up, self._stack = up, stack
        self.attached: list[Attached] = []
        self.worker = RawWorker({})

    async def link(self, user: str) -> Link:
        link = await self.up.connect(user)
        self._stack.push_async_callback(link.close)
        return link

    async def coordinate(self, idle_seconds: float = 1800.0, sagas: Sequence[Saga[Any]] = ()) -> Coordinator:
        link = await self.link("coordinator")
        definitions = [saga.definition for saga in sagas or (TRIP, HASTY)]
        coordinator = Coordinator(JetStreamStore(link), definitions, idle_seconds)
        self.attached.append(await attach(link, coordinator))
        return coordinator

    async def work(self, play: Play = willing, close: Close = yielding) -> None:
        self.worker = RawWorker({name: await self.link(name) for name in PARTICIPANTS}, play, close)
        await self.worker.begin()

    async def client(self, user: str = "client") -> Antiphon:
        credentials = self.up.credentials(user)
        streams = self.up.pairs.count
        coming = Antiphon.connect(self.up.servers, credentials=credentials, streams=streams)
        return await self._stack.enter_async_context(coming)

    async def causes(self, key: SagaKey) -> Counter[str]:
        reader = await self.link("coordinator")
        stored = await reader.read_all(SAGA, [subjects.journal_filter(key)])
        return Counter(read_entry(message.subject, message.sequence, message.data).cause for message in stored)


@asynccontextmanager
async def company(folder: Path, form: Form, participants: tuple[str, ...] = PARTICIPANTS) -> AsyncIterator[Company]:
    with platform(folder, form, participants=participants) as up:
        await up.set_up()
        async with AsyncExitStack() as stack:
            yield Company(up, stack)


@pytest.fixture(params=FORMS_AND_PAIRS)
async def there(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Company]:
    async with company(tmp_path, request.param) as everybody:
        yield everybody


async def test_a_saga_is_started_completes_and_is_seen(there: Company) -> None:
    await there.coordinate()
    await there.work()
    client = await there.client()
    handle = await client.start(TRIP, ASKED, id="t1")
    outcome = await handle.result(timeout=120)
    assert (outcome.outcome, outcome.reason) == ("completed", "")
    status = await handle.status()
    assert (status.state, [step.phase for step in status.steps]) == ("completed", ["done", "done", "done"])
    assert status.definition == TRIP.definition.label
    assert there.worker.steps(handle.key) == ["book_room", "book_seat", "charge_card"]


async def test_a_declined_card_gives_seat_and_room_back(there: Company) -> None:
    await there.coordinate()
    await there.work(declined)
    handle = await (await there.client()).start(TRIP, ASKED, id="t1")
    outcome = await handle.result(timeout=120)
    assert (outcome.outcome, outcome.reason) == ("compensated", "charge_card was refused: refused it was")
    assert there.worker.steps(handle.key, "undo") == ["book_seat", "book_room"]


async def test_a_cancelled_saga_is_compensated(there: Company) -> None:
    await there.coordinate()
    await there.work(idle)
    handle = await (await there.client()).start(TRIP, ASKED, id="t1")
    with pytest.raises(StillRunning):
        await handle.result(timeout=0.2)
    await handle.cancel("changed my mind")
    await handle.cancel("really")
    outcome = await handle.result(timeout=120)
    assert (outcome.outcome, outcome.reason) == ("compensated", "cancelled: changed my mind")


async def test_a_deadline_fires_and_compensates(there: Company) -> None:
    await there.coordinate()
    await there.work(idle)
    handle = await (await there.client()).start(HASTY, ASKED, id="h1")
    outcome = await handle.result(timeout=120)
    assert (outcome.outcome, outcome.reason) == ("compensated", "its deadline passed")
    assert there.worker.steps(handle.key, "undo") == ["book_room"]


async def test_the_same_start_again_is_the_same_saga_and_another_payload_an_error(there: Company) -> None:
    await there.coordinate()
    await there.work()
    client = await there.client()
    first = await client.start(TRIP, ASKED, id="t1")
    await first.result(timeout=120)
    again = await (await there.client()).start(TRIP, ASKED, id="t1")
    assert (await again.result(timeout=120)).outcome == "completed"
    with pytest.raises(AlreadyStarted, match="saga trip/t1 was already started with another payload"):
        await client.start(TRIP, TripAsked(traveller="Bob", nights=2), id="t1")
    assert set(there.worker.acted.values()) == {1}
    assert len(await there.causes(first.key)) == 4


async def test_a_start_that_nobody_could_read_takes_no_id(there: Company) -> None:
    await there.coordinate()
    await there.work()
    client = await there.client()
    with pytest.raises(WrongShape, match="TripAsked: Expected `int`, got `str`"):
        await client.start(TRIP, msgspec.structs.replace(ASKED, nights="two"), id="t1")
    assert (await (await client.start(TRIP, ASKED, id="t1")).result(timeout=120)).outcome == "completed"


STARTER = """
import asyncio, os
from antiphon.coordinator import Antiphon
from tests.support.trip import ASKED, TRIP

async def main():
    async with Antiphon.connect(os.environ["NATS_URL"]) as client:
        handle = await client.start(TRIP, ASKED, id="t1")
        print((await handle.result(timeout=120)).outcome)

asyncio.run(main())
"""


async def test_the_same_start_from_two_processes_begins_one_saga(there: Company) -> None:
    await there.coordinate()
    await there.work()
    environment = {**os.environ, **there.up.environment("client")}
    starters = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", STARTER, stdout=asyncio.subprocess.PIPE, env=environment, cwd=ROOT
        )
        for _ in range(2)
    ]
    answers = [(await starter.communicate())[0] for starter in starters]
    assert answers == [b"completed\n", b"completed\n"]
    assert set(there.worker.acted.values()) == {1}
    assert set((await there.causes(SagaKey.of("trip", "t1"))).values()) == {1}


async def test_what_is_not_there_is_said_in_sentences(there: Company) -> None:
    client = await there.client()
    with pytest.raises(PlatformError, match="no coordinator answers"):
        await client.handle(TRIP, "t1").status()
    await there.coordinate()
    with pytest.raises(UnknownSaga, match="there is no saga trip/t1"):
        await client.handle(TRIP, "t1").status()
    with pytest.raises(BadIdentity, match="saga id 'a b'"):
        await client.start(TRIP, ASKED, id="a b")


async def test_two_coordinators_make_one_decision_a_fact(there: Company) -> None:
    coordinators = [await there.coordinate() for _ in range(2)]
    await there.work(declined)
    client = await there.client()
    handles = [await client.start(TRIP, ASKED, id=f"t{number}") for number in range(40)]
    for handle in handles:
        assert (await handle.result(timeout=120)).outcome == "compensated"
    for handle in handles[::8]:
        causes = await there.causes(handle.key)
        assert set(causes.values()) == {1}
        assert len(causes) == 6
    assert set(there.worker.acted.values()) == {1}
    assert len(coordinators) == 2


async def test_what_is_forged_or_undecodable_is_parked_and_disturbs_nobody(there: Company) -> None:
    await there.coordinate()
    await there.work(idle)
    client = await there.client()
    handle = await client.start(TRIP, ASKED, id="t1")
    airline = await there.link("airline")
    command = CommandAddress(handle.key, "airline", "book_room", "do", 1)
    await airline.store(*answer_message(command, 1, "done"))
    await airline.store(subjects.event_subject(handle.key.path, "airline", "airline-booked", "book_seat", 1), b"\xff")
    reader = await there.link("administrator")
    async with asyncio.timeout(120):
        while len(parked := await reader.read_all(PARKED, ["parked.>"])) < 2:
            await asyncio.sleep(0.01)
    assert {message.subject for message in parked} == {
        "parked.forged.coordinator.airline",
        "parked.undecodable.coordinator.airline",
    }
    await handle.cancel("enough")
    assert (await handle.result(timeout=120)).outcome == "compensated"


async def test_a_server_that_is_killed_in_mid_run_loses_no_saga_and_doubles_no_effect(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        for _ in range(2):
            await there.coordinate(idle_seconds=2.0)
        await there.work(declined)
        client = await there.client()
        handles = []
        for number in range(120):
            if number == 60:
                there.up.server.kill()
                await asyncio.to_thread(there.up.server.start)
            handles.append(await client.start(TRIP, ASKED, id=f"t{number}"))
        for handle in handles:
            assert (await handle.result(timeout=120)).outcome == "compensated"
        for handle in handles[50:70]:
            assert set((await there.causes(handle.key)).values()) == {1}
        reader = await there.link("coordinator")
        starts = await reader.read_all(EVENTS, [subjects.STARTS_FILTER])
        assert len(starts) == len(handles)


async def test_an_id_that_was_purged_but_for_its_end_is_told_from_another_start_of_it(there: Company) -> None:
    await there.coordinate()
    await there.work()
    client, admin = await there.client(), await there.link("administrator")
    handle = await client.start(TRIP, ASKED, id="t1")
    first = await handle.result(timeout=120)
    path, other = handle.key.path, TripAsked(traveller="Bob", nights=9)
    for again, is_same in ((ASKED, True), (other, False)):
        for stream, purged in (("EVENTS", f"evt.{path}.>"), ("SAGA", f"saga.{path}.c.cmd.>")):
            await api(admin, f"STREAM.PURGE.{admin.pairs.stream_of(stream, handle.key)}", {"filter": purged})
        second = await client.start(TRIP, again, id="t1")
        if is_same:
            assert await second.result(timeout=120) == first
        else:
            with pytest.raises(AlreadyStarted, match="trip/t1 was already started with another payload"):
                await second.result(timeout=120)
    assert await client.handle(TRIP, "t1").result(timeout=120) == first
    assert await waiting(admin) == [], "whoever sent the other start was told, and nobody else has to do anything"
    assert [each.subject for each in await admin.read_all("SAGA", [subjects.journal_filter(handle.key)])] == [
        subjects.end_subject(handle.key)
    ]
