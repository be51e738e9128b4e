"""What the old release leaves behind, saga by saga: how far each got, what was done to it, and how it must end.

Every release can import it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from antiphon.contracts import AntiphonError
from antiphon.coordinator import Antiphon, Handle, SagaVerbs

from .sagas import SAGAS, Approved, Asked, PutBack, RelayAsked, Stamped

Deed = Literal[
    "",
    "approve",
    "cancel",
    "pause",
    "resume",
    "retry",
    "edit to what works",
    "edit to what fails",
    "resolve the undoing",
    "resolve the undoing of one",
    "resolve the stamp",
]
Outcome = Literal["completed", "compensated", "either"]
WAIT_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.05
ITEMS: Final = ["item-0", "item-1", "item-2"]
OPERATOR: Final = "ada"


@dataclass(frozen=True)
class Stand:
    """How a saga stands: phases by step, and whether it is parked, paused or over, where that matters."""

    phases: dict[str, str] = field(default_factory=dict[str, str])
    is_parked: bool | None = None
    is_paused: bool | None = None
    state: str = ""

    def is_that_of(self, status: Any) -> bool:
        """Whether a status says so."""
        phases = {step.name: step.phase for step in status.steps}
        return (
            all(phases.get(step) == phase for step, phase in self.phases.items())
            and self.is_parked in (None, bool(status.parked))
            and self.is_paused in (None, bool(status.paused))
            and self.state in ("", status.state)
        )


@dataclass(frozen=True)
class Scenario:
    """One kind of saga.

    Args:
        name: the ids of its sagas begin with it.
        saga: its type.
        done, undone: the effects that must be in the ledgers at the end, by step, with blanks between them.
        how: how its steps fare.
        reached: where it must stand before anything is done to it.
        deed: what is done then.
        left: where it must stand when the old release dies.
        finish: what is done once the new one runs.
        copies: how many of it there are.
    """

    name: str
    saga: str
    outcome: Outcome
    done: str
    undone: str = ""
    how: dict[str, str] = field(default_factory=dict[str, str])
    reached: Stand = field(default_factory=Stand)
    deed: Deed = ""
    left: Stand = field(default_factory=Stand)
    finish: Deed = ""
    copies: int = 2
    items: Sequence[str] = ()
    is_last: bool = False
    """Whether it begins when all others stand: it would hold them up, or has little time."""
    or_nothing: bool = False
    """Whether it may also end without any effect."""
    marker: str = ""
    """What undoing the first step must have been told, where an operator has edited it."""

    @property
    def ids(self) -> list[str]:
        """Of its sagas."""
        return [f"{self.name}-{number}" for number in range(self.copies)]

    def start(self) -> Asked | RelayAsked:
        """What its sagas begin with."""
        if self.saga == "relay":
            return RelayAsked(how=self.how.get("settle", ""))
        return Asked(traveller=self.name, items=tuple(self.items), how=self.how)


TRIP: Final = "take_item charge_card ship_parcel stamp_slip"
BASKET: Final = " ".join(f"{step}-{number}" for step in ("take_items", "stamp_items") for number in range(3))
TAKEN_ITEMS: Final = "take_items-0 take_items-1 take_items-2"
REFUSED: Final = {"charge_card": "refuse"}
ENDED: Final[tuple[Scenario, ...]] = (
    Scenario("completed", "trip", "completed", TRIP, left=Stand(state="completed"), copies=4),
    Scenario("refused", "trip", "compensated", "take_item", "take_item", REFUSED, left=Stand(state="compensated")),
    Scenario(
        "voided",
        "trip",
        "compensated",
        "",
        "",
        {"take_item": "fail"},
        Stand({"take_item": "sent"}),
        "cancel",
        Stand(state="compensated"),
    ),
    Scenario(
        "edited",
        "trip",
        "compensated",
        "take_item",
        "take_item",
        REFUSED | {"undo take_item": "fail"},
        Stand({"take_item": "undoing"}, is_parked=True),
        "edit to what works",
        Stand(state="compensated"),
        marker="edited",
    ),
    Scenario(
        "resolved",
        "trip",
        "compensated",
        "take_item",
        "",
        REFUSED | {"undo take_item": "fail"},
        Stand({"take_item": "undoing"}, is_parked=True),
        "resolve the undoing",
        Stand(state="compensated"),
    ),
    Scenario(
        "resolved-forward",
        "trip",
        "completed",
        "take_item charge_card ship_parcel",
        "",
        {"stamp_slip": "fail"},
        Stand({"stamp_slip": "sent"}, is_parked=True),
        "resolve the stamp",
        Stand(state="completed"),
    ),
    Scenario(
        "list", "basket", "completed", f"{BASKET} charge_card ship_parcel", items=ITEMS, left=Stand(state="completed")
    ),
    Scenario("empty-list", "basket", "completed", "charge_card ship_parcel", left=Stand(state="completed")),
    Scenario(
        "list-undone",
        "basket",
        "compensated",
        TAKEN_ITEMS,
        TAKEN_ITEMS,
        REFUSED,
        items=ITEMS,
        left=Stand(state="compensated"),
    ),
    Scenario(
        "child-refused",
        "package",
        "compensated",
        "take_item",
        "take_item",
        {"fly take_item": "refuse"},
        left=Stand(state="compensated"),
    ),
    Scenario(
        "lost",
        "train",
        "compensated",
        "take_item charge_card",
        "take_item charge_card",
        {"deliver": "refuse"},
        left=Stand(state="compensated"),
    ),
    Scenario("delivered", "train", "completed", "take_item charge_card deliver", left=Stand(state="completed")),
    Scenario("relayed", "relay", "completed", "lay settle", left=Stand(state="completed")),
    Scenario("unsettled", "relay", "compensated", "lay", "lay", {"settle": "refuse"}, left=Stand(state="compensated")),
)
"""Those that are over when the new release comes."""

OPEN: Final[tuple[Scenario, ...]] = (
    Scenario("mid-step", "trip", "completed", TRIP, how={"take_item": "fail"}, left=Stand({"take_item": "sent"})),
    Scenario(
        "at-the-pivot",
        "trip",
        "completed",
        TRIP,
        how={"ship_parcel": "hang"},
        left=Stand({"ship_parcel": "sent"}),
        is_last=True,
    ),
    Scenario(
        "past-the-pivot",
        "trip",
        "completed",
        TRIP,
        how={"stamp_slip": "fail"},
        left=Stand({"stamp_slip": "sent"}, is_parked=True),
    ),
    Scenario(
        "undoing",
        "trip",
        "compensated",
        "take_item",
        "take_item",
        REFUSED | {"undo take_item": "fail"},
        left=Stand({"take_item": "undoing"}, is_parked=True),
    ),
    Scenario(
        "edited-again",
        "trip",
        "compensated",
        "take_item",
        "take_item",
        REFUSED | {"undo take_item": "fail"},
        Stand({"take_item": "undoing"}, is_parked=True),
        "edit to what fails",
        Stand({"take_item": "undoing"}),
        marker="edited",
    ),
    Scenario(
        "halted",
        "trip",
        "completed",
        TRIP,
        "",
        {"take_item": "fail"},
        Stand({"take_item": "sent"}),
        "pause",
        Stand({"take_item": "sent"}, is_paused=True),
        "resume",
    ),
    Scenario(
        "settling",
        "hurried",
        "either",
        "",
        how={"ship_parcel": "hang"},
        left=Stand({"ship_parcel": "settling"}),
        is_last=True,
    ),
    Scenario(
        "partly-answered",
        "basket",
        "completed",
        f"{BASKET} charge_card ship_parcel",
        how={"item-1": "fail"},
        items=ITEMS,
        left=Stand({"take_items-0": "done", "take_items-1": "sent", "take_items-2": "done"}),
    ),
    Scenario(
        "partly-stamped",
        "basket",
        "completed",
        f"{BASKET} charge_card ship_parcel",
        how={"stamp item-1": "fail"},
        items=ITEMS,
        left=Stand({"stamp_items-0": "done", "stamp_items-1": "sent"}, is_parked=True),
    ),
    Scenario(
        "partly-undone",
        "basket",
        "compensated",
        TAKEN_ITEMS,
        TAKEN_ITEMS,
        REFUSED | {"undo item-2": "fail"},
        items=ITEMS,
        left=Stand({"take_items-1": "undone", "take_items-2": "undoing"}, is_parked=True),
    ),
    Scenario(
        "partly-resolved",
        "basket",
        "compensated",
        TAKEN_ITEMS,
        "take_items-1 take_items-2",
        REFUSED | {"undo item-0": "fail", "undo item-2": "fail"},
        Stand({"take_items-0": "undoing", "take_items-2": "undoing"}, is_parked=True),
        "resolve the undoing of one",
        Stand({"take_items-0": "undone", "take_items-2": "undoing"}),
        items=ITEMS,
    ),
    Scenario("at-fault", "broken", "completed", "take_item stamp_slip", left=Stand(is_parked=True), finish="retry"),
    Scenario(
        "unapproved",
        "approval",
        "completed",
        "take_item charge_card",
        left=Stand({"upgrade-approved": "awaiting"}),
        finish="approve",
    ),
    Scenario(
        "disapproved",
        "approval",
        "compensated",
        "take_item",
        "take_item",
        left=Stand({"upgrade-approved": "awaiting"}),
        finish="cancel",
    ),
    Scenario(
        "approved-early",
        "approval",
        "completed",
        "take_item charge_card",
        "",
        {"take_item": "fail"},
        Stand({"take_item": "sent"}),
        "approve",
        Stand({"take_item": "sent"}),
    ),
    Scenario(
        "late",
        "hasty",
        "compensated",
        "take_item",
        "take_item",
        left=Stand({"upgrade-approved": "awaiting"}),
        is_last=True,
    ),
    Scenario("resting", "rest", "completed", "take_item charge_card", left=Stand({"rested": "awaiting"}), is_last=True),
    Scenario(
        "with-a-child",
        "package",
        "completed",
        "take_item seat:take_item charge_card",
        how={"fly take_item": "fail"},
        left=Stand({"fly": "sent"}),
    ),
    Scenario(
        "with-a-child-held",
        "package",
        "completed",
        "take_item seat:take_item charge_card",
        how={"charge_card": "fail"},
        left=Stand({"fly": "done", "charge_card": "sent"}),
    ),
    Scenario(
        "with-a-child-undone",
        "package",
        "compensated",
        "take_item seat:take_item",
        "take_item seat:take_item",
        REFUSED | {"fly undo take_item": "fail"},
        left=Stand({"fly": "undoing", "take_item": "done"}),
    ),
    Scenario("queueing", "exclusive", "completed", "take_item", finish="approve", copies=3),
    Scenario(
        "undelivered",
        "train",
        "completed",
        "take_item charge_card deliver",
        how={"deliver": "fail"},
        left=Stand({"post-delivered": "awaiting"}),
    ),
    Scenario(
        "lost-later",
        "train",
        "compensated",
        "take_item charge_card",
        "take_item charge_card",
        {"deliver": "refuse later"},
        left=Stand({"post-delivered": "awaiting"}),
    ),
    Scenario("relayed-late", "relay", "completed", "lay settle", how={"settle": "fail"}, left=Stand(is_parked=True)),
    Scenario(
        "unsettled-late", "relay", "compensated", "lay", "lay", {"settle": "refuse later"}, left=Stand(is_parked=True)
    ),
)
"""Those that the new release has to bring to their end."""

PAUSED: Final[tuple[Scenario, ...]] = (
    Scenario("of-a-paused-type", "quiet", "completed", TRIP, left=Stand(is_paused=True)),
    Scenario("of-a-paused-participant", "trip", "completed", TRIP, left=Stand({"charge_card": "sent"})),
)
"""Those that begin after a saga type and a participant were paused."""

UNREAD: Final[tuple[Scenario, ...]] = (
    Scenario("not-taken-in", "trip", "completed", TRIP),
    Scenario("cancelled-at-once", "approval", "compensated", "take_item", "take_item", deed="cancel", or_nothing=True),
    Scenario("approved-at-once", "approval", "completed", "take_item charge_card", deed="approve"),
)
"""Those that a client began when no coordinator ran."""

PAUSED_TYPE: Final = "quiet"
PAUSED_PARTICIPANT: Final = "bank"
ALL: Final = (*ENDED, *OPEN, *PAUSED, *UNREAD)


async def live(antiphon: Antiphon, scenario: Scenario) -> None:
    """Begin the sagas of a scenario, and have them get as far as it says."""
    await asyncio.gather(*(_live(antiphon, scenario, id) for id in scenario.ids))


async def begin(antiphon: Antiphon, scenario: Scenario) -> None:
    """Begin them, with what is done to them, and leave them."""
    for id in scenario.ids:
        handle = await antiphon.start(SAGAS[scenario.saga], scenario.start(), id=id)
        await do(antiphon, handle, scenario.deed)


async def _live(antiphon: Antiphon, scenario: Scenario, id: str) -> None:
    handle = await antiphon.start(SAGAS[scenario.saga], scenario.start(), id=id)
    await until_it_stands(handle, scenario.reached)
    await do(antiphon, handle, scenario.deed)
    await until_it_stands(handle, scenario.left)


async def until_it_stands(handle: Handle, stand: Stand) -> None:
    """Ask a saga how it stands until it is as wanted."""
    told: object = "nothing was told"
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    told = await handle.status()
                    if stand.is_that_of(told):
                        return
                except AntiphonError as error:
                    told = error
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise AssertionError(f"{handle.key} does not stand as {stand}: {told}") from None


async def do(antiphon: Antiphon, handle: Handle, deed: Deed) -> None:
    """What a client or an operator does to one saga."""
    verbs = antiphon.operator(OPERATOR).saga(handle.key.type, handle.id)
    match deed:
        case "":
            pass
        case "approve":
            await handle.signal(SAGAS[handle.key.type].steps[1], Approved(by=OPERATOR))  # type: ignore[union-attr, arg-type] # pyright: ignore
        case "cancel":
            await handle.cancel("changed their mind")
        case _:
            async with asyncio.timeout(WAIT_SECONDS):
                while not (await _ask(verbs, deed)).is_accepted:  # an attempt was in flight
                    await asyncio.sleep(LOOK_SECONDS)


async def _ask(verbs: SagaVerbs, deed: Deed) -> Any:
    match deed:
        case "pause":
            return await verbs.pause("somebody looks at it")
        case "resume":
            return await verbs.resume()
        case "retry":
            return await verbs.retry()
        case "edit to what works":
            return await verbs.edit("take_item", PutBack(item="edited", how=""))
        case "edit to what fails":
            return await verbs.edit("take_item", PutBack(item="edited", how="fail"))
        case "resolve the undoing":
            return await _resolve(verbs, "take_item", "put back by hand")
        case "resolve the undoing of one":
            return await _resolve(verbs, "take_items-0", "put back by hand")
        case "resolve the stamp":
            return await _resolve(verbs, "stamp_slip", "stamped by hand", Stamped(item="slip"))
        case _:
            raise AssertionError(deed)


async def _resolve(verbs: SagaVerbs, *given: Any) -> Any:
    """Resolve a step, without its participant where a coordinator of the last release could not read that."""
    try:
        return await verbs.resolve(*given)
    except AntiphonError as error:
        if type(error).__name__ != "OlderCoordinators":  # the last release has no such error, and runs this, too
            raise
        return await verbs.resolve(*given, without_participant=True)
