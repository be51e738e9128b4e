"""The four places in which an author's code is called, each driven in the same words: a test is held in all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.messages import Refusal
from antiphon.contracts.payloads import WITHDRAWN, Parked
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import reaction_step
from antiphon.contracts.topology import PARKED
from antiphon.participants import Database

from .play import Play, come, play, subject_of, told_subject
from .reactor import Ordered, Reactor, Unpaid
from .stock import Stock, Then

Place = Literal["do", "undo", "react", "undo on event"]
PLACES: Final[tuple[Place, ...]] = ("do", "undo", "react", "undo on event")
LISTENERS: Final = (Reactor().participant.listener,)
SLOWING: Final = Retry(attempts=3, first_seconds=0.001, factor=100.0, cap_seconds=100.0, jitter=0.0)
"""Three attempts soon, and then none for long: a reaction is parked once, and PARKED is not filled."""
UNPAID: Final = reaction_step("billing-unpaid", "said")


@dataclass
class Acting:
    """A participant, and how its one place is reached."""

    place: Place
    playing: Play
    stock: Stock = field(default_factory=Stock)
    reactor: Reactor = field(default_factory=Reactor)
    retry: Retry = SLOWING

    @property
    def participant(self) -> Stock | Reactor:
        return self.stock if self.is_asked else self.reactor

    @property
    def is_asked(self) -> bool:
        """Whether a coordinator asks; otherwise it is an event that is heard."""
        return self.place in ("do", "undo")

    @property
    def step(self) -> str:
        """What log lines call the step."""
        return "reserve" if self.is_asked else "on-shop-ordered"

    @property
    def calls(self) -> int:
        """How often the author's code was called in this place."""
        names = {"do": "reserve", "undo": "release", "react": "set aside", "undo on event": "put back"}
        return self.participant.calls.count(names[self.place])

    def key(self, saga: str) -> str:
        """The saga, as log lines name it."""
        return f"{'order' if self.is_asked else 'shop'}/{saga}"

    def act(self, then: Then) -> None:
        """Have the author's code do this from now on."""
        match self.place:
            case "do":
                self.stock.on_reserve = then
            case "undo":
                self.stock.on_release = then
            case "react":
                self.reactor.on_ordered = then
            case _:
                self.reactor.on_unpaid = then

    async def worker(self, database: Database | None = None, **settings: Any) -> Any:
        """A worker of it, with jitter left out."""
        return await self.playing.worker(self.participant, database, **({"chance": lambda: 0.0} | settings))

    async def prepare(self, saga: str) -> None:
        """Have done what the place takes back, if it takes something back."""
        if self.place == "undo":
            await self.playing.do(saga)
            await self.playing.answer(saga, "stock-reserved")
        elif self.place == "undo on event":
            await self.playing.tell(Ordered(), saga)
            await self.playing.follows(saga, "stock-set-aside", "on-shop-ordered")

    async def ask(self, saga: str) -> str:
        """Send what leads to the call; gives the message's id."""
        match self.place:
            case "do":
                await self.playing.do(saga, retry=self.retry)
                return subject_of(saga, "do", 1)
            case "undo":
                await self.playing.undo(saga, retry=self.retry)
                return subject_of(saga, "undo", 1)
            case "react":
                await self.playing.tell(Ordered(), saga)
                return told_subject(Ordered(), saga)
            case _:
                await self.playing.tell(Unpaid(), saga)
                return told_subject(Unpaid(), saga)

    async def begin(self, saga: str) -> str:
        """Prepare it and ask."""
        await self.prepare(saga)
        return await self.ask(saga)

    async def is_done(self, saga: str) -> None:
        """Wait until what is said when it has gone well is stored."""
        match self.place:
            case "do":
                await self.playing.answer(saga, "stock-reserved")
            case "undo":
                await self.playing.answer(saga, "stock-release-done")
            case "react":
                await self.playing.follows(saga, "stock-set-aside", "on-shop-ordered")
            case _:
                await self.playing.follows(saga, "stock-put-back", UNPAID)

    async def reason(self, saga: str) -> str:
        """Why it went badly in the end: what the answer says, or PARKED."""
        if self.is_asked:
            event = "stock-reserve-exhausted" if self.place == "do" else "stock-release-exhausted"
            return unpack_raw((await self.playing.answer(saga, event)).data, Refusal).reason

        async def find() -> str | None:
            stored = await self.playing.administrator.read_all(PARKED, ["parked.>"])
            found = [msgspec.json.decode(message.data, type=Parked) for message in stored]
            return next((p.reason for p in found if f".{saga}." in p.subject and p.reason != WITHDRAWN), None)

        return await come(find, f"a parked event of {saga}")


@asynccontextmanager
async def acting(
    place: Place, folder: Path, retry: Retry = SLOWING, *, ack_wait_seconds: float = 600.0
) -> AsyncIterator[Acting]:
    """A platform on which one place is reached."""
    async with play(folder, listeners=LISTENERS, ack_wait_seconds=ack_wait_seconds) as playing:
        yield Acting(place, playing, Stock(), Reactor(retry=retry), retry)
