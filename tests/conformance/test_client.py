"""How a client waits for an end, over a link that hears of it before the stream holds it."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.contracts.platform import END_TYPE, End
from antiphon.contracts.wire import SagaKey, end_subject
from antiphon.coordinator.client import LOOK_SECONDS, LOOK_SOON_SECONDS, Antiphon
from antiphon.coordinator.storing import message
from antiphon.link import StoredMessage

KEY = SagaKey.of("trip", "t1")
SUBJECT = end_subject(KEY)
ENDED = message(SUBJECT, "coordinator", END_TYPE, End(outcome="completed"))


class HastyLink:
    """Tells of the end at the first wait; only the fourth read finds it."""

    def __init__(self) -> None:
        self.failure: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waits: list[float] = []
        self.reads = 0

    async def get_last(self, stream: str, subject: str) -> StoredMessage | None:
        self.reads += 1
        return StoredMessage(subject, 1, 1, ENDED) if self.reads == 4 else None

    async def until(self, told: asyncio.Event, timeout_seconds: float) -> None:
        self.waits.append(timeout_seconds)
        if len(self.waits) == 1:
            told.set()


async def test_an_end_that_was_heard_of_and_is_not_stored_yet_is_looked_for_again_soon() -> None:
    link = HastyLink()
    outcome = await Antiphon(link).end_of(KEY)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert outcome.outcome == "completed"
    assert link.waits == [LOOK_SECONDS, LOOK_SOON_SECONDS, 2 * LOOK_SOON_SECONDS]
