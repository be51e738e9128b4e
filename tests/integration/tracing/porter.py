"""A participant whose handlers make spans of their own, as a team would write it: it says nothing of where they go."""

from __future__ import annotations

import asyncio

from opentelemetry import trace

from antiphon.participants import Participant, Transaction
from tests.integration.tracing.voyage import BagLoaded, LoadBag

tracer = trace.get_tracer("team")
porter = Participant("porter")


@porter.handles(LoadBag)
async def load(command: LoadBag, tx: Transaction) -> BagLoaded:
    """Lift a bag, which takes a moment."""
    with tracer.start_as_current_span("lift", attributes={"bag": command.bag}):
        await asyncio.sleep(0.3)
    return BagLoaded(bag=command.bag)
