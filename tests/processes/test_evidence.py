"""What PARKED and other streams hold and nobody can read: it is shown as such, and hides nothing else from anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.identity import SAGA_TYPE
from antiphon.contracts.payloads import END_TYPE, RECORD_TYPE, End, Parked, Record
from antiphon.coordinator.reading.parked import parked_message, waiting, waiting_page
from antiphon.link import Link
from tests.integration.platform.test_poison import indexed
from tests.processes.test_command_line import antiphon, assert_one_sentence
from tests.support.raw_worker import start_message
from tests.support.server import Platform, platform

POISON = [b"x", b"", b"\xff\xfe", b'{"kind": "\xff"}', b"null", b"{}", b"[" * 100_000, b"x" * 700_000]
PLACES = [
    "parked.forged.hotel.client",
    "parked.fault.hotel",
    "parked.fault-more.hotel.client",
    "parked.withdrawn.hotel.EVENTS-7",
    "parked.hotel",
]


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Platform]:
    with platform(tmp_path, participants=("hotel",)) as running:
        await running.set_up()
        yield running


def set_aside(key: SagaKey, sequence: int) -> Parked:
    return Parked(
        kind="orphan",
        reason="saga was never started",
        noticed_by="coordinator",
        stream="EVENTS",
        sequence=sequence,
        subject=subjects.cancel_subject(key),
        data=b"{}",
    )


async def store_poison(link: Link) -> None:
    for place in PLACES:
        for data in POISON:
            await link.store(place, data)


async def test_every_command_shows_the_rest_beside_what_nobody_can_read(up: Platform) -> None:
    link = await up.connect("administrator")
    good = set_aside(SagaKey.of("trip", "good"), 1)
    key = SagaKey.of("trip", "t1")
    await store_poison(link)
    await link.store(good.destination, good.encode())
    await link.store(*start_message(key))
    await link.store(subjects.event_subject(key.path, "hotel", "hotel-booked", "book_room", 1), b"\xff")
    await link.store(subjects.state_subject(SagaKey.of(SAGA_TYPE, "trip")), b"\xff")
    await link.store(f"saga.99.{SAGA_TYPE}.x.c.state", b"\xff")
    await link.store(subjects.registration_subject("hotel", "one"), b'{"name":"\xff"}')
    check = ("flow", "check", "--server", up.servers)
    for asked in (("parked", "--limit", "100"), ("list",), ("show", "trip/t1"), check):
        ran = antiphon(*asked, server=up.servers)
        assert "Traceback" not in ran.stderr, ran.stderr
        assert ran.returncode == (asked[0] == "flow"), ran.stderr
    listed = json.loads(antiphon("parked", "--json", "--limit", "100", server=up.servers).stdout)
    unreadable = [each for each in listed if each["is_unreadable"]]
    assert len(unreadable) == len(PLACES) * len(POISON)
    assert {each["subject"] for each in unreadable} == set(PLACES)
    assert {each["size_bytes"] for each in unreadable} == {len(data) for data in POISON}
    assert [each["subject"] for each in listed if not each["is_unreadable"]] == [good.subject]
    shown = antiphon("parked", "--message", str(unreadable[2]["sequence"]), server=up.servers)
    assert "noticed by hotel" in shown.stdout
    assert "ff fe" in shown.stdout
    whole = json.loads(antiphon("parked", "--message", "2", "--json", server=up.servers).stdout)
    assert (whole["parked"]["subject"], whole["parked"]["data"]) == (PLACES[0], "")
    running = antiphon(*check)
    assert subjects.registration_subject("hotel", "one") in running.stdout + running.stderr
    await link.close()


async def test_sagas_come_before_messages_however_many_somebody_has_had_parked(up: Platform) -> None:
    link = await up.connect("administrator")
    for number in range(12):
        parked = set_aside(SagaKey.of("trip", f"t{number}"), number + 1)
        await link.store(parked.destination, parked.encode())
    stuck = SagaKey.of("trip", "stuck")
    await link.store(subjects.record_subject(stuck, "n1"), b"no entry")
    await link.store(*indexed(stuck))
    (first, *_), _ = await waiting_page(link, 1, 10)
    assert (first.kind, first.saga) == ("saga", str(stuck))
    await link.close()


async def test_what_waits_is_shown_page_by_page(up: Platform) -> None:
    link = await up.connect("administrator")
    keys = [SagaKey.of("trip", f"t{number}") for number in range(25)]
    for number, key in enumerate(keys, 1):
        parked = set_aside(key, number)
        await link.store(parked.destination, parked.encode())
    for number, key in enumerate(keys[:5]):  # these were ended, or named the fact: nobody needs to look at them
        await link.store(*(ended(key) if number % 2 else named(key, number + 1)))
    ids = [each.id for each in keys]
    for page, (first, last, more) in enumerate([(5, 15, True), (15, 25, False), (25, 25, False)], 1):
        found, has_more = await waiting_page(link, page, 10)
        assert ([each.saga.removeprefix("trip/") for each in found], has_more) == (ids[first:last], more)
    drawn = antiphon("parked", "--limit", "10", server=up.servers).stdout
    assert "trip/t14" in drawn
    assert "trip/t15" not in drawn
    assert drawn.rstrip().endswith("more waits: antiphon parked --page 2 --limit 10")
    last_page = antiphon("parked", "--limit", "10", "--page", "2", server=up.servers).stdout
    assert "trip/t24" in last_page
    assert "more waits" not in last_page
    assert antiphon("parked", "--page", "9", server=up.servers).stdout.strip() == "nothing waits for a person."
    assert_one_sentence(antiphon("parked", "--page", "0", server=up.servers), "--page", code=2)
    await link.close()


def entry(subject: str, type_: str, payload: msgspec.Struct, cause: str) -> tuple[str, bytes]:
    time = datetime.now(UTC)
    return subject, encode(
        Envelope(id=subject, source="coordinator", type=type_, time=time, data=pack(payload), cause=cause)
    )


def ended(key: SagaKey) -> tuple[str, bytes]:
    return entry(subjects.end_subject(key), END_TYPE, End(outcome="completed"), "e1")


def named(key: SagaKey, sequence: int) -> tuple[str, bytes]:
    return entry(subjects.record_subject(key, "n1"), RECORD_TYPE, Record(), f"e{sequence}")


class Counting:
    """A link that counts what is asked of the server."""

    def __init__(self, link: Link) -> None:
        self._link, self.reads = link, 0

    def __getattr__(self, name: str) -> object:
        if name in ("read_all", "next_page", "get_last", "get_latest"):
            self.reads += 1
        return getattr(self._link, name)


MANY = 2000


async def test_thousands_that_wait_are_looked_after_in_few_reads(up: Platform) -> None:
    link = await up.connect("administrator")

    async def put(number: int) -> None:
        key = SagaKey.of("trip", f"t{number}")
        parked = msgspec.structs.replace(set_aside(key, number + 1), kind=("orphan", "unhandled", "fault")[number % 3])
        await link.store(subjects.parked_subject(parked.kind, "coordinator", f"p{number // 900}"), parked.encode())
        if number % 2:
            await link.store(*named(key, 10**9))

    for first in range(0, MANY, 500):
        await asyncio.gather(*(put(number) for number in range(first, first + 500)))
    counting: Any = Counting(link)
    found = await waiting(counting)
    assert len(found) == MANY
    assert counting.reads < MANY / 20
    counting.reads = 0
    page, _ = await waiting_page(counting, 1, 50)
    assert len(page) == 50
    assert counting.reads < 10
    await link.close()


async def test_a_thousand_large_messages_keep_no_connection_from_being_read(up: Platform) -> None:
    """The server drops a connection to which more than 64 MB are on their way."""
    link = await up.connect("administrator")
    large = msgspec.structs.replace(set_aside(SagaKey.of("trip", "t1"), 1), data=b"\xff" * 500_000)
    for number in range(120):
        parked = msgspec.structs.replace(large, sequence=number + 1)
        await link.store(parked.destination, parked.encode())
    assert len(await waiting(link)) == 120
    assert link.nc.stats["reconnects"] == 0
    assert len((await parked_message(link, 7)).parked.data) == 500_000
    await link.close()
