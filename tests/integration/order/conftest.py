"""The three services on fresh databases, of both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.deploy.local.postgres import Postgres
from tests.integration.order.services import PARTICIPANTS, Services, services


@pytest.fixture(params=["sqlite", "postgres"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Services]:
    """All three services, each with an empty database of its own."""
    names = [participant.name for participant in PARTICIPANTS]
    if request.param == "sqlite":
        urls = {name: f"sqlite:///{tmp_path / name}.db" for name in names}
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        urls = {name: server.new_database() for name in names}
    async with services(urls) as opened:
        yield opened
