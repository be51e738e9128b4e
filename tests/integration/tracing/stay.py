"""A saga that needs nobody: it waits for a signal, and then it has ended."""

from __future__ import annotations

from datetime import timedelta

from antiphon.coordinator.definition.saga import Saga
from tests.integration.tracing.voyage import VisaGranted
from tests.support.trip import TripAsked

stay = Saga(TripAsked, name="stay", version=1, deadline=timedelta(hours=1))
granted = stay.signal(VisaGranted, within=timedelta(minutes=30))
