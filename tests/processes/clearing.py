"""A saga that does nothing but wait for a person's word."""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Event
from antiphon.coordinator import Saga
from tests.support.trip import TripAsked


class Cleared(Event, name="trip.cleared"):
    by: str
    note: str = ""


clearing = Saga(TripAsked, name="clearing", version=1, deadline=timedelta(hours=1))
cleared = clearing.signal(Cleared)
