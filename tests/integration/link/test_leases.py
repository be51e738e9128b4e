"""What a pull holds is kept while it is certainly this process's, and of what may be another's nothing is said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from antiphon.contracts import SagaKey
from antiphon.contracts.subjects import start_subject
from antiphon.contracts.topology import EVENTS, Consumer, answers_consumer_name
from antiphon.link import Delivery, Link, Pull, leases
from antiphon.link.setup import api
from tests.support.proxy import proxy
from tests.support.server import Platform, platform, until

ACK_WAIT_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
ANSWERS = answers_consumer_name("hotel")


class Clock:
    """The real time, and what a test adds to it: as if nobody had run meanwhile."""

    def __init__(self) -> None:
        self.stood_seconds = 0.0
        self._now = leases.now

    def __call__(self) -> float:
        return self._now() + self.stood_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all leases that the test makes."""
    clock = Clock()
    monkeypatch.setattr(leases, "now", clock)
    return clock


class Holder:
    """A process that takes messages and holds them."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.taken: list[Delivery] = []
        self.pull: Pull | None = None

    async def start(self, **settings: Any) -> Holder:
        """Begin to pull."""
        self.pull = await self.link.pull(EVENTS, ANSWERS, 10, self.taken.append, **settings)
        return self

    async def has_taken(self, count: int) -> None:
        """Wait for so many deliveries."""
        await until(lambda: len(self.taken) >= count, what=f"{count} deliveries")


class Room:
    """A server whose consumer of facts has a short ack wait, and the processes of a test."""

    def __init__(self, up: Platform, link: Link) -> None:
        self.up, self.link = up, link
        self.links = [link]

    async def holder(self, url: str = "", **settings: Any) -> Holder:
        """A process that keeps what it holds."""
        link = await (Link.connect(url, name="holder") if url else self.up.connect("coordinator"))
        self.links.append(link)
        return await Holder(link).start(**({"ack_wait_seconds": ACK_WAIT_SECONDS} | settings))

    async def store(self, name: str) -> None:
        """Store a message."""
        await self.link.store(start_subject(SagaKey.of("t", name)), b"{}")

    async def pending(self) -> int:
        """How many messages are delivered and not acked."""
        return int((await api(self.link, f"CONSUMER.INFO.{EVENTS}.{ANSWERS}"))["num_ack_pending"])

    async def is_settled(self) -> None:
        """Wait until nothing is delivered and not acked."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.pending():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def room(folder: Path, ack_wait_seconds: float = ACK_WAIT_SECONDS) -> AsyncIterator[Room]:
    with platform(folder, participants=()) as up:
        await up.set_up()
        link = await up.connect("administrator")
        consumer = Consumer(stream=EVENTS, name=ANSWERS, filters=("evt.>",), ack_wait_seconds=ack_wait_seconds).config()
        await api(link, f"CONSUMER.CREATE.{EVENTS}.{ANSWERS}", {"stream_name": EVENTS, "config": consumer})
        found = Room(up, link)
        try:
            yield found
        finally:
            for each in found.links:
                await each.close()


async def wait_for(seconds: float) -> None:
    """Let the server's ack wait pass: what a test shows not to happen has to be waited for."""
    await asyncio.sleep(seconds)


async def test_what_is_held_stays_with_its_holder_for_longer_than_the_ack_wait(tmp_path: Path) -> None:
    async with room(tmp_path) as found:
        holder, other = await found.holder(), await found.holder()
        await found.store("held")
        await until(lambda: holder.taken or other.taken)
        await wait_for(2.5 * ACK_WAIT_SECONDS)
        (taken,) = (*holder.taken, *other.taken)
        taken.ack()
        await found.is_settled()


async def test_who_keeps_nothing_loses_it_to_another(tmp_path: Path) -> None:
    """The way of a holder that hangs: it proves that the ack wait in these tests passes."""
    async with room(tmp_path) as found:
        holder = await found.holder(ack_wait_seconds=0.0)
        await found.store("lost")
        await holder.has_taken(2)
        assert [each.deliveries for each in holder.taken] == [1, 2]


async def test_what_is_held_for_too_long_goes_to_others(tmp_path: Path) -> None:
    async with room(tmp_path) as found:
        holder = await found.holder(keep_seconds_max=0.3)
        await found.store("forgotten")
        await holder.has_taken(2)
        assert [each.is_lost for each in holder.taken] == [True, False]


Word = Callable[[Delivery], None]
WORDS: dict[str, Word] = {
    "ack": lambda held: held.ack(),
    "hand back": lambda held: held.hand_back(),
    "end": lambda held: held.end("no more"),
    "in progress": lambda held: held.in_progress(),
}


@pytest.mark.parametrize("word", WORDS)
async def test_a_process_that_stood_still_says_nothing_of_what_it_held(word: str, tmp_path: Path, clock: Clock) -> None:
    """Each word would end the message, have it delivered once more, or keep it from others."""
    async with room(tmp_path, ack_wait_seconds=30.0) as found:
        holder = await found.holder()
        await found.store("held")
        await holder.has_taken(1)
        clock.stood_seconds += 1.5 * ACK_WAIT_SECONDS
        sent: list[str] = []
        send = holder.link.send

        def listen(subject: str, *more: Any, **others: Any) -> None:
            sent.append(subject)
            send(subject, *more, **others)

        holder.link.send = listen  # type: ignore[method-assign]
        assert holder.pull is not None
        if word == "in progress":
            holder.pull._lease.look()  # type: ignore[union-attr] # as every turn of the lease does
        WORDS[word](holder.taken[0])
        assert holder.taken[0].is_lost
        assert not [subject for subject in sent if subject.startswith("$JS.ACK")]
        assert holder.pull.held == (word == "in progress")


async def test_a_process_that_stood_still_for_less_than_the_ack_wait_keeps_what_it_held(
    tmp_path: Path, clock: Clock
) -> None:
    async with room(tmp_path) as found:
        holder = await found.holder()
        await found.store("held")
        await holder.has_taken(1)
        clock.stood_seconds += 0.6 * ACK_WAIT_SECONDS
        holder.taken[0].ack()
        assert not holder.taken[0].is_lost
        await found.is_settled()
        assert len(holder.taken) == 1


async def test_what_arrives_after_a_standstill_is_taken_once_the_server_has_given_a_sign_of_life(
    tmp_path: Path, clock: Clock
) -> None:
    """It lay in the socket for an unknown time. It comes again, and then it is taken."""
    async with room(tmp_path) as found:
        holder = await found.holder()
        assert holder.pull is not None
        clock.stood_seconds += 1.5 * ACK_WAIT_SECONDS
        reply = f"$JS.ACK.{EVENTS}.{ANSWERS}.1.1.1.1700000000000000000.0"
        holder.pull._on_message("evt.1.t.old", reply, b"{}", None)
        assert holder.taken == []
        assert holder.pull.held == 0
        await holder.link.flushed()
        await found.store("new")
        await holder.has_taken(1)
        holder.taken[0].ack()
        await found.is_settled()


@pytest.mark.parametrize("waiting_bytes", [0, 64 * 1024 * 1024], ids=["empty", "full"])
async def test_a_connection_on_which_nothing_arrives_any_more_is_given_up_and_what_was_held_with_it(
    waiting_bytes: int, tmp_path: Path
) -> None:
    """With a full buffer, too, which will never be sent."""
    if waiting_bytes and os.environ.get("ANTIPHON_PUBLIC_CLIENT"):
        pytest.skip("nats-py's public API cannot abort a connection, and waits for ever to send what is in its buffer")
    async with room(tmp_path) as found:
        with proxy(found.up.server.port) as through:
            holder = await found.holder(through.url)
            await found.store("held")
            await holder.has_taken(1)
            through.swallow()
            for _ in range(waiting_bytes // 1024**2):
                holder.link.send("nobody.listens", bytes(1024**2))
            await until(lambda: through.connections > 1 and holder.link.is_connected)
            await until(lambda: holder.taken[0].is_lost)
            other = await found.holder()
            await until(lambda: len(holder.taken) + len(other.taken) > 1)
            (again,) = (*holder.taken[1:], *other.taken)
            again.ack()
            await found.is_settled()
            holder.taken[0].hand_back()  # it may say what it likes: nobody hears it
            await holder.link.flushed()
            assert await found.pending() == 0
