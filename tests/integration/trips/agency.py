"""A rehearsal of the travel agency, and trips that are played in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

from antiphon.coordinator.testing import Rehearsal, Rehearsed
from antiphon.participants.testing import Service
from antiphon.trips.airline import airline
from antiphon.trips.cars import cars
from antiphon.trips.hotel import hotel
from antiphon.trips.messages import Traveller, TripConfirmed, TripRequested
from antiphon.trips.payments import payments
from antiphon.trips.reconciliation import Ended, Outcome, reconcile
from antiphon.trips.saga import confirmed, trip

PARTICIPANTS: Final = (airline, hotel, cars, payments)
IN_ORDER: Final = date(2035, 1, 1)
ADA, BOB = Traveller(name="Ada", passport_until=IN_ORDER), Traveller(name="Bob", passport_until=IN_ORDER)
BANNED = Traveller(name="Viktor Harms", passport_until=IN_ORDER)
REQUESTED = TripRequested(
    trip_id="trip-1",
    customer_id="t-001",
    destination="LIS",
    departs=date(2027, 6, 13),
    travellers=[ADA, BOB],
    bags=2,
    nights=5,
    amount=99_800,
)
CONFIRMED = TripConfirmed(by="Ada")


@dataclass
class Agency:
    """The rehearsal, the services, where their databases are, and the trips that were asked for."""

    rehearsal: Rehearsal
    services: Mapping[str, Service]
    urls: Mapping[str, str]
    partners: Path
    requested: dict[str, TripRequested] = field(default_factory=dict[str, TripRequested])
    played: dict[str, Rehearsed] = field(default_factory=dict[str, Rehearsed])

    async def ask_for(self, requested: TripRequested) -> Rehearsed:
        """Start a trip, which goes as far as to its confirmation."""
        self.requested[requested.trip_id] = requested
        saga = await self.rehearsal.start(trip, requested, id=requested.trip_id)
        self.played[requested.trip_id] = saga
        return saga

    async def take(self, requested: TripRequested) -> Rehearsed:
        """Start a trip, and confirm it if it can be had."""
        saga = await self.ask_for(requested)
        if saga.outcome() is None:
            await saga.signal(confirmed, CONFIRMED)
        return saga

    async def wrongs(self) -> list[str]:
        """What the books say against how the trips ended."""
        outcomes = dict[str, Outcome]()
        for id, saga in self.played.items():
            if (outcome := saga.outcome()) is not None:
                outcomes[id] = outcome
        return await reconcile(self.urls, self.partners, Ended(outcomes, self.requested))
