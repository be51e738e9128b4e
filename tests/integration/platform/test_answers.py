"""Each participant's answers reach coordinators by a consumer of their own: of participants that come and go while
coordinators run, beside coordinators of the release before, and past the flood of another participant."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.identity import CLIENT
from antiphon.contracts.topology import (
    EVENTS,
    FACT_CONSUMERS,
    FORMER_ANSWERS,
    PARKED,
    answers_consumer_name,
    former_answers_consumer,
)
from antiphon.coordinator.client.client import Handle
from antiphon.coordinator.runtime import answers
from antiphon.coordinator.runtime.answers import ANSWERS_HELD_MAX, HELD_EACH_MAX, places
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.deploy.admin.rights import EVERYTHING, Rights
from antiphon.deploy.files import write_private
from antiphon.deploy.local.server import Server
from antiphon.link import Link, set_up
from antiphon.link.setup import api
from tests.integration.platform.test_coordinator import Company, company, idle
from tests.integration.platform.test_setting_up import commanded, create
from tests.support.server import until
from tests.support.trip import ASKED, PARTICIPANTS, TRIP

FLOOD = 5_000
AGENT = "agent"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(answers, "REFUSED_SECONDS", 0.5)


def forged(source: str, number: int = 1) -> str:
    """Where a participant stores what it has no command for, in a saga that was never started."""
    return subjects.event_subject(SagaKey.of("trip", f"forged-{number}").path, source, "hotel-booked", "book_room", 1)


async def parked_of(link: Link, source: str) -> None:
    """Wait until a coordinator has parked something that a participant stored."""
    async with asyncio.timeout(60):
        while not await link.read_all(PARKED, [subjects.parked_subject("*", "coordinator", source)]):
            await asyncio.sleep(0.02)


async def pending(link: Link, participant: str) -> int:
    info = await api(link, f"CONSUMER.INFO.{EVENTS}.{answers_consumer_name(participant)}")
    return int(info["num_pending"])


async def test_a_flood_of_one_participant_stands_before_nobody_elses_answers(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        admin, client = await there.link("administrator"), await there.client()
        for number in range(FLOOD):
            admin.send(forged("bank", number), b"x")
            if number % 1000 == 0:
                await admin.flushed()
        await admin.flushed()
        await there.coordinate()
        await there.work(lambda command: "done" if command.step != "charge_card" else None)
        handle = await client.start(TRIP, ASKED, id="t1")
        async with asyncio.timeout(60):
            while not any(".charge_card." in each for each in await commands(admin, handle.key)):
                await asyncio.sleep(0.01)
        assert await pending(admin, "bank") > 0, "hotel and airline were heard before bank's flood was over"


async def commands(link: Link, key: SagaKey) -> list[str]:
    return [each.subject for each in await link.read_all("SAGA", [subjects.journal_filter(key)])]


async def test_a_participant_that_is_set_up_while_coordinators_run_is_heard_without_a_restart(tmp_path: Path) -> None:
    async with company(tmp_path, "plain") as there:
        await there.coordinate()
        admin = await there.link("administrator")
        await set_up(admin, [AGENT])
        await admin.store(forged(AGENT), b"x")
        await parked_of(admin, AGENT)


async def test_a_consumer_that_is_deleted_costs_nobody_else_anything_and_is_heard_once_it_is_back(
    tmp_path: Path,
) -> None:
    async with company(tmp_path, "plain") as there:
        await there.coordinate()
        admin, client = await there.link("administrator"), await there.client()
        (attached,) = there.attached
        await there.work(idle)
        await api(admin, f"CONSUMER.DELETE.{EVENTS}.{answers_consumer_name('bank')}")
        await until(lambda: ("bank", EVENTS) not in attached.answers.by_consumer, seconds=60)
        handle = await client.start(TRIP, ASKED, id="t1")
        await commanded(admin, handle.key, "do")
        await set_up(admin, [])
        await admin.store(forged("bank"), b"x")
        await parked_of(admin, "bank")


async def test_who_is_set_up_before_the_accounts_know_of_it_is_heard_once_they_do(tmp_path: Path) -> None:
    async with company(tmp_path, "accounts", (*PARTICIPANTS, AGENT)) as there:
        admin = await there.link("administrator")
        await api(admin, f"CONSUMER.DELETE.{EVENTS}.{answers_consumer_name(AGENT)}")
        server, whole = there.up.server, there.up.server.accounts
        await reloaded(server, Rights(PARTICIPANTS, {CLIENT: [EVERYTHING]}).config())
        with capture_logs() as lines:
            await there.coordinate()
            await set_up(admin, [])
            await admin.store(forged(AGENT), b"x")
            await until(lambda: [line for line in lines if line["event"] == "participant.refused"], seconds=60)
        (line,) = [line for line in lines if line["event"] == "participant.refused"]
        assert line["participant"] == AGENT
        assert answers_consumer_name(AGENT) in line["reason"]
        await admin.store(forged("hotel"), b"x")
        await parked_of(admin, "hotel")
        await reloaded(server, whole)
        await parked_of(admin, AGENT)


async def reloaded(server: Server, accounts: str) -> None:
    """Have a server take other accounts."""
    sign = "Reloaded server configuration"
    before = server.log.read_text().count(sign)
    server.accounts = accounts
    write_private(server.folder / "nats.conf", server.config())
    server.send_signal(signal.SIGHUP)
    await until(lambda: server.log.read_text().count(sign) > before, seconds=60, what="a reload")


# --- how much is held -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("participants", [0, 1, 3, 4, 5, 50, 400, 1000])
def test_shares_are_equal_and_together_no_more_than_may_be_held(participants: int) -> None:
    each = places(participants)
    assert 1 <= each <= HELD_EACH_MAX
    assert each * participants <= max(ANSWERS_HELD_MAX, participants)


async def test_whoever_comes_has_an_equal_share_of_the_places(tmp_path: Path) -> None:
    many = [f"p{number}" for number in range(17)]
    async with company(tmp_path, "plain") as there:
        await there.coordinate()
        (attached,) = there.attached
        pulls = attached.answers.by_consumer
        assert {pull.capacity for pull in pulls.values()} == {HELD_EACH_MAX}
        await set_up(await there.link("administrator"), many)
        await until(lambda: len(pulls) == len(many) + len(PARTICIPANTS), seconds=60)
        assert {pull.capacity for pull in pulls.values()} == {ANSWERS_HELD_MAX // 20}


# --- beside coordinators of the release before ------------------------------------------------------------------------


async def coordinate_as_the_release_before(there: Company) -> Link:
    """A coordinator that pulls all participants' answers from the one consumer that there was for them."""
    link = await there.link("coordinator")
    coordinator = Coordinator(JetStreamStore(link), [TRIP.definition])
    loaded = asyncio.Event()
    coordinator.begin(loaded.set)
    await link.until(loaded)
    for name in (FORMER_ANSWERS, *(each.name for each in FACT_CONSUMERS)):
        await link.pull(EVENTS, name, 100, coordinator.on_fact)
    return link


@pytest.mark.parametrize("form", ["plain", "accounts"])
async def test_sagas_end_with_coordinators_of_both_releases_and_with_those_of_either_alone(
    form: str, tmp_path: Path
) -> None:
    async with company(tmp_path, "plain" if form == "plain" else "accounts") as there:
        admin, client = await there.link("administrator"), await there.client()
        await create(admin, former_answers_consumer(PARTICIPANTS))
        await there.work()
        old = await coordinate_as_the_release_before(there)
        await complete(there, [await client.start(TRIP, ASKED, id=f"old-{number}") for number in range(5)])
        await there.coordinate()
        handles = [await client.start(TRIP, ASKED, id=f"both-{number}") for number in range(20)]
        await complete(there, handles)
        under_way = [await client.start(TRIP, ASKED, id=f"new-{number}") for number in range(5)]
        await old.close()
        await complete(there, under_way)


async def complete(there: Company, handles: list[Handle]) -> None:
    """Wait until sagas have completed, and require that no fact counted twice."""
    for handle in handles:
        assert (await handle.result(timeout=60)).outcome == "completed"
        assert max((await there.causes(handle.key)).values()) == 1
