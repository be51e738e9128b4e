"""Trips for a storm: half come to nothing, at each step in turn. Clients confirm, cancel, or do both at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from antiphon.contracts.errors import TooLate
from antiphon.coordinator import Handle
from antiphon.participants.engines import open_engine

from .loads import Load, Planned

if TYPE_CHECKING:
    from antiphon.trips.messages import TripRequested

    from .platform import ChaosPlatform

FAILING_SHARE: Final = 0.5
"""So large that every compensation comes up within a minute, that of the charge too, where a storm has one fail."""
HESITATES_SECONDS: Final = 1.0
"""For how long a client looks at what is held, at most."""
PLENTY: Final = 1_000_000_000
"""What is added to seats, cars and drivers, so that trips fail only where they are meant to."""
LEDGER: Final = """
SELECT saga, step, CASE WHEN amount < 0 THEN 'undo' ELSE 'do' END, reference, account, amount
FROM ledger ORDER BY number
"""

T = TypeVar("T")


class Trips(Load):
    """Trips of the travel agency. What cannot be had fails at each step in turn, so that compensations run in every
    shape; some clients change their minds.

    Args:
        seed: of all choices.
    """

    def __init__(self, seed: int) -> None:
        from antiphon.trips.data import load_customers, load_places, load_trips

        self._choose, self._numbers = random.Random(seed), count(1)
        self._customers = load_customers()
        self._places = load_places()
        good = {each.destination for each in self._places if each.is_open and each.cars and each.drivers}
        self._trips = [each for each in load_trips() if each.destination in good]
        self._requested: dict[str, TripRequested] = {}
        self._partners = Path()

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Where the other companies keep what they did."""
        from antiphon.trips.partners import PLACE

        self._partners = folder / "partners.db"
        return {PLACE: str(self._partners)}

    def next(self) -> Planned:
        """The next trip."""
        from antiphon.trips.saga import trip

        requested = self._sound(self._choose.choice(self._trips))
        meanwhile = _confirm(self._hesitation())
        if self._choose.random() < FAILING_SHARE:
            spoil = self._choose.choice(
                [
                    self._unreachable,
                    self._overloaded,
                    self._unwelcome,
                    self._unpaid,
                    *[self._undocumented] * 3,  # only then is a charge taken back
                    *[None] * 2,
                ]
            )
            if spoil is not None:
                requested = spoil(requested)
            else:
                meanwhile = self._choose.choice([_cancel, _confirm_and_cancel])(self._hesitation())
        self._requested[requested.trip_id] = requested
        return Planned(trip, requested, requested.trip_id, meanwhile)

    async def prepare(self, chaos: ChaosPlatform) -> None:
        """Have enough of everything, and have the ledgers checked line by line and as a whole."""
        from antiphon.trips.airline import flights
        from antiphon.trips.cars import fleet

        some_cars = fleet.update().where(fleet.c.cars_initial > 0)
        some_drivers = fleet.update().where(fleet.c.drivers_initial > 0)
        plenty: list[tuple[str, Any]] = [
            ("airline", flights.update().values(capacity=flights.c.capacity + PLENTY)),
            ("cars", some_cars.values(cars_initial=fleet.c.cars_initial + PLENTY, cars=fleet.c.cars + PLENTY)),
            (
                "cars",
                some_drivers.values(drivers_initial=fleet.c.drivers_initial + PLENTY, drivers=fleet.c.drivers + PLENTY),
            ),
        ]
        for participant, statement in plenty:
            engine = open_engine(chaos.databases[participant])
            async with engine.begin() as connection:
                await connection.execute(statement)
            await engine.dispose()
        for participant in ("airline", "hotel", "cars", "payments"):
            chaos.ledger(participant, LEDGER)

        async def balanced(databases: Mapping[str, str]) -> Sequence[str]:
            from antiphon.trips.messages import TRIP
            from antiphon.trips.reconciliation import Ended, reconcile

            outcomes: dict[str, Any] = {
                key.id: next(iter(told))
                for key, told in chaos.told.outcomes.items()
                if key.type == TRIP and len(told) == 1
            }
            return await reconcile(databases, self._partners, Ended(outcomes, self._requested))

        chaos.audit(balanced)

    # --- what is asked for --------------------------------------------------------------------------------------------

    def _sound(self, requested: TripRequested) -> TripRequested:
        """The same under a new id, for a customer and with papers that are in order."""
        from antiphon.trips.airline import BAGS_A_SEAT_MAX, BANNED

        travellers = [
            replace(each, passport_until=requested.departs + timedelta(days=365))
            for each in requested.travellers
            if each.name not in BANNED
        ]
        return replace(
            requested,
            trip_id=f"storm-{next(self._numbers):06}",
            customer_id=self._choose.choice([each.customer_id for each in self._customers if each.card == "valid"]),
            travellers=travellers,
            bags=self._choose.randint(0, BAGS_A_SEAT_MAX * len(travellers)),
        )

    def _unreachable(self, requested: TripRequested) -> TripRequested:
        """Where the hotel is closed, or there is no car, or nobody who drives it."""
        bad = [each.destination for each in self._places if not (each.is_open and each.cars and each.drivers)]
        return replace(requested, destination=self._choose.choice(bad))

    def _overloaded(self, requested: TripRequested) -> TripRequested:
        """With too many bags."""
        from antiphon.trips.airline import BAGS_A_SEAT_MAX

        return replace(requested, bags=BAGS_A_SEAT_MAX * len(requested.travellers) + 1)

    def _unwelcome(self, requested: TripRequested) -> TripRequested:
        """With a traveller whom the airline does not take: the other seats are given back."""
        from antiphon.trips.airline import BANNED

        travellers = [*requested.travellers, replace(requested.travellers[0], name=min(BANNED))]
        return replace(requested, travellers=self._choose.sample(travellers, len(travellers)))

    def _undocumented(self, requested: TripRequested) -> TripRequested:
        """With a passport that ends too early: the airline says so when all is paid."""
        late = replace(requested.travellers[-1], passport_until=requested.departs - timedelta(days=1))
        return replace(requested, travellers=[*requested.travellers[:-1], late])

    def _unpaid(self, requested: TripRequested) -> TripRequested:
        """With a card that is declined, when all else is held."""
        declined = [each.customer_id for each in self._customers if each.card != "valid"]
        return replace(requested, customer_id=self._choose.choice(declined))

    def _hesitation(self) -> float:
        return self._choose.uniform(0.0, HESITATES_SECONDS)


# --- what clients do --------------------------------------------------------------------------------------------------


def _confirm(seconds: float) -> Callable[[Handle], Any]:
    """Confirm after so long; where the trip cannot be had that is too late."""
    from antiphon.trips.messages import TripConfirmed
    from antiphon.trips.saga import confirmed

    async def confirm(handle: Handle) -> None:
        await asyncio.sleep(seconds)
        with suppress(TooLate):
            await handle.signal(confirmed, TripConfirmed(by="the customer"))

    return confirm


def _cancel(seconds: float) -> Callable[[Handle], Any]:
    """Change one's mind after so long, without having confirmed."""

    async def cancel(handle: Handle) -> None:
        await asyncio.sleep(seconds)
        with suppress(TooLate):
            await handle.cancel("changed their mind")

    return cancel


def _confirm_and_cancel(seconds: float) -> Callable[[Handle], Any]:
    """Do both at once: the trip goes forward or back by which comes first."""

    async def both(handle: Handle) -> None:
        await asyncio.gather(_confirm(seconds)(handle), _cancel(seconds)(handle))

    return both
