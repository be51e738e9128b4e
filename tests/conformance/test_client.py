"""What a client refuses to begin, and how it waits for an end that it hears of before the stream holds it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from antiphon.contracts import AlreadySignalled, AlreadyStarted, DefinitionError, Event, PlatformError, WrongShape
from antiphon.contracts.envelope import decode, unpack_raw
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import END_TYPE, End, Resent
from antiphon.contracts.subjects import end_subject, ends_filter, parse_same
from antiphon.coordinator.client.client import LOOK_SECONDS, LOOK_SOON_SECONDS, Antiphon
from antiphon.coordinator.client.store_once import message
from antiphon.coordinator.decision.sameness import compare
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.link import AlreadyStored, Link, StoredMessage
from antiphon.link.transport import Handler
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


class HastyLink(Link):
    """Connected to nobody. Tells of the end at the first wait; only the fourth read finds it."""

    def __init__(self) -> None:
        super().__init__(Client(), "client")
        self.waits: list[float] = []
        self.subscribed: list[str] = []
        self.reads = 0

    async def get_last(self, stream: str, subject: str) -> StoredMessage | None:
        self.reads += 1
        return StoredMessage(subject, 1, 1, ENDED) if self.reads == 4 else None

    async def until(self, told: asyncio.Event, timeout_seconds: float | None = None) -> None:
        assert timeout_seconds is not None
        self.waits.append(timeout_seconds)
        if len(self.waits) == 1:
            told.set()

    async def subscribe(self, subject: str, handle: Handler, queue: str = "") -> Any:
        self.subscribed.append(subject)


async def test_an_end_that_was_heard_of_and_is_not_stored_yet_is_looked_for_again_soon() -> None:
    link = HastyLink()
    client = Antiphon(link)
    for first in (LOOK_SOON_SECONDS, LOOK_SECONDS):  # soon, too, where the servers may not know yet that it listens
        link.waits, link.reads = [], 0
        outcome = await client.end_of(KEY)
        assert outcome.outcome == "completed"
        assert link.waits == [first, LOOK_SOON_SECONDS, 2 * LOOK_SOON_SECONDS]
    assert link.subscribed == [ends_filter("trip")], "of the sagas that it waits for, and no others"


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
        await Antiphon(HastyLink()).start(saga, ASKED, id="t1")


class ShelfLink(HastyLink):
    """EVENTS as far as a client uses it: a subject takes one message."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[str, bytes] = {}
        self.shape: type[Event] | None = None
        """The class that the coordinators have."""

    async def store(self, subject: str, data: bytes, headers: str = "") -> int:
        if subject in self.stored:
            raise AlreadyStored("maximum messages per subject exceeded")
        self.stored[subject] = data
        return len(self.stored)

    async def request(self, subject: str, data: bytes = b"", timeout_seconds: float = 5.0) -> bytes:
        """What a coordinator says to the question whether the start, or the signal, is the same."""
        stored = parse_same(subject).stored_at
        again = unpack_raw(data, Resent)
        if stored not in self.stored:
            raise Ambiguous("no answer")
        told = compare(self.shape, decode(self.stored[stored], stored), again)
        if told is None:
            raise Ambiguous("no answer")
        return msgspec.json.encode(told)


def parcel(fields: dict[str, Any], name: str = "parcel.sent") -> Any:
    """A version of one class, with fields and their defaults."""
    namespace = {"__annotations__": fields["types"], "__module__": __name__, **fields.get("defaults", {})}
    meta: Any = type(Event)
    return meta("ParcelSent", (Event,), namespace, name=name)


OLD = parcel({"types": {"weight": float, "at": datetime}})
NEW = parcel({"types": {"weight": float, "at": datetime, "note": str}, "defaults": {"note": ""}})
STRICT = parcel({"types": {"weight": float, "at": datetime, "note": str}})
RENAMED = parcel({"types": {"weight": float, "at": datetime}}, "parcel.posted")
NOON, LATER = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))

OTHER, UNTOLD = "another payload", "untold"
AGAIN: list[tuple[Event, Event, Any, str]] = [
    (OLD(weight=1, at=NOON), OLD(weight=1.0, at=NOON), OLD, ""),
    (OLD(weight=1, at=NOON), OLD(weight=1.0, at=NOON), None, UNTOLD),
    (OLD(weight=1, at=NOON), OLD(weight=1, at=NOON), None, ""),
    (OLD(weight=1, at=NOON), OLD(weight=1, at=LATER), OLD, ""),
    (OLD(weight=1, at=NOON), NEW(weight=1, at=NOON), NEW, ""),
    (OLD(weight=1, at=NOON), NEW(weight=1, at=NOON), OLD, ""),
    (NEW(weight=1, at=NOON), OLD(weight=1, at=LATER), NEW, ""),
    (NEW(weight=1, at=NOON), OLD(weight=1, at=LATER), OLD, UNTOLD),
    (NEW(weight=1, at=NOON, note="fragile"), OLD(weight=1, at=NOON), NEW, OTHER),
    (OLD(weight=1, at=NOON), NEW(weight=1, at=NOON, note="fragile"), NEW, OTHER),
    (OLD(weight=1, at=NOON), NEW(weight=1, at=NOON, note="fragile"), OLD, OTHER),
    (OLD(weight=1, at=NOON), OLD(weight=2, at=NOON), OLD, OTHER),
    (OLD(weight=1, at=NOON), RENAMED(weight=1, at=NOON), OLD, OTHER),
    (
        OLD(weight=1, at=NOON),
        STRICT(weight=1, at=NOON, note=""),
        STRICT,
        r"a payload that cannot be read here \(ParcelSent: Object missing required field `note`\)",
    ),
]
"""What was sent, what is sent again, with which class of the coordinator's, and what is said of it."""


def sender(start: Any) -> tuple[Saga[Any], Any]:
    saga: Saga[Any] = Saga(start, name="parcel", version=1, deadline=timedelta(hours=1))
    return saga, saga.signal(start)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a client ask the coordinators once."""
    monkeypatch.setattr("antiphon.coordinator.client.asking.ASK_SECONDS", 0.01)
    monkeypatch.setattr("antiphon.coordinator.client.asking.PAUSE_SECONDS", 0.02)


@pytest.mark.parametrize(("first", "again", "shape", "said"), AGAIN)
async def test_the_same_payload_is_one_with_equal_values(first: Any, again: Any, shape: Any, said: str) -> None:
    link = ShelfLink()
    client, link.shape = Antiphon(link), shape
    await client.start(sender(type(first))[0], first, id="1")
    saga, _ = sender(type(again))
    if not said:
        assert (await client.start(saga, again, id="1")).id == "1"
        return
    if said == UNTOLD:
        with pytest.raises(PlatformError, match="is stored already, and whether it is the same cannot be told now"):
            await client.start(saga, again, id="1", timeout=0.01)
        return
    with pytest.raises(AlreadyStarted, match=f"saga parcel/1 was already started with {said}; nothing was changed"):
        await client.start(saga, again, id="1")


async def test_a_start_that_was_perhaps_stored_by_its_caller_is_asked_for_as_long_as_the_caller_waits() -> None:
    """The coordinators of a cluster may just be moving to another server, as the client was."""

    class LateLink(ShelfLink):
        questions = 0

        async def store(self, subject: str, data: bytes, headers: str = "") -> int:
            if not self.stored:
                await super().store(subject, data, headers)
                raise Ambiguous("no answer")
            return await super().store(subject, data, headers)

        async def request(self, subject: str, data: bytes = b"", timeout_seconds: float = 5.0) -> bytes:
            self.questions += 1
            if self.questions < 4:
                raise Ambiguous("no answer")
            return await super().request(subject, data, timeout_seconds)

    link = LateLink()
    client, link.shape = Antiphon(link), OLD
    saga, _ = sender(OLD)
    assert (await client.start(saga, OLD(weight=1, at=NOON), id="1", timeout=60)).was_started
    assert link.questions == 4


@pytest.mark.parametrize(("first", "again", "shape", "said"), [each for each in AGAIN if type(each[1]) is not RENAMED])
async def test_so_it_is_with_a_signal(first: Any, again: Any, shape: Any, said: str) -> None:
    shelf = ShelfLink()
    client, shelf.shape = Antiphon(shelf), shape
    saga, step = sender(type(first))
    await client.handle(saga, "1").signal(step, first, wait_for_start=True)
    before = dict(shelf.stored)
    saga, step = sender(type(again))
    if not said:
        await client.handle(saga, "1").signal(step, again, wait_for_start=True)
    elif said == UNTOLD:
        with pytest.raises(PlatformError, match="the signal parcel-sent of saga parcel/1 is stored already"):
            await client.handle(saga, "1").signal(step, again, wait_for_start=True, timeout=0.01)
    else:
        said = f"has got the signal parcel-sent before, with {said}. The first one"
        with pytest.raises(AlreadySignalled, match=said):
            await client.handle(saga, "1").signal(step, again, wait_for_start=True)
    assert len(before) == 1
    assert shelf.stored == before


async def test_a_choreography_is_started_with_equal_values_too() -> None:
    client = Antiphon(ShelfLink())
    choreographies = [
        Choreography(
            start, name="parcel", version=1, deadline=timedelta(hours=1), flow={start: "post"}, completes=Posted
        )
        for start in (OLD, NEW)
    ]
    for saga, start in zip(choreographies, (OLD, NEW), strict=True):
        assert (await client.start(saga, start(weight=1, at=NOON), id="1")).id == "1"


async def test_a_saga_is_started_with_its_own_event() -> None:
    client = Antiphon(ShelfLink())
    with pytest.raises(DefinitionError, match=r"saga 'parcel' starts with ParcelSent, not with TripAsked\. Send one"):
        await client.start(sender(OLD)[0], ASKED, id="1")


class Posted(Event, name="parcel.arrived", owner="post"):
    """It is there."""
