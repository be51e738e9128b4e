"""A saga that stands still for a while and records what a participant says meanwhile, so that it can be flooded."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from antiphon.contracts import Event
from antiphon.coordinator import Saga
from antiphon.order.messages import PointsGranted

REST_SECONDS: Final = 10.0


class Rested(Event, name="flooded.rested"):
    """Its start."""


class Nudged(Event, name="flooded.nudged"):
    """A signal that it waits for, and that nobody sends."""


rests = Saga(Rested, name="rests", version=1, deadline=timedelta(hours=1))
nudged = rests.signal(Nudged, within=timedelta(seconds=REST_SECONDS))
rest = rests.wait("rest", timedelta(seconds=REST_SECONDS))
rests.records(PointsGranted)
