"""The four services in memory, all sagas between them, and the other companies' file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from antiphon.coordinator.testing import rehearse
from antiphon.participants.testing import Service
from antiphon.trips.partners import PLACE
from antiphon.trips.saga import transfer, trip
from tests.integration.trips.agency import PARTICIPANTS, Agency


@pytest.fixture
def partners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the other companies remember what they did."""
    path = tmp_path / "partners.db"
    monkeypatch.setenv(PLACE, str(path))
    return path


@pytest.fixture
async def agency(tmp_path: Path, partners: Path) -> AsyncIterator[Agency]:
    """All services on fresh databases, and a rehearsal of both sagas with them."""
    urls = {each.name: f"sqlite:///{tmp_path / each.name}.db" for each in PARTICIPANTS}
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(Service.open(each, urls[each.name])) for each in PARTICIPANTS]
        rehearsal = await stack.enter_async_context(rehearse([trip, transfer], services))
        yield Agency(rehearsal, {each.name: each for each in services}, urls, partners)
