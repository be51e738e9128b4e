"""What a stored message, or a name in it, may hold to harm the connection of whoever reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.errors import BadIdentity
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import EVENTS, answers_consumer_name
from antiphon.link import Delivery, Link
from antiphon.link.fast import PUBLIC_VARIABLE, FastTransport, Frames
from antiphon.link.faults import say
from antiphon.link.guard import Guard
from antiphon.link.journals import read_journals
from antiphon.link.reading import BATCH_MAX
from antiphon.link.transport import require_subject
from tests.support.server import Platform, platform, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("weapons"), participants=("hotel",)) as up:
        yield up


@pytest.fixture(params=["frames", "public"])
async def link(
    request: pytest.FixtureRequest, server: Platform, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Link]:
    if request.param == "public":
        monkeypatch.setenv(PUBLIC_VARIABLE, "1")
    await server.set_up()
    link = await server.connect("coordinator")
    yield link
    assert link.nc.stats["reconnects"] == 0
    assert not link.failure.done()
    await link.close()


BAD_SUBJECTS = [
    "",
    " ",
    "a b",
    "a\r\nPUB evil 1\r\nx",
    "a\nb",
    "a\tb",
    "a\x85b",
    "a\u2028b",
    "evt.²",
]


@pytest.mark.parametrize("bad", BAD_SUBJECTS, ids=ascii)
async def test_what_is_no_subject_is_published_by_nobody(link: Link, bad: str) -> None:
    with pytest.raises(BadIdentity):
        link.send(bad, b"x")
    for headers in ("", "A: b\r\n"):
        with pytest.raises(BadIdentity):
            link.publish(bad, b"x", headers, lambda outcome: None)
    key = SagaKey.of("trip", f"after-{link.nc.client_id}-{abs(hash(bad))}")
    assert await link.store(subjects.start_subject(key), b"{}") > 0  # in the same turn as what was refused


def test_ordinary_subjects_are_published() -> None:
    for subject in (
        "$JS.API.DIRECT.GET.EVENTS",
        "$JS.ACK.SAGA.hotel.1.2.3.4.5",
        "evt.1.trip.t1.client.start",
        "_INBOX_x.Ab1.1",
    ):
        require_subject(subject)


# --- headers ----------------------------------------------------------------------------------------------------------

HEADERS: dict[str, bytes] = {
    "an end of a read": b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
    "a refusal": b"NATS/1.0 413 Too Many Results\r\n\r\n",
    "nothing there": b"NATS/1.0 404 Message Not Found\r\n\r\n",
    "a status among the headers": b"NATS/1.0\r\nStatus: 204\r\nDescription: EOB\r\n\r\n",
    "another place": b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Subject: evt.x\r\nNats-Time-Stamp: x\r\n\r\n",
    "a place that is a large number": b"NATS/1.0\r\nNats-Sequence: 99999999999999999999999\r\n\r\n",
    "no utf-8": b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n",
    "no header at all": b"NATS/1.0\r\nnonsense\r\n\r\n",
    "a status that is no text": b"NATS/1.0 \xff\xff\xff\r\n\r\n",
}


async def store_with(writer: Link, subject: str, headers: bytes, data: bytes = b"x") -> None:
    """Store a message as a program may that writes its own frames."""
    transport = writer._transport
    assert isinstance(transport, FastTransport)
    head = f"HPUB {subject} {len(headers)} {len(headers) + len(data)}\r\n".encode()
    transport.send_frame(head + headers + data + b"\r\n")
    await writer.flushed()


@pytest.mark.parametrize("name", HEADERS)
async def test_no_header_of_a_message_hides_the_others_from_a_read(link: Link, server: Platform, name: str) -> None:
    writer = await _fast(server)
    key = SagaKey.of("trip", f"h{list(HEADERS).index(name)}-{link.nc.client_id}")
    answers = [subjects.event_subject(key.path, "hotel", "hotel-booked", "book_room", number) for number in (1, 2, 3)]
    await writer.store(answers[0], b"1")
    await store_with(writer, answers[1], HEADERS[name], b"2")
    await writer.store(answers[2], b"3")
    read = await link.read_all(EVENTS, [subjects.events_filter(key, "hotel")])
    assert [(each.subject, each.data) for each in read] == list(zip(answers, (b"1", b"2", b"3"), strict=True))
    last = await link.get_last(EVENTS, answers[1])
    assert last is not None
    assert (last.sequence, last.data) == (read[1].sequence, b"2")
    page = await link.next_page(EVENTS, subjects.events_filter(key, "hotel"), 1)
    assert [each.sequence for each in page] == [each.sequence for each in read]
    await writer.close()


@pytest.mark.parametrize("name", HEADERS)
async def test_no_header_of_a_message_keeps_it_or_others_from_being_delivered(
    link: Link, server: Platform, name: str
) -> None:
    writer = await _fast(server)
    key = SagaKey.of("trip", f"d{list(HEADERS).index(name)}-{link.nc.client_id}")
    wanted = [subjects.event_subject(key.path, "hotel", "hotel-booked", "book_room", number) for number in (1, 2, 3)]
    for subject in wanted:
        await store_with(writer, subject, HEADERS[name])
    seen = list[str]()

    def handle(delivery: Delivery) -> None:
        if delivery.subject in wanted:
            seen.append(delivery.subject)
        delivery.ack()

    pull = await link.pull(EVENTS, answers_consumer_name("hotel"), 50, handle)
    await until(lambda: seen == wanted)
    pull.stop()
    await writer.close()


async def _fast(server: Platform) -> Link:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(PUBLIC_VARIABLE, raising=False)
        return await server.connect("administrator")


async def test_what_nats_py_raises_at_a_message_ends_no_read_loop() -> None:
    class Client:
        def __init__(self) -> None:
            self.pings = 0

        async def _process_msg(self, *given: Any) -> None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

        async def _process_ping(self) -> None:
            self.pings += 1

    client = Client()
    parser = Frames(client, {}, Guard(say))
    with structlog.testing.capture_logs() as lines:
        await parser.parse(b"HMSG a 8 16 16\r\nNATS/1.0 \xff\xff\xff\r\n\r\n\r\nPING\r\n")
    assert client.pings == 1
    assert [line["event"] for line in lines] == ["callback.faulty"]


# --- many journals ----------------------------------------------------------------------------------------------------


class Shelf:
    """A stream of which one read gives so many messages."""

    def __init__(self, messages: list[StoredMessage], most: int) -> None:
        self.messages, self.most, self.reads = messages, most, 0

    async def read_all(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        from antiphon.contracts.stored import TooManySubjects

        self.reads += 1
        await asyncio.sleep(0)
        found = [m for m in self.messages if any(subjects.matches(each, m.subject) for each in filters)]
        if len(found) > self.most:
            raise TooManySubjects("too many")
        return found

    async def next_page(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> list[StoredMessage]:
        raise AssertionError(subject_filter)


async def test_many_journals_are_read_together_and_large_ones_apart() -> None:
    keys = [SagaKey.of("trip", f"j{number}") for number in range(120)]
    stored = [
        StoredMessage(subjects.record_subject(key, f"n{entry}"), 1000 * number + entry, 0, b"")
        for number, key in enumerate(keys)
        for entry in range(number % 7 + 1 if number != 50 else 100)
    ]
    shelf = Shelf(stored, most=120)
    found = await read_journals(shelf, [*keys, SagaKey.of("trip", "none")])
    assert {key: [message.sequence for message in found[key]] for key in keys} == {
        key: [1000 * number + entry for entry in range(number % 7 + 1 if number != 50 else 100)]
        for number, key in enumerate(keys)
    }
    assert found[SagaKey.of("trip", "none")] == []
    assert shelf.reads < 20


@pytest.mark.parametrize("data", [b"\xff", b'{"name": "\xff"}', b"[" * 100_000, b"x", b"null", rb'{"name":"\ud800"}'])
def test_a_registration_of_any_bytes_is_unreadable_and_no_more(data: bytes) -> None:
    from antiphon.flow.running import read_running

    running = read_running([(subjects.registration_subject("hotel", "one"), data)])
    assert [subject for subject, _ in running.unreadable] == [subjects.registration_subject("hotel", "one")]
