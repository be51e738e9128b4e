"""A set-up says first what it would change, loses nothing, makes nothing less safe unasked, and others wait for it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from antiphon.contracts import subjects
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.readmodel_places import Place
from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import EVENTS, SAGA, STREAMS, Bound, Listener
from antiphon.link import Link, applying, set_up
from antiphon.link.applying import TURN, carry_out
from antiphon.link.preview import Desired, LessSafe, Preview, preview
from antiphon.link.setup import NotChanged, api, bounds_set, consumer_configs, stream_configs
from tests.support.commands import run_antiphon
from tests.support.server import Platform, platform, until

KEY = SagaKey.of("trip", "trip-1")
CHARGED, REFUNDED = (f"evt.*.trip.*.bank.{name}.>" for name in ("charged", "refunded"))


@asynccontextmanager
async def administrator(folder: Path) -> AsyncIterator[tuple[Platform, Link]]:
    with platform(folder, participants=()) as up:
        link = await up.connect("administrator")
        try:
            yield up, link
        finally:
            await link.close()


async def setup(up: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run_antiphon, ("setup", *arguments), {**os.environ, "NATS_URL": up.servers})


async def everything(link: Link) -> tuple[Any, ...]:
    """All that is set up on a server, and how much is stored."""
    states = [(await api(link, f"STREAM.INFO.{each.name}")).get("state") for each in STREAMS]
    names = (await api(link, "STREAM.NAMES")).get("streams")
    configs = await stream_configs(link)
    return configs, await consumer_configs(link) if configs else {}, states, names


async def charge(link: Link, event: str, number: int) -> None:
    await link.store(subjects.event_subject(KEY.path, "bank", event, "say", number), b"{}")


async def test_a_dry_run_tells_programs_and_people_what_it_would_change_and_changes_nothing(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (up, link):
        before = await everything(link)
        done = await setup(up, "--participant", "hotel", "--dry-run")
        assert done.returncode == 5
        assert done.stdout.startswith("to be created: streams SAGA, ")
        assert "consumers of SAGA: timers, exporter, hotel, hotel-undo, hotel-close" in done.stdout
        assert await everything(link) == before, "not even for a moment: no stream was counted"
        told = json.loads((await setup(up, "--dry-run", "--json")).stdout)
        assert {each["action"] for each in told["changes"]} == {"created"}
        assert (told["dry_run"], told["refused"], told["events_max_bytes"]) == (True, "", None)

        assert (await setup(up, "--participant", "hotel")).returncode == 0
        config = (await api(link, f"STREAM.INFO.{SAGA}"))["config"]
        await api(link, f"STREAM.UPDATE.{SAGA}", {**config, "max_age": 86_400 * 10**9})
        before = await everything(link)
        done = await setup(up, "--dry-run")
        assert (done.returncode, done.stdout.split("\n")[0]) == (
            5,
            "to be changed: stream SAGA: max_age 86400 s → none",
        )
        told = json.loads((await setup(up, "--dry-run", "--json")).stdout)
        assert [each for each in told["changes"] if each["action"] != "unchanged"] == [
            {
                "kind": "stream",
                "stream": SAGA,
                "name": SAGA,
                "action": "changed",
                "settings": {"max_age": {"from": 86_400 * 10**9, "to": 0}},
                "reductions": [],
            }
        ]
        assert {each["kind"] for each in told["changes"]} == {"stream", "consumer", "bucket"}
        assert await everything(link) == before
        assert (await setup(up)).returncode == 0
        assert (await setup(up, "--dry-run")).returncode == 0


async def test_a_dry_run_only_asks(tmp_path: Path) -> None:
    """What a set-up asks for beforehand, word for word: nothing that creates, changes or deletes."""
    async with administrator(tmp_path) as (up, link):
        await set_up(link, [Listener("hotel", (CHARGED, REFUNDED))])
        await charge(link, "refunded", 1)
        spy, asked = await up.connect("administrator"), list[str]()
        await spy.subscribe("$JS.API.>", lambda subject, reply, data, headers: asked.append(subject))
        await spy.flushed()
        await preview(link, Desired(listeners=(Listener("hotel", (CHARGED,)), Listener("bank")), replicas=1))
        await until(lambda: any("CONSUMER.INFO" in each for each in asked))
        await link.flushed()
        assert {each.split(".")[3] for each in asked} <= {"INFO", "NAMES", "GET"}
        await spy.close()


async def test_a_set_up_that_has_nothing_to_change_writes_nothing(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (up, link):
        await set_up(link, ["hotel"])
        before = await everything(link)
        spy, asked = await up.connect("administrator"), list[str]()
        await spy.subscribe("$JS.API.>", lambda subject, reply, data, headers: asked.append(subject))
        await spy.flushed()
        await set_up(link, ["hotel"])
        await link.flushed()
        await until(lambda: any(each.endswith("coordinator-answers-hotel") for each in asked))
        assert {each.split(".")[3] for each in asked} <= {"INFO", "NAMES"}
        assert await everything(link) == before
        await spy.close()


async def test_fewer_replicas_are_refused_until_they_are_asked_for(tmp_path: Path) -> None:
    with platform(tmp_path, participants=(), nodes=3) as up:
        link = await up.connect("administrator")
        await set_up(link, ["hotel"], replicas=3)
        before = await stream_configs(link)
        done = await setup(up, "--replicas", "1")
        assert done.returncode == 1
        assert "stream SAGA would have 1 replica instead of 3" in done.stderr
        assert "the same command with --allow fewer-replicas" in done.stderr
        assert (await setup(up, "--replicas", "1", "--dry-run")).returncode == 1
        assert await stream_configs(link) == before
        done = await setup(up, "--replicas", "1", "--allow", "fewer-replicas", "--dry-run")
        assert (done.returncode, await stream_configs(link) == before) == (5, True)
        both = setup(up, "--replicas", "1", "--allow", "fewer-replicas"), setup(up, "--participant", "bank")
        assert [done.returncode for done in await asyncio.gather(*both)] == [0, 0]
        found = await stream_configs(link)
        assert {each["num_replicas"] for each in found.values()} == {1}
        async with asyncio.timeout(120):  # a consumer whose copies go may be away for a moment
            while not {"hotel", "bank"} <= {name for _, name in await consumer_configs(link)}:
                await asyncio.sleep(0.1)
        await link.close()


async def test_a_smaller_bound_is_refused_until_it_is_asked_for(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (up, link):
        await set_up(link, [], events_bytes=5_000_000)
        before = await everything(link)
        with pytest.raises(
            LessSafe, match=r"EVENTS might take 4000000 bytes instead of 5000000.*--allow smaller-bounds"
        ):
            await set_up(link, ["hotel"], events_bytes=4_000_000)
        assert await everything(link) == before, "nor was anything else of it done"
        refused = await setup(up, "--events-max-bytes", "4MB", "--json")
        assert refused.returncode == 1
        assert "EVENTS might take 4000000 bytes instead of 5000000" in json.loads(refused.stdout)["refused"]
        assert (await set_up(link, [], events_bytes=4_000_000, allowed=[Loss.SMALLER_BOUNDS])).events == 4_000_000


async def test_mending_a_bound_deletes_nothing_unasked(tmp_path: Path) -> None:
    """Who let EVENTS keep several messages of one subject has several: the server deletes the first ones, which count,
    as soon as it may keep one again."""
    async with administrator(tmp_path) as (_, link):
        await set_up(link, [])
        config = (await api(link, f"STREAM.INFO.{EVENTS}"))["config"]
        await api(
            link, f"STREAM.UPDATE.{EVENTS}", {**config, "max_msgs_per_subject": -1, "discard_new_per_subject": False}
        )
        subject = subjects.start_subject(KEY)
        for text in (b"first", b"second"):
            await link.store(subject, text)
        with pytest.raises(LessSafe, match=r"EVENTS would lose messages: max_msgs_per_subject would be 1"):
            await set_up(link, [])
        assert (await api(link, f"STREAM.INFO.{EVENTS}"))["state"]["messages"] == 2
        await set_up(link, [], allowed=[Loss.LOST_MESSAGES])
        assert (await api(link, f"STREAM.INFO.{EVENTS}"))["state"]["messages"] == 1


async def test_reactions_that_wait_are_deleted_only_when_that_is_named(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (_, link):
        await set_up(link, [Listener("hotel", (CHARGED,))])
        await charge(link, "charged", 1)
        desired = Desired(listeners=(Listener("hotel"),), forget_reactions=("hotel",))
        with pytest.raises(LessSafe, match="hotel would never react to 1 event that it has not finished"):
            await carry_out(link, desired)
        assert (EVENTS, "hotel-on") in await consumer_configs(link)
        await carry_out(link, desired, [Loss.LOST_MESSAGES])
        assert (EVENTS, "hotel-on") not in await consumer_configs(link)


async def test_events_of_a_kind_that_is_reacted_to_no_more_are_not_lost_unasked(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (_, link):
        await set_up(link, [Listener("hotel", (CHARGED, REFUNDED))])
        await charge(link, "charged", 1)
        await set_up(link, [Listener("hotel", (CHARGED,))])  # what waits is of the other kind
        await set_up(link, [Listener("hotel", (CHARGED, REFUNDED))])
        for number in (1, 2):
            await charge(link, "refunded", number)
        with pytest.raises(LessSafe, match="hotel would never react to 2 events"):
            await set_up(link, [Listener("hotel", (CHARGED,))])
        heard = (await consumer_configs(link))[EVENTS, "hotel-on"]["filter_subjects"]
        assert sorted(heard) == [CHARGED, REFUNDED]
        await set_up(link, [Listener("hotel", (CHARGED,))], allowed=[Loss.LOST_MESSAGES])


async def test_a_bound_is_forgotten_with_its_streams_unless_something_is_left_in_them(tmp_path: Path) -> None:
    bound = Bound("shpo", "order", 5)
    forgets = Desired(forget_bounds=(("shpo", "order"),))
    starts, signals = (each.name for each in bound.streams)
    async with administrator(tmp_path) as (up, link):
        before = await everything(link)
        with pytest.raises(
            PlatformError, match=r"client shpo has no bound of open sagas of type order to forget.*: none"
        ):
            await carry_out(link, forgets)
        await set_up(link, [], client_bounds=[bound, Bound("shop", "order", 7)])
        told = json.loads((await setup(up, "--dry-run", "--json", "--forget-bound=shpo=order")).stdout)
        gone = [each["name"] for each in told["changes"] if each["action"] == "deleted"]
        assert (gone, [each["client"] for each in told["client_bounds"]]) == ([starts, signals], ["shop"])
        await link.store("from.shpo.0.order.o1.start", b"{}")
        await link.store("from.shpo.0.order.o1.cancel", b"{}")
        with pytest.raises(LessSafe) as refused:
            await carry_out(link, forgets)
        assert f"client shpo has 1 open saga of type order in stream {starts}" in str(refused.value)
        assert f"1 signal or wish to cancel of type order in stream {signals}" in str(refused.value)
        for stream in (starts, signals):
            await api(link, f"STREAM.PURGE.{stream}")
        done = await setup(up, "--forget-bound=shpo=order", "--forget-bound=shpo=order")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"to be deleted: streams {starts}, {signals}" in done.stdout
        assert done.stdout.count("client shpo has no bound of open sagas of type order any more.") == 1
        assert await bounds_set(link) == [Bound("shop", "order", 7)]
        await set_up(link, [], client_bounds=[bound])
        await link.store("from.shpo.0.order.o1.start", b"{}")
        await carry_out(link, forgets, [Loss.LOST_MESSAGES])
        again = await setup(up, "--dry-run", "--forget-bound=shpo=order")
        assert (again.returncode, "Bounds that are set: shop=order" in again.stderr) == (1, True)
        assert before[3] is None
        names = (await api(link, "STREAM.NAMES"))["streams"]
        assert not [each for each in names if "shpo" in each]


async def test_what_is_stored_while_a_bound_is_forgotten_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = Bound("shop", "order", 5)
    async with administrator(tmp_path) as (_, link):
        await set_up(link, [], client_bounds=[bound])
        look, looks = preview, list[Preview]()

        async def looked(link: Link, desired: Desired) -> Preview:
            found = await look(link, desired)
            looks.append(found)
            if len(looks) == 2:  # its turn has come
                await link.store("from.shop.0.order.o1.start", b"{}")
            return found

        monkeypatch.setattr(applying, "preview", looked)
        with pytest.raises(NotChanged, match="1 message was stored in it meanwhile"):
            await carry_out(link, Desired(forget_bounds=(("shop", "order"),)))
        starts, _ = bound.streams
        info = await api(link, f"STREAM.INFO.{starts.name}")
        assert (info["state"]["messages"], info["config"]["subjects"]) == (1, [*starts.subjects])


@pytest.mark.parametrize("name", ["hotel", "bank", "coordinator", "exporter"])
async def test_who_is_no_client_is_given_no_bound(name: str, tmp_path: Path) -> None:
    async with administrator(tmp_path) as (up, link):
        await set_up(link, ["hotel"])
        before = await everything(link)
        for options in ((), ("--dry-run",)):
            done = await setup(up, "--participant", "bank", "--bound", f"{name}=order:3", *options)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"{name} is a" in done.stderr
            assert "and no client, so that it can have no bound" in done.stderr
        assert await everything(link) == before


async def test_a_dry_run_and_a_set_up_agree_on_what_is_forgotten(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (up, link):
        for _ in range(2):
            dry = await setup(up, "--dry-run", "--forget-readmodel", "nobody", "--forget-readmodel", "nobody")
            assert (dry.returncode, "to be forgotten" in dry.stdout) == (1, False)
            real = await setup(up, "--forget-readmodel", "nobody", "--forget-readmodel", "nobody")
            assert real.returncode == 1
            for done in (dry, real):
                assert done.stderr.count("no read model is called 'nobody'; known are: none.") == 1
        await link.store(subjects.readmodel_subject("lists"), Place().encode())
        running = json.loads((await setup(up, "--dry-run", "--json", "--forget-readmodel=lists")).stdout)
        assert (running["forgotten_readmodels"], "read model lists runs" in running["refused"]) == ([], True)
        told = json.loads((await setup(up, "--bound=shop=order:3", "--dry-run", "--json")).stdout)
        assert told["client_bounds"] == [{"client": "shop", "saga_type": "order", "most": 3}]


# --- one after the other ----------------------------------------------------------------------------------------------


async def test_a_set_up_waits_for_another_one(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (_, link):
        await set_up(link, [])
        async with applying._turn(link):
            with structlog.testing.capture_logs() as lines:
                other = asyncio.ensure_future(set_up(link, ["hotel"]))
                await until(lambda: [line["event"] for line in lines] == ["setup.waits"])
            assert (SAGA, "hotel") not in await consumer_configs(link)
        await other
        assert (SAGA, "hotel") in await consumer_configs(link)
        assert TURN not in (await api(link, "STREAM.NAMES"))["streams"]


async def test_a_set_up_that_died_is_waited_for_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "TURN_SECONDS_MAX", 1.0)
    async with administrator(tmp_path) as (_, link):
        await set_up(link, [])
        dead = applying._turn(link)
        await dead.__aenter__()
        await set_up(link, ["hotel"])
        assert (SAGA, "hotel") in await consumer_configs(link)
        assert TURN not in (await api(link, "STREAM.NAMES"))["streams"]


async def test_of_two_at_once_the_one_without_replicas_keeps_what_the_other_asked_for(tmp_path: Path) -> None:
    """It looks again once it is its turn: what it saw before is not written over what came meanwhile."""
    with platform(tmp_path, participants=(), nodes=3) as up:
        link = await up.connect("administrator")
        await set_up(link, [], replicas=1)
        names = [f"p{number}" for number in range(4)]
        await asyncio.gather(set_up(link, [], replicas=3), *(set_up(link, [name]) for name in names))
        assert {each["num_replicas"] for each in (await stream_configs(link)).values()} == {3}
        assert {*names} <= {name for _, name in await consumer_configs(link)}
        await link.close()


async def test_copies_for_which_one_server_is_too_few_are_refused_at_once_and_nothing_is_made(tmp_path: Path) -> None:
    async with administrator(tmp_path) as (up, link):
        for _ in ("there is nothing yet", "there is all"):
            before = await everything(link)
            for arguments in (("--replicas", "3", "--dry-run"), ("--replicas", "3"), ("--replicas", "2", "--json")):
                done = await setup(up, *arguments)
                assert done.returncode == 1
                assert done.stderr.count("this server is alone: it belongs to no cluster. Give --replicas 1") == 1
                assert done.stderr.count(". ") == 1, "one sentence and its remedy"
                assert "to be c" not in done.stdout
                assert await everything(link) == before
            await set_up(link, ["hotel"])


async def test_copies_for_which_a_cluster_has_too_few_servers_are_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with platform(tmp_path, participants=(), nodes=3) as up:
        link = await up.connect("administrator")
        await set_up(link, ["hotel"], replicas=3)
        before = await everything(link)
        for more in ((), ("--dry-run",)):
            done = await setup(up, "--replicas", "5", *more)
            assert done.returncode == 1
            assert "5 copies of each stream" in done.stderr
            assert "of the cluster 3 servers with JetStream answer. Give --replicas 3" in done.stderr
        assert await everything(link) == before
        up.nodes[1].kill()  # copies that there are already need no server that is away just now
        assert (await setup(up, "--replicas", "3", "--dry-run")).returncode == 0
        await link.close()
