"""What JetStream tells of its streams: not there, and "cannot tell", are two answers."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from antiphon.contracts.errors import Ambiguous
from antiphon.link import Link
from antiphon.link.fitness import Fitness, cluster
from antiphon.link.leaving import Leaving
from antiphon.link.setup import info_of, left_behind, room_of

NO_LEADER = {"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}}
NOT_THERE = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
FULL = {"state": {"bytes": 7}, "config": {"max_bytes": 8}}


class Server:
    """A connection to a server that answers every question alike."""

    is_connected = may_be_clustered = True

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.leaving = Leaving(self)
        self.on_reconnect: list[object] = []

    async def request(self, subject: str, data: bytes = b"") -> bytes:
        return msgspec.json.encode(self.answer)

    async def leave(self) -> bool:
        return True


def link(answer: object) -> Link:
    return cast(Link, Server(answer))


async def test_no_leader_is_not_taken_for_not_there() -> None:
    assert await info_of(link(NOT_THERE), "STREAM.INFO.EVENTS") is None
    assert await info_of(link(FULL), "STREAM.INFO.EVENTS") == FULL
    for ask in (lambda link: info_of(link, "STREAM.INFO.EVENTS"), lambda link: room_of(link, "EVENTS"), behind):
        with pytest.raises(Ambiguous, match="cannot tell"):
            await ask(link(NO_LEADER))


async def behind(link: Link) -> int | None:
    return await left_behind(link, "inventory")


@pytest.mark.parametrize(("answer", "is_unwell"), [(NO_LEADER, True), (FULL, False)])
async def test_a_server_without_a_leader_counts_as_of_no_use(answer: object, is_unwell: bool) -> None:
    found = link(answer)
    fitness = Fitness(found, [cluster(found)])
    await fitness.look()
    assert fitness.is_unwell is is_unwell
