"""A server that cannot tell, or cannot tell yet: nobody takes that for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import msgspec
import pytest

from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.pairs import ONE_PAIR
from antiphon.coordinator.client.asking import Asking
from antiphon.coordinator.runtime import gauges
from antiphon.deploy.chaos.gathering import is_replicated, read_consumers
from antiphon.link import Link, Pull, applying, setup
from antiphon.link.fitness import Fitness, cluster
from antiphon.link.leaving import Leaving
from antiphon.link.setup import bounded_streams, info_of, left_behind, room_of

NO_LEADER = {"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}}
NOT_THERE = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
FULL = {"state": {"bytes": 7}, "config": {"max_bytes": 8}}


class Server:
    """A connection to a server that answers every question alike."""

    is_connected = may_be_clustered = True
    pairs = ONE_PAIR

    def new_inbox(self) -> str:
        return "_INBOX.1"

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.leaving = Leaving(self)
        self.on_reconnect: list[object] = []
        self.failure: asyncio.Future[PlatformError]

    async def request(self, subject: str, data: bytes = b"") -> bytes:
        return msgspec.json.encode(self.answer)

    async def leave(self) -> bool:
        return True


def link(answer: object) -> Link:
    return cast(Link, Server(answer))


async def test_no_leader_is_not_taken_for_not_there() -> None:
    assert await info_of(link(NOT_THERE), "STREAM.INFO.EVENTS") is None
    assert await info_of(link(FULL), "STREAM.INFO.EVENTS") == FULL


ASKED: dict[str, Callable[[Link], Awaitable[object]]] = {
    "a stream": lambda link: info_of(link, "STREAM.INFO.EVENTS"),
    "its room": lambda link: room_of(link, "EVENTS"),
    "what waits for reactions": lambda link: left_behind(link, "inventory"),
    "streams of clients with a bound": bounded_streams,
    "the consumers of a chaos test": partial(read_consumers, exports=True),
    "the replicas of a chaos test": is_replicated,
}


@pytest.mark.parametrize("what", ASKED)
async def test_whoever_asks_hears_that_it_cannot_be_told(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "WAIT_SECONDS", 0.0)
    with pytest.raises(Ambiguous, match="unavailable"):
        await ASKED[what](link(NO_LEADER))


@pytest.mark.parametrize(("answer", "is_unwell"), [(NO_LEADER, True), (FULL, False)])
async def test_a_server_without_a_leader_counts_as_of_no_use(answer: object, is_unwell: bool) -> None:
    found = link(answer)
    fitness = Fitness(found, [cluster(found)])
    await fitness.look()
    assert fitness.is_unwell is is_unwell


async def test_gauges_stay_while_nobody_can_tell_and_go_with_their_consumer() -> None:
    which = (("messaging.consumer.group.name", "inventory"), ("messaging.destination.name", "SAGA"))
    found: dict[Any, Any] = {("antiphon.consumer.pending", which): 7}
    await gauges._look(link(NO_LEADER), "SAGA", "inventory", found)
    assert found == {("antiphon.consumer.pending", which): 7}
    await gauges._look(link({"error": {"err_code": 10014, "description": "not found"}}), "SAGA", "inventory", found)
    assert found == {}


async def test_who_hears_no_coordinator_counts_its_server_as_of_no_use() -> None:
    heard = list[str]()

    class Mute(Server):
        async def request(self, subject: str, data: bytes = b"", seconds: float = 0.0) -> bytes:
            raise Ambiguous("nobody answers")

    mute = Mute(None)
    mute.failure = asyncio.get_running_loop().create_future()
    mute.leaving = Heard(heard)
    asking = Asking(cast(Link, mute))
    told = await asking._ask_once("antiphon.same.order.o-1.start", b"{}", 0.1)
    assert (told, heard) == (None, ["unwell"])


class Heard(Leaving):
    """Notes what it is told."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    async def unwell(self) -> None:
        self.heard.append("unwell")

    def well(self) -> None:
        self.heard.append("well")


async def test_a_stream_is_made_although_the_first_answers_say_that_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(applying, "TURN_LOOK_SECONDS", 0.0)
    full = {"error": {"code": 400, "err_code": 10005, "description": "no suitable peers, insufficient storage"}}
    answers = [full, full, FULL]

    class Filling(Server):
        async def request(self, subject: str, data: bytes = b"") -> bytes:
            return msgspec.json.encode(answers.pop(0))

    assert await applying._insist_on_room(cast(Link, Filling(None)), "STREAM.UPDATE.EVENTS", {}) == FULL
    assert answers == []


async def test_a_pull_that_was_asked_anew_meanwhile_is_taken_only_once_that_has_its_answer() -> None:
    class Late(Server):
        turns = 0

        async def flushed(self) -> None:
            self.turns += 1
            if self.turns == 1:  # the refusal of the first request is in, and a second one has just gone out
                pull._count += 1
                pull.refused = ""
            else:
                pull.refused = "there is no consumer"

    late = Late(None)
    pull = Pull(cast(Link, late), "SAGA", "exporter", 1, lambda delivery: None)
    assert not await pull.is_accepted()
    assert late.turns == 2
