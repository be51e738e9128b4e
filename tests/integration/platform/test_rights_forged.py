"""What a participant or a client may store in EVENTS, and no saga believes: it is parked as forged, and all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import msgspec
import pytest

from antiphon.contracts import identity, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import CANCEL_TYPE, WITHDRAWN, CancelRequest, Parked, read_parked
from antiphon.contracts.topology import PARKED, PARKED_PER_SOURCE_MAX, SAGA
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.reading.sagas import summaries, timeline
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.serve import attach
from antiphon.link import Link
from tests.support.raw_worker import RawWorker
from tests.support.server import FORMS, Form, Platform, platform
from tests.support.trip import ASKED, PARTICIPANTS, REPLIES, TRIP

VICTIM = identity.SagaKey.of("trip", "victim")
ELSEWHERE = msgspec.structs.replace(
    VICTIM, path=f"{(VICTIM.partition + 1) % identity.PARTITIONS}.{VICTIM.type}.{VICTIM.id}"
)
ROOM = REPLIES["book_room"]
SEAT = REPLIES["book_seat"]


@dataclass(frozen=True)
class Forgery:
    """A message of a user: where it is stored, and what its envelope claims."""

    user: str
    subject: str
    event: Event | None = None
    source: str = ""
    id: str = ""

    @cached_property
    def data(self) -> bytes:
        """Its bytes; without an event, a wish to cancel."""
        payload: msgspec.Struct = self.event or CancelRequest(reason="because")
        return encode(
            Envelope(
                id=self.id or self.subject,
                source=self.source or self.user,
                type=self.event.__contract__.type if self.event else CANCEL_TYPE,
                time=datetime.now(UTC),
                data=pack(payload),
                command="1",
            )
        )


def answer(path: str, source: str, event: Event, step: str, attempt: int | str = 9) -> str:
    """Where an answer to a late attempt is stored, so that a forgery does not take the place of the true answer."""
    return subjects.event_subject(path, source, event.__contract__.token, step, attempt)


OWN = answer(VICTIM.path, "hotel", ROOM, "book_room")

FORGERIES = {
    "a client's start with a wrong partition": Forgery("client", subjects.start_subject(ELSEWHERE), ASKED),
    "a client's cancel with a wrong partition": Forgery("client", subjects.cancel_subject(ELSEWHERE)),
    "a client's start with a wildcard for a partition": Forgery("client", "evt.*.trip.victim.client.start", ASKED),
    "a client's start of all sagas": Forgery("client", f"evt.{VICTIM.partition}.trip.*.client.start", ASKED),
    "a client's start that says it is another's": Forgery(
        "client", subjects.start_subject(identity.SagaKey.of("trip", "mine")), ASKED, id=subjects.start_subject(VICTIM)
    ),
    "a client's cancel in the name of a coordinator": Forgery(
        "client", subjects.cancel_subject(identity.SagaKey.of("trip", "mine")), source="coordinator"
    ),
    "an answer with a wrong partition": Forgery("hotel", answer(ELSEWHERE.path, "hotel", ROOM, "book_room"), ROOM),
    "an answer for another participant": Forgery("hotel", answer(VICTIM.path, "hotel", SEAT, "book_seat"), SEAT),
    "an answer in another's name": Forgery("hotel", OWN, ROOM, source="airline"),
    "an answer that says it is another's": Forgery(
        "hotel", OWN, ROOM, id=answer(VICTIM.path, "airline", SEAT, "book_seat")
    ),
    "an answer with a further token": Forgery("hotel", f"{OWN}.more", ROOM),
    "an answer to every attempt": Forgery("hotel", answer(VICTIM.path, "hotel", ROOM, "book_room", "*"), ROOM),
    "an answer to attempt nought": Forgery("hotel", answer(VICTIM.path, "hotel", ROOM, "book_room", 0), ROOM),
    "an answer below everything": Forgery("hotel", f"evt.{VICTIM.path}.hotel.>", ROOM),
}


@dataclass(frozen=True)
class Scene:
    """A platform with a coordinator, and a link for every user; no participant works yet."""

    up: Platform
    links: dict[str, Link]

    async def store(self, forgery: Forgery) -> None:
        """Store a forgery as its user."""
        await self.links[forgery.user].store(forgery.subject, forgery.data)

    async def parked(self) -> list[Parked]:
        """What was parked, as soon as there is something."""
        async with asyncio.timeout(120):
            while True:
                found = [message async for message in self.links["operator"].scan(PARKED, "parked.>")]
                if found:
                    return [read_parked(message.subject, message.data) for message in found]
                await asyncio.sleep(0.01)


@asynccontextmanager
async def scene(folder: Path, form: Form) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        up = stack.enter_context(platform(folder, form, participants=PARTICIPANTS))
        await up.set_up()

        links: dict[str, Link] = {}
        for user in ("coordinator", "client", "operator", *PARTICIPANTS):
            links[user] = await up.connect(user)
            stack.push_async_callback(links[user].close)
        coordinator = Coordinator(JetStreamStore(links["coordinator"]), [TRIP.definition], idle_seconds=0.2)
        await attach(links["coordinator"], coordinator)
        yield Scene(up, links)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FORGERIES)
async def test_parked_as_forged_and_no_saga_is_disturbed_by(name: str, form: Form, tmp_path: Path) -> None:
    forgery = FORGERIES[name]
    async with scene(tmp_path, form) as stage:
        credentials = stage.up.credentials("client")
        async with Antiphon.connect(stage.up.servers, credentials=credentials) as antiphon:
            victim = await antiphon.start(TRIP, ASKED, id=VICTIM.id)
            await stage.store(forgery)
            (parked,) = await stage.parked()
            assert (parked.kind, parked.subject, parked.data) == ("forged", forgery.subject, forgery.data)
            await RawWorker({name: stage.links[name] for name in PARTICIPANTS}).begin()
            assert (await victim.result(timeout=120)).outcome == "completed"
        journals = await stage.links["operator"].read_all(SAGA, ["saga.*.*.*.c.>"])
        assert {subjects.parse_entry(entry.subject).saga for entry in journals} == {VICTIM}


@pytest.mark.parametrize("form", FORMS)
async def test_forged_starts_hide_no_saga_from_an_operator(form: Form, tmp_path: Path) -> None:
    async with scene(tmp_path, form) as stage:
        for name in ("a client's start with a wrong partition", "a client's start with a wildcard for a partition"):
            await stage.store(FORGERIES[name])
        await stage.store(Forgery("client", subjects.start_subject(VICTIM), ASKED))
        await stage.store(Forgery("hotel", f"evt.{VICTIM.path}.hotel.>", ROOM))
        assert [each.id for each in await summaries(stage.links["operator"])] == [VICTIM.id]
        assert (await timeline(stage.links["operator"], VICTIM)).id == VICTIM.id


async def test_a_participant_can_neither_take_back_nor_replace_what_accuses_it(tmp_path: Path) -> None:
    async with scene(tmp_path, "accounts") as stage:
        hotel = stage.links["hotel"]
        await stage.store(FORGERIES["an answer for another participant"])
        (accusation,) = await stage.parked()
        assert (accusation.noticed_by, accusation.source) == ("coordinator", "hotel")
        for reason in (WITHDRAWN, "all is well"):
            claim = msgspec.structs.replace(accusation, reason=reason, saga=VICTIM).encode()
            for subject in ("parked.forged.hotel.hotel", "parked.forged.hotel", "parked.withdrawn.hotel.EVENTS-1"):
                await hotel.store(subject, claim)
        listed = await waiting(stage.links["operator"])
        assert [(each.noticed_by, each.source, each.reason) for each in listed if each.noticed_by != "hotel"] == [
            ("coordinator", "hotel", accusation.reason)
        ]
        assert {each.kind for each in listed} == {"forged"}, "no saga is in the index because a body says so"


async def test_a_flood_of_forgeries_pushes_out_nobody_elses_evidence(tmp_path: Path) -> None:
    async with scene(tmp_path, "accounts") as stage:
        await stage.store(Forgery("airline", answer(ELSEWHERE.path, "airline", SEAT, "book_seat"), SEAT))
        (evidence,) = await stage.parked()
        flood = [Forgery("hotel", answer(ELSEWHERE.path, "hotel", ROOM, "book_room", n), ROOM) for n in range(1, 1041)]
        for forgery in flood:
            await stage.store(forgery)
        operator = stage.links["operator"]
        async with asyncio.timeout(120):
            while not (more := [each for each in await waiting(operator) if each.more >= 20]):
                await asyncio.sleep(0.1)
        listed = await waiting(operator)
        assert [each.subject for each in listed if each.source == "airline"] == [evidence.subject]
        kept = [each.subject for each in listed if each.source == "hotel" and not each.more]
        assert kept == [forgery.subject for forgery in flood[:PARKED_PER_SOURCE_MAX]]
        assert [(each.kind, each.noticed_by, each.source) for each in more] == [("forged", "coordinator", "hotel")]
