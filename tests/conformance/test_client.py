"""What a client refuses to begin, and how it waits for an end that it hears of before the stream holds it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import WrongShape
from antiphon.contracts.platform import END_TYPE, End
from antiphon.contracts.wire import SagaKey, end_subject
from antiphon.coordinator.client import LOOK_SECONDS, LOOK_SOON_SECONDS, Antiphon
from antiphon.coordinator.saga import Saga, State
from antiphon.coordinator.storing import message
from antiphon.link import StoredMessage
from tests.support.trip import ASKED, BookRoom, TripAsked


def by_much(asked: TripAsked) -> dict[str, str]:
    return {"who": "x" * 201}


def by_what_it_lacks(asked: TripAsked) -> dict[str, str]:
    return {"who": asked.nobody}  # type: ignore[attr-defined] # pyright: ignore


def by_words(asked: TripAsked) -> list[str]:
    return ["two words"]


def by_nobody(asked: TripAsked) -> list[str]:
    return []


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keys": by_much}, "the key who has 201 characters, and 200 are the most"),
        ({"keys": by_what_it_lacks}, "'TripAsked' object has no attribute 'nobody'"),
        ({"locks": by_words}, "lock 'two words' must be"),
        ({"locks": by_nobody}, "by_nobody named no lock"),
    ],
)
async def test_a_saga_that_could_not_even_be_named_is_not_begun(settings: dict[str, Any], said: str) -> None:
    saga = Saga(TripAsked, name="trip", version=1, deadline=timedelta(hours=1), **settings)

    @saga.step(needs_no_compensation=True)
    def book_room(s: State[TripAsked]) -> BookRoom:
        raise AssertionError

    with pytest.raises(WrongShape, match=f"no saga trip can begin with that: .*{said}"):
        await Antiphon(HastyLink()).start(saga, ASKED, id="t1")  # type: ignore[arg-type] # pyright: ignore
