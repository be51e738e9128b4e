"""The administrator's step, on a platform that runs: what coordinators hear afterwards, and what they heard before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.errors import PlatformError, StreamMissing
from antiphon.contracts.registration import Capabilities, Registration
from antiphon.contracts.subjects import journal_filter
from antiphon.contracts.topology import (
    CLIENT_FACTS,
    EVENTS,
    FACT_CONSUMERS,
    FORMER_ANSWERS,
    FORMER_FACTS,
    PARKED,
    SAGA,
    STARTS,
    STREAMS,
    SWEEPER,
    Consumer,
    answers_consumer_name,
    former_answers_consumer,
    participant_consumers,
)
from antiphon.coordinator.definition.capabilities import capabilities_of
from antiphon.coordinator.runtime.serve import say_who_is_unheard
from antiphon.link import Delivery, Link, set_up
from antiphon.link import registration as registering
from antiphon.link.registration import registered
from antiphon.link.setup import (
    api,
    forget_former_facts,
    former_consumers,
    former_coordinators,
    heard,
    require_answers,
)
from tests.integration.platform.test_coordinator import company, idle
from tests.support.server import platform, until
from tests.support.trip import ASKED, PARTICIPANTS, TRIP

KEY = SagaKey.of("trip", "t1")
HOTEL, AIRLINE = answers_consumer_name("hotel"), answers_consumer_name("airline")


@asynccontextmanager
async def administrator(folder: Path, *participants: str) -> AsyncIterator[Link]:
    with platform(folder, participants=participants) as up:
        link = await up.connect("administrator")
        try:
            yield link
        finally:
            await link.close()


def event(source: str, number: int = 1) -> str:
    return subjects.event_subject(KEY.path, source, "told", "say", number)


async def info(link: Link, consumer: str) -> dict[str, Any]:
    return await api(link, f"CONSUMER.INFO.{EVENTS}.{consumer}")


async def delivered(link: Link, consumer: str, count: int) -> list[str]:
    """The first messages of a consumer, which are acked, and no more than are expected."""
    seen: list[str] = []

    def take(delivery: Delivery) -> None:
        seen.append(delivery.subject)
        delivery.ack()

    pull = await link.pull(EVENTS, consumer, 50, take)
    await until(lambda: len(seen) >= count)
    await pull.drain()
    assert (await info(link, consumer))["num_pending"] == 0
    return seen


async def test_every_fact_is_heard_by_one_consumer_and_each_kind_by_its_own(tmp_path: Path) -> None:
    parent, lock = SagaKey.of("trip", "parent"), SagaKey.of("lock", "any")
    stored = {
        STARTS: [subjects.start_subject(KEY), subjects.start_subject(parent, "coordinator")],
        CLIENT_FACTS: [
            subjects.cancel_subject(KEY),
            subjects.signal_subject(KEY, "cleared"),
            "evt.1.x.y.client.a.b.c.d",
        ],
        HOTEL: [event("hotel"), f"{event('hotel')}.more", f"evt.{KEY.path}.hotel.start"],
        AIRLINE: [event("airline")],
        "coordinator-operators": [subjects.verb_subject(KEY, "ann", "retry", "k1")],
        "coordinator-peers": [
            subjects.cancel_subject(KEY, "coordinator"),
            subjects.release_subject(KEY),
            subjects.child_subject(parent, "completed", "again", 1),
            subjects.ask_subject(lock, KEY),
            subjects.free_subject(lock, KEY),
            subjects.granted_subject(KEY, lock),
        ],
    }
    async with administrator(tmp_path) as link:
        await set_up(link, ["hotel", "airline"])
        for subject in (subject for kind in stored.values() for subject in kind):
            await link.store(subject, b"{}")
        assert {*(each.name for each in FACT_CONSUMERS), HOTEL, AIRLINE} == set(stored)
        for consumer, wanted in stored.items():
            assert await delivered(link, consumer, len(wanted)) == wanted


async def test_who_is_set_up_later_is_heard_and_nobody_is_heard_no_more(tmp_path: Path) -> None:
    async with administrator(tmp_path) as link:
        await set_up(link, [])
        assert await heard(link) == set()
        await link.store(event("hotel"), b"{}")
        await set_up(link, ["hotel"])
        await set_up(link, ["airline"])
        await set_up(link, [])
        assert await heard(link) == {"hotel", "airline"}
        assert await delivered(link, HOTEL, 1) == [event("hotel")]


async def test_what_is_pending_and_held_is_not_lost_when_somebody_comes(tmp_path: Path) -> None:
    async with administrator(tmp_path) as link:
        await set_up(link, ["hotel"])
        for number in (1, 2, 3):
            await link.store(event("hotel", number), b"{}")
        held: list[Delivery] = []
        pull = await link.pull(EVENTS, HOTEL, 2, held.append)
        await until(lambda: len(held) == 2)
        await set_up(link, ["hotel", "airline"])
        found = await info(link, HOTEL)
        assert (found["num_ack_pending"], found["num_pending"]) == (2, 1)
        held[0].ack()
        held[1].hand_back()
        await pull.drain()
        assert sorted(await delivered(link, HOTEL, 2)) == [event("hotel", 2), event("hotel", 3)]


async def test_two_administrators_at_once_lose_nobody(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(8)]
    async with administrator(tmp_path) as link:
        await set_up(link, [])
        await asyncio.gather(*(set_up(link, [name]) for name in names))
        assert await heard(link) == set(names)


async def test_a_coordinator_says_which_of_its_participants_nobody_set_up(tmp_path: Path) -> None:
    async with administrator(tmp_path) as link:
        await set_up(link, ["hotel"])
        with structlog.testing.capture_logs() as lines:
            await say_who_is_unheard(link, [TRIP.definition])
        (line,) = lines
        assert (line["event"], line["participants"]) == ("participants.unheard", ["airline", "bank"])
        assert line["remedy"].endswith("antiphon setup --participant airline --participant bank")
        await set_up(link, PARTICIPANTS)
        with structlog.testing.capture_logs() as lines:
            await say_who_is_unheard(link, [TRIP.definition])
        assert lines == []


# --- beside coordinators of an earlier release ------------------------------------------------------------------------


async def of_the_former_release(link: Link) -> None:
    """The platform as the release before set it up, on which a coordinator has done two of four facts."""
    for stream in STREAMS:
        settings = {"discard": "old", "max_msgs_per_subject": 10_000, "discard_new_per_subject": False}
        await api(link, f"STREAM.CREATE.{stream.name}", stream.config(1) | (settings if stream.name == PARKED else {}))
    former = Consumer(stream=EVENTS, name=FORMER_FACTS, filters=(subjects.EVENTS_FILTER,), ack_wait_seconds=5.0)
    await api(link, f"CONSUMER.CREATE.{EVENTS}.{FORMER_FACTS}", {"stream_name": EVENTS, "config": former.config()})
    for name in ("hotel", "hotel-undo"):
        config = Consumer(stream="SAGA", name=name, filters=(f"saga.{name}",), ack_wait_seconds=5.0).config()
        await api(link, f"CONSUMER.CREATE.SAGA.{name}", {"stream_name": "SAGA", "config": config})
    for number in range(1, 5):
        await link.store(event("hotel", number), b"{}")
    held: list[Delivery] = []
    pull = await link.pull(EVENTS, FORMER_FACTS, 4, held.append)
    await until(lambda: len(held) == 4)
    for delivery in held[:2]:
        delivery.ack()
    await until_acked(link, 2)
    await pull.drain()


async def until_acked(link: Link, sequence: int, consumer: str = FORMER_FACTS) -> None:
    async with asyncio.timeout(120):
        while (await info(link, consumer))["ack_floor"]["stream_seq"] < sequence:
            await asyncio.sleep(0.01)


async def test_the_new_consumers_begin_behind_what_the_former_one_has_done(tmp_path: Path) -> None:
    async with administrator(tmp_path) as link:
        await of_the_former_release(link)
        for _ in range(2):  # the second time where the consumers are there
            await set_up(link, [])
        assert await heard(link) == {"hotel"}, "it had consumers, though nobody named it now"
        assert await delivered(link, HOTEL, 2) == [event("hotel", 3), event("hotel", 4)]
        assert (await info(link, FORMER_FACTS))["config"]["filter_subjects"] == [subjects.EVENTS_FILTER]
        parked = (await api(link, f"STREAM.INFO.{PARKED}"))["config"]
        assert (parked["discard"], parked["max_msgs_per_subject"]) == ("new", 1000)


async def test_the_former_consumer_goes_on_demand_once_no_coordinator_of_its_release_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = capabilities_of([TRIP.definition])
    async with administrator(tmp_path) as link:
        await of_the_former_release(link)
        await set_up(link, [])
        async with registered(link, serving):
            await until_registered(link, 1)
            assert await former_coordinators(link) == 0, "this one is of the new release"
            monkeypatch.setattr(registering, "registration_of", of_release_one)
            async with registered(link, serving):
                await until_registered(link, 2)
                assert await former_coordinators(link) == 1
                with pytest.raises(PlatformError, match="coordinators of an earlier release run, 1 as far as"):
                    await forget_former_facts(link)
        await until_registered(link, 0)
        pull = await link.pull(EVENTS, FORMER_FACTS, 1, lambda delivery: None)
        assert await pull.is_accepted()
        with pytest.raises(PlatformError, match="need consumer coordinator"):
            await forget_former_facts(link)
        await pull.drain()
        async with asyncio.timeout(120):
            while await former_coordinators(link):
                await asyncio.sleep(0.01)
        await forget_former_facts(link)
        assert await former_consumers(link) == []
        await forget_former_facts(link)


async def of_the_release_before(link: Link) -> None:
    """The platform as the release before this one set it up, on which a coordinator has done two of hotel's four facts,
    and has a fifth, of airline, before it."""
    await set_up(link, [])
    for name in ("hotel", "airline"):
        for consumer in participant_consumers(name):
            await create(link, consumer)
    await create(link, former_answers_consumer(["hotel", "airline"]))
    for number in range(1, 5):
        await link.store(event("hotel", number), b"{}")
    await link.store(event("airline"), b"{}")
    held: list[Delivery] = []
    pull = await link.pull(EVENTS, FORMER_ANSWERS, 4, held.append)
    await until(lambda: len(held) == 4)
    for delivery in held[:2]:
        delivery.ack()
    await until_acked(link, 2, FORMER_ANSWERS)
    await pull.drain()


async def create(link: Link, consumer: Consumer) -> None:
    body = {"stream_name": consumer.stream, "config": consumer.config()}
    assert "error" not in await api(link, f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}", body)


async def test_each_participants_consumer_begins_behind_what_the_one_for_all_has_done(tmp_path: Path) -> None:
    async with administrator(tmp_path) as link:
        await of_the_release_before(link)
        await link.store(event("agent"), b"{}")
        with pytest.raises(StreamMissing, match="antiphon setup --participant airline"):
            await require_answers(link)
        for _ in range(2):  # the second time where the consumers are there
            await set_up(link, ["agent"])
        await require_answers(link)
        assert await heard(link) == {"hotel", "airline", "agent"}
        assert await delivered(link, HOTEL, 2) == [event("hotel", 3), event("hotel", 4)]
        assert await delivered(link, AIRLINE, 1) == [event("airline")]
        assert await delivered(link, answers_consumer_name("agent"), 1) == [event("agent")], "it was heard by nobody"
        left = (await info(link, FORMER_ANSWERS))["config"]["filter_subjects"]
        assert left == [subjects.source_filter(name) for name in ("agent", "airline", "hotel")], (
            "the others hear it, too"
        )


async def test_the_consumer_for_all_answers_goes_on_demand_once_nobody_pulls_from_it(tmp_path: Path) -> None:
    async with administrator(tmp_path) as link:
        await of_the_release_before(link)
        await set_up(link, [])
        assert await former_consumers(link) == [FORMER_ANSWERS]
        pull = await link.pull(EVENTS, FORMER_ANSWERS, 1, lambda delivery: None)
        assert await pull.is_accepted()
        with pytest.raises(PlatformError, match=r"need consumer coordinator-answers\. Stop them first"):
            await forget_former_facts(link)
        await pull.drain()
        async with asyncio.timeout(120):
            while await former_coordinators(link):
                await asyncio.sleep(0.01)
        await forget_former_facts(link)
        assert await former_consumers(link) == []
        assert await heard(link) == {"hotel", "airline"}


def of_release_one(capabilities: Capabilities, instance: str, **later: object) -> Registration:
    return Registration(
        name=capabilities.name,
        sagas=capabilities.sagas,
        instance=instance or "old-1",
        started=datetime.fromisoformat("2026-11-25T09:15:00Z"),
    )


async def until_registered(link: Link, count: int) -> None:
    async with asyncio.timeout(120):
        while True:
            found = await link.read_all("KV_ANTIPHON_PARTICIPANTS", [subjects.REGISTRATIONS_FILTER])
            if sum(bool(each.data) for each in found) == count:
                return
            await asyncio.sleep(0.01)


# --- one kind of facts that stands still ------------------------------------------------------------------------------


async def test_starts_that_wait_in_their_consumer_hold_up_nobody_elses_facts(tmp_path: Path) -> None:
    """A consumer that is paused stands for one with a flood in it."""
    async with company(tmp_path, "plain") as there:
        await there.coordinate()
        await there.work(idle)
        client, admin = await there.client(), await there.link("administrator")
        first = await client.start(TRIP, ASKED, id="t1")
        await commanded(admin, first.key, "do")
        for consumer in (STARTS, SWEEPER):
            await api(admin, f"CONSUMER.PAUSE.{EVENTS}.{consumer}", {"pause_until": "2200-01-01T00:00:00Z"})
        second = await client.start(TRIP, ASKED, id="t2")
        for handle in (first, second):  # and of the second one nobody has heard the start
            await handle.cancel("enough")
            await commanded(admin, handle.key, "undo")


async def commanded(link: Link, key: SagaKey, direction: str) -> None:
    """Wait for a command of a saga."""
    async with asyncio.timeout(120):
        while not any(f".{direction}." in each.subject for each in await link.read_all(SAGA, [journal_filter(key)])):
            await asyncio.sleep(0.01)
